"""`meshlib delete`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from meshlib.cli.changes import judge
from meshlib.cli.files import keys_in, sources
from meshlib.cli.kinds import find, label
from meshlib.cli.options import add_files, add_registry
from meshlib.cli.output import CommandError, UsageError, paint, warn
from meshlib.cli.registry import settings_of, snapshot, with_registry
from meshlib.registries import Registry
from meshlib.resources import ResourceKey, load

__all__ = ["describe", "run"]

DESCRIPTION = """\
Delete documents: one or more of a kind by name, or those that files name. It is
refused when a document that stays needs one that goes; delete both at once with -f."""

EXAMPLES = """\
  meshlib delete vs reviews     one document
  meshlib delete -f mesh.yaml   everything the file applied"""

FAILURE = "a document was not found, or others need it"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("kind", metavar="KIND", nargs="?", help="virtualservice (vs), destinationrule (dr), …")
    parser.add_argument("names", metavar="NAME", nargs="*")
    add_files(parser)
    add_registry(parser)


def run(arguments: argparse.Namespace) -> int:
    """Delete; see DESCRIPTION."""
    settings = settings_of(arguments)
    keys = _keys(arguments, settings.namespace)

    async def change(registry: Registry) -> int:
        held = load((await snapshot(registry)).sources).resources
        needed = judge(held, (), keys).problems
        if needed:
            raise CommandError("\n".join(["nothing was deleted, others need it:", *map(str, needed)]))
        deleted = await registry.delete(keys)
        for key in keys:
            if key in deleted:
                print(f"{label(key, settings.namespace)} {paint('deleted', 'yellow')}")
            else:
                warn(f"{label(key, settings.namespace)} was not found in {registry.url}")
        return 0 if len(deleted) == len(keys) else 1

    return with_registry(settings, change)


def _keys(arguments: argparse.Namespace, namespace: str) -> Sequence[ResourceKey]:
    if bool(arguments.filename) == bool(arguments.kind):
        raise UsageError("delete needs either KIND NAME or -f FILE (see meshlib delete --help)")
    if arguments.filename:
        keys = keys_in(sources(arguments.filename), namespace)
        if not keys:
            raise CommandError("nothing was deleted: no document of what was given has a kind and a name")
        return tuple(dict.fromkeys(keys))
    kind = find(arguments.kind)
    if kind is None:
        raise UsageError("instances can't be deleted: they leave when their process ends")
    if not arguments.names:
        raise UsageError(f"delete {arguments.kind} needs a NAME")
    return tuple(ResourceKey(kind.kind, namespace, name) for name in dict.fromkeys(arguments.names))
