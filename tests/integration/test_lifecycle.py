"""The life of a process: servers that fork, children, threads, signals, and ends of every kind."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import meshlib
from meshlib.registries import open_registry
from tests.integration.workers.fleet import WORKERS, Fleet, environment, fleet_in
from tests.support import eventually

PATIENCE = 30.0
ENDS_WITHIN = 3.0  # seconds from a script's last line to the end of its process


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Give a fleet of one instance, `reviews`, which answers with `v1`."""
    with fleet_in(tmp_path) as started:
        started.start("v1")
        yield started
    while programs:
        programs.pop().give_up()


programs: list[Program] = []


class Program:
    """A Python process in the mesh of a fleet. What it writes to stderr is in `errors` once it has ended."""

    def __init__(self, fleet: Fleet, *arguments: str, **variables: str) -> None:
        variables |= {"MESHLIB_REGISTRY": fleet.url, "MESHLIB_STATE_DIR": str(fleet.state_dir)}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(**variables),
            cwd=WORKERS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""
        programs.append(self)

    def give_up(self) -> None:
        """End it if a test that failed has left it behind."""
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait()

    def line(self) -> str:
        """The next line it writes; "" when it hasn't within a fair time, and then it is killed."""
        assert self.process.stdout is not None
        impatient = threading.Timer(PATIENCE, self.process.kill)
        impatient.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            impatient.cancel()
            impatient.join()

    def end(self, text: str = "") -> str:
        """Give it `text` and the end of its input; what it has written when it has ended."""
        try:
            said, self.errors = self.process.communicate(text, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return said

    @property
    def status(self) -> int | None:
        return self.process.returncode


def script(fleet: Fleet, text: str, *flags: str, **variables: str) -> Program:
    """Start a program whose text is given."""
    path = fleet.state_dir.with_name("script.py")
    path.write_text(text)
    return Program(fleet, *flags, str(path), **variables)


def registered(fleet: Fleet, service: str) -> list[int]:
    """The ports at which a service is registered now."""

    async def read() -> list[int]:
        registry = open_registry(fleet.url)
        try:
            return [one.port for one in (await registry.snapshot()).instances if one.service == service]
        finally:
            await registry.aclose()

    return asyncio.run(read())


UVICORN = ("-m", "uvicorn", "--port", "0", "--no-access-log", "asgi_caller:application")
GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket", "wsgi_caller:application")

SERVERS = {
    "uvicorn": UVICORN,
    "uvicorn with workers": (*UVICORN, "--workers", "2"),
    "gunicorn": (*GUNICORN, "--workers", "2"),
    "gunicorn with preload": (*GUNICORN, "--workers", "2", "--preload"),
    "gunicorn with threads and preload": (*GUNICORN, "--workers", "2", "--threads", "4", "--preload"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_every_worker_of_a_server_makes_calls_though_its_application_made_one_when_it_was_loaded(
    kind: str, fleet: Fleet
) -> None:
    server = Program(fleet, *SERVERS[kind], MESHLIB_SERVICE="front")
    try:
        (port,) = eventually(lambda: registered(fleet, "front"), PATIENCE)
        workers: set[str] = set()

        def every_worker_has_answered() -> bool:
            worker, loaded, now = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=10).text.split()
            assert (loaded, now) == ("v1", "v1")
            workers.add(worker)
            return len(workers) == (2 if "--workers" in SERVERS[kind] else 1)

        eventually(every_worker_has_answered, PATIENCE)
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.end()
    assert server.status in {0, -signal.SIGTERM}, server.errors
    assert "Traceback" not in server.errors
    assert registered(fleet, "front") == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_makes_calls_of_its_own_and_leaves_its_parents_registration_alone(method: str, fleet: Fleet) -> None:
    program = Program(fleet, "-W", "ignore::DeprecationWarning", "children.py", method)
    assert program.line() == "exit status of the child: 0"
    assert program.line() == "calls: ['v1', 'v1'] ['v1', 'v1'] ['v1', 'v1']"
    assert program.line() == "registered: () ('127.0.0.1:9',)"
    assert registered(fleet, "web") == [9]
    program.end()
    assert (program.status, program.errors) == (0, "")
    assert registered(fleet, "web") == []


def test_a_process_of_many_threads_forks_while_all_of_them_make_calls(fleet: Fleet) -> None:
    program = Program(fleet, "-W", "ignore::DeprecationWarning", "forks.py")
    said = program.end()
    assert (said, program.status, program.errors) == ("children: {0} problems: []\n", 0, "")


ENDS = {
    "sync": """
import time, meshlib
client = meshlib.Client()
print(client.get("http://reviews/").text)
meshlib.default_mesh().serve("127.0.0.1:9")
while not meshlib.default_mesh().status().registered: pass
print(time.monotonic())
""",
    "async": """
import asyncio, time, meshlib
async def main():
    client = meshlib.AsyncClient()
    print((await client.get("http://reviews/")).text)
    meshlib.default_mesh().serve("127.0.0.1:9")
    while not meshlib.default_mesh().status().registered: await asyncio.sleep(0.01)
asyncio.run(main())
print(time.monotonic())
""",
    "with a response that was never read": """
import time, meshlib
client = meshlib.Client()
response = client.send(client.build_request("GET", "http://reviews/"), stream=True)
meshlib.default_mesh().serve("127.0.0.1:9")
while not meshlib.default_mesh().status().registered: pass
print("v1")
print(time.monotonic())
""",
}


@pytest.mark.parametrize("kind", ENDS)
def test_a_script_that_closes_nothing_ends_soon_in_silence_and_withdraws(kind: str, fleet: Fleet) -> None:
    program = script(fleet, ENDS[kind], MESHLIB_SERVICE="web")
    said = program.end().split()
    ended = time.monotonic()
    assert (program.status, program.errors, said[0]) == (0, "", "v1")
    assert ended - float(said[1]) <= ENDS_WITHIN
    assert registered(fleet, "web") == []


CLOSES = """
import asyncio, meshlib
with meshlib.Mesh() as mesh, meshlib.Client(mesh=mesh) as client:
    print(client.get("http://reviews/").text)
async def main():
    async with meshlib.Mesh() as mesh, meshlib.AsyncClient(mesh=mesh) as client:
        print((await client.get("http://reviews/")).text)
asyncio.run(main())
"""


def test_a_script_that_closes_everything_ends_in_silence_where_every_warning_is_an_error(fleet: Fleet) -> None:
    program = script(fleet, CLOSES, "-W", "error")
    said = program.end()
    assert (said, program.status, program.errors) == ("v1\nv1\n", 0, "")


def test_a_script_that_fails_ends_with_its_own_error(fleet: Fleet) -> None:
    program = script(fleet, 'import meshlib\nmeshlib.Client().get("http://reviews/")\nraise SystemExit(7)\n')
    program.end()
    assert (program.status, program.errors) == (7, "")


INTERRUPTED = {
    "sync": """
import meshlib
client = meshlib.Client()
meshlib.default_mesh().open()
print("calling", flush=True)
try:
    client.get("http://reviews/")
except KeyboardInterrupt:
    print("interrupted")
""",
    "async": """
import asyncio, meshlib
async def main():
    async with meshlib.AsyncClient() as client:
        await client.get("http://reviews/")
meshlib.default_mesh().open()
print("calling", flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
}


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_an_interrupt_gets_out_of_a_call(kind: str, fleet: Fleet) -> None:
    (instance,) = fleet.instances
    instance.say("hang")
    program = script(fleet, INTERRUPTED[kind])
    assert program.line() == "calling"
    eventually(lambda: instance.counts().get("GET"), PATIENCE)
    program.process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    assert (program.end(), program.status, program.errors) == ("interrupted\n", 0, "")
    assert time.monotonic() - interrupted <= ENDS_WITHIN


def test_a_thread_that_exits_ends_nothing_but_itself(fleet: Fleet) -> None:
    text = """
import sys, threading, meshlib
client = meshlib.Client()
def leave():
    print(client.get("http://reviews/").text)
    sys.exit(3)
thread = threading.Thread(target=leave)
thread.start()
thread.join()
print(client.get("http://reviews/").text)
"""
    program = script(fleet, text)
    assert (program.end(), program.status, program.errors) == ("v1\nv1\n", 0, "")


def test_a_thread_that_still_calls_when_the_script_ends_is_waited_for_as_python_does(fleet: Fleet) -> None:
    text = """
import threading, time, meshlib
client = meshlib.Client()
def call():
    threading.main_thread().join()
    print(client.get("http://reviews/").text)
threading.Thread(target=call).start()
client.get("http://reviews/")
"""
    program = script(fleet, text)
    assert (program.end(), program.status, program.errors) == ("v1\n", 0, "")


def test_a_call_at_exit_works_before_the_mesh_has_closed_and_after_it(fleet: Fleet) -> None:
    # What is registered last runs first.
    text = """
import atexit
def call():
    print(client.get("http://reviews/").text)
atexit.register(call)
import meshlib, meshlib.mesh
atexit.register(call)
client = meshlib.Client()
client.get("http://reviews/")
"""
    program = script(fleet, text)
    assert (program.end(), program.status, program.errors) == ("v1\nv1\n", 0, "")


CONSOLES = {
    "python": ("-i", "-q", 'import meshlib\nprint(meshlib.Client().get("http://reviews/").text)\n'),
    "the console of asyncio": (
        "-m",
        "asyncio",
        "import meshlib\nprint((await meshlib.AsyncClient().get('http://reviews/')).text)\n",
    ),
}


@pytest.mark.parametrize("kind", CONSOLES)
def test_calls_are_made_by_hand_in_a_console(kind: str, fleet: Fleet) -> None:
    *flags, typed = CONSOLES[kind]
    program = Program(fleet, *flags)
    said = program.end(typed)
    assert program.status == 0, program.errors
    assert re.search(r"\bv1$", said, re.MULTILINE)
    assert "Traceback" not in program.errors
    assert "Error" not in program.errors


def test_a_mesh_that_was_closed_opens_again(fleet: Fleet) -> None:
    mesh = meshlib.Mesh(fleet.url, state_dir=fleet.state_dir)
    with meshlib.Client(mesh=mesh) as client:
        for _ in range(3):
            assert client.get("http://reviews/").text == "v1"
            mesh.close()
