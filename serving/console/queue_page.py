"""The queue: cases as they come, the gravest first among those that are open."""

from typing import Any, Final

from nicegui import ui

from serving.alerts import SEVERITIES
from serving.console import marks
from serving.console.frame import Frame, cleared, page
from serving.console.marks import box, button, segments, text
from serving.console.verdicts import Given, Verdict
from serving.errors import NotFoundError
from serving.queries import MAX_PAGE
from serving.stored import CaseFilter, Page, StoredCase

ROWS: Final = 50
EVERY_S: Final = 1.0
KINDS: Final = ("verdict", "score", "velocity", "amount", "country", "travel")


class Queue:
    """What one page shows of the queue."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._wanted = CaseFilter(status="open")
        self._cursors: list[str | None] = [None]
        """Of the pages up to this one."""
        self._next: str | None = None
        self._judged: dict[str, str] = {}
        """The transactions that were judged on this page, by case."""
        self._build()
        self._refresh = frame.live(self._load, self._show, EVERY_S)

    def _build(self) -> None:
        with box("c-title"):
            text("Queue", tag="h1")
            self._count = text("", "soft")
        with box("c-panel", "section").props('aria-label="Queue"'):
            with box("c-filters"):
                choices = [("open", "Open"), ("fraud", "Fraud"), ("legitimate", "Legitimate"), ("", "All")]
                with segments("open", choices, lambda value: self._filter(status=value or None)):
                    pass
                levels = [("", "Any severity"), *((name, name.capitalize()) for name in reversed(SEVERITIES))]
                with segments("", levels, lambda value: self._filter(severity=value or None)):
                    pass
                kinds = [("", "Any kind"), *((name, name) for name in KINDS)]
                with segments("", kinds, lambda value: self._filter(kind=value or None)):
                    pass
            self._table = marks.CaseTable(self._frame.session.may("feedback:judge"))
            self._table.on("open", lambda event: ui.navigate.to(f"/case/{event.args}"))
            self._table.on("judge", lambda event: self._judge(event.args["case_id"], event.args["key"]))
            self._empty = box("")
            with self._empty:
                marks.empty("Loading", "The first answer of the store is on its way.")
            with box("c-foot"):
                self._back = button("Newer", lambda: self._turn(-1), "small")
                self._on = button("Older", lambda: self._turn(1), "small")
                self._place = text("")
                box("c-space")
                with box("c-keys"):
                    for key, meaning in (("j k", "move"), ("Enter", "open"), ("f", "fraud"),
                                         ("l", "legitimate"), ("u", "undo"), ("?", "all keys")):  # fmt: skip
                        if key in "flu" and not self._frame.session.may("feedback:judge"):
                            continue
                        with box("c-chips"):
                            text(key, tag="kbd")
                            text(meaning)

    async def _load(self) -> tuple[Page[StoredCase], list[Given | None]]:
        console, wanted, after = self._frame.console, self._wanted, self._cursors[-1]
        first = after is None and wanted.status == "open"
        # Of what is open the gravest are wanted, not the newest: one read sees as many as it may.
        limit = MAX_PAGE if first else ROWS
        found = await console.snapshots.get(
            ("cases", wanted, after), lambda: console.queries.cases(wanted, limit=limit, after=after), EVERY_S
        )
        if first:
            found = Page(sorted(found.items, key=_gravity), found.next)
        given = [self._given(case) for case in found.items]
        return found, given

    def _show(self, loaded: tuple[Page[StoredCase], list[Given | None]]) -> None:
        found, given = loaded
        rows = [self._row(case, one) for case, one in zip(found.items, given, strict=True)]
        self._table.show(rows)
        self._next = found.next
        more = "+" if found.next else ""
        self._count.set_text(f"{len(rows)}{more} {self._wanted.status or ''} cases".replace("  ", " "))
        self._place.set_text(f"Page {len(self._cursors)}")
        for element, is_there in ((self._back, len(self._cursors) > 1), (self._on, found.next is not None)):
            element.set_visibility(is_there)
        with cleared(self._empty):
            if not rows:
                marks.empty("Nothing here", "No case matches; new ones appear by themselves.")

    def _row(self, case: StoredCase, given: Given | None) -> dict[str, Any]:
        mark, mark_class = ("", "") if case.status == "open" else (case.status, case.status)
        if given is not None and case.status == "open":
            waits = given.state in ("waiting", "sending")
            mark = f"{given.verdict} …" if waits else given.verdict if given.state == "sent" else "not sent"
            mark_class = "pending" if waits else "fraud" if given.state == "failed" else "good"
        user = self._frame.console.user(self._frame.session, case)
        return {
            "case_id": case.case_id,
            "severity": case.severity,
            "user": marks.brief(user),
            "kinds": list(case.kinds),
            "alerts": case.alerts,
            "amount": marks.money(case.amount),
            "score": f"{case.highest_score:.3f}",
            "width": f"{100 * case.highest_score:.0f}%",
            "opened_at": case.opened_at,
            "mark": mark,
            "mark_class": mark_class,
        }

    def _given(self, case: StoredCase) -> Given | None:
        transaction_id = self._judged.get(case.case_id)
        if transaction_id is None:
            return None
        return self._frame.console.verdicts.of(self._frame.session, transaction_id)

    async def _judge(self, case_id: str, key: str) -> None:
        async def do() -> str:
            if key == "u":
                return self._undo(case_id)
            return await self._say(case_id, "fraud" if key == "f" else "legitimate")

        await self._frame.act(do)
        await self._refresh()

    async def _say(self, case_id: str, verdict: Verdict) -> str:
        console, session = self._frame.console, self._frame.session
        found = await console.queries.case(case_id, limit=MAX_PAGE)
        if found is None or not found.decisions.items:
            raise NotFoundError("there is no such case any more")
        # What is gravest is what the case is about.
        gravest = max(found.decisions.items, key=lambda decision: decision.score)
        said = console.verdicts.give(session, gravest.transaction_id, verdict)
        self._judged[case_id] = gravest.transaction_id
        return f"{gravest.transaction_id}: {said}"

    def _undo(self, case_id: str) -> str:
        if case_id not in self._judged:
            raise NotFoundError("nothing was said of this case here")
        return self._frame.console.verdicts.undo(self._frame.session, self._judged[case_id])

    async def _filter(self, **changes: str | None) -> None:
        members = {name: getattr(self._wanted, name) for name in self._wanted.__struct_fields__}
        self._wanted = CaseFilter(**members | changes)
        self._cursors = [None]
        await self._refresh()

    async def _turn(self, step: int) -> None:
        if step > 0 and self._next is not None:
            self._cursors.append(self._next)
        elif step < 0 and len(self._cursors) > 1:
            self._cursors.pop()
        await self._refresh()


def _gravity(case: StoredCase) -> tuple[int, float, int]:
    return -SEVERITIES.index(case.severity), -case.highest_score, -case.opened_at


def build() -> None:
    """The page at `/`."""
    with page("Queue", "Queue", "cases:read") as frame:
        if frame is not None:
            Queue(frame)
