"""A real Redis for tests, and the ways in which it ends and comes back.

with contextlib.closing(RedisServer(part("redis"), tmp_path)) as redis:
    redis.start()
    mesh = Mesh(limits=redis.url)
    redis.kill()                    # SIGKILL; also pause and resume
    redis.start()                   # on the same port, with nothing in it
"""

from __future__ import annotations

import atexit
import signal
import socket
import subprocess
from pathlib import Path

from tests.support import eventually
from tests.support.parts import stopped
from tests.support.ports import LOOPBACK, PortBlock

__all__ = ["RedisServer"]

STARTUP = 30.0  # seconds a start may take on a busy machine
ASKING = 10.0


class RedisServer:
    """One server in a process of its own, which keeps nothing on disk. What it writes is in `log`.

    Args:
        binary: the program.
        folder: for its log and its socket.
        password: without which it does nothing, "" for none.
        certificate: a file with its certificate and key, with which it takes TLS on `tls_port`; None: it takes none.
    """

    def __init__(self, binary: Path, folder: Path, *, password: str = "", certificate: Path | None = None) -> None:
        self.log = folder / "redis.log"
        self.socket = folder / "redis.sock"
        self._binary = binary
        self._folder = folder
        self._password = password
        self._certificate = certificate
        self._block = PortBlock(2)
        self.port, self.tls_port = self._block.ports
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `MESHLIB_LIMITS` is for it."""
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start its process, empty, and wait until it answers."""
        assert self._process is None, "it runs already"
        more = ["--requirepass", self._password] if self._password else []
        if (file := self._certificate) is not None:
            more += ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no"]
            more += ["--tls-cert-file", str(file), "--tls-key-file", str(file), "--tls-ca-cert-file", str(file)]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    self._binary, "--bind", LOOPBACK, "--port", str(self.port), "--unixsocket", self.socket,
                    "--save", "", "--dir", self._folder, *more,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        atexit.register(self._process.kill)
        eventually(self._is_ready, STARTUP)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text("utf-8", "replace")[-4000:]
        try:
            return self.ask("PING") == b"+PONG"
        except OSError:
            return False

    def ask(self, *words: str) -> bytes:
        """The first line it answers to a command."""
        with socket.create_connection((LOOPBACK, self.port), ASKING) as connection:
            if self._password:
                _say(connection, "AUTH", self._password)
            return _say(connection, *words)

    def keys(self) -> int:
        """How many keys it holds."""
        return int(self.ask("DBSIZE").removeprefix(b":"))

    def kill(self) -> None:
        """SIGKILL: what it held is gone."""
        process = self._running()
        process.kill()
        process.wait(ASKING)
        atexit.unregister(process.kill)
        self._process = None

    def pause(self) -> None:
        """SIGSTOP: it takes connections, and nothing answers."""
        stopped(self._running())

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it if it runs, and give its port back."""
        if self._process is not None:
            self.kill()
        self._block.close()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it doesn't run"
        return self._process


def _say(connection: socket.socket, *words: str) -> bytes:
    parts = [word.encode() for word in words]
    connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    with connection.makefile("rb") as answers:
        return answers.readline().rstrip()
