"""A process whose threads make calls all the time, and which forks again and again: every child makes a call too."""

from __future__ import annotations

import os
import signal
import threading

import meshlib

CALLERS = 8
CHILDREN = 30

client = meshlib.Client()
ended = threading.Event()
problems: list[BaseException] = []


def call_on_and_on() -> None:
    while not ended.is_set():
        try:
            client.get("http://reviews/").raise_for_status()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            problems.append(error)


def status_of_child() -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)  # so that a deadlock has an end
            status = 0 if client.get("http://reviews/").text == "v1" else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    callers = [threading.Thread(target=call_on_and_on) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    client.get("http://reviews/")
    statuses = {status_of_child() for _ in range(CHILDREN)}
    ended.set()
    for caller in callers:
        caller.join()
    print("children:", statuses, "problems:", problems)


if __name__ == "__main__":
    main()
