"""`meshlib demo`."""

from __future__ import annotations

import argparse
import importlib.util

from meshlib.cli.output import CommandError

__all__ = ["describe", "run"]

DESCRIPTION = """\
Watch a mesh at work on this machine: nine processes that speak real HTTP (a
product page, its details, reviews in three versions, ratings), a registry in a
temporary directory, and a steady load. A canary is rolled out, a process killed, a
fault injected, a deadline run out; the last page sets what was claimed against what
was measured. It takes about a minute and leaves nothing behind."""

EXAMPLES = """\
  meshlib demo          about a minute
  meshlib demo --fast   half of that, with fewer requests behind each number
  meshlib demo --keep   leave it running, to play with
  meshlib demo --registry consul   on a Consul cluster of its own, with mTLS"""

FAILURE = "a claim didn't come true, or a process didn't start"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--registry",
        choices=("sqlite", "consul"),
        default="sqlite",
        help="sqlite: one file (the default); consul: three servers and an agent, mTLS on, and a leader that is killed",
    )
    parser.add_argument("--fast", action="store_true", help="measure for a shorter time")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C, to play with")


def run(arguments: argparse.Namespace) -> int:
    """Show it; see DESCRIPTION."""
    if importlib.util.find_spec("uvicorn") is None:
        raise CommandError("the demo needs uvicorn, which is not installed: pip install 'servicemesh[demo]'")
    if arguments.registry == "consul" and importlib.util.find_spec("consul") is None:
        raise CommandError(
            "the demo on Consul needs py-consul, which is not installed: pip install 'servicemesh[consul]'"
        )
    from meshlib.cli.demo.story import tell

    return tell(arguments.registry, fast=arguments.fast, keep=arguments.keep)
