"""`meshlib status`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator

from meshlib.cli.kinds import KINDS
from meshlib.cli.options import add_registry
from meshlib.cli.output import paint, table
from meshlib.cli.registry import read, settings_of
from meshlib.registries import Instance, Update
from meshlib.resources import Loaded, load

__all__ = ["describe", "run"]

DESCRIPTION = """\
Say what the registry holds: the version of the configuration, the instances of
each service with their health, the documents, and everything that is wrong."""

EXAMPLES = """\
  meshlib status
  meshlib status --registry file:///etc/mesh"""

FAILURE = "something is wrong: the registry can't be read, or has documents that can't be applied"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_registry(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tell; see DESCRIPTION."""
    settings = settings_of(arguments)
    update = read(settings, warns=False)  # they are part of the answer
    loaded = load(update.sources)
    print(f"registry        {settings.registry}")
    print(f"configuration   {update.version}")
    print(f"documents       {_documents(loaded)}")
    for line in _troubles(update, loaded):
        print(line)
    if update.instances:
        print()
        for line in table(["NAMESPACE", "SERVICE", "INSTANCES", "HEALTHY", "VERSIONS"], _services(update.instances)):
            print(line)
    else:
        print("instances       none is registered")
    return 1 if loaded.problems else 0


def _documents(loaded: Loaded) -> str:
    counts = Counter(resource.kind for resource in loaded.resources)
    return ", ".join(f"{counts[kind.kind]} {kind.kind}" for kind in KINDS if counts[kind.kind]) or "none"


def _troubles(update: Update, loaded: Loaded) -> Iterator[str]:
    for problem in loaded.problems:
        yield f"{paint('problem', 'red')}         {problem}"
    for warning in update.warnings:
        yield f"{paint('warning', 'yellow')}         {warning}"
    if loaded.notes:
        yield f"fields          {len(loaded.notes)} not applied as written; `meshlib check` says which and why"


def _services(instances: Iterable[Instance]) -> list[list[str]]:
    services: dict[tuple[str, str], list[Instance]] = {}
    for instance in instances:
        services.setdefault((instance.namespace, instance.service), []).append(instance)
    return [[namespace, service, *_figures(found)] for (namespace, service), found in sorted(services.items())]


def _figures(instances: list[Instance]) -> list[str]:
    healthy = sum(instance.healthy for instance in instances)
    versions = Counter(instance.labels["version"] for instance in instances if "version" in instance.labels)
    share = paint(str(healthy), "green" if healthy == len(instances) else "red")
    return [str(len(instances)), share, ", ".join(f"{name} ×{count}" for name, count in sorted(versions.items()))]
