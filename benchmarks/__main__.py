"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import platform
import sys

from benchmarks import call, imports, inbound, mtls, overload, policy

BENCHMARKS = {
    "policy": policy.run,
    "import": imports.run,
    "call": call.run,
    "mtls": mtls.run,
    "inbound": inbound.run,
    "overload": overload.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    names = ", ".join(BENCHMARKS)
    parser.add_argument("which", nargs="*", metavar="NAME", help=f"of {names}; all of them by default")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds of each (default: 15)")
    arguments = parser.parse_args()
    # Not `choices`: with nargs="*" Python 3.11 refuses the empty list, which means all.
    for name in arguments.which:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are {names}")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {sys.platform}")
    for name in arguments.which or BENCHMARKS:
        print(f"\n{name}")
        BENCHMARKS[name](arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
