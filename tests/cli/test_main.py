"""The list of commands."""

import json
import subprocess
import sys

import pytest

from cli.main import COMMANDS
from state.contract import FEATURE_NAMES
from tests.cli.commands import fraudstream

NAMES = [name for panel in COMMANDS.values() for name in panel]


def test_help_lists_every_command() -> None:
    said = fraudstream("--help")

    assert said.status == 0
    assert all(name in said.text for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_under_its_own_name(name: str) -> None:
    said = fraudstream(name, "--help")

    assert said.status == 0
    assert f"fraudstream {name}" in said.text or f"root {name}" in said.text


def test_help_imports_none_of_the_heavy_packages() -> None:
    code = (
        "import sys\nfrom cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'pandas', 'numpy', 'numba', 'onnxruntime', 'confluent_kafka', 'matplotlib', 'pyflink'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [("nonsense",), ("decisions", "nonsense"), ("--nonsense",)])
def test_unknown_names_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    said = fraudstream(*arguments)

    assert said.status == 2
    assert "No such" in said.text


def test_feature_contract_as_json() -> None:
    said = fraudstream("contract", "features", "--json")

    assert [feature["name"] for feature in json.loads(said.text)["features"]] == list(FEATURE_NAMES)


def test_feature_contract_as_a_table() -> None:
    said = fraudstream("contract", "features")

    assert said.status == 0
    assert all(name in said.text for name in FEATURE_NAMES)


def test_reason_codes() -> None:
    said = json.loads(fraudstream("contract", "reasons", "--json").text)["reasons"]
    table = fraudstream("contract", "reasons")

    assert sorted(name for reason in said for name in reason["features"]) == sorted(FEATURE_NAMES)
    assert all(reason["code"] in table.text for reason in said)


def test_generated_files_are_checked() -> None:
    assert fraudstream("events", "check") == (0, "the generated files are up to date")


def test_commands_of_other_packages_are_reached() -> None:
    said = fraudstream("replay", "none.csv")
    assert said.status == 1
    assert "no such file" in said.text


def test_topics_need_a_broker() -> None:
    said = fraudstream("topics", "--timeout", "0.5")

    assert said.status == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in said.text
