"""How things are: volume, fraud, where from, whose risk, how good verdicts were, what the learner does."""

import time
from typing import Any, Final, NamedTuple

from nicegui import ui

from serving.console import charts, marks
from serving.console.frame import Frame, cleared, page
from serving.console.marks import box, chip, figures, panel, segments, text
from serving.console.steering import Standing, standing
from serving.queries import Stepping
from serving.stored import Precision, RankedUser, Stats, StepFilter, StoredStep
from state.contract import DAY_MS, HOUR_MS, MINUTE_MS

EVERY_S: Final = 2.0
SLOWLY_S: Final = 10.0
STEPS: Final = 100


class Window(NamedTuple):
    """What a dashboard looks back on."""

    name: str
    length_ms: int
    step: Stepping


WINDOWS: Final = (
    Window("1 hour", HOUR_MS, "minute"),
    Window("6 hours", 6 * HOUR_MS, "minute"),
    Window("24 hours", DAY_MS, "hour"),
)


class Dashboards:
    """What one page shows."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._window = WINDOWS[1]
        with box("c-title"):
            text("Dashboards", tag="h1")
            names = [(window.name, window.name) for window in WINDOWS]
            with segments(self._window.name, names, self._pick):
                pass
            text("by event time", "faint")
        with box("c-grid c-dash"):
            with panel("In the window", classes="w12"):
                self._figures = box("")
            with panel("Volume", "decisions by verdict", classes="w7"):
                self._volume = self._chart()
            with panel("Rates", "flagged, and fraud among what was labelled", classes="w5"):
                self._rates = self._chart()
            with panel("Countries", "the ten with most decisions", classes="w4"):
                self._countries = self._chart()
            with panel("Channels", classes="w4"):
                self._channels = self._chart()
            with panel("Users at risk", "now", classes="w4"):
                self._ranked = box("c-scroll tall")
            with panel("Precision of verdicts", "of what was labelled in 30 days", classes="w4"):
                self._precision = box("")
            with panel("Model and online learner", classes="w4"):
                self._model = box("c-pb")
            with panel("Learner's figures", "log loss, lower is better", classes="w4"):
                self._learning = self._chart()
            with panel("Steps of the learner and its gate", classes="w12"):
                self._steps = box("c-scroll tall")
        self._refresh = frame.live(self._load_stats, self._show_stats, EVERY_S)
        frame.live(self._load_ranked, self._show_ranked, EVERY_S)
        frame.live(self._load_precision, self._show_precision, SLOWLY_S)
        frame.live(self._load_steps, self._show_steps, SLOWLY_S / 2)

    @staticmethod
    def _chart() -> Any:
        with box("c-pb"):
            return ui.echart(charts.by_step([], [])).classes("c-chart")

    async def _pick(self, name: str) -> None:
        self._window = next(window for window in WINDOWS if window.name == name)
        await self._refresh()

    async def _load_stats(self) -> Stats:
        window, queries = self._window, self._frame.console.queries

        async def read() -> Stats:
            until = _now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
            return await queries.stats(until - window.length_ms, until, step=window.step)

        return await self._frame.console.snapshots.get(("stats", window), read, EVERY_S)

    def _show_stats(self, stats: Stats) -> None:
        total = stats.total
        with cleared(self._figures):
            figures([
                ("decisions", f"{total.decisions:,}"),
                ("reviewed", f"{total.review:,}"),
                ("blocked", f"{total.block:,}"),
                ("flagged of decided", marks.percent(total.flagged_rate)),
                ("labelled fraud", f"{total.labelled_fraud:,}"),
                ("fraud of labelled", marks.percent(total.fraud_rate)),
            ])  # fmt: skip
        _draw(self._volume, charts.volume(stats.series))
        _draw(self._rates, charts.rates(stats.series))
        _draw(self._countries, charts.shares(stats.countries))
        _draw(self._channels, charts.shares(stats.channels))

    async def _load_ranked(self) -> list[RankedUser]:
        console = self._frame.console
        return await console.snapshots.get(("top", 20), lambda: console.queries.top_risk(limit=20), EVERY_S)

    def _show_ranked(self, ranked: list[RankedUser]) -> None:
        with cleared(self._ranked):
            if not ranked:
                marks.empty("Nobody", "No user is at risk.")
                return
            with marks.table(["User", "Risk"], (1,)):
                for user in ranked:
                    with box("go", "tr") as row:
                        marks.cell(marks.brief(user.user_id), "mono")
                        with marks.cell("", "num"):
                            level = "critical" if user.risk > 0.9 else "high"
                            with box("c-bar", "span"):
                                box(level, "i").style(f"width: {100 * user.risk:.0f}%")
                            text(f"{user.risk:.3f}")
                    row.on("click", lambda _, name=user.user_id: self._open(name))

    async def _open(self, user_id: str) -> None:
        async def find() -> str:
            risk = await self._frame.console.queries.user_risk(user_id)
            if risk is None or risk.case_id is None:
                return "This user has no case."
            ui.navigate.to(f"/case/{risk.case_id}")
            return "Opening the user's latest case"

        await self._frame.act(find)

    async def _load_precision(self) -> Precision:
        console = self._frame.console
        until = _now_ms()
        return await console.snapshots.get(
            "precision", lambda: console.queries.precision(until - 30 * DAY_MS, until + HOUR_MS), SLOWLY_S
        )

    def _show_precision(self, precision: Precision) -> None:
        with cleared(self._precision):
            if not precision.sources:
                marks.empty("No labels", "Nothing was judged yet.")
                return
            with marks.table(["Source", "Fraud", "Legitimate", "Precision"], (1, 2, 3)):
                for source in precision.sources:
                    with box("", "tr"):
                        marks.cell(source.source)
                        marks.cell(f"{source.fraud:,}", "num")
                        marks.cell(f"{source.legitimate:,}", "num")
                        marks.cell(marks.percent(source.precision), "num")
            if precision.truncated:
                text(f"The latest {precision.counted:,} labels.", "c-foot", "div")

    async def _load_steps(self) -> tuple[list[StoredStep], Standing | None]:
        console = self._frame.console
        found = await console.snapshots.get(
            ("steps", STEPS), lambda: console.queries.steps(StepFilter(), limit=STEPS), SLOWLY_S / 2
        )
        if not self._frame.session.may("models:read"):
            return found.items, None
        return found.items, await standing(console)

    def _show_steps(self, loaded: tuple[list[StoredStep], Standing | None]) -> None:
        steps, stands = loaded
        with cleared(self._model):
            marks.facts(learner_facts(steps) + ([] if stands is None else stands.facts()))
        evaluated = [(step.at, step.figures) for step in reversed(steps) if step.step == "evaluated"]
        names = sorted({name for _, given in evaluated for name in given if "loss" in name})[:3]
        _draw(self._learning, charts.by_step(evaluated, names))
        with cleared(self._steps):
            show_steps(steps)


def learner_facts(steps: list[StoredStep]) -> list[tuple[str, str]]:
    """What the learner's latest steps say of it; steps: the latest first."""
    if not steps:
        return [("Online learner", "no step yet")]
    frozen = next((step.step == "frozen" for step in steps if step.step in ("frozen", "unfrozen")), False)
    drift = next((step for step in steps if step.step == "drift"), None)
    promoted = next((step for step in steps if step.step in ("promoted", "rolled_back")), None)
    distrusted = [step for step in steps if step.step == "source_distrusted"]
    change = "none"
    if promoted is not None:
        change = f"{promoted.step.replace('_', ' ')}, {marks.moment(promoted.at)}"
    return [
        ("Online part in force", steps[0].version or "none, the ensemble alone"),
        ("Promotions", "frozen" if frozen else "by the gate"),
        (
            "Latest change",
            change,
        ),
        ("Latest drift", "none" if drift is None else f"{marks.moment(drift.at)}: {drift.detail}"),
        ("Sources distrusted lately", str(len(distrusted))),
    ]


def show_steps(steps: list[StoredStep]) -> None:
    """The steps as a table."""
    if not steps:
        marks.empty("No steps yet", "The learner writes them as labels come.")
        return
    with marks.table(["Time, UTC", "Step", "By", "Detail", "In force after it"]):
        for step in steps:
            colour = {"promoted": "good", "rolled_back": "high", "drift": "high", "refused": "critical"}
            with box("", "tr"):
                marks.cell(marks.moment(step.at))
                with marks.cell(""):
                    chip(step.step.replace("_", " "), colour.get(step.step, ""))
                marks.cell(step.actor)
                marks.cell(step.detail)
                marks.cell(step.version or "—", "mono")


def _draw(chart: Any, options: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()


def _now_ms() -> int:
    return round(time.time() * 1000)


def build() -> None:
    """The page at `/dashboards`."""
    with page("Dashboards", "Dashboards", "stats:read") as frame:
        if frame is not None:
            Dashboards(frame)
