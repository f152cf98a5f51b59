"""Which task of the job this is."""

from typing import Any, NamedTuple

from pyflink.datastream import RuntimeContext


class Task(NamedTuple):
    """attempt: 0 at the first deployment, more after each restart; subtask: index among the parallel ones."""

    attempt: int
    subtask: int


def java_context(context: RuntimeContext) -> Any:
    """The Java runtime context behind a Python one in thread mode; None in process mode."""
    java = getattr(context, "_runtime_context", None)
    return java if hasattr(java, "getTaskInfo") else None


def task_of(context: RuntimeContext) -> Task:
    """The task, in either execution mode.

    In thread mode the methods of PyFlink 2.3.0 call names that Flink 2 moved to TaskInfo.
    """
    java = java_context(context)
    if java is None:
        return Task(context.get_attempt_number(), context.get_index_of_this_subtask())
    info = java.getTaskInfo()
    return Task(info.getAttemptNumber(), info.getIndexOfThisSubtask())
