"""What runs: the programs of every service, with their configuration files, as plain values."""

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Template

from stack import health
from stack.errors import StackError
from stack.ports import Port
from stack.settings import CHECKOUT, Settings

FLINK_CONF = CHECKOUT / "flink-conf"
_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Program:
    """One process that supervisord keeps running."""

    name: str
    service: str
    command: tuple[str, ...]
    ports: tuple[Port, ...]
    check: health.Check
    files: Mapping[Path, str]
    """Configuration files that must be written before the start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[Path, ...] = ()
    working_directory: Path = CHECKOUT
    stop_seconds: int = 15

    @property
    def configuration_digest(self) -> str:
        """Changes whenever a configuration file does, so that a running program is started again."""
        content = "\0".join(f"{path}\0{text}" for path, text in sorted(self.files.items()))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def kafka(settings: Settings) -> list[Program]:
    data = settings.home / "data" / "kafka"
    properties = settings.home / "conf" / "kafka.properties"
    return [
        Program(
            name="kafka",
            service="kafka",
            command=(
                *("java", "-Xms256m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
                *("-cp", f"{kafka_jars(settings)}/*", "kafka.Kafka", str(properties)),
            ),
            ports=(
                Port(settings.kafka_port, "FRAUDSTREAM_KAFKA_PORT"),
                Port(settings.kafka_controller_port, "FRAUDSTREAM_KAFKA_CONTROLLER_PORT"),
            ),
            check=partial(health.kafka, settings.kafka_bootstrap),
            files={
                properties: _render(
                    _TEMPLATES / "kafka.properties",
                    port=settings.kafka_port,
                    controller_port=settings.kafka_controller_port,
                    data_dir=data,
                )
            },
            directories=(data,),
            stop_seconds=30,
        )
    ]


def redis(settings: Settings) -> list[Program]:
    data = settings.home / "data" / "redis"
    conf = settings.home / "conf" / "redis.conf"
    return [
        Program(
            name="redis",
            service="redis",
            command=("redis-server", str(conf)),
            ports=(Port(settings.redis_port, "FRAUDSTREAM_REDIS_PORT"),),
            check=partial(health.redis_server, settings.redis_port),
            files={conf: _render(_TEMPLATES / "redis.conf", port=settings.redis_port, data_dir=data)},
            directories=(data,),
        )
    ]


def mongo(settings: Settings) -> list[Program]:
    mongod = shutil.which("mongod")
    # The two keep their data in different formats.
    data = settings.home / "data" / ("mongod" if mongod else "ferretdb")
    port = str(settings.mongo_port)
    command = (
        (mongod, "--bind_ip", "127.0.0.1", "--port", port, "--dbpath", str(data), "--quiet")
        if mongod
        else (str(ferretdb_binary(settings)), "-addr", f"127.0.0.1:{port}", "-dir", str(data))
    )
    return [
        Program(
            name="mongo",
            service="mongo",
            command=command,
            ports=(Port(settings.mongo_port, "FRAUDSTREAM_MONGO_PORT"),),
            check=partial(health.mongo, settings.mongo_url),
            files={},
            directories=(data,),
        )
    ]


def flink(settings: Settings) -> list[Program]:
    files = flink_configuration(settings)
    directories = tuple(flink_directories(settings).values())
    environment = flink_environment(settings) | {
        # The console would repeat the log file; with this the web UI shows what the processes print.
        "STD_REDIRECT_TO_FILE": "true",
    }
    jobmanager = Program(
        name="jobmanager",
        service="flink",
        command=(str(pyflink_root() / "bin" / "jobmanager.sh"), "start-foreground"),
        ports=(
            Port(settings.flink_port, "FRAUDSTREAM_FLINK_PORT"),
            Port(settings.flink_rpc_port, "FRAUDSTREAM_FLINK_RPC_PORT"),
            *(Port(number, "FRAUDSTREAM_FLINK_METRICS_PORT") for number in _metrics_ports(settings)),
        ),
        check=partial(health.jobmanager, settings.flink_url),
        files=files,
        # Log files carry this name.
        environment=environment | {"FLINK_IDENT_STRING": "jobmanager"},
        directories=directories,
    )
    return [jobmanager, *(_taskmanager(settings, jobmanager, i) for i in range(settings.taskmanagers))]


def _taskmanager(settings: Settings, jobmanager: Program, index: int) -> Program:
    name = f"taskmanager-{index}"
    return Program(
        name=name,
        service="flink",
        command=(
            str(pyflink_root() / "bin" / "taskmanager.sh"),
            "start-foreground",
            # A name that outlives the process: when the next one registers under it, the
            # JobManager drops the dead one without waiting for heartbeats.
            f"-Dtaskmanager.resource-id={name}",
        ),
        ports=(),
        check=partial(health.taskmanager, settings.flink_url, name),
        files=jobmanager.files,
        environment={
            **jobmanager.environment,
            "FLINK_IDENT_STRING": name,
            # The slots are the parallelism: threads of numerical libraries would only compete.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "NUMBA_CACHE_DIR": str(settings.home / "numba"),
        },
        directories=(settings.home / "numba",),
    )


def gateway(settings: Settings) -> list[Program]:
    return [
        Program(
            name="gateway",
            service="gateway",
            command=(sys.executable, "-m", "cli.main", "gateway", "--port", str(settings.gateway_port)),
            ports=(Port(settings.gateway_port, "FRAUDSTREAM_GATEWAY_PORT"),),
            check=partial(health.gateway, settings.gateway_url),
            files={},
            environment={
                **client_environment(settings),
                "FRAUDSTREAM_GATEWAY_AUDIT": str(settings.home / "gateway" / "audit.jsonl"),
            },
            directories=(settings.home / "gateway",),
            # Requests under way may take 15.
            stop_seconds=25,
        )
    ]


def notify(settings: Settings) -> list[Program]:
    """Only where there are routes. Their targets' variables are those of the shell that started the stack."""
    if not settings.notify_routes.exists():
        return []
    port = settings.notify_metrics_port
    routes = settings.home / "conf" / "routes.toml"
    return [
        Program(
            name="notify",
            service="notify",
            command=(
                *(sys.executable, "-m", "cli.main", "notify", "--metrics-port", str(port)),
                *("--routes", str(routes), "--state", str(settings.home / "data" / "notify")),
            ),
            ports=(Port(port, "FRAUDSTREAM_NOTIFY_METRICS_PORT"),),
            check=partial(health.metrics, f"http://127.0.0.1:{port}/metrics"),
            # A copy: with other routes it is started again.
            files={routes: settings.notify_routes.read_text()},
            environment=client_environment(settings),
            stop_seconds=25,
        )
    ]


SERVICES: Mapping[str, Callable[[Settings], list[Program]]] = {
    "kafka": kafka,
    "flink": flink,
    "redis": redis,
    "mongo": mongo,
    "gateway": gateway,
    "notify": notify,
}


def all_programs(settings: Settings) -> list[Program]:
    """The programs of every service, in the order in which they start."""
    return [program for programs_of in SERVICES.values() for program in programs_of(settings)]


def flink_configuration(settings: Settings) -> dict[Path, str]:
    """The files of FLINK_CONF_DIR: the rendered config.yaml and the distribution's log settings."""
    conf = flink_conf_dir(settings)
    directories = flink_directories(settings)
    metrics = _metrics_ports(settings)
    log_settings = {
        conf / path.name: path.read_text()
        for pattern in ("log4j*.properties", "logback*.xml")
        for path in (pyflink_root() / "conf").glob(pattern)
    }
    return log_settings | {
        conf / "config.yaml": _render(
            FLINK_CONF / "config.yaml",
            python=sys.executable,
            taskmanager_memory=settings.taskmanager_memory_mb,
            managed_fraction=settings.managed_memory_fraction,
            rest_port=settings.flink_port,
            rpc_port=settings.flink_rpc_port,
            metrics_ports=f"{metrics[0]}-{metrics[-1]}",
            log_dir=directories["logs"],
            run_dir=directories["run"],
            tmp_dir=directories["tmp"],
            checkpoint_uri=directories["checkpoints"].as_uri(),
            savepoint_uri=directories["savepoints"].as_uri(),
        )
    }


def client_environment(settings: Settings) -> dict[str, str]:
    """Variables with which commands, jobs and the gateway use this stack."""
    return {
        "FRAUDSTREAM_BOOTSTRAP": settings.kafka_bootstrap,
        "FRAUDSTREAM_REDIS_URL": settings.redis_url,
        "FRAUDSTREAM_MONGO_URL": settings.mongo_url,
        "FRAUDSTREAM_GATEWAY_KEYS": str(settings.gateway_keys),
    }


def flink_environment(settings: Settings) -> dict[str, str]:
    """Variables with which Flink's own scripts, ``flink run`` among them, use this stack."""
    return {
        "FLINK_HOME": str(pyflink_root()),
        "FLINK_CONF_DIR": str(flink_conf_dir(settings)),
        "FLINK_LIB_DIR": str(flink_lib_dir(settings)),
    }


def flink_conf_dir(settings: Settings) -> Path:
    return settings.home / "conf" / "flink"


def flink_lib_dir(settings: Settings) -> Path:
    return settings.home / "flink" / "lib"


def flink_directories(settings: Settings) -> dict[str, Path]:
    return {
        "logs": settings.home / "logs",
        "run": settings.home / "flink" / "run",
        "tmp": settings.home / "flink" / "tmp",
        "checkpoints": settings.home / "data" / "flink" / "checkpoints",
        "savepoints": settings.home / "data" / "flink" / "savepoints",
    }


def pyflink_root() -> Path:
    """The Flink distribution inside the apache-flink Python package, found without importing it."""
    spec = importlib.util.find_spec("pyflink")
    if spec is None or spec.origin is None:
        raise StackError("the Python package apache-flink is not installed in this environment")
    return Path(spec.origin).parent


def kafka_jars(settings: Settings) -> Path:
    return _pinned_by(settings, "kafka", FLINK_CONF / "kafka-pom.xml")


def connector_jars(settings: Settings) -> Path:
    return _pinned_by(settings, "flink-connectors", FLINK_CONF / "pom.xml")


def ferretdb_binary(settings: Settings) -> Path:
    module = _TEMPLATES / "mongo"
    return _pinned_by(settings, "ferretdb", module / "go.sum", module / "main.go") / "ferretdb"


def _pinned_by(settings: Settings, name: str, *pins: Path) -> Path:
    """Where what these files pin is kept: another version gets another directory."""
    content = b"".join(pin.read_bytes() for pin in pins)
    return settings.downloads / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def _metrics_ports(settings: Settings) -> range:
    return range(settings.flink_metrics_port, settings.flink_metrics_port + settings.taskmanagers + 1)


def _render(template: Path, **values: object) -> str:
    return Template(template.read_text()).substitute({name: str(value) for name, value in values.items()})
