"""Where this process can be reached: its own listening TCP sockets."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable

__all__ = ["Address", "choose", "listening"]

Address = tuple[str, int]

DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"  # Linux; macOS


def listening() -> frozenset[Address]:
    """The addresses of the TCP sockets this process listens on, as they are bound."""
    found = set()
    for name in os.listdir(DESCRIPTORS):
        address = _address(int(name))
        if address is not None:
            found.add(address)
    return frozenset(found)


def _address(number: int) -> Address | None:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return None
        copy = os.dup(number)
    except OSError:  # closed since it was listed
        return None
    try:
        with socket.socket(fileno=copy) as sock:
            if sock.family not in {socket.AF_INET, socket.AF_INET6} or sock.type != socket.SOCK_STREAM:
                return None
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            host, port = sock.getsockname()[:2]
            return host, port
    except OSError:
        return None


def choose(found: Iterable[Address], *, of_machine: bool = False) -> Address | None:
    """The address to register of those a server is bound to; None: several ports, and no way to tell which one it is.

    Args:
        found: one at least. Several addresses with one port are one server, such as `localhost` in IPv4 and IPv6.
        of_machine: whether the registry itself knows the machine's address: a wildcard then stays one.
    """
    addresses = list(found)
    if len({port for _, port in addresses}) != 1:
        return None
    bound = [host for host, _ in addresses]
    hosts = sorted(bound if of_machine else map(reachable, bound), key=lambda host: (":" in host, host))
    return hosts[0], addresses[0][1]


def reachable(host: str) -> str:
    """The address others use for a socket bound to `host`.

    A wildcard becomes loopback: the registries that find services without being told anything are files on one machine.
    Across machines the address is said with MESHLIB_ADDRESS, for no process can know which of its addresses others see.
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is replaced, not bound
