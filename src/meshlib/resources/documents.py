"""What goes into the vocabulary and what comes out: sources, resources, problems and notes."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

import msgspec

from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import AuthorizationPolicySpec
from meshlib.resources.destinations import DestinationRuleSpec
from meshlib.resources.inbound import InboundPolicySpec
from meshlib.resources.networking import ServiceEntrySpec, VirtualServiceSpec
from meshlib.resources.outbound import OutboundPolicySpec
from meshlib.resources.security import PeerAuthenticationSpec

__all__ = [
    "FieldNote",
    "Loaded",
    "Metadata",
    "Origin",
    "Path",
    "Problem",
    "Resource",
    "ResourceKey",
    "Source",
    "Spec",
    "encode",
    "show",
    "show_path",
]

Path = tuple[str | int, ...]
Spec = (
    VirtualServiceSpec
    | DestinationRuleSpec
    | ServiceEntrySpec
    | OutboundPolicySpec
    | InboundPolicySpec
    | PeerAuthenticationSpec
    | RequestAuthenticationSpec
    | AuthorizationPolicySpec
)

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN = 60


class Source(NamedTuple):
    """A text and where it came from: `mesh.yaml`, `VirtualService/default/reviews`."""

    origin: str
    text: bytes


class Origin(NamedTuple):
    """A place in a source.

    Attributes:
        source: the source's `origin`.
        document: which of its documents, from 1; 0 is the text as a whole.
        line: from 1; 0 is unknown.
    """

    source: str
    document: int = 0
    line: int = 0

    def __str__(self) -> str:
        return _place(self, "")


class Problem(NamedTuple):
    """Why a document can't be applied.

    Attributes:
        origin: the file, document and line.
        kind, name: of the document (`default/reviews`), "" when they can't be read.
        path: `spec.http[0].route[1].weight`, "" for the document as a whole.
        message: what was found, what is expected and the way out.
    """

    origin: Origin
    kind: str
    name: str
    path: str
    message: str

    def __str__(self) -> str:
        return _sentence(self.origin, self.kind, self.name, self.path, self.message)


class FieldNote(NamedTuple):
    """A field that is not applied as written: the capability report.

    Attributes:
        origin, kind, name, path: as on `Problem`.
        status: whether the field is applied nearly or not at all.
        reason: why, in words.
    """

    origin: Origin
    kind: str
    name: str
    path: str
    status: Literal["approximated", "ignored"]
    reason: str

    def __str__(self) -> str:
        return _sentence(self.origin, self.kind, self.name, self.path, f"{self.status}: {self.reason}")


class Metadata(msgspec.Struct, frozen=True):
    """The part of Kubernetes' metadata that has a meaning here; the rest is tolerated."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ResourceKey(NamedTuple):
    """What tells one resource from another in a registry."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class Resource(msgspec.Struct, frozen=True):
    """A document that passed every check.

    Attributes:
        spec: typed by `kind`.
        origin: where the document begins.
        document: as it was written, for `encode`; not to be changed.
    """

    kind: str
    metadata: Metadata
    spec: Spec
    origin: Origin
    document: dict[str, Any]

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind, self.metadata.namespace, self.metadata.name)


class Loaded(NamedTuple):
    """What `load` made of its sources."""

    resources: tuple[Resource, ...]
    problems: tuple[Problem, ...]
    notes: tuple[FieldNote, ...]


def encode(resource: Resource) -> bytes:
    """The document as canonical JSON: sorted keys, no spaces. Equal documents give equal bytes."""
    return msgspec.json.encode(resource.document, order="sorted")


def show(value: object) -> str:
    """A value for a message: as JSON would write it, cut short when long; for a container only its size."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return f"a mapping of {len(value)}" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, str) and len(value) > _SHOWN:
        value = value[:_SHOWN] + "…"
    return msgspec.json.encode(value).decode()


def show_path(path: Path) -> str:
    """`spec.http[0].headers["end-user"]` for its steps."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step) and len(step) <= _SHOWN:
            text += f".{step}" if text else step
        else:
            text += f"[{show(step)}]"
    return text


def _sentence(origin: Origin, kind: str, name: str, path: str, message: str) -> str:
    place = _place(origin, f" ({kind} {name})" if kind and name else "")
    return f"{place}, {path}: {message}" if path else f"{place}: {message}"


def _place(origin: Origin, who: str) -> str:
    document = f", document {origin.document}" if origin.document else ""
    line = f", line {origin.line}" if origin.line else ""
    return f"{origin.source}{document}{who}{line}"
