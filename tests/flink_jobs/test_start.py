"""What the jobs refuse before they start anything."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.signing import generate_keys, read_private_key
from serving.security.personal import PSEUDONYM_FILE, new_secrets
from tests.models.artefacts import TREES, write_small

JOBS = Path(__file__).resolve().parents[2] / "flink_jobs"


def start(*options: str | Path, job: str = "scoring") -> str:
    """What the job says as it ends with status 1."""
    done = subprocess.run(
        [sys.executable, str(JOBS / f"{job}.py"), *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_a_job_starts_with_nothing_that_nobody_trusted_signed(tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path / "keys")
    key = read_private_key(private)
    strange = write_small(tmp_path / "strange", Ed25519PrivateKey.generate())
    spoilt = write_small(tmp_path / "spoilt", key)
    (spoilt / TREES).write_bytes(b"spoilt")
    trust = ("--trusted-keys", tmp_path / "keys")

    assert "not among the trusted keys" in start(*trust, "--model", strange)
    assert "SHA-256" in start(*trust, "--model", spoilt)
    assert "there are no trusted keys" in start("--trusted-keys", tmp_path, "--model", "")


def test_the_serving_job_does_not_start_without_the_secrets_that_hide_people(tmp_path: Path) -> None:
    assert "there is no seal-*.secret; `fraudstream keys init`" in start(
        "--gateway-keys", tmp_path, job="serving"
    )
    new_secrets(tmp_path)
    (tmp_path / PSEUDONYM_FILE).unlink()
    assert PSEUDONYM_FILE in start("--gateway-keys", tmp_path, job="serving")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--width", "3"), "width (3) must divide shards (2)"),
        (("--bounded", "--width", "2"), "a bounded run has one shard, so its width is 1"),
        (("--keep-floor", "1.5"), "keep_floor"),
        (("--waiting-hours", "-1"), "waiting_hours"),
        (("--kafka-properties", "x"), "NAME=VALUE"),
        (("--state-backend", "disk"), "state_backend"),
    ],
)
def test_options_of_the_learning_job_that_are_no_good(options: tuple[str, ...], said: str) -> None:
    assert said in start(*options, job="learning")
