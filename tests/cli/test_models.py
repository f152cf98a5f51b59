"""`fraudstream models`, as far as it needs no broker."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli import models
from models.artefact import MANIFEST_FILE, SIGNATURE_FILE, read_manifest
from models.signing import generate_keys, read_private_key
from serving import broker
from tests.cli.commands import Said, fraudstream
from tests.models.artefacts import TREES, write_small


class World(NamedTuple):
    """A registry with the artefacts `good` and `unsigned`, and the folder of the keys that are trusted."""

    registry: Path
    keys: Path
    private: Path

    def say(self, *arguments: str | Path) -> Said:
        command, *rest = arguments
        trust = () if command == "thresholds" else ("--trusted-keys", self.keys)
        registry = () if command in {"thresholds", "rollback"} else ("--registry", self.registry)
        return fraudstream("models", command, *trust, *registry, *rest)

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.say(*arguments, "--json").text)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(broker, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(models, "GLANCE_S", 0.3)
    private, public = generate_keys(tmp_path / "keys")
    public.rename(public.with_stem("release"))
    registry = tmp_path / "registry"
    write_small(registry / "good", read_private_key(private), model_version="gbt-good")
    write_small(registry / "unsigned", None, model_version="gbt-unsigned")
    return World(registry, tmp_path / "keys", private)


def test_list_without_a_broker(world: World) -> None:
    said = world.say("list")
    assert said.status == 0
    assert "gbt-good" in said.text
    assert "release" in said.text
    assert f"{world.registry / 'unsigned'}: manifest.sig: there is no signature" in said.text
    assert "what is promoted cannot be told: no Kafka broker answers" in said.text


def test_list_as_json(world: World) -> None:
    listing = world.json("list")
    assert listing["promoted"] is None
    assert "no Kafka broker answers" in listing["unknown"]
    found = {Path(a["folder"]).name: a for a in listing["artefacts"]}
    assert found["good"]["signed_by"] == "release"
    assert found["good"]["manifest"]["model_version"] == "gbt-good"
    assert found["unsigned"]["signed_by"] is None
    assert "no signature" in found["unsigned"]["problem"]


@pytest.mark.parametrize("name", ["gbt-good", "good"])
def test_show(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.registry)
    said = world.say("show", name)
    assert said.status == 0
    for told in (
        "gbt-good",
        "signed by release",
        "trees",
        TREES,
        "auc_roc 0.9000",
        "review from 0.4",
        "4,000",
    ):
        assert told in said.text


def test_card(world: World) -> None:
    said = world.say("card", "gbt-good")
    assert said.status == 0
    assert "# Model card: gbt-good" in said.text
    assert "| trees |" in said.text


def test_show_what_is_refused(world: World) -> None:
    said = world.say("show", "gbt-unsigned")
    assert said.status == 0
    assert "refused manifest.sig: there is no signature" in said.text
    shown = world.json("show", "gbt-unsigned")
    assert "no signature" in shown["problem"]
    assert shown["manifest"]["model_version"] == "gbt-unsigned"


def test_show_what_cannot_be_read(world: World) -> None:
    (world.registry / "good" / MANIFEST_FILE).write_text('{"\x1b[2J": 1}')
    said = world.say("show", world.registry / "good")
    assert said.status == 1
    assert "malformed" in said.text
    assert "\x1b" not in said.text


def test_verify(world: World) -> None:
    assert world.say("verify", "gbt-good") == (0, "gbt-good: good, signed by release")
    said = world.say("verify", "gbt-unsigned", "--allow-unsigned")
    assert said == (0, "gbt-unsigned: good, not signed")
    assert world.json("verify", "gbt-good") == {
        "folder": str(world.registry / "good"),
        "good": True,
        "reason": None,
        "model_version": "gbt-good",
        "signed_by": "release",
    }


def spoil_model(folder: Path) -> None:
    (folder / TREES).write_bytes(b"spoilt")


def spoil_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_bytes((folder / MANIFEST_FILE).read_bytes().replace(b"4000", b"4001"))


def remove_signature(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()


def add_a_file(folder: Path) -> None:
    (folder / "weights.bin").touch()


def remove_model(folder: Path) -> None:
    (folder / TREES).unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_model, "SHA-256"),
        (spoil_manifest, "this is not what release signed"),
        (remove_signature, "there is no signature"),
        (add_a_file, "does not name 'weights.bin'"),
        (remove_model, "trees.onnx is missing"),
    ],
)
def test_what_does_not_verify_is_not_promoted(world: World, spoil: Any, reason: str) -> None:
    spoil(world.registry / "good")
    folder = world.registry / "good"
    for command in ("verify", "promote"):
        said = world.say(command, folder)
        assert said.status == 1
        assert reason in said.text
    said = world.say("verify", folder, "--json")
    assert said.status == 1
    told = json.loads(said.text)
    assert (told["good"], told["model_version"], told["signed_by"]) == (False, None, None)
    assert reason in told["reason"]


def test_what_is_good_gets_as_far_as_the_broker(world: World) -> None:
    for arguments in (("promote", "gbt-good"), ("rollback",), ("thresholds", "0.1,0.9")):
        said = world.say(*arguments)
        assert said.status == 1
        assert "no Kafka broker answers at 127.0.0.1:1" in said.text


@pytest.mark.parametrize("command", ["list", "show", "verify", "promote", "rollback"])
def test_trusted_keys_are_needed(world: World, command: str) -> None:
    for path in world.keys.glob("*.pub"):
        path.unlink()
    name = () if command in {"list", "rollback"} else ("gbt-good",)
    said = world.say(command, *name)
    assert said.status == 1
    assert "there are no trusted keys" in said.text


def test_names_that_stand_for_nothing(world: World) -> None:
    assert "no such folder, and no such version" in world.say("verify", "gbt-none").text
    assert "No such file" in world.say("list", "--registry", world.registry / "none").text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either"),
        (("0.1,0.9", "--remove"), "give either"),
        (("0.5",), "is not REVIEW,BLOCK"),
        (("a,b",), "is not REVIEW,BLOCK"),
        (("0.9,0.1",), "review must not exceed block"),
        (("0.5,1.5",), "<= 1.0"),
        (("nan,1",), "REVIEW,BLOCK"),
        (("0.1,0.9", "--by", "a b"), "issued_by"),
        (("0.1,0.9", "--kafka-set", "x"), "is not NAME=VALUE"),
        (("0.1,0.9", "--kafka-set", "no.such=1"), "Kafka: No such configuration property"),
    ],
)
def test_thresholds_that_are_no_good_are_not_sent(arguments: tuple[str, ...], said: str) -> None:
    answer = fraudstream("models", "thresholds", *arguments)
    assert answer.status == 1
    assert said in answer.text


def test_keygen_and_sign(world: World, tmp_path: Path) -> None:
    said = fraudstream("models", "keygen", "--out", tmp_path / "mine")
    assert said.status == 0
    (private,) = (tmp_path / "mine").glob("*.key")
    assert private.stat().st_mode & 0o777 == 0o600

    folder = world.registry / "unsigned"
    assert fraudstream("models", "sign", folder, "--key", private) == (0, "gbt-unsigned: signed")
    assert "not among the trusted keys" in world.say("verify", folder).text
    for public in (tmp_path / "mine").glob("*.pub"):
        public.rename(world.keys / "mine.pub")
    assert world.say("verify", folder) == (0, "gbt-unsigned: good, signed by mine")


def test_what_is_not_signed(world: World, tmp_path: Path) -> None:
    folder = world.registry / "unsigned"
    assert "No such file" in fraudstream("models", "sign", folder, "--key", tmp_path / "none").text
    (folder / TREES).write_bytes(b"spoilt")
    said = fraudstream("models", "sign", folder, "--key", world.private)
    assert said.status == 1
    assert "not signed: trees.onnx: SHA-256" in said.text
    assert not (folder / SIGNATURE_FILE).exists()


def test_the_key_of_another_is_no_excuse(world: World) -> None:
    folder = write_small(
        world.registry / "strange", Ed25519PrivateKey.generate(), model_version="gbt-strange"
    )
    for trust in ((), ("--allow-unsigned",)):
        said = world.say("promote", folder, *trust)
        assert said.status == 1
        assert "not among the trusted keys" in said.text
    assert read_manifest(folder).model_version == "gbt-strange"
