"""`meshlib apply`."""

from __future__ import annotations

import argparse

from meshlib.cli.changes import judge
from meshlib.cli.files import in_namespace, keys_in, sources
from meshlib.cli.kinds import label
from meshlib.cli.options import add_files, add_registry
from meshlib.cli.output import CommandError, UsageError, paint, warn
from meshlib.cli.registry import settings_of, snapshot, with_registry
from meshlib.registries import Registry
from meshlib.resources import load

__all__ = ["describe", "run"]

DESCRIPTION = """\
Create or change documents. Everything is checked first, together with what the
registry holds already; when anything is wrong nothing is written. Every process
of the mesh has the change in force within a second."""

EXAMPLES = """\
  meshlib apply -f mesh.yaml            one file, with as many documents as it holds
  meshlib apply -f mesh/ -f extra.yaml  all files of a directory, and one more
  generate | meshlib apply -f -         what another program writes
  meshlib apply --dry-run -f mesh.yaml  say what would happen"""

FAILURE = "a document is wrong, or the registry can't be written: nothing was changed"

_COLOURS = {"created": "green", "configured": "yellow", "unchanged": "dim"}


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_files(parser)
    add_registry(parser)
    parser.add_argument("--strict", action="store_true", help="refuse fields that are only approximated or ignored")
    parser.add_argument("--dry-run", action="store_true", help="check everything and write nothing")


def run(arguments: argparse.Namespace) -> int:
    """Apply; see DESCRIPTION."""
    if not arguments.filename:
        raise UsageError("apply needs -f FILE (see meshlib apply --help)")
    settings = settings_of(arguments)
    new = in_namespace(sources(arguments.filename), settings.namespace)

    async def change(registry: Registry) -> int:
        held = load((await snapshot(registry)).sources).resources
        found = judge(held, new, keys_in(new, settings.namespace), strict=arguments.strict)
        for note in found.notes:
            warn(str(note))
        if found.problems:
            raise CommandError("\n".join(["nothing was applied:", *map(str, found.problems)]))
        if not found.resources:
            raise CommandError("nothing was applied: there is no document in what was given")
        if not arguments.dry_run:
            pairs = zip(found.resources, found.actions, strict=True)
            await registry.apply([resource for resource, action in pairs if action != "unchanged"])
        ending = " (dry run)" if arguments.dry_run else ""
        for resource, action in zip(found.resources, found.actions, strict=True):
            print(f"{label(resource.key, settings.namespace)} {paint(action, _COLOURS[action])}{ending}")
        return 0

    return with_registry(settings, change)
