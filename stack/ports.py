"""Whether a TCP port is free, and who has it."""

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Port:
    """A port that a program listens on, and the environment variable that changes it."""

    number: int
    variable: str


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> range:
    """Consecutive ports below the ephemeral range, so that no outgoing connection takes one in between.

    Raises OSError where there are none.
    """
    for first in range(20000 + os.getpid() % 10000, 32000, count):
        ports = range(first, first + count)
        if all(is_free(port) for port in ports):
            return ports
    raise OSError(f"no {count} consecutive ports are free")


def owner(port: int) -> psutil.Process | None:
    """The process that listens on the port; None when there is none or it is hidden from this user."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        # The address is an empty tuple only for sockets that are not bound.
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        if connection.laddr.port == port and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def describe_owner(port: int) -> str:
    """The listener's pid and command for a message."""
    process = owner(port)
    if process is None:
        return "a process that this user may not see"
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return f"pid {process.pid}"
    return f"pid {process.pid} ({command if len(command) <= 80 else command[:77] + '...'})"
