"""Parts of the console without servers: snapshots, origins, cookies, charts, places."""

import asyncio
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from serving.console import charts, marks, world
from serving.console.guard import _cookie, own_origin
from serving.console.snapshots import Snapshots
from serving.errors import StoreAway
from serving.stored import StoredDecision, StoredExplanation, StoredReason


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_hundred_pages_read_once() -> None:
    async def use() -> None:
        clock, reads = Clock(), 0
        snapshots = Snapshots(clock)

        async def read() -> int:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0.01)
            return reads

        asked = [snapshots.get("cases", read, 1.0) for _ in range(100)]
        assert await asyncio.gather(*asked) == [1] * 100
        clock.now = 0.9
        assert await snapshots.get("cases", read, 1.0) == 1
        clock.now = 1.0
        assert await snapshots.get("cases", read, 1.0) == 2
        snapshots.forget()
        assert await snapshots.get("cases", read, 1.0) == 3

    asyncio.run(use())


def test_who_waits_for_a_store_that_is_away_is_told_so_and_asks_again() -> None:
    async def use() -> None:
        clock, reads = Clock(), 0
        snapshots = Snapshots(clock)

        async def fail() -> int:
            nonlocal reads
            reads += 1
            raise StoreAway("MongoDB", "does not answer")

        for _ in range(3):
            with pytest.raises(StoreAway):
                await snapshots.get("cases", fail, 1.0)
        assert reads == 1

        async def succeed() -> int:
            return 7

        clock.now = 1.0
        assert await snapshots.get("cases", succeed, 1.0) == 7

    asyncio.run(use())


def test_a_page_that_goes_away_takes_nothing_from_the_others() -> None:
    async def use() -> None:
        snapshots = Snapshots()

        async def read() -> int:
            await asyncio.sleep(0.05)
            return 1

        first = asyncio.create_task(snapshots.get("cases", read, 1.0))
        await asyncio.sleep(0)
        second = asyncio.create_task(snapshots.get("cases", read, 1.0))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 1

    asyncio.run(use())


def test_snapshots_do_not_grow() -> None:
    async def use() -> None:
        snapshots = Snapshots(most=10)
        for number in range(1_000):
            await snapshots.get(number, lambda: asyncio.sleep(0), 60.0)
        assert len(snapshots) == 10

    asyncio.run(use())


HOSTS = st.from_regex(r"[a-z0-9.-]{1,30}(:[0-9]{1,5})?", fullmatch=True)


@given(HOSTS, st.sampled_from(["http", "https"]))
def test_a_page_of_this_host_is_ours(host: str, scheme: str) -> None:
    assert own_origin(Headers({"host": host, "origin": f"{scheme}://{host}"}))


@given(HOSTS, st.one_of(st.text(max_size=60), HOSTS.map(lambda host: f"https://{host}")))
def test_no_other_is(host: str, origin: str) -> None:
    ours = origin.lower() in (f"http://{host}", f"https://{host}")
    raw = [(b"host", host.encode()), (b"origin", origin.encode("utf-8", "surrogatepass"))]
    assert ours or not own_origin(Headers(raw=raw))


@pytest.mark.parametrize(
    "origin", ["null", "", "https://evil.example", "https://ours.evil", "https://ours@evil"]
)
def test_foreign_origins(origin: str) -> None:
    assert not own_origin(Headers({"host": "ours", "origin": origin}))


def test_two_origins_are_as_good_as_none() -> None:
    raw = [(b"host", b"ours"), (b"origin", b"https://ours"), (b"origin", b"https://evil.example")]
    assert not own_origin(Headers(raw=raw))
    assert not own_origin(Headers({"host": "ours"}))


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("fraudstream_session=a", "a"),
        ("theme=dark; fraudstream_session=a", "a"),
        ("other=;;; fraudstream_session=a", "a"),
        ("fraudstream_session=a; fraudstream_session=b", None),
        ("session=a", None),
        ("", None),
    ],
)
def test_the_cookie_of_a_session(sent: str, found: str | None) -> None:
    assert _cookie(Headers({"cookie": sent})) == found


LOG_ODDS = st.floats(-8, 8).map(lambda value: round(value, 6))


@given(st.lists(LOG_ODDS, max_size=25), LOG_ODDS, LOG_ODDS, LOG_ODDS, st.none() | LOG_ODDS)
def test_a_waterfall_leads_from_the_base_to_the_sum(
    reasons: list[float], base: float, calibration: float, part: float, online: float | None
) -> None:
    explanation = StoredExplanation(
        sentence="", base=base, calibration=calibration, parts={"sequence": part},
        reasons=[StoredReason(f"C{i}", f"Title {i}", value, "") for i, value in enumerate(reasons)],
        log_odds=base + calibration + part + sum(reasons), online=online,
    )  # fmt: skip
    steps = charts.waterfall_steps(explanation)
    (total,) = [end for name, _, end, is_total in steps if is_total and name != "Base"]
    assert math.isclose(total, explanation.log_odds, abs_tol=1e-9)
    moves = [step for step in steps if not step[3]]
    for before, after in pairwise(moves):
        assert math.isclose(before[2], after[1], abs_tol=1e-9)
    assert len(steps) <= charts.MOST_REASONS + 6
    series = charts.waterfall(explanation)["series"]
    assert min(series[0]["data"]) >= -1e-9


def decision(country: str | None, verdict: str = "approve") -> StoredDecision:
    return StoredDecision(
        decision_id="d", transaction_id="t", user_id="u", event_time=0, decided_at=0, amount=1.0,
        decision=verdict, score=0.1, model_version="m", country=country,  # type: ignore[arg-type]
    )  # fmt: skip


def test_places_are_known_countries_alone() -> None:
    seen = [decision("FR"), decision("DE", "block"), decision("FR"), decision(None), decision("<b>")]
    found = {point["name"]: point for point in world.points(seen)}
    assert found.keys() == {"FR", "DE"}
    assert found["DE"]["flagged"]
    assert found["FR"]["now"]
    assert world.way(seen).count("M") == 2
    assert world.way([decision("FR")]) == ""


def test_places_lie_on_the_world() -> None:
    assert len(world.PLACES) > 240
    assert all(
        -90 <= latitude <= 90 and -180 <= longitude <= 180 for latitude, longitude in world.PLACES.values()
    )


def test_how_names_and_shares_are_written() -> None:
    assert marks.brief("user_id~" + "a" * 32) == "~" + "a" * 12
    assert marks.brief("user-7") == "user-7"
    assert marks.percent(None) == "—"
    assert marks.percent(0.0123) == "1.23 %"
    assert marks.money(1234.5, "EUR") == "1,234.50 EUR"
