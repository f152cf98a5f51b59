"""Compiled kernels are kept by the state of the sources they came from."""

import importlib.util
import shutil
from pathlib import Path

import numba
import pytest

import state

SOURCES = Path(state.__file__).parent


@pytest.fixture(autouse=True)
def _keep_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a copy of the package sets the folder of the whole process: put it back afterwards."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", vars(numba.config)["CACHE_DIR"])


def folder_of(package: Path) -> Path:
    """The kernel folder that a copy of the package chooses."""
    spec = importlib.util.spec_from_file_location("copied_state", package / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return Path(vars(numba.config)["CACHE_DIR"])


def copied(to: Path) -> Path:
    return Path(shutil.copytree(SOURCES, to, ignore=shutil.ignore_patterns("__pycache__")))


def test_the_same_sources_share_their_kernels(tmp_path: Path) -> None:
    assert folder_of(copied(tmp_path / "a")) == folder_of(copied(tmp_path / "b")) == folder_of(SOURCES)


@pytest.mark.parametrize("name", ["contract.py", "layout.py", "rings.py", "user_kernel.py"])
def test_a_change_of_any_source_means_new_kernels(tmp_path: Path, name: str) -> None:
    package = copied(tmp_path / "state")
    before = folder_of(package)
    with (package / name).open("a") as source:
        source.write("\n# changed\n")
    assert folder_of(package) != before


def test_another_numba_means_new_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder_of(SOURCES)
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert folder_of(SOURCES) != before


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert folder_of(SOURCES).parent == tmp_path
