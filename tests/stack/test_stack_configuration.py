"""The rendered configuration of every service."""

import configparser
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from stack import programs, services
from stack.errors import StackError
from stack.jobs import newest_checkpoint
from stack.people import ensure_keys, ensure_people
from stack.settings import Settings
from stack.supervise import configuration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "run", taskmanagers=2, flink_port=18081, flink_metrics_port=19249)


def _flink_yaml(settings: Settings) -> dict[str, object]:
    text = programs.flink_configuration(settings)[programs.flink_conf_dir(settings) / "config.yaml"]
    rendered = yaml.safe_load(text)
    assert isinstance(rendered, dict)
    return rendered


def test_flink_repeats_the_java_options_of_the_distribution(settings: Settings) -> None:
    distribution = yaml.safe_load((programs.pyflink_root() / "conf" / "config.yaml").read_text())

    assert _flink_yaml(settings)["env.java.opts.all"] == distribution["env"]["java"]["opts"]["all"]


def test_flink_settings_without_which_the_jobs_fail_or_crawl(settings: Settings) -> None:
    flink = _flink_yaml(settings)

    assert flink["classloader.parent-first-patterns.additional"] == "pemja."
    assert flink["taskmanager.numberOfTaskSlots"] == 1
    assert flink["execution.buffer-timeout.interval"] == "2 ms"
    assert flink["python.executable"] == flink["python.client.executable"] == sys.executable
    assert flink["rest.port"] == 18081
    assert flink["metrics.reporter.prom.port"] == "19249-19251", (
        "one for the JobManager, two for TaskManagers"
    )


def test_flink_listens_on_the_loopback_address_alone(settings: Settings) -> None:
    flink = _flink_yaml(settings)

    hosts = [key for key in flink if key.endswith(("bind-host", "bind-address", "rpc.address", ".host"))]
    assert len(hosts) >= 5
    assert {flink[key] for key in hosts} == {"127.0.0.1"}


def test_flink_keeps_its_state_inside_the_run_directory(settings: Settings) -> None:
    flink = _flink_yaml(settings)

    for key in ("execution.checkpointing.dir", "execution.checkpointing.savepoint-dir"):
        assert str(flink[key]).startswith(f"file://{settings.home}/data/")


def test_kafka_creates_no_topic_by_itself_and_listens_on_its_ports(tmp_path: Path) -> None:
    [kafka] = programs.kafka(Settings(home=tmp_path, kafka_port=19092, kafka_controller_port=19093))
    [text] = kafka.files.values()
    properties = dict(
        line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")
    )

    assert properties["auto.create.topics.enable"] == "false"
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"
    assert properties["log.dirs"] == str(tmp_path / "data" / "kafka")


def test_supervisord_starts_again_whatever_ends(settings: Settings) -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(configuration(programs.all_programs(settings), settings.home))
    sections = {name for name in parser.sections() if name.startswith("program:")}

    assert sections == {
        *("program:kafka", "program:jobmanager", "program:taskmanager-0", "program:taskmanager-1"),
        *("program:redis", "program:mongo", "program:gateway"),
    }
    for name in sections:
        assert parser[name]["autorestart"] == "true"
        assert parser[name]["killasgroup"] == "true"


def test_a_percent_sign_in_a_path_reaches_the_program(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "100%s")
    parser = configparser.RawConfigParser()
    parser.read_string(configuration(programs.redis(settings), settings.home))

    # As supervisord expands it.
    command = parser["program:redis"]["command"] % {}
    assert shlex.split(command) == ["redis-server", str(settings.home / "conf" / "redis.conf")]


def test_another_port_changes_the_program(tmp_path: Path) -> None:
    [one] = programs.redis(Settings(home=tmp_path, redis_port=16379))
    [other] = programs.redis(Settings(home=tmp_path, redis_port=16380))
    [same] = programs.redis(Settings(home=tmp_path, redis_port=16379))

    assert one.configuration_digest == same.configuration_digest != other.configuration_digest


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAUDSTREAM_HOME", str(tmp_path))
    monkeypatch.setenv("FRAUDSTREAM_KAFKA_PORT", "29092")
    monkeypatch.delenv("FRAUDSTREAM_DOWNLOADS", raising=False)
    settings = Settings()

    assert settings.kafka_bootstrap == "127.0.0.1:29092"
    assert settings.downloads == tmp_path / "downloads"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HOME", "/with a space/run", "white space"),
        ("HOME", "/" + "x" * 120, "too long for a Unix socket"),
        ("KAFKA_PORT", "70000", "less than or equal to 65535"),
        ("TASKMANAGERS", "0", "greater than or equal to 1"),
    ],
)
def test_an_unusable_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"FRAUDSTREAM_{name}", value)

    with pytest.raises(ValidationError, match=reason) as raised:
        Settings()
    assert raised.value.errors()[0]["loc"] == (name.lower(),)


def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="unknown service postgres: choose from kafka, flink, redis, mongo"):
        services.up(Settings(home=tmp_path), ["kafka", "postgres"])


def test_the_notifier_runs_where_there_are_routes_and_anew_when_they_change(settings: Settings) -> None:
    assert programs.notify(settings) == []
    settings.home.mkdir()
    settings.notify_routes.write_text("routes = []")
    [one] = programs.notify(settings)
    settings.notify_routes.write_text("routes = [1]")
    [other] = programs.notify(settings)

    assert one.configuration_digest != other.configuration_digest
    [(copy, text)] = one.files.items()
    assert str(copy) in one.command
    assert text == "routes = []"


def test_gateway_and_notifier_use_this_stack_and_no_secret_is_in_their_command(settings: Settings) -> None:
    [gateway] = programs.gateway(settings)

    assert gateway.environment["FRAUDSTREAM_BOOTSTRAP"] == settings.kafka_bootstrap
    assert gateway.environment["FRAUDSTREAM_GATEWAY_KEYS"] == str(settings.home / "gateway" / "keys")
    assert set(gateway.environment) >= {"FRAUDSTREAM_REDIS_URL", "FRAUDSTREAM_MONGO_URL"}
    assert str(settings.gateway_port) in gateway.command


def test_the_newest_complete_checkpoint_of_a_job_is_found(tmp_path: Path) -> None:
    def checkpoint(job: str, number: int, second: int, complete: bool = True) -> Path:
        folder = tmp_path / job / f"chk-{number}"
        folder.mkdir(parents=True)
        if complete:
            (folder / "_metadata").touch()
            os.utime(folder / "_metadata", (second, second))
        return folder

    checkpoint("a", 9, second=10)
    newest = checkpoint("b", 3, second=20)
    checkpoint("b", 4, second=30, complete=False)
    checkpoint("other", 1, second=40)

    assert newest_checkpoint(tmp_path, ["a", "b", "ended-before-its-first"]) == newest
    assert newest_checkpoint(tmp_path, []) is None
    assert newest_checkpoint(tmp_path / "none", ["a"]) is None


def test_keys_and_people_are_made_once_and_for_their_owner_alone(settings: Settings) -> None:
    ensure_keys(settings)
    told = ensure_people(settings)
    files = {path: path.read_bytes() for path in settings.gateway_keys.rglob("*") if path.is_file()}
    ensure_keys(settings)

    assert len(told) == 2
    assert all(re.fullmatch(r"user (admin|analyst), \1 password \S{12,}", line) for line in told)
    assert ensure_people(settings) == []
    secret = {path for path in files if path.suffix != ".pub"}
    assert len(secret) >= 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)
    assert {path: path.read_bytes() for path in files} == files
    assert not any(line.split()[-1].encode() in content for line in told for content in files.values())
