"""Mounts the console on the gateway's app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import core, ui
from starlette.responses import RedirectResponse

from serving.console import administration, case_page, dashboards, marks, queue_page
from serving.console.console import Console
from serving.console.guard import MOUNT, SIGN_IN, SIGN_OUT, Guard
from serving.console.sign_in import SignIn
from serving.gateway.folders import users_folder
from serving.security.accounts import Accounts
from serving.security.sessions import Sessions, read_session_secret

if TYPE_CHECKING:
    from serving.gateway.services import Services

HISTORY: Final = 50
"""Messages to a browser that are kept for one that lost its connection for a moment."""


def mount(app: FastAPI) -> None:
    """Serve the console under `/console`; once in a process, before the app starts.

    Raises KeyFileError where there is no secret for sessions.
    """
    services: Services = app.state.services
    keys = services.settings.gateway_keys
    accounts = Accounts(users_folder(keys))
    sessions = Sessions(read_session_secret(keys), accounts, services.settings.console_session_s)
    console = Console(services, sessions)
    nicegui_app.state.console = console

    sign_in = SignIn(services, accounts, sessions)
    nicegui_app.add_route(SIGN_IN, sign_in.show, ["GET"])
    nicegui_app.add_route(SIGN_IN, sign_in.sign_in, ["POST"])
    nicegui_app.add_route(SIGN_OUT, sign_in.sign_out, ["POST"])
    nicegui_app.add_static_files("/static", marks.STATIC)
    nicegui_app.add_middleware(Guard, services=services, sessions=sessions)
    ui.page("/")(queue_page.build)
    ui.page("/case/{case_id}")(case_page.build)
    ui.page("/dashboards")(dashboards.build)
    ui.page("/administration")(administration.build)

    # Nothing but WebSockets, whose origin the guard looks at.
    core.app.config.socket_io_js_transports = ["websocket"]
    within = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(its: FastAPI) -> AsyncIterator[None]:
        async with within(its):
            yield
            await console.verdicts.close()

    app.router.lifespan_context = lifespan
    app.add_route(MOUNT, lambda _: RedirectResponse(f"{MOUNT}/"), ["GET"], include_in_schema=False)
    ui.run_with(
        app,
        mount_path=MOUNT,
        title="fraudstream",
        favicon=marks.STATIC / "mark.svg",
        dark=None,
        tailwind=False,
        message_history_length=HISTORY,
        reconnect_timeout=10.0,
        show_welcome_message=False,
    )
