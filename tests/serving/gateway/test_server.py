"""The process as it is started: HTTPS with client certificates, its logs, its end."""

import datetime as dt
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.security.audit import verify
from stack.ports import free_ports
from tests.serving.gateway.running import NOBODY, Keys


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True)
        self._folder, self._name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._write("ca", self._certificate(name, self._key.public_key(), True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a server or client at 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._write(name, self._certificate(name, key.public_key(), False)), path

    def _certificate(self, name: str, key: ec.EllipticCurvePublicKey, is_ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        subject, issuer = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, self._name)
        )
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
            )
        )  # fmt: skip
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def context(trusted: Path, client: tuple[Path, Path] | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(trusted))
    if client is not None:
        made.load_cert_chain(*client)
    return made


@pytest.mark.stack
def test_the_gateway_over_mutual_tls(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "foreign", "foreign")
    server, client, stranger = ours.issue("server"), ours.issue("client"), foreign.issue("client")
    keys = Keys(tmp_path / "keys")
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "FRAUDSTREAM_BOOTSTRAP": NOBODY,
        "FRAUDSTREAM_REDIS_URL": "redis://127.0.0.1:1/0",
        "FRAUDSTREAM_GATEWAY_KEYS": str(keys.folder),
        "FRAUDSTREAM_GATEWAY_AUDIT": str(tmp_path / "audit.jsonl"),
    }
    command = [
        sys.executable, "-m", "cli.main", "gateway", "--port", str(port),
        "--tls-cert", str(server[0]), "--tls-key", str(server[1]), "--client-ca", str(ours.certificate),
    ]  # fmt: skip
    url = f"https://127.0.0.1:{port}"
    token = keys.token("producer")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            with httpx.Client(verify=context(ours.certificate, client), base_url=url) as ask:
                for _ in range(600):
                    try:
                        assert ask.get("/health").status_code == 200
                        break
                    except httpx.ConnectError:
                        time.sleep(0.1)
                assert ask.get("/rules", headers=token).status_code == 403
                assert "server" not in ask.get("/health").headers
            for other in (None, stranger):
                with (
                    httpx.Client(verify=context(ours.certificate, other), base_url=url) as refused,
                    pytest.raises(httpx.TransportError),
                ):
                    refused.get("/health")
        finally:
            process.terminate()
        printed, _ = process.communicate(timeout=60)
    first, *lines = printed.splitlines()
    assert first == f"{url}/openapi.json"
    logged = [json.loads(line) for line in lines]
    assert any(line.get("route") == "/rules" and line["status"] == 403 for line in logged)
    assert token["Authorization"][7:] not in printed
    assert "127.0.0.1" not in "".join(lines)
    assert verify(tmp_path / "audit.jsonl").number == 1
