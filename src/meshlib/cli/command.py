"""The command line: from arguments to a verb, and from what it raises to an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from meshlib.cli.options import add_registry
from meshlib.cli.output import UsageError
from meshlib.errors import MeshError

__all__ = ["run"]

VERBS = {
    "demo": "watch a mesh of real processes at work, and see its claims proved",
    "apply": "create or change documents; all of them or none",
    "get": "list instances and documents",
    "delete": "delete documents",
    "check": "say what is wrong with documents, and which fields are not applied as written",
    "explain": "say where a request would go, or whether it may come in, and why",
    "status": "say what the registry holds and what is wrong",
    "version": "print the version",
}

BROKEN_PIPE = 141

DESCRIPTION = "meshlib: a service mesh that lives inside a Python process."

EPILOG = """\
examples:
  meshlib demo                                 see it work
  meshlib apply -f mesh.yaml                   put documents in force
  meshlib get                                  who is there, and what is wanted
  meshlib explain GET http://reviews/42        why a request goes where it goes

exit status:
  0  done
  1  what was asked for failed
  2  wrong usage

`meshlib VERB --help` teaches the verb."""


class Verb(Protocol):
    """What the module of a verb holds.

    Attributes:
        DESCRIPTION: what it does, in a paragraph.
        EXAMPLES: lines of `command   what it does`.
        FAILURE: what exit status 1 means.
    """

    DESCRIPTION: str
    EXAMPLES: str
    FAILURE: str

    def describe(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, arguments: argparse.Namespace) -> int: ...


class _VerbParser(argparse.ArgumentParser):
    """The parser of one verb, which imports the verb's module when it is used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._verb: Verb | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._verb is None:
            verb: Any = importlib.import_module(f"meshlib.cli.{self.prog.rpartition(' ')[2]}")
            self._verb = verb
            self.description = verb.DESCRIPTION
            self.epilog = (
                f"examples:\n{verb.EXAMPLES}\n\nexit status:\n  0  done\n  1  {verb.FAILURE}\n  2  wrong usage"
            )
            verb.describe(self)
            self.set_defaults(run=verb.run)
        return super().parse_known_args(args, namespace)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit status; see `meshlib.cli.main`."""
    try:
        status = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        run_verb: Any = arguments.run
        return int(run_verb(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except UsageError as error:
        print(f"meshlib: {error}", file=sys.stderr)
        return 2
    except MeshError as error:
        print(f"meshlib: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="meshlib",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    add_registry(parser, None)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs", parser_class=_VerbParser)
    for name, says in VERBS.items():
        verbs.add_parser(name, help=says)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from meshlib.cli.version import version

        print(version())
        parser.exit()
