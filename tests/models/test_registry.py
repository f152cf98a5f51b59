import shutil
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from events.control import MAX_PREVIOUS, ModelUpdate
from models.artefact import MANIFEST_FILE, SIGNATURE_FILE, ModelRefusedError
from models.registry import RegistryError, entries, entry, find, promotion, rollback, verify
from models.signing import Keyring
from tests.models.artefacts import TREES, write_small

NOW = 1_790_000_000_000


@pytest.fixture
def registry(tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    """Three good artefacts, `b` the newest."""
    for name, day in (("a", 1), ("b", 3), ("c", 2)):
        write_small(
            tmp_path / "registry" / name,
            key,
            model_version=f"gbt-{name}",
            created_at=f"2026-11-0{day}T00:00:00+00:00",
        )
    return tmp_path / "registry"


def promoted(*names: str) -> ModelUpdate:
    """What the topic holds after promoting artefacts one after the other."""
    current = None
    for name in names:
        current = promotion(Path("/models") / name, current, NOW, "tester")
    assert current is not None
    return current


def test_artefacts_are_listed_the_newest_first(registry: Path, keyring: Keyring) -> None:
    (registry / ".c-draft").mkdir()
    (registry / "notes.txt").touch()
    found = entries(registry, keyring)
    assert [e.folder.name for e in found] == ["b", "c", "a"]
    assert all(e.signed_by == "tester" and e.problem is None for e in found)


def test_what_is_wrong_is_listed_with_the_reason(registry: Path, keyring: Keyring) -> None:
    (registry / "a" / MANIFEST_FILE).write_bytes(b"{")
    (registry / "b" / SIGNATURE_FILE).unlink()
    (registry / "empty").mkdir()
    found = {e.folder.name: e for e in entries(registry, keyring)}
    assert found["a"].manifest is None
    assert "malformed" in str(found["a"].problem)
    assert found["b"].manifest is not None
    assert "no signature" in str(found["b"].problem)
    assert "is missing" in str(found["empty"].problem)
    assert found["c"].problem is None


def test_artefact_of_another_contract(registry: Path, keyring: Keyring) -> None:
    manifest = entry(registry / "a", keyring).manifest
    assert manifest is not None
    other = msgspec.structs.replace(manifest, contract_version=99)
    (registry / "a" / MANIFEST_FILE).write_bytes(msgspec.json.encode(other))
    (registry / "a" / SIGNATURE_FILE).unlink()
    assert "contract 99" in str(entry(registry / "a", Keyring({}, allow_unsigned=True)).problem)


def test_registry_that_is_none(tmp_path: Path, keyring: Keyring) -> None:
    with pytest.raises(RegistryError, match="No such file"):
        entries(tmp_path / "nowhere", keyring)


def test_an_artefact_is_found_by_version_or_folder(registry: Path, keyring: Keyring) -> None:
    assert find(registry, "gbt-c", keyring) == registry / "c"
    assert find(registry, str(registry / "a"), keyring) == registry / "a"
    with pytest.raises(RegistryError, match="no such version"):
        find(registry, "gbt-z", keyring)


def test_nobody_takes_a_version_from_who_signed_it(registry: Path, keyring: Keyring) -> None:
    shutil.copytree(registry / "c", registry / "impostor")
    with pytest.raises(RegistryError, match="several artefacts have this version: c, impostor"):
        find(registry, "gbt-c", keyring)
    (registry / "impostor" / SIGNATURE_FILE).unlink()
    assert find(registry, "gbt-c", keyring) == registry / "c"


def test_verified_artefact(registry: Path, keyring: Keyring) -> None:
    manifest, signed_by = verify(registry / "a", keyring)
    assert (manifest.model_version, signed_by) == ("gbt-a", "tester")


def test_files_that_nobody_signed_are_refused(registry: Path, keyring: Keyring) -> None:
    (registry / "a" / "weights.bin").touch()
    with pytest.raises(ModelRefusedError, match=r"manifest\.json does not name 'weights\.bin'"):
        verify(registry / "a", keyring)


def test_spoilt_artefact_is_not_verified(registry: Path, keyring: Keyring) -> None:
    (registry / "a" / TREES).write_bytes(b"spoilt")
    assert entry(registry / "a", keyring).problem is None, "the list opens no models"
    with pytest.raises(ModelRefusedError, match="SHA-256"):
        verify(registry / "a", keyring)


def test_promotion_remembers_what_it_took_the_place_of() -> None:
    assert promoted("a").previous == []
    assert promoted("a", "b").previous == ["/models/a"]
    assert promoted("a", "b", "c").previous == ["/models/b", "/models/a"]
    assert promoted("a", "b", "c").artefact == "/models/c"


def test_what_is_promoted_again_keeps_its_past() -> None:
    assert promoted("a", "b", "b").previous == ["/models/a"]
    assert promoted("a", "b", "a").previous == ["/models/b", "/models/a"]


def test_the_past_has_an_end() -> None:
    names = [f"m{n}" for n in range(3 * MAX_PREVIOUS)]
    update = promoted(*names)
    assert update.previous == [f"/models/{name}" for name in names[-2 : -2 - MAX_PREVIOUS : -1]]
    assert msgspec.json.decode(msgspec.json.encode(update), type=ModelUpdate) == update


def test_each_rollback_goes_a_step_further_back() -> None:
    once = rollback(promoted("a", "b", "c"), NOW, "tester")
    assert (once.artefact, once.previous) == ("/models/b", ["/models/a"])
    twice = rollback(once, NOW, "tester")
    assert (twice.artefact, twice.previous) == ("/models/a", [])
    with pytest.raises(RegistryError, match="no artefact was promoted before"):
        rollback(twice, NOW, "tester")


def test_promotion_after_a_rollback_forgets_what_was_rolled_back() -> None:
    back = rollback(promoted("a", "b"), NOW, "tester")
    assert promotion(Path("/models/c"), back, NOW, "tester").previous == ["/models/a"]


def test_nothing_to_roll_back_to() -> None:
    for current in (None, promoted("a")):
        with pytest.raises(RegistryError, match="no artefact was promoted before"):
            rollback(current, NOW, "tester")
