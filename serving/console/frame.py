"""What every page has: its head, its keys, what it says while a store is away, and who looks at it."""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from nicegui import app as nicegui_app
from nicegui import ui
from nicegui.element import Element

from serving.console import marks, steering
from serving.console.console import Console
from serving.console.guard import MOUNT, SIGN_IN, SIGN_OUT
from serving.console.marks import box, button, link, text
from serving.console.steering import SafeMode
from serving.errors import BrokerError, ControlError, QueryError, StoreAway
from serving.gateway.problems import Problem
from serving.security.audit import AuditError
from serving.security.permissions import Permission
from serving.security.sessions import Session

REFRESH_S: Final = 1.0
SAFE_S: Final = 5.0
THEME: Final = "fraudstream_theme"
_STYLE: Final = hashlib.sha256((marks.STATIC / "console.css").read_bytes()).hexdigest()[:12]

T = TypeVar("T")
log = structlog.get_logger()

KEYS: Final = (
    ("j  k", "Next, previous row"),
    ("Enter", "Open"),
    ("f", "Verdict: fraud"),
    ("l", "Verdict: legitimate"),
    ("u", "Undo the verdict, or correct it"),
    ("g q", "Queue"),
    ("g d", "Dashboards"),
    ("g a", "Administration"),
    ("?", "These keys"),
)


class Frame:
    """One page in one browser."""

    def __init__(self, console: Console, session: Session) -> None:
        self.console, self.session = console, session
        self.keys: dict[str, Callable[[], Any]] = {}
        self._away: dict[str, str | None] = {}
        """Why each part of the page could not be loaded last time, None where it was."""
        self._loads = 0

    def live(
        self, load: Callable[[], Awaitable[T]], show: Callable[[T], Any], every_s: float = REFRESH_S
    ) -> Callable[[], Awaitable[None]]:
        """Show what is loaded again and again, as it changes; what there is stays while a store is away.

        The answer has it loaded at once.
        """
        self._loads += 1
        name, shown = str(self._loads), list[T]()

        async def refresh() -> None:
            try:
                loaded = await load()
            except (StoreAway, QueryError, BrokerError, Problem, ControlError) as error:
                self._note(name, said(error))
                return
            self._note(name, None)
            if not shown or shown[0] != loaded:
                shown[:] = [loaded]
                show(loaded)

        ui.timer(every_s, refresh)
        return refresh

    async def act(self, doing: Callable[[], Awaitable[str]]) -> bool:
        """Do something and say what came of it; whether it was done."""
        try:
            came = await doing()
        except (StoreAway, QueryError, BrokerError, Problem, ControlError, AuditError) as error:
            ui.notify(said(error), type="negative", position="bottom", timeout=8000)
            return False
        ui.notify(came, type="positive", position="bottom", timeout=5000)
        return True

    def _note(self, name: str, why: str | None) -> None:
        if self._away.get(name, "loading") == why:
            return
        self._away[name] = why
        self._show_state()

    def _show_state(self) -> None:
        reasons = sorted({why for why in self._away.values() if why is not None})
        self.banner.set_visibility(bool(reasons))
        self.banner.set_text(
            "; ".join(reasons) + ". What is shown may be old; it goes on by itself." if reasons else ""
        )
        self.state.classes(add="away" if reasons else "", remove="waiting" if reasons else "waiting away")
        self.state_text.set_text("store away" if reasons else "live")

    def build(self, here: str) -> None:
        """The head of the page."""
        ui.colors(primary="#2457d6", positive="#1d7a4c", negative="#b3202c", warning="#b45b09")
        with box("c-head", "header"):
            with link(f"{MOUNT}/", classes="c-brand"):
                box("", "img").props(f'src={MOUNT}/static/mark.svg alt=""')
                text("fraudstream")
            with box("c-nav", "nav"):
                for name, target in self.places():
                    link(f"{MOUNT}{target}", name, "here" if name == here else "")
            box("c-space")
            with box("c-state waiting").props("role=status aria-live=polite") as self.state:
                self.state_text = text("loading")
            with box("c-who"):
                text(self.session.subject, tag="b")
                text(self.session.role.replace("_", " "), "role")
                text("◐", "c-icon", "button").props(
                    'type=button title="Light or dark" aria-label="Light or dark"'
                ).on("click", self._switch_theme)
                text("?", "c-icon wide", "button").props('type=button title="Keys"').on(
                    "click", self.show_keys
                )
                with box("", "form").props(f"method=post action={MOUNT}{SIGN_OUT}"):
                    text("Sign out", "c-icon", "button").props("type=submit")
        self.banner = text("", "c-banner", "div")
        self.banner.props("role=alert")
        self.banner.set_visibility(False)
        self.safe = text("", "c-banner safe", "div")
        self.safe.set_visibility(False)
        self.keys |= {"?": self.show_keys}
        for (_, target), key in zip(self.places(), ("g q", "g d", "g a"), strict=False):
            self.keys[key] = partial(ui.navigate.to, target)

    def places(self) -> list[tuple[str, str]]:
        """Name and path of the pages that are there for this session."""
        places = [("Queue", "/"), ("Dashboards", "/dashboards")]
        return [*places, ("Administration", "/administration")] if self.session.may("models:read") else places

    def show_keys(self) -> None:
        with ui.dialog() as dialog, box("c-dialog"):
            text("Keys", "c-h1", "h1")
            with box("c-keylist"):
                for keys, meaning in KEYS:
                    if keys == "g a" and not self.session.may("models:read"):
                        continue
                    with box("c-acts"):
                        for key in keys.split():
                            text(key, tag="kbd")
                    text(meaning)
            with box("c-acts"):
                button("Close", dialog.close, "primary")
        dialog.on("hide", dialog.delete)
        dialog.open()

    def _switch_theme(self) -> None:
        # The page knows which of both it shows; the cookie tells the next ones.
        ui.run_javascript(
            "const dark = !document.body.classList.contains('body--dark'); Quasar.Dark.set(dark);"
            f"document.cookie = `{THEME}=${{dark ? 'dark' : 'light'}}; path={MOUNT}; "
            "max-age=31536000; samesite=strict`"
        )

    def _press(self, key: str) -> Any:
        return self.keys[key]()

    def show_safe(self, safe: SafeMode) -> None:
        """Everybody shall see that models do not decide."""
        self.safe.set_visibility(safe.is_on)
        self.safe.set_text(f"Safe mode is on: models do not decide. {safe.told}" if safe.is_on else "")

    def bind(self) -> None:
        marks.KeyBindings(list(self.keys), self._press)

    def watch(self) -> None:
        """Leave the page when the session is over."""

        def look() -> None:
            if not self.console.sessions.good(self.session):
                ui.navigate.to(SIGN_IN)

        ui.timer(REFRESH_S, look)


@contextmanager
def page(here: str, title: str, permission: Permission) -> Iterator[Frame | None]:
    """Build a page; what is made within stands in its body. None for a role without the permission.

    here: name of its place in the navigation.
    """
    console: Console = nicegui_app.state.console
    request = ui.context.client.request
    frame = Frame(console, request.scope["session"])
    ui.page_title(f"{title} · fraudstream")
    ui.add_head_html(f'<link rel="stylesheet" href="{MOUNT}/static/console.css?{_STYLE}">')
    theme = request.cookies.get(THEME)
    ui.dark_mode({"dark": True, "light": False}.get(theme or ""))
    with box("c-frame"):
        frame.build(here)
        with box("c-body", "main"):
            if frame.session.may(permission):
                yield frame
            else:
                marks.empty("Not for you", f"The role {frame.session.role} does not hold {permission}.")
                yield None
    frame.bind()
    frame.watch()
    frame.live(lambda: steering.safe_mode(console), frame.show_safe, SAFE_S)


def _icon(sign: str, name: str, pressed: Callable[[], None], classes: str = "") -> None:
    element = text(sign, f"c-icon {classes}", "button")
    element.props(f'type=button title="{name}" aria-label="{name}"')
    element.on("click", pressed)


def said(error: Exception) -> str:
    """An error in words for who looks at a page: without hosts and paths."""
    if isinstance(error, StoreAway):
        return str(error)
    if isinstance(error, BrokerError):
        return "Kafka does not answer"
    if isinstance(error, AuditError):
        return "the audit trail cannot be written, so nothing was done"
    return str(error)


def cleared(element: Element) -> Element:
    """The element without what was in it."""
    element.clear()
    return element
