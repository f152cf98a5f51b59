"""Sessions of the console, and the accounts they belong to."""

import asyncio
from pathlib import Path

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from models.signing import KeyFileError
from serving.security.accounts import Account, Accounts, PasswordError
from serving.security.sessions import (
    Session,
    SessionError,
    Sessions,
    new_session_secret,
    read_session_secret,
)
from serving.security.shared import SharedState
from tests.serving.servers import Server

PASSWORD = "correct horse battery"
LIFE_S = 3600


class World:
    """Accounts of one person, a secret, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_800_000_000.0
        self.accounts = Accounts(folder / "users")
        self.accounts.add("ana/7", "analyst", PASSWORD)
        new_session_secret(folder)
        self.secret = read_session_secret(folder)
        self.sessions = Sessions(self.secret, self.accounts, LIFE_S, lambda: self.now)
        _, self.cookie = self.begin()

    @property
    def ana(self) -> Account:
        account = self.accounts.get("ana/7")
        assert account is not None
        return account

    def begin(self) -> tuple[Session, str]:
        return self.sessions.begin(self.ana)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_session_is_who_it_was_begun_for_until_it_ends(world: World) -> None:
    session, cookie = world.begin()
    assert world.sessions.read(cookie) == session
    assert (session.subject, session.role) == ("ana/7", "analyst")
    assert session.may("feedback:judge")
    assert not session.may("rules:write")
    world.now += LIFE_S - 1
    assert world.sessions.good(session)
    world.now += 1
    assert not world.sessions.good(session)
    with pytest.raises(SessionError, match="expired"):
        world.sessions.read(cookie)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("sessions"))


@given(data=st.data())
def test_no_other_cookie_proves_anything(lasting: World, data: st.DataObject) -> None:
    cookie = lasting.cookie
    at = data.draw(st.integers(0, len(cookie) - 2))
    other = data.draw(st.sampled_from([c for c in "abcXYZ019-_." if c != cookie[at]]))
    with pytest.raises(SessionError):
        lasting.sessions.read(cookie[:at] + other + cookie[at + 1 :])


def test_forged_ones_are_refused(world: World) -> None:
    _, cookie = world.begin()
    members = jwt.decode(cookie, world.secret, algorithms=["HS256"], options={"verify_signature": False})
    typed = {"typ": "session+jwt"}
    forged = [
        jwt.encode({**members, "role": "admin"}, b"x" * 32, "HS256", typed),
        jwt.encode(members, "", "none", typed),
        jwt.encode(members, world.secret, "HS256"),
        jwt.encode({k: v for k, v in members.items() if k != "stamp"}, world.secret, "HS256", typed),
        "",
        "x" * 100_000,
    ]
    for one in forged:
        with pytest.raises(SessionError):
            world.sessions.read(one)


def test_it_ends_with_another_password_and_with_the_account(world: World) -> None:
    session, _ = world.begin()
    world.accounts.change(world.ana, "another long password")
    assert not world.sessions.good(session)
    session, _ = world.begin()
    world.accounts.remove("ana/7")
    assert not world.sessions.good(session)


@pytest.mark.stack
def test_an_end_holds_at_all_gateways(world: World, redis_server: Server) -> None:
    elsewhere = Sessions(world.secret, world.accounts, LIFE_S, lambda: world.now)

    async def use() -> None:
        redis = Redis.from_url(redis_server.url)
        shared = SharedState(redis)
        session, _ = world.begin()
        assert not await elsewhere.ended_elsewhere(session, shared)
        await world.sessions.end(session, shared)
        assert not world.sessions.good(session)
        assert await elsewhere.ended_elsewhere(session, shared)
        assert not elsewhere.good(session)
        assert 0 < await redis.pttl(f"fs:ended:{session.session_id}") <= LIFE_S * 1000
        await redis.aclose()

    asyncio.run(use())


def test_without_redis_it_ends_here(world: World) -> None:
    async def use() -> None:
        redis = Redis.from_url("redis://127.0.0.1:1/0")
        session, _ = world.begin()
        await world.sessions.end(session, SharedState(redis))
        assert not world.sessions.good(session)
        await redis.aclose()

    asyncio.run(use())


def test_a_password_proves_one_account_alone(world: World) -> None:
    world.accounts.add("bea", "admin", PASSWORD)
    bea = world.accounts.get("bea")
    assert bea is not None
    assert bea.hash != world.ana.hash, "equal passwords show in no hash"
    assert world.ana.proved_by(PASSWORD)
    for wrong in ("", PASSWORD + " ", PASSWORD[:-1], "é" * 10_000, "\ud800"):
        assert not world.ana.proved_by(wrong)
    assert PASSWORD not in repr(bea)
    assert bea.hash.hex() not in repr(bea)
    assert [account.subject for account in world.accounts.all()] == ["ana/7", "bea"]


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_passwords_that_are_not_set(world: World, password: str) -> None:
    with pytest.raises(PasswordError):
        world.accounts.add("cid", "admin", password)
    assert world.accounts.get("cid") is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 129, "ünicode"])
def test_names_that_are_none(world: World, name: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        world.accounts.add(name, "admin", PASSWORD)
    assert world.accounts.get(name) is None
    assert world.accounts.get("x" * 5_000) is None


def test_a_file_that_is_no_account_is_told(world: World) -> None:
    (path,) = world.accounts.folder.glob("*.json")
    other = msgspec.structs.replace(world.ana, subject="somebody-else")
    for content in (b"{}", b"\xff", msgspec.json.encode(other)):
        path.write_bytes(content)
        with pytest.raises(KeyFileError):
            world.accounts.get("ana/7")


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        read_session_secret(tmp_path)
    assert new_session_secret(tmp_path)
    secret = read_session_secret(tmp_path)
    assert not new_session_secret(tmp_path)
    assert read_session_secret(tmp_path) == secret
