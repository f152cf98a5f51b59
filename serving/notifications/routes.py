"""Who is told of which alerts: a TOML file of targets and routes, and the check that it can work."""

import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from apprise import Apprise, AppriseAsset
from msgspec import Meta

from serving.alerts import SEVERITIES, Kind, Severity

SCHEMES: Final = frozenset(
    {"slack", "json", "jsons", "mailto", "mailtos", "workflow", "workflows"}  # workflow(s): Teams
)
"""Where apprise escapes text for the receiver, which was tried for these alone."""

KINDS: Final = frozenset(kind.name.lower() for kind in Kind)

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
Variable = Annotated[str, Meta(pattern=r"^[A-Z_][A-Z0-9_]{0,127}\Z")]
Minutes = Annotated[float, Meta(ge=0, le=7 * 24 * 60)]
Struct = TypeVar("Struct", bound=msgspec.Struct)
SomeMinutes = Annotated[float, Meta(gt=0, le=7 * 24 * 60)]

# What apprise says of a URL it cannot read may hold the URL, and Python prints what nobody handles.
logging.getLogger("apprise").propagate = False


class RoutesError(Exception):
    """The file of routes is no good; the message names the field and the reason."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somewhere to send to. Its URL, which holds secrets, is in an environment variable.

    per_minute: messages at most; give_up_minutes: since a message was queued; longest_wait_s: between two
    attempts; max_pending: messages that wait, above which further alerts only count as suppressed.
    """

    url_env: Variable
    per_minute: Annotated[float, Meta(gt=0, le=6_000)] = 30.0
    give_up_minutes: SomeMinutes = 60.0
    longest_wait_s: Annotated[float, Meta(gt=0, le=3_600)] = 60.0
    max_pending: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Alerts below a severity are gathered, and sent after some minutes or when there are enough."""

    below: Severity
    minutes: SomeMinutes = 15.0
    items: Annotated[int, Meta(ge=1, le=200)] = 50


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which alerts go to which targets. kinds: the rules that raised it, all where none is named."""

    name: Name
    targets: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=20)]
    min_severity: Severity = "medium"
    kinds: tuple[str, ...] = ()
    suppress_minutes: Minutes = 10.0
    """An alert of the same user, case, kind and severity within this time is counted and not sent."""
    digest: Digest | None = None
    identities: Literal["pseudonym", "clear"] = "pseudonym"

    def takes(self, severity: str, kinds: tuple[str, ...]) -> bool:
        """Whether an alert goes this way."""
        if rank(severity) < rank(self.min_severity):
            return False
        return not self.kinds or not set(self.kinds).isdisjoint(kinds)

    def gathers(self, severity: str) -> bool:
        """Whether an alert waits for the digest."""
        return self.digest is not None and rank(severity) < rank(self.digest.below)


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    targets: dict[Name, Target]
    routes: Annotated[tuple[Route, ...], Meta(min_length=1, max_length=100)]
    max_age_hours: Annotated[float, Meta(gt=0, le=24 * 365)] = 24.0
    """Alerts that were raised longer ago are not sent: whoever starts late is not told of last week."""


def rank(severity: str) -> int:
    """Place among the severities; one that is unknown counts as the highest, so that it is seen."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES) - 1


def read_routes(file: Path) -> Routing:
    """The routes in a TOML file. Raises RoutesError, naming field and reason."""
    try:
        tree = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise RoutesError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RoutesError(f"{file}: {error}") from error
    targets = tree.get("targets")
    if isinstance(targets, dict):
        for name, target in targets.items():
            _read(file, f"targets.{name}", target, Target)  # msgspec would not say which one it is
    routing = _read(file, "", tree, Routing)
    for number, route in enumerate(routing.routes):
        if fault := _fault(route, routing, number):
            field, reason = fault
            raise RoutesError(f"{file}: routes[{number}].{field}: {reason}")
    return routing


def _read(file: Path, root: str, tree: object, as_type: type[Struct]) -> Struct:
    try:
        return msgspec.convert(tree, as_type)
    except msgspec.ValidationError as error:
        # Its texts end with the place: at `$.routes[0].digest.items`.
        reason, _, place = str(error).partition(" - at ")
        place = f"{root}{place.strip('`').removeprefix('$')}".removeprefix(".") or "the file"
        raise RoutesError(f"{file}: {place}: {reason}") from error


def _fault(route: Route, routing: Routing, number: int) -> tuple[str, str] | None:
    if any(other.name == route.name for other in routing.routes[:number]):
        return "name", f"{route.name} occurs more than once"
    if unknown := sorted(set(route.targets) - set(routing.targets)):
        return "targets", f"there is no target {unknown[0]}; there are {', '.join(routing.targets) or 'none'}"
    if unknown := sorted(set(route.kinds) - KINDS):
        return "kinds", f"there is no kind {unknown[0]!r}; there are {', '.join(sorted(KINDS))}"
    if route.digest is not None and rank(route.digest.below) <= rank(route.min_severity):
        return "digest.below", f"no alert of this route is below {route.digest.below}"
    return None


def connect(routing: Routing, environment: Mapping[str, str]) -> dict[str, Apprise]:
    """What sends to each target that a route names. Nothing is sent yet.

    Raises RoutesError for a variable that is missing or holds nothing that can be sent to; its value is never
    quoted.
    """
    used = {name for route in routing.routes for name in route.targets}
    return {name: _connected(name, routing.targets[name], environment) for name in sorted(used)}


def _connected(name: str, target: Target, environment: Mapping[str, str]) -> Apprise:
    place = f"targets.{name}.url_env: {target.url_env}"
    url = environment.get(target.url_env, "").strip()
    if not url:
        raise RoutesError(f"{place} is not set")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise RoutesError(f"{place} begins with none of {', '.join(f'{s}://' for s in sorted(SCHEMES))}")
    # No pictures: receivers would load them from a host that is not ours.
    asset = AppriseAsset(
        app_id="fraudstream", app_desc="fraudstream", app_url="", image_url_mask="", image_url_logo=""
    )
    sender = Apprise(asset=asset)
    if not sender.add(url) or len(sender) == 0:
        raise RoutesError(f"{place} is no URL that apprise understands")
    return sender


def shown(sender: Apprise) -> str:
    """Where it sends to, without the secrets in the URL."""
    urls: list[str] = [plugin.url(privacy=True) for plugin in sender]  # type: ignore[no-untyped-call]
    return ", ".join(url.partition("?")[0] for url in urls)
