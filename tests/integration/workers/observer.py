"""A process with a mesh that says at what monotonic time each version of the configuration came in force."""

from __future__ import annotations

import sys
import threading
import time

from meshlib import Mesh


def main(registry: str, state_dir: str) -> None:
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    last = ""
    with Mesh(registry, state_dir=state_dir) as mesh:
        while not ended.wait(0.002):
            version = mesh.status().version
            if version != last:
                print(version, time.monotonic(), flush=True)
                last = version


if __name__ == "__main__":
    main(*sys.argv[1:])
