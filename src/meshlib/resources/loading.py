"""From texts to resources: everything that is wrong is collected, nothing is raised."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast

import msgspec

from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import AuthorizationPolicySpec
from meshlib.resources.authorizing import check_dry_run
from meshlib.resources.decode import INVALID, reader
from meshlib.resources.destinations import DestinationRuleSpec
from meshlib.resources.documents import (
    FieldNote,
    Loaded,
    Metadata,
    Origin,
    Path,
    Problem,
    Resource,
    Source,
    show,
    show_path,
)
from meshlib.resources.fields import nearest
from meshlib.resources.inbound import InboundPolicySpec
from meshlib.resources.networking import ServiceEntrySpec, VirtualServiceSpec
from meshlib.resources.outbound import OutboundPolicySpec
from meshlib.resources.references import check_references
from meshlib.resources.routes import inert
from meshlib.resources.security import PeerAuthenticationSpec
from meshlib.resources.texts import documents
from meshlib.resources.validate import check, name_fault
from meshlib.resources.yamltext import Document, TextError, line_of

__all__ = ["load"]

_MAX_REPORTED = 1000
_ISTIO = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")
_SECURITY = ("security.istio.io/v1", "security.istio.io/v1beta1")
_OURS = ("meshlib/v1",)
_Status = Literal["approximated", "ignored"]


class _Kind(NamedTuple):
    spec: type[msgspec.Struct]
    api_versions: tuple[str, ...]


_KINDS: Mapping[str, _Kind] = {
    "VirtualService": _Kind(VirtualServiceSpec, _ISTIO),
    "DestinationRule": _Kind(DestinationRuleSpec, _ISTIO),
    "ServiceEntry": _Kind(ServiceEntrySpec, _ISTIO),
    "OutboundPolicy": _Kind(OutboundPolicySpec, _OURS),
    "InboundPolicy": _Kind(InboundPolicySpec, _OURS),
    "PeerAuthentication": _Kind(PeerAuthenticationSpec, _SECURITY),
    "RequestAuthentication": _Kind(RequestAuthenticationSpec, _SECURITY),
    "AuthorizationPolicy": _Kind(AuthorizationPolicySpec, _SECURITY),
}
_MAX_NAME = 512
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


def load(
    sources: Iterable[Source], *, strict: bool = False, elsewhere: Callable[[str], bool] = lambda _host: False
) -> Loaded:
    """Decodes and checks documents. Never raises for what the texts hold.

    Args:
        sources: YAML or JSON texts of one or more documents each.
        strict: whether a field that would be approximated or ignored is a problem instead of a note.
        elsewhere: whether subsets of the host of this full name may be defined in what isn't among `sources`; then one
            that nobody defines is no problem.

    Returns:
        The sound resources in order, what is wrong with the others, and the notes of all. At most 1000 problems and
        1000 notes are kept of each source; a last problem says when there were more.
    """
    problems: list[Problem] = []
    notes: list[FieldNote] = []
    decoded: list[_Decoded] = []
    for source in sources:
        report = _SourceReport(source.origin, strict=strict)
        decoded += _read(source, report)
        problems += report.problems
        notes += report.notes
    texts = {id(entry.resource): entry.text for entry in decoded}

    def locate(resource: Resource, path: Path) -> Origin:
        return resource.origin._replace(line=line_of(texts[id(resource)], path))

    # A faulty document still defines what it defines: leaving it out here would only add faults that aren't there.
    dangling = check_references([entry.resource for entry in decoded], locate, elsewhere).errors
    faulty = {problem.origin[:2] for problem in dangling}
    sound = [entry.resource for entry in decoded if entry.sound and entry.resource.origin[:2] not in faulty]
    return Loaded(tuple(sound), (*problems, *dangling), tuple(notes))


class _Decoded(NamedTuple):
    resource: Resource
    text: Document
    sound: bool


class _SourceReport:
    """What was found in one source. Its size is bounded, whatever the source holds."""

    def __init__(self, source: str, *, strict: bool) -> None:
        self.problems: list[Problem] = []
        self.notes: list[FieldNote] = []
        self._source = source
        self.strict = strict

    def problem(self, origin: Origin, kind: str, name: str, path: str, message: str) -> None:
        if len(self.problems) < _MAX_REPORTED:
            self.problems.append(Problem(origin, kind, name, path, message))
        elif len(self.problems) == _MAX_REPORTED:
            message = f"has more than {_MAX_REPORTED} problems; the others are not listed"
            self.problems.append(Problem(Origin(self._source), "", "", "", message))

    @property
    def full(self) -> bool:
        """Whether further notes would be dropped."""
        return len(self.problems if self.strict else self.notes) >= _MAX_REPORTED


class _DocumentReport:
    """A `decode.Report` for one document: paths become places and words."""

    def __init__(self, report: _SourceReport, source: str, number: int, text: Document) -> None:
        self.faults = 0
        self.kind = ""
        self.name = ""
        self._report = report
        self._origin = Origin(source, number, text.line)
        self._text = text

    def problem(self, path: Path, message: str) -> None:
        self.faults += 1
        self._report.problem(self._at(path), self.kind, self.name, show_path(path), message)

    def note(self, path: Path, status: _Status, reason: Callable[[], str]) -> None:
        self.faults += self._report.strict
        if self._report.full:
            return
        where, at = self._at(path), show_path(path)
        if self._report.strict:
            message = f"is {status}, and strict mode refuses that: {reason()}"
            self._report.problem(where, self.kind, self.name, at, message)
        else:
            self._report.notes.append(FieldNote(where, self.kind, self.name, at, status, reason()))

    def _at(self, path: Path) -> Origin:
        return self._origin._replace(line=line_of(self._text, path))

    @property
    def origin(self) -> Origin:
        return self._origin


def _read(source: Source, report: _SourceReport) -> Iterator[_Decoded]:
    number = 0
    try:
        for number, text in enumerate(documents(source.text), 1):
            resource, sound = _resource(text, _DocumentReport(report, source.origin, number, text))
            if resource is not None:
                yield _Decoded(resource, text, sound)
    except TextError as error:
        where = Origin(source.origin, number + 1 if error.line else 0, error.line)
        report.problems.append(Problem(where, "", "", "", error.message))


def _resource(text: Document, report: _DocumentReport) -> tuple[Resource | None, bool]:
    document = text.value
    if not isinstance(document, dict):
        report.problem((), f"expected a mapping with {', '.join(_TOP[:4])}, found {show(document)}")
        return None, False
    known = _known_kind(document, report)
    metadata = _metadata(document, report)
    if known is None or metadata is None:
        return None, False
    for name in document:
        if name not in _TOP:
            report.note((name,), "ignored", functools.partial(_unknown, name))
    spec = reader(known.spec)(document.get("spec", {}), ("spec",), report)
    if spec is INVALID:
        return None, False
    for path, message in check(spec, document.get("spec", {})):
        report.problem(path, message)
    for path, message in check_dry_run(spec, metadata) if isinstance(spec, AuthorizationPolicySpec) else ():
        report.problem(path, message)
    for path, message in inert(spec) if isinstance(spec, VirtualServiceSpec) else ():
        report.note(path, "ignored", functools.partial(str, message))
    return Resource(report.kind, metadata, spec, report.origin, document), not report.faults


def _known_kind(document: Mapping[str, Any], report: _DocumentReport) -> _Kind | None:
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or kind not in _KINDS:
        # A comparison with a kind of another group would mislead.
        group = [name for name, known in _KINDS.items() if (version in _SECURITY) == (known.api_versions is _SECURITY)]
        hint = nearest(kind, group) if isinstance(kind, str) else ""
        if version not in (None, *_ISTIO, *_OURS) and not (hint and version in _SECURITY):
            hint = "; leave documents of other kinds out"
        report.problem(("kind",), f"expected one of {', '.join(_KINDS)}, found {show(kind)}{hint}")
        return None
    known = _KINDS[kind]
    report.kind = kind
    if version not in known.api_versions:
        report.problem(("apiVersion",), f"expected {' or '.join(known.api_versions)}, found {show(version)}")
    return known


def _metadata(document: Mapping[str, Any], report: _DocumentReport) -> Metadata | None:
    metadata = reader(Metadata)(document.get("metadata", {}), ("metadata",), report)
    if metadata is INVALID:
        return None
    report.name = f"{metadata.namespace}/{metadata.name}"[:_MAX_NAME]
    for field in ("name", "namespace"):
        fault = name_fault(getattr(metadata, field))
        if fault is not None:
            report.problem(("metadata", field), fault)
    return cast("Metadata", metadata)


def _unknown(name: str) -> str:
    return f"unknown field{nearest(name, _TOP)}"
