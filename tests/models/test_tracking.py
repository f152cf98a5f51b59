import sys
from pathlib import Path

import pytest

from models.tracking import TrackingError, load_mlflow, log_training
from tests.models.artefacts import constant_model, manifest_of


def test_without_mlflow_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as where it is not installed
    with pytest.raises(TrackingError, match=r"pip install 'fraudstream\[mlflow\]'"):
        load_mlflow()
    with pytest.raises(TrackingError, match="not installed"):
        log_training("file:runs", {}, manifest_of(constant_model(0.5)), tmp_path)
