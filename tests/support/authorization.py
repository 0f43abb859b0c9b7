"""Rows of the tables of authorization: policies, a request in one line, and what becomes of it.

    Table("what it shows", "where it is from", policies, {"GET /info from=ns/default/sa/sleep": "allow"})

`policies` are rules of one policy, `action: DENY` and so on before them, or whole documents parted by `---`. A request
is its method and target, and then any of `from=` (the path of the caller's SPIFFE ID), `ip=`, `remote=`, `port=` (or
`port=none`), `sni=`, `to=`, `claims=` (JSON) and headers (`'x-team: a b'`). What becomes of it is `allow`, `deny`,
`unsafe` (refused with 400) or `ask NAME` (the provider is asked first).
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from meshlib.identity.spiffe import SpiffeId
from meshlib.inbound.admit import Peer
from meshlib.inbound.heads import Visitor, asgi_head
from meshlib.policy.arriving import Arriving
from meshlib.policy.authorize import Authorization

__all__ = ["Asked", "Row", "Table", "arriving", "asked", "documents", "rows", "verdict"]

TRUST_DOMAIN = "mesh.test"


class Table(NamedTuple):
    """Requests to one set of policies."""

    shows: str
    source: str
    policies: str
    verdicts: Mapping[str, str]
    aliases: tuple[str, ...] = ()


class Row(NamedTuple):
    """One request of a table."""

    table: Table
    request: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.table.shows}: {self.request} → {self.verdict}"


class Asked(NamedTuple):
    """A request, read from its line."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    options: Mapping[str, str]

    @property
    def claims(self) -> dict[str, Any] | None:
        """Those of its token."""
        return json.loads(self.options["claims"]) if "claims" in self.options else None

    @property
    def peer(self) -> str:
        """The caller's SPIFFE ID, "" for none."""
        return f"spiffe://{TRUST_DOMAIN}/{self.options['from']}" if "from" in self.options else ""


def rows(*tables: Table) -> list[Row]:
    """The rows of tables."""
    return [Row(table, request, verdict) for table in tables for request, verdict in table.verdicts.items()]


def asked(line: str) -> Asked:
    """The request of a line."""
    method, target, *words = shlex.split(line)
    headers: list[tuple[str, str]] = []
    options: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in {"from", "ip", "remote", "port", "sni", "to", "claims"}:
            options[name] = value
        else:
            header, _, text = word.partition(":")
            headers.append((header.lower(), text.strip()))
    if not any(name == "host" for name, _ in headers):
        headers.insert(0, ("host", "reviews"))
    return Asked(method, target, tuple(one for one in headers if one != ("host", "none")), options)


def arriving(request: Asked) -> Arriving:
    """The head that rules see, as the ASGI middleware makes it."""
    path, _, query = request.target.partition("?")
    port = request.options.get("port", "8080")
    caller = SpiffeId(TRUST_DOMAIN, "/" + request.options["from"]) if request.peer else None
    ip = request.options.get("ip", "192.0.2.7")
    scope = {
        "method": request.method,
        "path": unquote(path, errors="replace"),
        "raw_path": path.encode("utf-8"),
        "query_string": query.encode("utf-8"),
        "server": None if port == "none" else (request.options.get("to", ""), int(port)),
    }
    headers = [(name.encode("latin-1"), value.encode("utf-8")) for name, value in request.headers]
    visitor = Visitor(Peer(caller, caller is not None), ip, caller, request.options.get("remote", ip), False)
    head = asgi_head(scope, headers, visitor)
    head.sni = request.options.get("sni", "")
    head.claims = request.claims
    return head


def verdict(authorization: Authorization | None, head: Arriving) -> str:
    """What becomes of a request, in a table's words."""
    if authorization is None:
        return "allow"
    if authorization.fault_of(head):
        return "unsafe"
    if providers := authorization.customs_for(head):
        return f"ask {' and '.join(providers)}"
    return "allow" if authorization.judge(head).allowed else "deny"


def documents(table: Table) -> str:
    """The documents of a table."""
    parts = [part for part in textwrap.dedent(table.policies).split("---\n") if part.strip()]
    found = [_document(number, part) for number, part in enumerate(parts)]
    if any("CUSTOM" in part for part in parts) or table.aliases:
        found.append(_INBOUND_POLICY.format(aliases=json.dumps(table.aliases)))
    return "---\n".join(found)


_INBOUND_POLICY = """apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {{name: all}}
spec:
  trustDomainAliases: {aliases}
  extensionProviders:
  - {{name: opa, envoyExtAuthzHttp: {{service: opa.default.svc.cluster.local, port: 9191}}}}
  - {{name: other, envoyExtAuthzHttp: {{service: other.default.svc.cluster.local, port: 9191}}}}
"""


def _document(number: int, part: str) -> str:
    if "kind:" in part:
        return part
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
    return f"{head}metadata: {{name: p{number}, namespace: default}}\nspec:\n{textwrap.indent(part, '  ')}"
