"""Which task of the job this is."""

from typing import NamedTuple

from pyflink.datastream import RuntimeContext


class Task(NamedTuple):
    """attempt: 0 at the first deployment, more after each restart; subtask: index among the parallel ones."""

    attempt: int
    subtask: int


def task_of(context: RuntimeContext) -> Task:
    """The task, in either execution mode.

    In thread mode the methods of PyFlink 2.3.0 call names that Flink 2 moved to TaskInfo.
    """
    java = getattr(context, "_runtime_context", None)
    if java is not None and hasattr(java, "getTaskInfo"):
        info = java.getTaskInfo()
        return Task(info.getAttemptNumber(), info.getIndexOfThisSubtask())
    return Task(context.get_attempt_number(), context.get_index_of_this_subtask())
