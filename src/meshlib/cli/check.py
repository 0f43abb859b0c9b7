"""`meshlib check`."""

from __future__ import annotations

import argparse

from meshlib.cli.files import in_namespace, sources
from meshlib.cli.options import add_files, add_registry
from meshlib.cli.output import paint
from meshlib.cli.registry import read, settings_of
from meshlib.registries import Instance
from meshlib.resources import check_references, load, settle
from meshlib.resources.judging import judge_inbound
from meshlib.resources.scopes import Workload

__all__ = ["describe", "run"]

DESCRIPTION = """\
Say what is wrong with documents, each thing with its file, document, line and
path; what they say of each other: policies that never hold, shadow others or lock
everybody out; and which fields are applied only nearly or not at all, and why.
With -f the files are judged by themselves and no registry is needed; without,
the registry's own documents are."""

EXAMPLES = """\
  meshlib check -f mesh.yaml           before it is applied, in CI for example
  meshlib check --strict -f mesh.yaml  every field must be applied as written
  meshlib check                        what the registry holds"""

FAILURE = "there are problems"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_files(parser)
    add_registry(parser)
    parser.add_argument(
        "--strict", action="store_true", help="fields that are approximated or ignored are problems, too"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check; see DESCRIPTION."""
    settings = settings_of(arguments)
    workloads: list[Workload] = []
    if arguments.filename:
        texts = in_namespace(sources(arguments.filename), settings.namespace)
    else:
        update = read(settings)
        texts = update.sources
        # Of some services only nobody can say that a label is worn by none.
        workloads = [_workload(instance) for instance in update.instances if update.asked is None]
    loaded = load(texts, strict=arguments.strict)
    warnings = [*check_references(loaded.resources).warnings, *judge_inbound(loaded.resources, workloads)]
    for problem in loaded.problems:
        print(f"{paint('problem', 'red')}   {problem}")
    for warning in warnings:
        print(f"{paint('warning', 'yellow')}   {warning}")
    notes = (*loaded.notes, *settle(loaded.resources).notes)
    for note in notes:
        print(f"{paint('note', 'cyan')}      {note}")
    counts = [
        _count(len(loaded.resources), "sound document"),
        _count(len(loaded.problems), "problem"),
        _count(len(warnings), "warning"),
        f"{_count(len(notes), 'field')} not applied as written",
    ]
    print(", ".join(counts))
    return 1 if loaded.problems else 0


def _workload(instance: Instance) -> Workload:
    return Workload(instance.namespace, {"app": instance.service, **instance.labels})


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
