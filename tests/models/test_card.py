from models.artefact import PartManifest
from models.card import card
from tests.models.artefacts import IDENTITY, TREES, constant_model, manifest_of


def test_a_card_says_what_the_manifest_says() -> None:
    manifest = manifest_of(constant_model(0.1))
    told = card(manifest)
    for fact in ("gbt-test", "4,000", "500 are frauds", "7 days", "0.9000", "From 0.4 on"):
        assert fact in told


def test_every_part_is_listed_with_what_it_is_worth_alone() -> None:
    parts = {"gbt": PartManifest(TREES, 0.75, IDENTITY), "forest": PartManifest("f.onnx", 0.25, IDENTITY)}
    figures = {"test": {"auc_roc": 0.9}, "test_gbt": {"auc_roc": 0.8}}
    manifest = manifest_of(
        constant_model(0.1), parts=parts, files={TREES: "0" * 64, "f.onnx": "1" * 64}, metrics=figures
    )
    told = card(manifest)
    assert "| forest | isolation forest" in told
    assert "| gbt alone | 0.8000 |" in told
    assert "forest alone" not in told  # it was not measured


def test_tables_are_whole() -> None:
    rows = [line for line in card(manifest_of(constant_model(0.1))).splitlines() if line.startswith("|")]
    assert rows
    assert all(line.endswith("|") for line in rows)
