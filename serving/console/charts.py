"""Options of charts (Apache ECharts), from what the stores answer. Pure.

Colours hold on light and dark ground. Names from outside are values and never keys, which NiceGUI may read
as code, and tooltips are drawn, not written as HTML.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serving.stored import Counts, Share, StoredDecision, StoredExplanation, StoredProfile

Options = dict[str, Any]

INK, LINE = "#8590a2", "rgba(133,144,162,.2)"
ACCENT, RAISES, LOWERS, NEUTRAL, WARNS = "#5b84ea", "#d9606a", "#3fa573", "#94a0b3", "#dd9445"
VERDICTS: Final = {"approve": "#94a0b3", "review": WARNS, "block": RAISES}
MOST_REASONS: Final = 9


def waterfall(explanation: StoredExplanation) -> Options:
    """What the score is made of, in log-odds: from the base through reasons and parts to the sum."""
    steps = waterfall_steps(explanation)
    names, low, size, colours, labels = [], [], [], [], []
    for name, start, end, is_total in steps:
        names.append(name)
        low.append(round(min(start, end), 4))
        size.append(round(abs(end - start), 4))
        colours.append(NEUTRAL if is_total else RAISES if end > start else LOWERS)
        labels.append(f"{end:+.2f}" if is_total else f"{end - start:+.2f}")
    least = min(0.0, *low)
    # Stacked bars begin at 0: what lies below is shifted up, and the axis says what it was.
    bars = [
        {"value": value, "itemStyle": {"color": colour}, "label": {"formatter": label}}
        for value, colour, label in zip(size, colours, labels, strict=True)
    ]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 52, "top": 4, "bottom": 4, "containLabel": True},
        "xAxis": {"type": "value", "show": False, "min": 0},
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": names,
            "axisLine": {"show": False},
            "axisTick": {"show": False},
            "axisLabel": {"color": INK, "fontSize": 11.5, "width": 190, "overflow": "truncate"},
        },
        "series": [
            {
                "type": "bar",
                "stack": "sum",
                "silent": True,
                "itemStyle": {"color": "transparent"},
                "data": [round(value - least, 4) for value in low],
            },
            {
                "type": "bar",
                "stack": "sum",
                "barMaxWidth": 15,
                "barMinHeight": 2,
                "itemStyle": {"borderRadius": 2},
                "label": {"show": True, "position": "right", "color": INK, "fontSize": 11},
                "data": bars,
            },
        ],
    }


def waterfall_steps(explanation: StoredExplanation) -> list[tuple[str, float, float, bool]]:
    """Name, start and end of each bar, and whether it is a total; each begins where the one before ends."""
    ranked = sorted(explanation.reasons, key=lambda reason: -abs(reason.log_odds))
    added = [(reason.title, reason.log_odds) for reason in ranked[:MOST_REASONS]]
    rest = sum(reason.log_odds for reason in ranked[MOST_REASONS:])
    if ranked[MOST_REASONS:]:
        added.append((f"{len(ranked) - MOST_REASONS} further reasons", rest))
    if explanation.calibration:
        added.append(("Calibration of the trees", explanation.calibration))
    added += [(f"Part: {name}", value) for name, value in explanation.parts.items()]
    steps = [("Base", 0.0, explanation.base, True)]
    at = explanation.base
    for name, value in added:
        steps.append((name, at, at + value, False))
        at += value
    steps.append(("Log-odds of the ensemble", 0.0, at, True))
    if explanation.online is not None:
        steps.append(("Online correction", at, at + explanation.online, False))
    return steps


def timeline(decisions: Sequence[StoredDecision], chosen: str | None) -> Options:
    """Amounts of a user's transactions over time, by verdict."""
    series = []
    for verdict, colour in VERDICTS.items():
        points = [
            {
                "value": [d.event_time, d.amount],
                "symbolSize": 12 if d.decision_id == chosen else 7,
                "itemStyle": {"borderColor": INK, "borderWidth": 2 if d.decision_id == chosen else 0},
            }
            for d in decisions
            if d.decision == verdict
        ]
        series.append({"type": "scatter", "name": verdict, "data": points, "itemStyle": {"color": colour}})
    return _framed({"type": "time"}, {"type": "value", "min": 0}, series, legend=True)


def habits(profiles: Sequence[StoredProfile]) -> Options:
    """A user's risk day by day."""
    points = [[profile.at, round(profile.risk, 4)] for profile in reversed(profiles)]
    line = {
        "type": "line", "name": "risk", "data": points, "symbolSize": 5,
        "lineStyle": {"width": 2}, "itemStyle": {"color": ACCENT},
    }  # fmt: skip
    return _framed({"type": "time"}, {"type": "value", "min": 0, "max": 1, "interval": 0.5}, [line])


def volume(series: Sequence[Counts]) -> Options:
    """Decisions by verdict over time."""
    stacks = [
        ("approve", [[c.at, c.decisions - c.review - c.block] for c in series]),
        ("review", [[c.at, c.review] for c in series]),
        ("block", [[c.at, c.block] for c in series]),
    ]
    bars = [
        {
            "type": "bar", "stack": "all", "name": name, "data": data, "barMaxWidth": 18,
            "itemStyle": {"color": VERDICTS[name]},
        }
        for name, data in stacks
    ]  # fmt: skip
    return _framed({"type": "time"}, {"type": "value", "minInterval": 1}, bars, legend=True)


def rates(series: Sequence[Counts]) -> Options:
    """Shares over time, in percent: of the decisions what was flagged, of the labels what was fraud."""
    lines = [
        ("flagged of decided", WARNS, [[c.at, _percent(c.flagged_rate)] for c in series]),
        ("fraud of labelled", RAISES, [[c.at, _percent(c.fraud_rate)] for c in series]),
    ]
    drawn = [
        {
            "type": "line", "name": name, "data": data, "symbolSize": 4, "connectNulls": True,
            "lineStyle": {"width": 2}, "itemStyle": {"color": colour},
        }
        for name, colour, data in lines
    ]  # fmt: skip
    axis = {"type": "value", "min": 0, "axisLabel": {"formatter": "{value} %"}}
    return _framed({"type": "time"}, axis, drawn, legend=True)


def shares(found: Sequence[Share], most: int = 10) -> Options:
    """Decisions by name, those flagged apart."""
    named = list(found[:most])
    bars = [
        ("approved", VERDICTS["approve"], [share.decisions - share.flagged for share in named]),
        ("flagged", RAISES, [share.flagged for share in named]),
    ]
    drawn = [
        {
            "type": "bar", "stack": "all", "name": name, "data": data, "barMaxWidth": 14,
            "itemStyle": {"color": colour},
        }
        for name, colour, data in bars
    ]  # fmt: skip
    names = {"type": "category", "inverse": True, "data": [share.name for share in named]}
    return _framed({"type": "value", "minInterval": 1}, names, drawn, legend=True)


def by_step(points: Sequence[tuple[int, Mapping[str, float]]], names: Sequence[str]) -> Options:
    """Figures of the learner's steps over time; points: time and figures."""
    colours = (ACCENT, WARNS, LOWERS)
    lines = [
        {
            "type": "line", "name": name, "symbolSize": 4, "itemStyle": {"color": colour},
            "lineStyle": {"width": 2},
            "data": [[at, round(figures[name], 5)] for at, figures in points if name in figures],
        }
        for name, colour in zip(names, colours, strict=False)
    ]  # fmt: skip
    return _framed({"type": "time"}, {"type": "value", "scale": True}, lines, legend=True)


def _framed(x: Options, y: Options, series: list[Options], legend: bool = False) -> Options:
    label = {"color": INK, "fontSize": 11, "hideOverlap": True}
    options: Options = {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 30 if legend else 12, "bottom": 4, "containLabel": True},
        "tooltip": {
            "trigger": "axis" if series and series[0]["type"] != "scatter" else "item",
            "renderMode": "richText",
            "confine": True,
            "backgroundColor": "#1d2430",
            "borderWidth": 0,
            "textStyle": {"color": "#e4e9f0", "fontSize": 12},
        },
        "xAxis": {
            "axisLine": {"lineStyle": {"color": LINE}},
            "axisTick": {"show": False},
            "splitLine": {"show": x["type"] == "value", "lineStyle": {"color": LINE}},
            **x,
            "axisLabel": label | x.get("axisLabel", {}),
        },
        "yAxis": {
            "axisLine": {"show": False},
            "axisTick": {"show": False},
            "splitLine": {"show": y["type"] == "value", "lineStyle": {"color": LINE}},
            "splitNumber": 4,
            **y,
            "axisLabel": label | y.get("axisLabel", {}),
        },
        "series": series,
    }
    if legend:
        options["legend"] = {
            "top": 0, "right": 4, "itemWidth": 9, "itemHeight": 9, "icon": "roundRect",
            "textStyle": {"color": INK, "fontSize": 11.5},
        }  # fmt: skip
    return options


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)
