"""One console with everything behind it for all tests of a run, and a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from stack.cluster import isolated_stack
from tests.serving.console.world import (
    ConsoleWorld,
    console_world,
    labels_of,
    learner_steps,
    traffic,
)


def chromium() -> str | None:
    """Where a Chromium is: as FRAUDSTREAM_CHROMIUM says, else the one on the path."""
    return os.environ.get("FRAUDSTREAM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleWorld]:
    home = tmp_path_factory.mktemp("console")
    with (
        isolated_stack(names=("kafka",)) as cluster,
        console_world(home, cluster, FRAUDSTREAM_CONSOLE_UNDO_S="8") as running,
    ):
        decisions = traffic(users=120, days=5)
        running.stored.take(decisions)
        running.stored.take(labels_of(decisions))
        running.stored.take(learner_steps())
        yield running


# Of the module, for Playwright keeps an event loop running, in which no other test could run its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = chromium()
    if found is None:
        pytest.skip("no Chromium is installed; `make setup` installs it, FRAUDSTREAM_CHROMIUM names another")
    with sync_playwright() as playwright:
        # Without a sandbox, as containers give none and the pages are our own.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


class Seat:
    """Somebody at the console. foreign: requests to other hosts; faults: errors of scripts."""

    def __init__(self, world: ConsoleWorld, browser: Browser, name: str | None, **context: Any) -> None:
        self._world = world
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
        self.context.set_default_timeout(90_000)
        if name is not None:
            for cookie, value in world.cookie(name).items():
                self.context.add_cookies(
                    [{"name": cookie, "value": value, "domain": "127.0.0.1", "path": "/console"}]
                )
        self.page: Page = self.context.new_page()
        self.foreign: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def open(self, path: str = "/") -> Page:
        """A page, once it is live."""
        self.page.goto(f"{self._world.gateway.url}/console{path}")
        self.page.locator(".c-state", has_text="live").wait_for()
        return self.page

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self._world.gateway.url, "data:")):
            self.foreign.append(request.url)


@pytest.fixture
def seats(world: ConsoleWorld, browser: Browser) -> Iterator[Any]:
    """Makes seats: by name of the person, None for nobody."""
    taken: list[Seat] = []

    def take(name: str | None, **context: Any) -> Seat:
        taken.append(Seat(world, browser, name, **context))
        return taken[-1]

    yield take
    for seat in taken:
        seat.context.close()
        assert seat.foreign == []
        assert seat.faults == []


def shot_folder() -> Path:
    """Where the pictures of the documentation lie."""
    return Path(__file__).parents[3] / "docs" / "console"
