"""A process with an identity forks a child after its first call; the child makes its own first when it is told to.

It says `forked`, takes a line, and says of a call by the child as whom it was known and how many attempts it took. The
argument is `sync` or `async`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import httpx

import meshlib

client = meshlib.Client()
asynchronous = meshlib.AsyncClient()


async def asynchronous_call() -> httpx.Response:
    return await asynchronous.get("http://reviews/")


def call() -> httpx.Response:
    return client.get("http://reviews/") if sys.argv[1] == "sync" else asyncio.run(asynchronous_call())


def child(told: int) -> None:
    os.read(told, 1)
    try:
        response = call()
    except meshlib.CallError as error:
        print(repr(error), flush=True)
    else:
        attempts = response.extensions["meshlib"].evidence(time.monotonic()).attempts
        print(response.json()["peer"], len(attempts), flush=True)


def main() -> None:
    call().raise_for_status()
    told, tell = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            child(told)
        finally:
            os._exit(0)
    print("forked", flush=True)
    sys.stdin.readline()
    os.write(tell, b"!")
    os.waitpid(number, 0)
    sys.stdin.read()


if __name__ == "__main__":
    main()
