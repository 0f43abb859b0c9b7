"""Processes that share a limit: a parent, as a server with workers is, and children that ask their middleware.

    MESHLIB_LIMITS=redis://… python limited.py asgi|wsgi children requests-a-second

It prints `ready`. At a line with two instants of the monotonic clock it forks; the children ask from the first to the
second, each at its rate. Then it prints as JSON how often which status came, and the instants at which one came in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections import Counter
from typing import Any

from tests.support.inbound import Side, get

LIMIT = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: limits}
spec: {rateLimits: [{name: shared, requests: 200, per: 1s, burst: 100, scope: GLOBAL, onError: DENY}]}
"""


def main() -> None:
    kind, children, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    side = Side(kind, LIMIT, identity=False)  # type: ignore[arg-type]
    assert side.ask(get()).status == 200  # the parent has a thread and a connection when it forks
    print("ready", flush=True)
    begin, end = map(float, sys.stdin.readline().split())
    pipes = [fork(side, begin, end, rate) for _ in range(children)]
    found = [json.loads(os.fdopen(pipe).read()) for pipe in pipes]
    statuses: Counter[str] = sum((Counter(one["statuses"]) for one in found), Counter())
    print(json.dumps({"statuses": statuses, "let_in": [at for one in found for at in one["let_in"]]}), flush=True)
    side.mesh.close()


def fork(side: Side, begin: float, end: float, rate: float) -> int:
    """Have a child ask; from the pipe comes what it says."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return reading
    try:
        logging.disable()
        side.obey(LIMIT)  # a child has no plan until it needs one
        found = asyncio.run(requests(side, begin, end, rate))
        os.write(writing, json.dumps(found).encode())
    finally:
        os._exit(0)


async def requests(side: Side, begin: float, end: float, rate: float) -> dict[str, Any]:
    statuses: Counter[int] = Counter()
    due = begin + os.getpid() % 97 / 97 / rate
    let_in: list[float] = []
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        reply = await side.aask(get()) if side.kind == "asgi" else side.ask(get())
        statuses[reply.status] += 1
        if reply.status == 200:
            let_in.append(time.monotonic())
        due += 1 / rate
    return {"statuses": statuses, "let_in": let_in}


if __name__ == "__main__":
    main()
