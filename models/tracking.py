"""Logging of trainings to MLflow, an optional extra."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from models.artefact import Manifest


class TrackingError(Exception):
    """The training was not logged; the message says why."""


def load_mlflow() -> ModuleType:
    """The package mlflow. Raises TrackingError where it is not installed."""
    try:
        import mlflow  # noqa: PLC0415 - an extra that most do without
    except ImportError as error:
        raise TrackingError("mlflow is not installed: pip install 'fraudstream[mlflow]'") from error
    module: ModuleType = mlflow
    return module


def log_training(uri: str, parameters: Mapping[str, object], manifest: Manifest, folder: Path) -> None:
    """Log a run: the parameters, the metrics of the manifest as BLOCK.METRIC, and the folder of the artefact.

    The experiment is that of MLflow's own variable MLFLOW_EXPERIMENT_NAME. Raises TrackingError where mlflow
    is not installed or the server does not take it.
    """
    mlflow = load_mlflow()
    try:
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(run_name=manifest.model_version):
            mlflow.log_params({"source": manifest.training.source, **parameters})
            mlflow.log_metrics(_flat(manifest.metrics))
            mlflow.log_artifacts(str(folder), "artefact")
    except Exception as error:  # mlflow's own, and those of whatever client the URI leads to
        raise TrackingError(f"not logged: {error}") from error


def _flat(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """By names that MLflow allows, which knows no per cent sign."""
    named = {f"{block}.{name}": value for block, of in metrics.items() for name, value in of.items()}
    return {re.sub(r"[^\w./ -]", "_", name.replace("%", "pct")): value for name, value in named.items()}
