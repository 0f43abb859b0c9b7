"""`meshlib get`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from meshlib.cli.kinds import ALL, KINDS, Kind, find, instance_row, short
from meshlib.cli.options import add_registry
from meshlib.cli.output import CommandError, UsageError, paint, table, warn
from meshlib.cli.registry import read, settings_of
from meshlib.registries import Instance, Update
from meshlib.resources import Resource, load

__all__ = ["describe", "run"]

DESCRIPTION = """\
List what the registry holds: the instances that are registered now, and the
documents. Without KIND, everything.

kinds: instances (endpoints, ep), virtualservice (vs), destinationrule (dr),
serviceentry (se), peerauthentication (pa), requestauthentication (ra),
authorizationpolicy (ap), inboundpolicy (ip), outboundpolicy (op), all"""

EXAMPLES = """\
  meshlib get                     everything
  meshlib get ep reviews          who serves reviews
  meshlib get vs reviews -o yaml  a document as it was applied
  meshlib get all -o name         one name a line, for scripts"""

FAILURE = "NAME was not found, or the registry can't be read"


class _Found(NamedTuple):
    """What was asked for."""

    instances: tuple[Instance, ...]
    resources: tuple[Resource, ...]

    def __len__(self) -> int:
        return len(self.instances) + len(self.resources)


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("kind", metavar="KIND", nargs="?", default=ALL)
    parser.add_argument("name", metavar="NAME", nargs="?", help="of a document, or the service of instances")
    parser.add_argument("-o", "--output", choices=("table", "wide", "yaml", "json", "name"), default="table")
    add_registry(parser)
    parser.add_argument("-A", "--all-namespaces", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """List; see DESCRIPTION."""
    kind = None if arguments.kind.lower() == ALL else find(arguments.kind)
    every = arguments.kind.lower() == ALL
    if every and arguments.name:
        raise UsageError(f"{arguments.name!r} of which kind? (see meshlib get --help)")
    settings = settings_of(arguments)
    namespace = None if arguments.all_namespaces else settings.namespace
    found = _select(read(settings), kind, every, arguments.name, namespace)
    where = "any namespace" if namespace is None else f"namespace {namespace}"
    if not len(found):
        if arguments.name:
            what = kind.names[0] if kind is not None else "instance of"
            raise CommandError(f"there is no {what} {arguments.name!r} in {where} of {settings.registry}")
        print(f"nothing found in {where}", file=sys.stderr)
        return 0
    for line in _FORMATS[arguments.output](found, namespace is None):
        print(line)
    return 0


def _select(update: Update, kind: Kind | None, every: bool, name: str | None, namespace: str | None) -> _Found:
    loaded = load(update.sources)
    if loaded.problems:
        warn(f"the registry's documents have {len(loaded.problems)} problems; `meshlib check` tells them")
    instances = update.instances if every or kind is None else ()
    resources = loaded.resources if every else [one for one in loaded.resources if kind and one.kind == kind.kind]
    return _Found(
        tuple(
            one for one in instances
            if name in (None, one.service) and namespace in (None, one.namespace)
        ),
        tuple(
            one for one in resources
            if name in (None, one.metadata.name) and namespace in (None, one.metadata.namespace)
        ),
    )  # fmt: skip


def _tables(found: _Found, spaces: bool, *, wide: bool = False) -> Iterator[str]:
    blocks = []
    if found.instances:
        heads = ["SERVICE", "ADDRESS", "HEALTH", "LABELS", "WEIGHT", "LOCALITY", "IDENTITY"][: 7 if wide else 4]
        rows = [(one.namespace, _health(instance_row(one)[: len(heads)])) for one in found.instances]
        blocks.append(_block(heads, rows, spaces))
    for kind in KINDS:
        documents = [one for one in found.resources if one.kind == kind.kind]
        if documents:
            heads = ["NAME", *kind.table.heads, *(kind.table.wide if wide else ())]
            prefix = f"{kind.names[0]}/" if len(found.resources) > len(documents) or found.instances else ""
            cells = ((prefix + one.metadata.name, *kind.table.row(one.spec))[: len(heads)] for one in documents)
            spaced = [(one.metadata.namespace, row) for one, row in zip(documents, cells, strict=True)]
            blocks.append(_block(heads, spaced, spaces))
    for number, block in enumerate(blocks):
        yield from ["", *block] if number else block


def _block(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], spaces: bool) -> Iterator[str]:
    if spaces:
        return table(["NAMESPACE", *heads], [(namespace, *cells) for namespace, cells in rows])
    return table(heads, [cells for _, cells in rows])


def _health(cells: Sequence[str]) -> list[str]:
    return [paint(cell, "red") if cell == "unhealthy" else cell for cell in cells]


def _wide(found: _Found, spaces: bool) -> Iterator[str]:
    return _tables(found, spaces, wide=True)


def _names(found: _Found, spaces: bool) -> Iterator[str]:
    for instance in found.instances:
        service, where, *_ = instance_row(instance)
        yield f"instance/{service}/{where}"
    for resource in found.resources:
        yield f"{short(resource.kind)}/{resource.metadata.name}"


def _plain(found: _Found) -> list[Any]:
    import msgspec

    return [msgspec.to_builtins(instance) for instance in found.instances] + [one.document for one in found.resources]


def _yaml(found: _Found, spaces: bool) -> Iterator[str]:
    import yaml

    for number, document in enumerate(_plain(found)):
        if number:
            yield "---"
        yield yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip("\n")


def _json(found: _Found, spaces: bool) -> Iterator[str]:
    import json

    plain = _plain(found)
    yield json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, ensure_ascii=False)


_FORMATS = {"table": _tables, "wide": _wide, "yaml": _yaml, "json": _json, "name": _names}
