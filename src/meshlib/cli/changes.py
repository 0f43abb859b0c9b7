"""What a change would do to the documents of a registry, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meshlib.resources import FieldNote, Loaded, Problem, Resource, ResourceKey, Source, encode, load
from meshlib.resources.precedence import MADE_BY, made

__all__ = ["Judgement", "judge"]


class Judgement(NamedTuple):
    """What would come of a change.

    Attributes:
        resources: to be written, in order.
        actions: of each of them, `created`, `configured` or `unchanged`.
        problems: why the change can't be made; those the registry has already are no reason.
        notes: fields of the new documents that are approximated or ignored.
    """

    resources: tuple[Resource, ...]
    actions: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[FieldNote, ...]


def judge(
    current: Iterable[Resource],
    new: Sequence[Source],
    gone: Iterable[ResourceKey],
    *,
    strict: bool = False,
) -> Judgement:
    """Judge new texts together with the documents that stay.

    Args:
        current: the sound documents of the registry.
        new: texts to be applied.
        gone: documents that `new` replaces or that are to be deleted.
        strict: refuse fields of `new` that are approximated or ignored.
    """
    held = {resource.key: resource for resource in current}
    leaving = set(gone)
    staying = [_source(resource) for resource in held.values() if resource.key not in leaving]
    after = load([*staying, *new], strict=strict)
    known = set(_load_all(held.values(), strict=strict).problems)
    origins = {source.origin for source in staying}
    resources = tuple(resource for resource in after.resources if resource.origin.source not in origins)
    actions = tuple(_action(resource, held.get(resource.key)) for resource in resources)
    problems = [problem for problem in after.problems if problem not in known]
    problems += [
        _not_ours(resource)
        for resource, action in zip(resources, actions, strict=True)
        if made(resource) and action != "unchanged"
    ]
    return Judgement(
        resources,
        actions,
        tuple(problems),
        tuple(note for note in after.notes if note.origin.source not in origins),
    )


def _not_ours(resource: Resource) -> Problem:
    """Written, it would stand beside the one that is made anew all the time, and neither would be in force."""
    key = resource.key
    message = (
        f"was made of the registry's own configuration, by the label {MADE_BY}; change it there, or take the label away"
        " and give the document a name of its own, and it goes before what is made"
    )
    return Problem(resource.origin, key.kind, f"{key.namespace}/{key.name}", "metadata.labels", message)


def _load_all(resources: Iterable[Resource], *, strict: bool) -> Loaded:
    return load([_source(resource) for resource in resources], strict=strict)


def _source(resource: Resource) -> Source:
    return Source(str(resource.key), encode(resource))


def _action(resource: Resource, before: Resource | None) -> str:
    if before is None:
        return "created"
    return "unchanged" if encode(before) == encode(resource) else "configured"
