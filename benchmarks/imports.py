"""`import meshlib` against `import httpx`, as whole processes."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks.rounds import interleave, spread

STATEMENTS = {
    "nothing": "pass",
    "import httpx": "import httpx",
    "import meshlib": "import meshlib",
    "meshlib.AsyncClient": "import meshlib; meshlib.AsyncClient",
}


def turn(statement: str) -> float:
    """Milliseconds of CPU of a process that runs the statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ((after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)) * 1e3


def run(rounds: int) -> None:
    results = interleave(
        rounds, {name: lambda statement=statement: turn(statement) for name, statement in STATEMENTS.items()}
    )
    base = statistics.median(results["import httpx"])
    for name, values in results.items():
        print(f"  {name:28} {spread(values)} ms   {statistics.median(values) / base:.2f} × import httpx")
    ratio = statistics.median(results["import meshlib"]) / base
    print(f"  {'within' if ratio <= 1.3 else 'ABOVE'} 1.3 ×")
