"""Small pieces that pages are built of. Whatever is shown is set as text, never as markup."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

STATIC = Path(__file__).parent / "static"


class CaseTable(Element, component="static/case_table.js"):
    """Cases as rows. Emits `open` with a case id, and `judge` with case id and key where judging is on."""

    def __init__(self, judging: bool) -> None:
        super().__init__()
        self._props["rows"] = []
        self._props["judging"] = judging

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self._props["rows"])

    def show(self, rows: list[dict[str, Any]]) -> None:
        if rows != self._props["rows"]:
            self._props["rows"] = rows
            self.update()


class KeyBindings(Element, component="static/key_bindings.js"):
    """Calls `pressed` with each key of the bindings that is pressed."""

    def __init__(self, bindings: Sequence[str], pressed: Callable[[str], Any]) -> None:
        super().__init__()
        self._props["bindings"] = list(bindings)
        self.on("press", lambda event: pressed(str(event.args)))


class WorldMap(Element, component="static/world_map.js"):
    """Places on a world. points: as `serving.console.world` makes them; path: SVG path data between them."""

    def __init__(self, points: list[dict[str, Any]], path: str, label: str) -> None:
        super().__init__()
        self._props |= {"points": points, "path": path, "label": label}


def text(content: str, classes: str = "", tag: str = "span") -> TextElement:
    return TextElement(tag=tag, text=content).classes(classes)


def chip(content: str, kind: str = "") -> TextElement:
    """A word in a frame; kind: what colours it, such as a severity, verdict or state."""
    return text(content, f"c-chip k-{kind}")


def link(target: str, content: str = "", classes: str = "") -> TextElement:
    """target: path of this host, made of what needs no quoting."""
    element = TextElement(tag="a", text=content).classes(classes)
    element._props["href"] = target  # noqa: SLF001 - as NiceGUI's own links do; props() would parse it
    return element


def box(classes: str, tag: str = "div") -> Element:
    return Element(tag).classes(classes)


def button(content: str, pressed: Callable[[], Any], classes: str = "") -> TextElement:
    element = TextElement(tag="button", text=content).classes(f"c-btn {classes}").props("type=button")
    element.on("click", pressed)
    return element


@contextmanager
def panel(title: str, hint: str = "", classes: str = "") -> Iterator[Element]:
    """A panel with a heading; what is made within goes into it."""
    with box(f"c-panel {classes}", "section") as section:
        with box("c-ph"):
            text(title, "c-h2", "h2")
            if hint:
                text(hint, "c-hint")
        with box("c-in") as body:
            yield body
    section.props(f'aria-label="{title}"')


def empty(title: str, said: str = "") -> None:
    """What stands where there is nothing to show."""
    with box("c-empty"):
        text(title, tag="b")
        text(said)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    with box("c-facts"):
        for name, value in pairs:
            text(name, "k")
            text(value, "v")


def figures(shown: Sequence[tuple[str, str]]) -> None:
    """Values with what they are, side by side."""
    with box("c-figures"):
        for name, value in shown:
            with box("c-figure"):
                text(value, "v", "div")
                text(name, "l", "div")


def table(headings: Sequence[str], numbers: Sequence[int] = ()) -> Element:
    """The body of a table; numbers: columns whose headings stand right."""
    with box("c-table", "table"):
        with box("", "thead"), box("", "tr"):
            for place, heading in enumerate(headings):
                text(heading, "num" if place in numbers else "", "th")
        return box("", "tbody")


def cell(content: str, classes: str = "") -> TextElement:
    return text(content, classes, "td")


@contextmanager
def segments(chosen: str, choices: Sequence[tuple[str, str]], picked: Callable[[str], Any]) -> Iterator[None]:
    """Buttons of which one is on; choices: value and what it is called."""
    with box("c-seg"):
        made: dict[str, TextElement] = {}

        def pick(value: str) -> Any:
            for name, element in made.items():
                element.classes(add="on" if name == value else "", remove="" if name == value else "on")
            # What comes is awaited by whoever called.
            return picked(value)

        for value, name in choices:
            element = TextElement(tag="button", text=name).props("type=button")
            element.classes("on" if value == chosen else "")
            element.on("click", lambda v=value: pick(v))
            made[value] = element
        yield


async def confirmed(title: str, said: str, act: str, classes: str = "primary", ask: str = "") -> str | None:
    """What was entered (where it is asked for) once the act is confirmed; None where it is not."""
    with ui.dialog() as dialog, box("c-dialog"):
        text(title, "c-h1", "h1")
        text(said, "soft")
        entered = field(ask, 500) if ask else None
        with box("c-acts"):
            button("Cancel", lambda: dialog.submit(None))
            button(act, lambda: dialog.submit(entered.value if entered else ""), classes)
    found = await dialog
    dialog.delete()
    return found if isinstance(found, str) else None


class Field(Element):
    """A line of text to enter."""

    def __init__(self, asks: str, most: int) -> None:
        super().__init__("input")
        self.value = ""
        self.classes("c-input")
        self._props |= {"placeholder": asks, "aria-label": asks, "maxlength": most, "type": "text"}
        self.on("input", self._entered, js_handler="(event) => emit(event.target.value)")

    def clear_value(self) -> None:
        self.value = ""
        ui.run_javascript(f"getHtmlElement({self.id}).value = ''")

    def _entered(self, event: Any) -> None:
        self.value = str(event.args)


def field(asks: str, most: int) -> Field:
    return Field(asks, most)


def moment(at_ms: int) -> str:
    """A time in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%d %b %H:%M:%S")


def money(amount: float, currency: str | None = None) -> str:
    return f"{amount:,.2f}" + (f" {currency}" if currency else "")


def percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.1f} %"


def brief(identity: str) -> str:
    """A pseudonym short enough for a row; any other name as it is, cut."""
    _, tilde, digest = identity.partition("~")
    return f"~{digest[:12]}" if tilde else identity[:32]
