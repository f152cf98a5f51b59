"""Makes the pictures of docs/console: `python -m tests.serving.console.screenshots`.

A console over simulated traffic, in Chromium; each picture has at most 256 colours, which keeps it small.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from events.control import Rule
from serving import control
from serving.control import Topics
from stack.cluster import isolated_stack
from tests.serving.console.conftest import Seat, chromium, shot_folder
from tests.serving.console.world import (
    PREFIX,
    ConsoleWorld,
    console_world,
    labels_of,
    learner_steps,
    traffic,
)

SIZES: Final = {1280: 860, 390: 844}
MOST_BYTES: Final = 200_000


def main() -> None:
    """Write all pictures; the exit code is 1 where one is too large or no Chromium is there."""
    found = chromium()
    if found is None:
        sys.exit("no Chromium is installed; `make setup` installs it, FRAUDSTREAM_CHROMIUM names another")
    with (
        tempfile.TemporaryDirectory() as home,
        isolated_stack(names=("kafka",)) as cluster,
        console_world(Path(home), cluster, FRAUDSTREAM_GATEWAY_QUERY_S="30") as world,
        sync_playwright() as playwright,
    ):
        decisions = traffic(users=200, days=7)
        world.stored.take(decisions)
        world.stored.take(labels_of(decisions))
        world.stored.take(learner_steps())
        _put_rules(world)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        gravest = _gravest(world)
        for width in SIZES:
            for scheme in ("light", "dark"):
                _pictures(world, browser, width, scheme, gravest)
        browser.close()


def _pictures(world: ConsoleWorld, browser: Browser, width: int, scheme: str, case_id: str) -> None:
    looks = {"viewport": {"width": width, "height": SIZES[width]}, "color_scheme": scheme}
    analyst, admin = (Seat(world, browser, name, **looks) for name in ("ana", "adam"))
    for seat in (analyst, admin):
        seat.context.set_default_timeout(90_000)
    page = analyst.open()
    page.locator("tr[data-case]").first.wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    _write(page, f"queue-{width}-{scheme}")
    page = analyst.open(f"/case/{case_id}")
    page.locator("section[aria-label='Timeline'] canvas").wait_for()
    _write(page, f"case-{width}-{scheme}", whole=width > 600)
    page = admin.open("/dashboards")
    page.locator("section[aria-label='Steps of the learner and its gate'] tr").nth(1).wait_for()
    page.get_by_role("button", name="24 hours").click()
    _write(page, f"dashboards-{width}-{scheme}", whole=width > 600)
    page = admin.open("/administration")
    page.get_by_role("button", name="Begin safe mode").wait_for()
    page.locator("section[aria-label='Models'] tr").nth(1).wait_for()
    _write(page, f"administration-{width}-{scheme}")
    for seat in (analyst, admin):
        seat.context.close()


def _write(page: Page, name: str, whole: bool = False) -> None:
    page.wait_for_timeout(2_500)  # charts draw themselves after they are there
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole)))
    path = shot_folder() / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    size = path.stat().st_size
    print(f"{path.name}  {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"{path}: more than {MOST_BYTES:,} bytes")


def _gravest(world: ConsoleWorld) -> str:
    """An open case with several alerts and a high score."""
    cases = world.stored.mongo[world.stored.database]["cases"].find({"status": "open"})
    return str(max(cases, key=lambda case: (case["highest_score"] > 0.9, min(case["alerts"], 6)))["_id"])


def _put_rules(world: ConsoleWorld) -> None:
    topics = Topics({"bootstrap.servers": world.cluster.bootstrap}, PREFIX)
    for rule in (
        Rule(rule_id="new-device-abroad", version=3, owner="ana", feature="new_device", operator="==",
             value=1, verdict="review", description="A device not seen before, in another country"),
        Rule(rule_id="night-cash", version=1, owner="dana", feature="night", operator="==", value=1,
             verdict="review", shadow=True, description="Cash taken out between midnight and six"),
        Rule(rule_id="large-transfer", version=7, owner="adam", feature="amount", operator=">", value=9000,
             verdict="block", enabled=False, description="Waits for the new limits"),
    ):  # fmt: skip
        control.send_rule(topics, rule, msgspec.json.encode(rule))


if __name__ == "__main__":
    main()
