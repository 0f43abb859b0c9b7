"""What Consul can be asked: how each question is put, and how its answer is read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec

from meshlib.registries.consul import chain, intentions
from meshlib.registries.consul.documents import documents_of
from meshlib.registries.consul.entries import health_of, native_path
from meshlib.registries.consul.rights import lacking
from meshlib.resources import Source

__all__ = ["CONFIG_KINDS", "CONNECT_OFF", "INTENTIONS", "RIGHTS", "ROOTS", "SERVICES", "Chained", "Known", "Question"]

CONFIG_KINDS = ("service-router", "service-splitter", "service-resolver", "service-defaults", "proxy-defaults")
"""The config entries that a discovery chain is compiled of."""

CONNECT_OFF = "\0off"
"""The answer to a question about Consul's CA where it has none."""

NOBODY = "meshlib-nobody"
"""A caller that doesn't exist: what Consul says of it is the default."""

Kind = Literal[
    "services", "documents", "config", "health", "chain", "roots", "intentions", "match", "authorize", "rights"
]


class Question(NamedTuple):
    """One thing to ask Consul.

    Attributes:
        kind: what about.
        name: the service's, the prefix's, the config entry's kind.
        datacenter: asked about, "": the default.
        filter: an expression that Consul evaluates.
        passing: only instances whose checks all pass.
        namespace: of the services that a chain names.
    """

    kind: Kind
    name: str = ""
    datacenter: str = ""
    filter: str = ""
    passing: bool = False
    namespace: str = ""

    @property
    def followed(self) -> bool:
        """Whether it is asked by blocking queries, or once for each revision of what it depends on."""
        return self.kind not in {"chain", "match", "authorize", "rights"}

    @property
    def needs_connect(self) -> bool:
        """Whether it is about Consul's CA."""
        return self.kind in {"roots", "intentions", "match", "authorize"}

    @property
    def path(self) -> str:
        """What to GET, or to POST to where there is a body."""
        name = quote(self.name, safe="/" if self.kind == "documents" else "")
        return {
            "services": "/v1/catalog/services",
            "documents": f"/v1/kv/{name}/",
            "config": f"/v1/config/{name}",
            "health": f"/v1/health/service/{name}",
            "chain": f"/v1/discovery-chain/{name}",
            "roots": "/v1/agent/connect/ca/roots",
            "intentions": "/v1/connect/intentions",
            "match": "/v1/connect/intentions/match",
            "authorize": "/v1/agent/connect/authorize",
            "rights": "/v1/internal/acl/authorize",
        }[self.kind]

    def params(self, datacenter: str, *, stale: bool) -> list[tuple[str, str]]:
        """The parameters of the request, where `datacenter` is the default, "": the agent's own."""
        if self.kind in {"roots", "authorize"}:
            return []
        asked = [("dc", self.datacenter or datacenter)] if self.datacenter or datacenter else []
        asked += [("stale", "")] if stale and self.kind != "rights" else []
        asked += [("recurse", "")] if self.kind == "documents" else []
        asked += [("filter", self.filter)] if self.filter else []
        asked += [("passing", "1")] if self.passing else []
        return asked + ([("by", "destination"), ("name", self.name)] if self.kind == "match" else [])

    def body(self, known: Known, revision: str = "") -> bytes:
        """What to POST, b"": it is a GET. The revision of `rights` is its own body."""
        if self.kind == "rights":
            return revision.encode()
        if self.kind != "authorize":
            return b""
        domain = known.get(ROOTS, "")
        uri = f"spiffe://{domain}{native_path(NOBODY, self.datacenter or 'dc1')}"
        return msgspec.json.encode({"Target": self.name, "ClientCertURI": uri, "ClientCertSerial": "00"})

    def read(self, answer: bytes) -> Any:
        """What an answer says. Raises ValueError when it isn't one."""
        return _READERS[self.kind](self, answer)


Known = Mapping[Question, Any]
"""The newest good answer to each question."""

SERVICES = Question("services")
ROOTS = Question("roots")
INTENTIONS = Question("intentions")
RIGHTS = Question("rights")


class Chained(NamedTuple):
    """What a discovery chain says: documents, whose endpoints they lead to, and what was left out, in words."""

    sources: tuple[Source, ...]
    targets: tuple[chain.Target, ...]
    warnings: tuple[str, ...]


def _read_services(question: Question, answer: bytes) -> frozenset[str]:
    names = msgspec.json.decode(answer, type=dict[str, list[str] | None])
    # Consul's servers list themselves; they are no service of the mesh.
    return frozenset(name.lower() for name in names if name != "consul")


def _read_list(question: Question, answer: bytes) -> bytes:
    """The list as it is, b"" when it is empty: only whether and when it changes is of interest."""
    return answer if msgspec.json.decode(answer, type=list[msgspec.Raw]) else b""


def _read_digest(question: Question, answer: bytes) -> str:
    _read_list(question, answer)
    return blake2b(answer, digest_size=12).hexdigest()


def _read_chain(question: Question, answer: bytes) -> Chained:
    namespace = question.namespace
    return Chained(
        chain.documents(answer, namespace), chain.targets(answer, namespace), chain.warnings(answer, namespace)
    )


class _Roots(msgspec.Struct, rename="pascal"):
    trust_domain: str


def _read_roots(question: Question, answer: bytes) -> str:
    return msgspec.json.decode(answer, type=_Roots).trust_domain.lower()


_READERS: dict[str, Callable[[Question, bytes], Any]] = {
    "services": _read_services,
    "documents": lambda question, answer: documents_of(answer, question.name),
    "config": _read_list,
    "health": lambda question, answer: health_of(answer, question.datacenter),
    "chain": _read_chain,
    "roots": _read_roots,
    "intentions": _read_digest,
    "match": lambda question, answer: intentions.parse(answer, question.name),
    "authorize": lambda question, answer: intentions.default_allowed(answer),
    "rights": lambda question, answer: lacking(answer),
}
