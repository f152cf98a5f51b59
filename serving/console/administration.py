"""What steers the running jobs. Every act is asked twice, audited, and answered with what came of it."""

from collections.abc import Callable
from functools import partial
from typing import Final, Literal, NamedTuple

from serving import control
from serving.console import marks, steering
from serving.console.console import Deed
from serving.console.dashboards import learner_facts, show_steps
from serving.console.frame import Frame, cleared, page
from serving.console.marks import box, button, chip, panel, text
from serving.console.steering import ModelVersion, SafeMode
from serving.control import Held, Sent
from serving.errors import ControlError
from serving.gateway.admin import find_version
from serving.security.permissions import Permission
from serving.stored import StepFilter, StoredStep

EVERY_S: Final = 3.0
Command = Literal["promote", "rollback", "freeze", "unfreeze"]
COMMANDS: Final[dict[Command, str]] = {
    "promote": "Publish what has been learnt, whatever the gate says of it.",
    "rollback": "Go back to what was live before, in the end to the ensemble alone.",
    "freeze": "End promotions by the gate until they are unfrozen.",
    "unfreeze": "Let the gate promote again.",
}


class Question(NamedTuple):
    """What is asked before an act; the first word of `asks` is what its button says."""

    asks: str
    said: str
    reason: str = ""
    """What to ask a reason by; empty asks for none."""
    classes: str = "primary"


class Administration:
    """What one page shows."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        with box("c-title"):
            text("Administration", tag="h1")
            text("Acts go to all running jobs and into the audit trail.", "soft")
        with box("c-col"):
            if self._may("safe-mode:switch"):
                with panel("Safe mode", "the heuristic and the rules decide, no score blocks"):
                    self._safe = box("c-safe")
                self._refresh_safe = frame.live(
                    lambda: steering.safe_mode(frame.console), self._show_safe, EVERY_S
                )
            with panel("Rules", "as the topic holds them"):
                self._rules = box("c-scroll")
            with panel("Models", "of the registry"):
                self._models = box("c-scroll")
            with panel("Online learner"):
                if self._may("learner:command"):
                    with box("c-verdict"):
                        for command in COMMANDS:
                            button(command.capitalize(), partial(self._command, command))
                self._learner = box("c-pb")
                self._steps = box("c-scroll tall")
        self._refresh_rules = frame.live(lambda: steering.rules(frame.console), self._show_rules, EVERY_S)
        self._refresh_models = frame.live(lambda: steering.models(frame.console), self._show_models, EVERY_S)
        frame.live(self._load_steps, self._show_steps, EVERY_S)

    def _may(self, permission: Permission) -> bool:
        return self._frame.session.may(permission)

    async def _do(
        self, question: Question, permission: Permission, deed: Deed, what: Callable[[str], Sent]
    ) -> None:
        """Ask whether it shall be, do it, and say what came of it. what: given the reason entered."""
        word = question.asks.partition(" ")[0]
        reason = await marks.confirmed(question.asks, question.said, word, question.classes, question.reason)
        if reason is None:
            return
        console, session = self._frame.console, self._frame.session

        async def do() -> str:
            came = await console.do(session, permission, deed, partial(what, reason))
            console.snapshots.forget()
            return came

        await self._frame.act(do)

    # Safe mode

    def _show_safe(self, safe: SafeMode) -> None:
        with cleared(self._safe):
            chip("on" if safe.is_on else "off", "high" if safe.is_on else "good")
            with box("t"):
                text("Models do not decide" if safe.is_on else "Models decide", tag="b")
                text(safe.told, "soft")
            if safe.is_on:
                button("End safe mode", self._end_safe)
            else:
                button("Begin safe mode", self._begin_safe, "danger")

    async def _begin_safe(self) -> None:
        topics, by = self._frame.console.services.topics, self._frame.session.subject

        def begin(reason: str) -> Sent:
            if not reason.strip():
                raise ControlError("a reason is needed to begin safe mode")
            return control.begin_safe_mode(topics, reason.strip(), by)

        question = Question(
            "Begin safe mode?",
            "In all running jobs the heuristic and the rules decide; what a score would block is reviewed.",
            "Reason, for the record",
            "danger",
        )
        await self._do(question, "safe-mode:switch", Deed("safe-mode.on"), begin)
        await self._refresh_safe()

    async def _end_safe(self) -> None:
        topics = self._frame.console.services.topics
        question = Question("End safe mode?", "Models decide again in all running jobs.")
        await self._do(
            question, "safe-mode:switch", Deed("safe-mode.off"), lambda _: control.end_safe_mode(topics)
        )
        await self._refresh_safe()

    # Rules

    def _show_rules(self, held: dict[str, Held]) -> None:
        with cleared(self._rules):
            if not held:
                marks.empty("No rules", "fraudstream rules put sets some.")
                return
            with marks.table(["Rule", "State", "Verdict", "Version", "Owner", "Description", ""], (3,)):
                for rule_id, one in sorted(held.items()):
                    self._show_rule(rule_id, one)

    def _show_rule(self, rule_id: str, one: Held) -> None:
        colour = {"live": "good", "shadow": "medium", "refused": "critical", "expired": "high"}
        rule = one.rule
        with box("", "tr"):
            marks.cell(rule_id, "mono")
            with marks.cell(""):
                chip(one.state, colour.get(one.state, ""))
            if rule is None:
                for shown in ("", "", "", str(one.refused), ""):
                    marks.cell(shown, "soft")
                return
            marks.cell(rule.verdict)
            marks.cell(str(rule.version), "num")
            marks.cell(rule.owner)
            marks.cell(rule.description or "", "soft")
            with marks.cell("", "num"):
                if self._may("rules:write"):
                    name = "Disable" if rule.enabled else "Enable"
                    button(name, partial(self._switch, rule_id, not rule.enabled), "small")

    async def _switch(self, rule_id: str, enabled: bool) -> None:
        verb, action = ("Enable", "rules.enable") if enabled else ("Disable", "rules.disable")
        topics = self._frame.console.services.topics
        question = Question(f"{verb} rule {rule_id}?", "All running jobs take it up at once.")
        await self._do(
            question,
            "rules:write",
            Deed(action, rule_id),
            lambda _: control.switch_rule(topics, rule_id, enabled=enabled),
        )
        await self._refresh_rules()

    # Models

    def _show_models(self, models: list[ModelVersion]) -> None:
        with cleared(self._models):
            if not models:
                marks.empty("No models", "The registry is empty.")
                return
            with marks.table(["Version", "State", "Created", "Signed by", ""]):
                for model in models:
                    self._show_model(model)
            if self._may("models:change"):
                with box("c-foot"):
                    box("c-space")
                    button("Roll back", self._roll_back)

    def _show_model(self, model: ModelVersion) -> None:
        with box("", "tr"):
            marks.cell(model.version, "mono")
            with marks.cell(""):
                if model.problem is not None:
                    chip(model.problem, "critical")
                else:
                    chip("promoted" if model.is_promoted else "good", "good" if model.is_promoted else "")
            marks.cell(model.created_at)
            marks.cell(model.signed_by or "nobody", "mono")
            with marks.cell("", "num"):
                if self._may("models:change") and model.problem is None and not model.is_promoted:
                    button("Promote", partial(self._promote, model.version), "small")

    async def _promote(self, version: str) -> None:
        services, by = self._frame.console.services, self._frame.session.subject

        def promote(_: str) -> Sent:
            folder = find_version(services, version)
            return control.promote(services.topics, folder, services.keyring, by)

        question = Question(
            f"Promote model {version}?", "All running jobs load it and score with it from then on."
        )
        await self._do(question, "models:change", Deed("models.promote", version), promote)
        await self._refresh_models()

    async def _roll_back(self) -> None:
        services, by = self._frame.console.services, self._frame.session.subject
        question = Question(
            "Roll back to the model before?",
            "All running jobs load what was promoted before; once more goes a step further back.",
        )
        await self._do(
            question,
            "models:change",
            Deed("models.rollback"),
            lambda _: control.roll_back(services.topics, services.keyring, by),
        )
        await self._refresh_models()

    # The learner

    async def _load_steps(self) -> list[StoredStep]:
        console = self._frame.console
        found = await console.snapshots.get(
            ("steps", 50), lambda: console.queries.steps(StepFilter(), limit=50), EVERY_S
        )
        return found.items

    def _show_steps(self, steps: list[StoredStep]) -> None:
        with cleared(self._learner):
            marks.facts(learner_facts(steps))
        with cleared(self._steps):
            show_steps(steps)

    async def _command(self, command: Command) -> None:
        services, by = self._frame.console.services, self._frame.session.subject
        question = Question(
            f"{command.capitalize()} the online learner?",
            COMMANDS[command],
            "Reason, for the record (optional)",
        )
        await self._do(
            question,
            "learner:command",
            Deed(f"learner.{command}"),
            lambda reason: control.command_learner(services.topics, command, by, reason or None),
        )


def build() -> None:
    """The page at `/administration`."""
    with page("Administration", "Administration", "models:read") as frame:
        if frame is not None:
            Administration(frame)
