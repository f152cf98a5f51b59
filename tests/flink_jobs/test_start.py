"""What the scoring job refuses before it starts anything."""

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.signing import generate_keys, read_private_key
from tests.models.artefacts import TREES, write_small

JOB = Path(__file__).resolve().parents[2] / "flink_jobs" / "scoring.py"


def start(*options: str | Path) -> str:
    """What the job says as it ends with status 1."""
    done = subprocess.run(
        [sys.executable, str(JOB), *map(str, options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


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
