"""The file of routes: what is taken, and how what is wrong is named."""

from pathlib import Path

import pytest

from serving.notifications.routes import RoutesError, connect, read_routes, shown
from tests.serving.notifications.samples import routing

GOOD = """
[targets.desk]
url_env = "DESK_URL"

[[routes]]
name = "urgent"
targets = ["desk"]
min_severity = "high"
kinds = ["travel", "score"]
"""


def test_a_route_takes_what_is_severe_enough_and_of_its_kinds(tmp_path: Path) -> None:
    (route,) = routing(tmp_path, GOOD).routes

    assert route.takes("critical", ("travel", "amount"))
    assert route.takes("high", ("score",))
    assert not route.takes("medium", ("score",))
    assert not route.takes("critical", ("amount",))
    assert not route.takes("critical", ())
    assert route.takes("unheard-of", ("score",)), "what is not understood is seen"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('"high"', '"low"'), r"routes\[0\].min_severity: Invalid enum value 'low'"),
        (('["desk"]', '["desks"]'), r"routes\[0\].targets: there is no target desks; there are desk"),
        (('["desk"]', "[]"), r"routes\[0\].targets: Expected `array` of length >= 1"),
        (('"travel"', '"traval"'), r"routes\[0\].kinds: there is no kind 'traval'; there are amount,"),
        (('"DESK_URL"', '"https://secret"'), r"targets.desk.url_env: Expected `str` matching regex"),
        (("url_env", "url"), r"targets.desk: Object (missing required|contains unknown) field"),
        (
            ('name = "urgent"', 'name = "urgent"\nspeed = 1'),
            r"routes\[0\]: Object contains unknown field `speed`",
        ),
        (('name = "urgent"', ""), r"routes\[0\]: Object missing required field `name`"),
        (
            ('name = "urgent"', 'name = "urgent"\nsuppress_minutes = -1'),
            r"routes\[0\].suppress_minutes: Expected",
        ),
        (
            ('name = "urgent"', 'name = "urgent"\ndigest = {below = "high"}'),
            r"routes\[0\].digest.below: no alert of this route is below high",
        ),
        (
            ('name = "urgent"', 'name = "urgent"\ndigest = {below = "critical", items = 0}'),
            r"routes\[0\].digest.items: Expected `int` >= 1",
        ),
        (("DESK_URL", "desk"), "targets.desk.url_env"),
        (("targets.desk", 'targets."d k"'), "targets: Expected `str` matching regex"),
        (("[[routes]]", "[[routes"), "routes.toml: .*at line 5"),
        (('name = "urgent"', 'name = "urgent"\nname = "other"'), "Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    with pytest.raises(RoutesError, match=reason):
        routing(tmp_path, GOOD.replace(*change))


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    again = GOOD + '[[routes]]\nname = "urgent"\ntargets = ["desk"]\n'
    with pytest.raises(RoutesError, match=r"routes\[1\].name: urgent occurs more than once"):
        routing(tmp_path, again)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"routes = []", b"[targets]"])
def test_a_file_without_routes_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "routes.toml"
    file.write_bytes(content)
    with pytest.raises(RoutesError, match=r"routes\.toml"):
        routing(tmp_path, content.decode(errors="replace"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match=r"none\.toml: No such file"):
        read_routes(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "DESK_URL is not set"),
        ("  ", "DESK_URL is not set"),
        ("slack://s3cret", "no URL that apprise understands"),
        ("discord://s3cret/s3cret", "begins with none of json://"),
        ("https://s3cret.example/hook", "begins with none of json://"),
    ],
)
def test_a_variable_that_is_no_good_is_named_and_not_quoted(
    tmp_path: Path, url: str | None, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = {} if url is None else {"DESK_URL": url}
    with pytest.raises(RoutesError, match=f"targets.desk.url_env: {reason}|{reason}") as raised:
        connect(routing(tmp_path, GOOD), environment)

    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        "mailto://desk:s3cret@mail.example:2525?from=a@b.example&to=c@d.example",
        "jsons://desk:s3cret@hook.example/path",
        "slack://T1JJ3T3L2/A1BRTD4JD/s3cretnlazkcOXrIdevi7xyz",
        "workflows://teams.example:443/s3cret0000000000/s3cret1111111111/",
    ],
)
def test_what_is_shown_of_a_target_holds_no_secret(tmp_path: Path, url: str) -> None:
    (sender,) = connect(routing(tmp_path, GOOD), {"DESK_URL": url}).values()

    assert "s3cret" not in shown(sender)


def test_a_target_that_no_route_names_needs_no_variable(tmp_path: Path) -> None:
    more = GOOD + '[targets.other]\nurl_env = "OTHER_URL"\n'

    assert set(connect(routing(tmp_path, more), {"DESK_URL": "json://127.0.0.1:1"})) == {"desk"}


def test_the_example_of_the_guide_is_good() -> None:
    example = Path(__file__).resolve().parents[3] / "docs" / "routes.example.toml"

    assert [route.name for route in read_routes(example).routes] == ["urgent", "everything"]
