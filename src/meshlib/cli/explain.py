"""`meshlib explain`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from meshlib.cli.output import CommandError, UsageError, warn
from meshlib.cli.registry import settings_of
from meshlib.mesh import Mesh

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

FAILURE = "the mesh doesn't know the host, or has no configuration"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
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
    settings = settings_of(arguments)
    with Mesh(settings.registry, namespace=settings.namespace, state_dir=settings.state_dir) as mesh:
        status = mesh.status()
        if not status.version:
            raise CommandError(f"there is no configuration: {status.error or settings.registry + ' says nothing'}")
        if status.error:
            warn(status.error)
        try:
            explanation = mesh.explain(method[0] if method else "GET", url, headers)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if arguments.output == "json":
        import json

        print(json.dumps(_plain(explanation), indent=2, ensure_ascii=False))
    else:
        print(explanation)
    sys.stdout.flush()
    return 0 if explanation.host else 1


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
