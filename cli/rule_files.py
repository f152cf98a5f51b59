"""Rules as people write them: files of YAML or JSON with one rule or a list of them."""

import json
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import yaml

from cli.terminal import UserError, printable
from events.control import Condition, ListField, Rule
from serving.control import checked
from serving.errors import ControlError


class Draft(NamedTuple):
    """A rule as it stands in a file, not yet checked; `place` tells where."""

    place: str
    members: dict[str, Any]

    def rule(self, version: int) -> Rule:
        """The rule, with this version where the file gives none.

        Raises UserError where it is no record of the contract, with names near those that are misspelt.
        """
        members = {"version": version} | self.members
        try:
            _check_names(members, Rule.__struct_fields__)
            for number, condition in _conditions(members):
                _check_names(condition, Condition.__struct_fields__)
                if isinstance(condition.get("field"), str):
                    _check_names([condition["field"]], get_args(ListField))
                _check_quotes(f"all[{number}].values", condition.get("values"))
            return checked(msgspec.json.encode(members), Rule)
        except (
            UserError,
            ControlError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:  # JSON cannot hold everything
            raise UserError(f"{self.place}: {printable(str(error))}") from error


class _Loader(yaml.SafeLoader):
    """YAML with the types of JSON: the country NO is no boolean, 2026-12-31 no date, 0123 no number.

    Neither repeated keys nor aliases: the one would hide what was written, the other could grow without end.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = [(self.construct_object(k, deep=True), self.construct_object(v, deep)) for k, v in node.value]
        return _without_repeats(pairs)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(?:null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^-?(?:0|[1-9][0-9]*)$"), list("-0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"),
    list("-0123456789"),
)


def drafts(file: Path) -> list[Draft]:
    """The rules in a file, or of standard input for -.

    Raises UserError where it cannot be read, holds anything else, or one rule twice.
    """
    try:
        text = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode()
        document = _document(text)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{file}: {printable(' '.join(str(error).split()))}") from error
    rules = document if isinstance(document, list) else [document]
    if not rules or not all(isinstance(members, dict) for members in rules):
        raise UserError(f"{file}: neither a rule nor a list of rules")
    found = [
        Draft(f"{file}: {printable(str(members.get('rule_id', f'rule {i}')))}", members)
        for i, members in enumerate(rules, 1)
    ]
    seen: set[str] = set()
    for draft in found:
        rule_id = str(draft.members.get("rule_id"))
        if rule_id in seen:
            raise UserError(f"{draft.place}: occurs more than once")
        seen.add(rule_id)
    return found


def _document(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader


def _without_repeats(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no name")  # noqa: TRY004 - one error for all that a file gets wrong
        if name in members:
            raise ValueError(f"{name} occurs more than once")
        members[name] = value
    return members


def _conditions(members: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    found = members.get("all")
    return [(i, c) for i, c in enumerate(found) if isinstance(c, dict)] if isinstance(found, list) else []


def _check_names(names: Iterable[Any], known: tuple[str, ...]) -> None:
    """Raises UserError for a name that is not known, with what is near."""
    for name in names:
        if name not in known:
            near = get_close_matches(str(name), known)
            told = f"near are {', '.join(near)}" if near else f"there are {', '.join(known)}"
            raise UserError(f"unknown name {printable(str(name))}; {told}")


def _check_quotes(place: str, values: Any) -> None:
    """Raises UserError for an id that YAML takes for a number or a boolean."""
    for value in values if isinstance(values, list) else ():
        if isinstance(value, int | float):
            raise UserError(f"{place}: {json.dumps(value)} stands without quotes")
