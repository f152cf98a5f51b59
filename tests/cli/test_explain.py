"""`fraudstream explain` on files."""

import json
from pathlib import Path

import pytest

from models import heuristic
from models.artefact import load_model
from models.reasons import CATALOGUE
from models.scorer import Scorer
from models.signing import generate_keys
from tests.cli.commands import fraudstream, write_lines
from tests.models.small_models import UNSIGNED, write_small_artefact
from tests.models.test_explained import decided


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_artefact(tmp_path_factory.mktemp("models") / "small", {"gbt": 0.7, "net": 0.3})


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    return write_lines(tmp_path / "part-0", *decided(Scorer(load_model(folder, UNSIGNED), UNSIGNED), 20))


def test_a_decision_is_explained_by_its_transaction_or_its_id(folder: Path, file: Path) -> None:
    for option in (("--transaction", "tx-7"), ("--decision", "d-small-1-7")):
        said = fraudstream("explain", file, *option, "--allow-unsigned", "--model", folder)

        assert said.status == 0
        assert "tx-7 " in said.text
        assert "with a score of" in said.text
        assert sum(code.code in said.text for code in CATALOGUE) >= 2
        assert all(f" {row} " in said.text for row in ("net", "calibration", "base", "sum"))


def test_explanations_as_json(folder: Path, file: Path) -> None:
    said = fraudstream("explain", file, "--allow-unsigned", "--model", folder, "--json", "--limit", "20")
    explained = json.loads(said.text)

    assert [e["transaction_id"] for e in explained] == [f"tx-{i}" for i in range(20)]
    for e in explained:
        total = e["base"] + e["calibration"] + sum(e["parts"].values())
        assert total + sum(r["log_odds"] for r in e["reasons"]) == pytest.approx(e["log_odds"])
        assert e["sentence"]


def test_the_heuristic_needs_no_model(tmp_path: Path) -> None:
    said = fraudstream("explain", write_lines(tmp_path / "part-0", *decided(Scorer(None, UNSIGNED), 3)))

    assert said.status == 0
    assert heuristic.VERSION in said.text


def test_only_decisions_of_one_verdict(file: Path, folder: Path) -> None:
    shown = fraudstream(
        "explain",
        file,
        "--allow-unsigned",
        "--model",
        folder,
        "--json",
        "--limit",
        "20",
        "--verdict",
        "block",
    )
    assert {e["verdict"] for e in json.loads(shown.text)} == {"block"}

    assert "is not one of" in fraudstream("explain", file, "--verdict", "maybe").text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--transaction", "none"), "no such decision"),
        (("--allow-unsigned", "--model", "/nowhere"), "/nowhere: manifest.json is missing"),
        (("--language-model",), "FRAUDSTREAM_LLM_URL: Field required"),
    ],
)
def test_what_cannot_be_explained_is_told(
    options: tuple[str, ...], said: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("URL", "MODEL", "KEY", "TIMEOUT_S"):
        monkeypatch.delenv(f"FRAUDSTREAM_LLM_{name}", raising=False)
    shown = fraudstream("explain", file, *options)

    assert shown.status == 1
    assert said in shown.text


def test_a_model_that_nobody_signed_is_not_opened(file: Path, folder: Path, tmp_path: Path) -> None:
    generate_keys(tmp_path / "keys")
    said = fraudstream("explain", file, "--trusted-keys", tmp_path / "keys", "--model", folder)

    assert said.status == 1
    assert "there is no signature" in said.text


def test_another_model_than_the_one_that_decided(file: Path, tmp_path: Path) -> None:
    other = write_small_artefact(tmp_path / "other", {"gbt": 1.0}, version="other-1")
    said = fraudstream("explain", file, "--allow-unsigned", "--model", other)

    assert said.status == 1
    assert "decided by small-1, which is not at hand" in said.text


def test_an_endpoint_that_is_not_there_leaves_the_template(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAUDSTREAM_LLM_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("FRAUDSTREAM_LLM_MODEL", "none")
    said = fraudstream("explain", file, "--allow-unsigned", "--model", folder, "--language-model")

    assert said.status == 0
    assert "with a score of" in said.text
    assert "the language model was not used: URLError" in said.text
