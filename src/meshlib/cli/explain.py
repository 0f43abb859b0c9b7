"""`meshlib explain`."""

from __future__ import annotations

import argparse
import random
import socket
import time
from typing import Any

from meshlib.cli.options import add_registry
from meshlib.cli.output import UsageError, warn
from meshlib.cli.registry import read, settings_of
from meshlib.explain import explain
from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.resources import load, settle
from meshlib.settings import Settings
from meshlib.state.store import StateStore

__all__ = ["describe", "run"]

DESCRIPTION = """\
Say where a request would go by the registry as it is now, and why: which rules
were candidates and what failed, how traffic is divided, which endpoints there are,
deadline, retries and faults. Nothing is sent. What processes observe by themselves
(ejections, open breakers) is theirs: ask `mesh.explain` in the process for that."""

EXAMPLES = """\
  meshlib explain http://reviews/42
  meshlib explain POST http://reviews/42 -H 'end-user: jason'
  meshlib explain GET http://reviews/42 -o json"""

FAILURE = "the mesh doesn't know the host, or the registry can't be read"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_registry(parser)
    parser.add_argument("request", metavar="[METHOD] URL", nargs="+", help="without METHOD it is GET")
    parser.add_argument(
        "-H", "--header", metavar="'NAME: VALUE'", action="append", default=[], help="may be given several times"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def run(arguments: argparse.Namespace) -> int:
    """Explain; see DESCRIPTION."""
    if len(arguments.request) > 2:
        raise UsageError(f"expected METHOD URL, found {' '.join(arguments.request)!r}")
    *method, url = arguments.request
    headers = dict(_header(text) for text in arguments.header)
    plan = _plan(settings_of(arguments))
    try:
        found = explain(plan, method[0] if method else "GET", url, headers, time.monotonic())
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.output == "json":
        import json

        print(json.dumps(_plain(found), indent=2, ensure_ascii=False))
    else:
        print(found)
    return 0 if found.host else 1


def _plan(settings: Settings) -> Plan:
    """The plan that a process of this namespace compiles from the registry as it is now."""
    update = read(settings)
    loaded = load(update.sources)
    if loaded.problems:
        warn("the documents can't all be applied (see meshlib check): processes go on with those they had before")
    snapshot = Snapshot(update.instances, settle(loaded.resources).resources, update.version)
    return compile_plan(
        snapshot,
        settings.namespace,
        StateStore(),
        time.monotonic(),
        random.random,
        allow_any=settings.outbound == "allow-any",
        identity=settings.identity != "none",
        caller=socket.gethostname(),
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"-H is {text!r}; expected 'name: value'")
    return name.strip(), value.strip()


def _plain(value: Any) -> Any:
    """Named tuples as mappings."""
    if hasattr(value, "_asdict"):
        return {name: _plain(entry) for name, entry in value._asdict().items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
