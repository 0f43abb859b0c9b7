"""What an external authorizer is asked, and what its answer comes to. Pure.

As Envoy's ext_authz filter asks by HTTP: method, path and Host of the request, its `authorization` header, the further
headers its configuration names, and its body only if that says so. In three things it is stricter. One path is asked
about, in one spelling: a request whose path can be read in two ways is refused, for the application might read the
other one. Whom the request is made for stands in `x-forwarded-for` and `x-forwarded-client-cert` as it was verified
here, whatever the caller wrote there. And nothing a caller sends makes the question impossible to put: that would open
an authorizer that fails open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote, quote_from_bytes

from meshlib.context import ATTEMPT_HEADER, DEADLINE_HEADER
from meshlib.inbound.effects import Ask, Said
from meshlib.inbound.forwarded import ADDRESSES, HEADER
from meshlib.inbound.heads import SAFE, for_asgi
from meshlib.policy.asking import CHECK_HEADER, depth_of, unaskable
from meshlib.policy.hosts import host_of
from meshlib.policy.patterns import any_text
from meshlib.resources import HTTPAuthorizer

__all__ = ["MOST_BODY", "MOST_HEADERS", "Question", "question_of", "said_of"]

MOST_HEADERS = 100
"""Of an answer."""

MOST_BODY = 65_536
"""Bytes of an answer."""

PARTIAL = b"x-envoy-auth-partial-body"
"""Envoy's header that says whether the body in a check was cut."""

_SENT = b"authorization"
_OURS = frozenset(
    (
        b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te",
        b"trailer", b"upgrade", b"expect", ADDRESSES, HEADER, CHECK_HEADER, PARTIAL, DEADLINE_HEADER, ATTEMPT_HEADER,
    )
)  # fmt: skip
"""Headers that a check has of its own, or that speak of a connection: those of the request aren't passed on."""

_HELD_BACK = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"host")
)
"""Headers of an answer that speak of its connection, and not of the request."""

_QUERY_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"#<>`{}|\\^')


class Question(NamedTuple):
    """A request to an authorizer.

    Attributes:
        url: whole.
        body: None for none.
    """

    method: str
    url: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | None


def question_of(ask: Ask) -> Question | Said:
    """What to ask; the answer itself where nobody needs to be asked."""
    authorizer, arriving = ask.provider.envoy_ext_authz_http, ask.arriving
    if (refused := unaskable(arriving)) is not None:
        return Said(refused.status, why=refused.why)
    host = authorizer.service.rpartition("/")[2]  # Istio's may have a namespace in front
    headers = [(b"host", (host_of(arriving) or host).encode("latin-1", "replace"))]
    headers += _headers(ask, authorizer)
    headers.append((CHECK_HEADER, b"%d" % (depth_of(arriving) + 1)))
    if ask.body is not None:
        headers.append((PARTIAL, b"true" if ask.partial else b"false"))
    path = arriving.reading.permitting[0]
    target = quote(path if path.startswith("/") else "/" + path, safe=SAFE)
    _, mark, query = arriving.raw_target.partition(b"?")
    if mark:
        target += "?" + quote_from_bytes(query, safe=_QUERY_SAFE)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    url = f"http://{host}:{authorizer.port}{authorizer.path_prefix}{target}"
    return Question(arriving.method, url, headers, ask.body)


def _headers(ask: Ask, authorizer: HTTPAuthorizer) -> list[tuple[bytes, bytes]]:
    """Those of the request that are named, as the application would see them, and those that are added."""
    arriving, permit = ask.arriving, ask.permit
    seen: Iterable[tuple[bytes, bytes]] = arriving.raw_headers
    if permit is not None and (permit.add or permit.remove):
        seen = for_asgi(arriving.raw_headers, permit.add, permit.remove)
    named = any_text([pattern.lower() for pattern in authorizer.include_request_headers_in_check])
    added = {
        name.lower().encode("latin-1"): value.encode("utf-8")
        for name, value in authorizer.include_additional_headers_in_check.items()
    }
    found = [
        (name, value)
        for name, value in seen
        if name not in _OURS and name not in added and (name == _SENT or named(name.decode("latin-1")))
    ]
    if arriving.remote_ip:
        found.append((ADDRESSES, arriving.remote_ip.encode("latin-1", "replace")))
    if arriving.principal and named(HEADER.decode()):
        found.append((HEADER, b"URI=spiffe://" + arriving.principal.encode("utf-8")))
    return [pair for pair in found if pair[0] not in added] + list(added.items())


def said_of(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | None) -> Said:
    """What an answer comes to.

    A refusal stays one whatever else is wrong with the answer: it may be one of an authorizer that fails open.

    Args:
        status: of the response.
        headers: as they came.
        body: None: it is too long, or didn't come whole.
    """
    if status >= 500:
        return Said(None, why=f"it answered {status}")
    if len(headers) > MOST_HEADERS:
        why = f"it answered {status} with {len(headers)} headers, more than {MOST_HEADERS}"
        return Said(None if status == 200 else status, why=why)
    kept = [(name.lower(), value) for name, value in headers if name.lower() not in _HELD_BACK]
    if body is None and status != 200:
        kept = [pair for pair in kept if not pair[0].startswith(b"content-")]
        return Said(status, kept, why=f"its body is longer than {MOST_BODY} bytes, or didn't come whole")
    return Said(status, kept, body or b"")
