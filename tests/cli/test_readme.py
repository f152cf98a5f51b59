"""The README names what there is."""

import re
from pathlib import Path

import pytest

from cli.main import COMMANDS
from flink_jobs.settings import LearningSettings, ScoringSettings
from state.contract import N_FEATURES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
FEEDBACK = (ROOT / "docs" / "feedback.md").read_text()
OPTION = re.compile(r"^\| `--([a-z-]+)` \| (.*?) \|", re.MULTILINE)


def shown(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, Path):
        return str(default.relative_to(ROOT))
    if isinstance(default, bool):
        return str(default).lower()
    return "empty" if default in ("", {}) else str(default)


def test_options_of_the_scoring_job_stand_with_their_defaults() -> None:
    assert dict(OPTION.findall(README)) == {
        name.replace("_", "-"): shown(field.default) for name, field in ScoringSettings.model_fields.items()
    }


def test_options_of_the_learning_job_stand_with_their_defaults() -> None:
    table = dict(OPTION.findall(FEEDBACK))
    (shared,) = re.findall(r"((?:`--[a-z-]+`,? (?:and )?)+)are\s+those of the scoring job", FEEDBACK)
    options = {name.replace("_", "-"): shown(f.default) for name, f in LearningSettings.model_fields.items()}

    assert table.items() <= options.items()
    assert options.keys() - table.keys() == set(re.findall(r"`--([a-z-]+)`", shared))


def test_commands_and_targets_exist() -> None:
    commands = {name for panel in COMMANDS.values() for name in panel}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"`?fraudstream ([a-z-]+)\b", README.replace("`fraudstream`", ""))) <= commands
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", re.findall(r"`((?:[a-z_-]+/)+[a-z_.-]*)`", README + FEEDBACK))
def test_paths_exist(path: str) -> None:
    assert (ROOT / path).exists() or path.startswith(".run")


def test_number_of_features() -> None:
    assert f"{N_FEATURES} behavioural features" in README
