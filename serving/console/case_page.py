"""One case: its transactions with their reasons, the user behind it, and the verdict."""

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from nicegui import ui

from serving.console import charts, marks, world
from serving.console.frame import Frame, cleared, page
from serving.console.marks import box, button, chip, facts, link, panel, text
from serving.console.verdicts import Given, Verdict
from serving.stored import (
    CaseDetail,
    DecisionFilter,
    SimilarCase,
    StoredCase,
    StoredDecision,
    StoredLabel,
    StoredProfile,
    UserRisk,
)

EVERY_S: Final = 2.0
SLOWLY_S: Final = 10.0
HISTORY: Final = 100
MEMBERS: Final = 50
MEMBER_COLUMNS: Final = (
    "Time, UTC", "Transaction", "Amount", "Country", "Channel", "Terminal", "Score", "Decided",
)  # fmt: skip
HABITS: Final = {
    "user_amount_mean": "Mean amount",
    "user_amount_median": "Median amount",
    "user_count_24h": "Transactions, 24 h",
    "user_count_30d": "Transactions, 30 d",
    "user_sum_24h": "Spent, 24 h",
    "user_sum_30d": "Spent, 30 d",
    "device_count": "Devices",
    "user_frauds": "Frauds known",
}


class State(NamedTuple):
    """What may change while somebody looks: the case, the label of the chosen one, how far a verdict is."""

    detail: CaseDetail | None
    chosen: StoredDecision | None
    label: StoredLabel | None
    given: Given | None
    model: str | None
    """Version of the model of the latest decision of all, once a verdict was sent."""
    left_s: int = 0
    """Until a verdict is sent."""


class About(NamedTuple):
    """The user behind a case."""

    risk: UserRisk | None
    profiles: list[StoredProfile]
    history: list[StoredDecision]


class CaseView:
    """What one page shows of a case."""

    def __init__(self, frame: Frame, case_id: str) -> None:
        self._frame, self._case_id = frame, case_id
        self._chosen: str | None = None
        """Id of the decision that is looked at; None for the one with the highest score."""
        self._state: State | None = None
        self._about: About | None = None
        self._drawn: str | None = None
        self._build()
        self._refresh = frame.live(self._load, self._show, EVERY_S)
        frame.live(self._load_about, self._show_about, SLOWLY_S)
        frame.live(self._load_similar, self._show_similar, SLOWLY_S)
        if frame.session.may("feedback:judge"):
            frame.keys |= {
                "f": lambda: self._judge("fraud"),
                "l": lambda: self._judge("legitimate"),
                "u": self._undo,
            }
        frame.keys |= {"j": lambda: self._step(1), "k": lambda: self._step(-1)}

    def _build(self) -> None:
        self._head = box("c-title")
        with self._head:
            text("Case", tag="h1")
            text("loading …", "soft")
        self._grid = box("c-grid c-case")
        with self._grid:
            with box("c-col"):
                with box("c-panel", "section").props('aria-label="Verdict"'):
                    self._verdict_bar()
                    self._came = box("")
                with panel("Transactions", "j k choose"):
                    self._members = box("c-scroll tall")
                with panel("Why this score", "log-odds; red raises, green lowers"):
                    self._why = box("c-pb")
                with box("c-grid c-dash"):
                    with panel("Found", classes="w6"):
                        self._found = box("c-list")
                    with panel("Ensemble", "probability by each part", classes="w6"):
                        self._parts = box("c-pb")
            with box("c-col"):
                with panel("User"):
                    self._user = box("c-pb")
                with panel("Timeline", "amount of the user's latest transactions"):
                    self._timeline = box("c-pb")
                with panel("Places", "countries, in order"):
                    self._places = box("c-pb")
                with panel("Similar cases"):
                    self._similar = box("c-list")

    def _verdict_bar(self) -> None:
        with box("c-verdict"):
            if not self._frame.session.may("feedback:judge"):
                text("Verdicts are given by analysts.", "soft")
                return
            with button("Fraud", lambda: self._judge("fraud"), "fraud"):
                text("f", "wide", "kbd")
            with button("Legitimate", lambda: self._judge("legitimate"), "legitimate"):
                text("l", "wide", "kbd")
            with box("c-note"):
                self._note = marks.field("Note for the record (optional)", 2000)

    # Loading

    async def _load(self) -> State:
        console, case_id = self._frame.console, self._case_id
        detail = await console.snapshots.get(
            ("case", case_id), lambda: console.queries.case(case_id, limit=MEMBERS), EVERY_S
        )
        chosen = self._chosen_of(detail)
        if chosen is None:
            return State(detail, None, None, None, None)
        label = await console.snapshots.get(
            ("label", chosen.decision_id), lambda: console.queries.label(chosen.decision_id), EVERY_S
        )
        given = console.verdicts.of(self._frame.session, chosen.transaction_id)
        model = None
        if given is not None and given.state == "sent":
            feed = await console.snapshots.get(("feed", 1), lambda: console.queries.feed(limit=1), EVERY_S)
            model = feed[-1].model_version if feed else None
        return State(detail, chosen, label, given, model, _left_s(given))

    def _chosen_of(self, detail: CaseDetail | None) -> StoredDecision | None:
        if detail is None or not detail.decisions.items:
            return None
        by_id = {decision.decision_id: decision for decision in detail.decisions.items}
        if self._chosen in by_id:
            return by_id[self._chosen]
        return max(detail.decisions.items, key=lambda decision: decision.score)

    async def _load_about(self) -> About:
        console, case_id = self._frame.console, self._case_id
        queries = console.queries

        async def read() -> About:
            detail = await queries.case(case_id, limit=1)
            if detail is None:
                return About(None, [], [])
            user_id = detail.case.user_id
            history = await queries.decisions(DecisionFilter(user_id=user_id), limit=HISTORY)
            profiles = await queries.profiles(user_id, limit=60)
            risk = await queries.user_risk(user_id)
            return About(risk, profiles.items, history.items)

        return await console.snapshots.get(("about", case_id), read, SLOWLY_S / 2)

    async def _load_similar(self) -> list[SimilarCase]:
        console, case_id = self._frame.console, self._case_id
        found = await console.snapshots.get(
            ("similar", case_id), lambda: console.queries.similar_cases(case_id, limit=6), SLOWLY_S / 2
        )
        return found or []

    # Acting

    async def _judge(self, verdict: Verdict) -> None:
        state = self._state
        if state is None or state.chosen is None:
            return
        transaction_id, notes = state.chosen.transaction_id, self._note.value.strip()

        async def do() -> str:
            return self._frame.console.verdicts.give(
                self._frame.session, transaction_id, verdict, notes or None
            )

        if await self._frame.act(do) and notes:
            self._note.clear_value()
        self._show_given()
        await self._refresh()

    async def _undo(self) -> None:
        state = self._state
        if state is None or state.chosen is None:
            return
        transaction_id = state.chosen.transaction_id

        async def do() -> str:
            return self._frame.console.verdicts.undo(self._frame.session, transaction_id)

        await self._frame.act(do)
        self._show_given()
        await self._refresh()

    def _show_given(self) -> None:
        """Show at once what was said, whatever the stores take to answer."""
        state = self._state
        if state is None or state.chosen is None:
            return
        given = self._frame.console.verdicts.of(self._frame.session, state.chosen.transaction_id)
        self._state = state._replace(given=given, left_s=_left_s(given))
        with cleared(self._came):
            came_of(self._state, self._undo)

    async def _step(self, by: int) -> None:
        state = self._state
        if state is None or state.detail is None or state.chosen is None:
            return
        ids = [decision.decision_id for decision in state.detail.decisions.items]
        at = ids.index(state.chosen.decision_id) + by
        await self._choose(ids[max(0, min(len(ids) - 1, at))])

    async def _choose(self, decision_id: str) -> None:
        self._chosen = decision_id
        await self._refresh()
        if self._about is not None:
            self._show_timeline(self._about)

    # Showing

    def _show(self, state: State) -> None:
        self._state = state
        if state.detail is None or state.chosen is None:
            self._grid.set_visibility(False)
            with cleared(self._head):
                marks.empty("There is no such case", "It may not be stored yet; this page looks again.")
            return
        self._grid.set_visibility(True)
        self._show_head(state.detail.case)
        self._show_members(state.detail, state.chosen)
        with cleared(self._came):
            came_of(state, self._undo)
        if self._drawn != state.chosen.decision_id:
            self._drawn = state.chosen.decision_id
            self._show_reasons(state.chosen)

    def _show_head(self, case: StoredCase) -> None:
        with cleared(self._head):
            text(f"{case.severity.capitalize()} case", tag="h1")
            chip(case.status, "pending" if case.status == "open" else case.status)
            user = self._frame.console.user(self._frame.session, case)
            text(marks.brief(user), "mono").props("data-user")
            text(f"{case.alerts} alerts, {marks.money(case.amount)} in all", "soft")
            text(f"highest score {case.highest_score:.3f}", "soft")
            text(f"opened {marks.moment(case.opened_at)} UTC", "faint")

    def _show_members(self, detail: CaseDetail, chosen: StoredDecision) -> None:
        with cleared(self._members):
            rows = marks.table(
                ["Time, UTC", "Transaction", "Amount", "Country", "Channel", "Terminal", "Score", "Decided"],
                (2, 6),
            )
            with rows:
                for decision in detail.decisions.items:
                    is_on = decision.decision_id == chosen.decision_id
                    with box(f"go {'on' if is_on else ''}", "tr") as row:
                        marks.cell(marks.moment(decision.event_time))
                        marks.cell(decision.transaction_id, "mono")
                        marks.cell(marks.money(decision.amount, decision.currency), "num")
                        marks.cell(decision.country or "—")
                        marks.cell(decision.channel or "—")
                        marks.cell(decision.terminal_id or "—", "mono")
                        marks.cell(f"{decision.score:.3f}", "num")
                        with marks.cell(""):
                            chip(decision.decision, decision.decision)
                    row.on("click", lambda _, name=decision.decision_id: self._choose(name))
            if detail.decisions.next is not None:
                text(f"The latest {MEMBERS} are shown.", "c-foot", "div")

    def _show_reasons(self, decision: StoredDecision) -> None:
        explanation = decision.explanation
        with cleared(self._why):
            if explanation is None:
                marks.empty(
                    "Not explained", decision.not_explained or "Nothing was found in this transaction."
                )
            else:
                text(explanation.sentence, "c-sentence", "p")
                bars = len(charts.waterfall_steps(explanation))
                ui.echart(charts.waterfall(explanation)).classes("c-chart").style(
                    f"height: {24 * bars + 12}px"
                )
                top = sorted(explanation.reasons, key=lambda reason: -abs(reason.log_odds))[:5]
                with box("c-list"):
                    for reason in top:
                        with box(""):
                            text(f"{reason.log_odds:+.2f}", "mono soft")
                            text(reason.text, "t")
        with cleared(self._found):
            for finding in decision.findings:
                with box(""):
                    chip(finding.kind, finding.severity)
                    text(finding.text, "t")
            for rule in decision.rules:
                with box(""):
                    chip("rule", "medium")
                    text(rule, "t mono")
            if decision.degraded or decision.late or decision.explored:
                named = [name for name in ("degraded", "late", "explored") if getattr(decision, name)]
                with box(""):
                    chip("note")
                    text(", ".join(named), "t")
            if not decision.findings and not decision.rules:
                marks.empty("Nothing", "No alert rule and no analysts' rule hit.")
        with cleared(self._parts):
            with box("c-meter"):
                for name, value in {**decision.parts, "score": decision.score}.items():
                    text(name, "soft cut")
                    level = "critical" if value > 0.9 else "high" if value > 0.5 else ""
                    with box("c-bar"):
                        box(level, "i").style(f"width: {100 * value:.1f}%")
                    text(f"{value:.3f}", "num")
            threshold = decision.review_threshold
            facts([
                ("Model", decision.model_version),
                *([("Reviewed from", f"{threshold:.3f}")] if threshold is not None else []),
            ])  # fmt: skip

    def _show_about(self, about: About) -> None:
        self._about = about
        with cleared(self._user):
            if about.risk is None:
                marks.empty("Not known", "No profile of this user is stored.")
            else:
                held = about.risk.habits
                shown = [
                    (name, value) for key, name in HABITS.items() if (value := held.get(key)) is not None
                ]
                pairs = [
                    ("Risk now", f"{about.risk.risk:.3f}"),
                    ("Decisions, flagged", f"{about.risk.decisions:,}, {about.risk.flagged:,}"),
                    *(
                        (name, f"{value:,.2f}".removesuffix(".00"))
                        for name, value in shown
                        if value is not None
                    ),
                ]
                facts(pairs)
            if len(about.profiles) > 1:
                ui.echart(charts.habits(about.profiles)).classes("c-chart").style("height: 110px")
        self._show_timeline(about)
        with cleared(self._places):
            points = world.points(about.history)
            if points:
                marks.WorldMap(points, world.way(about.history), "Countries of the user's transactions")
            else:
                marks.empty("No places", "These transactions name no country.")

    def _show_similar(self, similar: list[SimilarCase]) -> None:
        with cleared(self._similar):
            for one in similar:
                with link(f"/console/case/{one.case.case_id}", classes="row"):
                    chip(one.case.status, one.case.status if one.case.status != "open" else one.case.severity)
                    with box("t"):
                        text(", ".join(one.shared_kinds) or "no kind in common")
                        text(f" · {marks.money(one.case.amount)}", "soft")
                    text("same terminal" if one.shared_terminal else "", "faint")
                    text(f"{one.likeness / 3:.0%}", "soft")
            if not similar:
                marks.empty("None", "No other case is like this one.")

    def _show_timeline(self, about: About) -> None:
        chosen = self._state.chosen.decision_id if self._state and self._state.chosen else None
        with cleared(self._timeline):
            if about.history:
                ui.echart(charts.timeline(about.history, chosen)).classes("c-chart").style("height: 190px")
            else:
                marks.empty("No transactions")


def _left_s(given: Given | None) -> int:
    return 0 if given is None else max(0, round(given.due - time.monotonic()))


def came_of(state: State, undo: Callable[[], Any]) -> None:
    """What came of a verdict, step by step."""
    given, label, chosen, detail = state.given, state.label, state.chosen, state.detail
    if chosen is None or detail is None or (given is None and label is None):
        return
    with box("c-came"):
        if given is not None:
            _sending(given, state.left_s, undo)
        seen = label is not None and (given is None or label.labelled_at >= (given.sent_ms or 2**60) - 60_000)
        if label is not None and seen:
            what = "fraud" if label.is_fraud else "legitimate"
            text(
                f"Label seen: {what}, by {label.source}, {marks.moment(label.labelled_at)} UTC",
                "c-step done",
                "div",
            )
        elif given is not None and given.state == "sent":
            text("Label not seen yet", "c-step", "div")
        if detail.case.status != "open":
            closed = "" if detail.case.closed_at is None else f", {marks.moment(detail.case.closed_at)} UTC"
            text(f"Case closed: {detail.case.status}{closed}", "c-step done", "div")
        elif given is not None and given.state == "sent":
            text("Case still open", "c-step", "div")
        if given is not None and given.state == "sent" and state.model is not None:
            changed = state.model != chosen.model_version
            words = (
                f"Model: decided by {chosen.model_version}, now {state.model}"
                if changed
                else f"Model: still {state.model}"
            )
            text(words, f"c-step {'done' if changed else ''}", "div")


def _sending(given: Given, left_s: int, undo: Callable[[], Any]) -> None:
    if given.state == "waiting":
        with box("c-acts"):
            text(f"Verdict {given.verdict}: is sent in {left_s} s", "c-step", "div")
            with button("Undo", undo, "small"):
                text("u", "wide", "kbd")
    elif given.state == "sending":
        text(f"Verdict {given.verdict}: on its way", "c-step", "div")
    elif given.state == "sent":
        with box("c-acts"):
            text(f"Verdict {given.verdict}: Kafka has it", "c-step done", "div")
            with button("Correct", undo, "small"):
                text("u", "wide", "kbd")
    else:
        text(f"Verdict {given.verdict} not sent: {given.why}; give it again", "c-step failed", "div")


def build(case_id: str) -> None:
    """The page at `/case/{case_id}`."""
    with page("Queue", "Case", "cases:read") as frame:
        if frame is not None:
            CaseView(frame, case_id)
