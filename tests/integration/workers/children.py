"""A process with a registration and connections of its own that starts a child by fork or spawn, which makes calls."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from typing import Any

import meshlib

mesh = meshlib.Mesh(service="web")
client = meshlib.Client(mesh=mesh)
asynchronous = meshlib.AsyncClient(mesh=mesh)


def calls() -> list[str]:
    """A call each by the sync and the async client, which a forked child shares with its parent."""

    async def call() -> str:
        return (await asynchronous.get("http://reviews/")).text

    return [client.get("http://reviews/").text, asyncio.run(call())]


def child(answers: Any) -> None:
    answers.put((calls(), mesh.status().registered))


def main(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    mesh.serve("127.0.0.1:9")
    before = calls()
    answers = context.Queue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    in_child, registered_in_child = answers.get(timeout=20)
    process.join(20)
    print("exit status of the child:", process.exitcode)
    print("calls:", before, in_child, calls())
    print("registered:", registered_in_child, mesh.status().registered)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
