"""Whether the caller may do what it asks: CUSTOM, then DENY, then ALLOW."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from meshlib.inbound.denials import DENIED, TOO_LARGE, UNSAFE, Denial, Permit, deny
from meshlib.inbound.effects import Ask, EarlyBody, Effect, ReadBody, Said, Step, Stepped
from meshlib.inbound.tokens import take_out
from meshlib.policy.arriving import Arriving
from meshlib.policy.asking import unaskable
from meshlib.policy.authorize import Authorization
from meshlib.policy.notes import Note
from meshlib.policy.patterns import Test, any_text
from meshlib.resources import ExtensionProvider, HTTPAuthorizer

__all__ = ["authorize"]

_FORBIDDEN = "the caller may not do this"
_UNREADABLE = "the request can be read in more than one way"

_OF_ITS_OWN = frozenset(
    (b"connection", b"content-encoding", b"content-length", b"date", b"keep-alive", b"server", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"x-meshlib-reason")
)  # fmt: skip
"""Headers of one answer on one connection, which would be wrong in another."""


def authorize(authorization: Authorization, arriving: Arriving, permit: Permit) -> Stepped:
    """The step of AuthorizationPolicies.

    Args:
        authorization: of the process.
        arriving: the request.
        permit: of it; gets what authorizers add, and what AUDIT and dry runs note.
    """
    if fault := authorization.fault_of(arriving):
        return deny(400, UNSAFE, _UNREADABLE, f"{fault}, and an AuthorizationPolicy looks at that")
    if names := authorization.customs_for(arriving):
        return _asking(names, authorization, arriving, permit)
    return _ruled(authorization, arriving, permit)


def _asking(names: Sequence[str], authorization: Authorization, arriving: Arriving, permit: Permit) -> Step:
    """Ask every authorizer first."""
    for name in names:
        provider = authorization.providers.get(name)
        if provider is None:
            why = f"a CUSTOM policy asks {name[:100]!r}, which is none of the InboundPolicy's extensionProviders"
            return deny(403, DENIED, _FORBIDDEN, why, by=name)
        denial = yield from _asked(provider, arriving, permit)
        if denial is not None:
            return denial
    return _ruled(authorization, arriving, permit)


def _ruled(authorization: Authorization, arriving: Arriving, permit: Permit) -> Denial | None:
    """What DENY and ALLOW policies say."""
    ruling = authorization.judge(arriving)
    if ruling.noted:
        permit.notes += ruling.noted
    return None if ruling.allowed else deny(403, DENIED, _FORBIDDEN, ruling.why, by=ruling.policy)


def _asked(provider: ExtensionProvider, arriving: Arriving, permit: Permit) -> Generator[Effect, Any, Denial | None]:
    """What an external authorizer makes of a request; see Envoy's `ext_authz`, HTTP service."""
    told = provider.envoy_ext_authz_http
    read: EarlyBody | None = None
    if (wanted := told.include_request_body_in_check) is not None and unaskable(arriving) is None:
        read = yield ReadBody(wanted.max_request_bytes)
        if read.partial and not wanted.allow_partial_message:
            # Also where the authorizer fails open, as in Envoy.
            reason = f"its body is longer than the authorizer {provider.name} gets to see ({wanted.max_request_bytes})"
            return deny(413, TOO_LARGE, "the body is longer than this service takes", reason, by=provider.name)
    said: Said = yield Ask(provider, arriving, permit, *(read or (None, False)))
    take_out(arriving, permit, _unseen(told))
    if said.status is None or said.status >= 500:
        why = said.why or f"it answered {said.status}"
        if told.fail_open:
            says = f"the authorizer {provider.name} couldn't be asked, and failOpen lets requests in: {why}"
            permit.notes.append(Note("uncounted", provider.name, says))
            return None
        reason = f"the authorizer {provider.name} couldn't be asked: {why}"
        return deny(told.status_on_error, DENIED, _FORBIDDEN, reason, by=provider.name)
    if said.status != 200:
        return _denied(provider.name, told, said, said.status)
    _put_in(arriving, permit, list(_chosen(said, told.headers_to_upstream_on_allow)))
    permit.reply += _chosen(said, told.headers_to_downstream_on_allow)
    return None


def _unseen(told: HTTPAuthorizer) -> set[bytes]:
    """The headers that only the authorizer may set, with hyphens: those it may, and isn't shown when a caller does.

    Those it is shown are its to judge, as an `authorization` that it lets pass. Where names are given by a part only,
    what they are can't be known before the answer.
    """
    shown: Test = any_text(["authorization", *(name.lower() for name in told.include_request_headers_in_check)])
    names = (name.lower() for name in told.headers_to_upstream_on_allow if "*" not in name)
    return {name.replace("_", "-").encode("latin-1", "replace") for name in names if not shown(name)}


def _put_in(arriving: Arriving, permit: Permit, headers: list[tuple[bytes, bytes]]) -> None:
    """Have the application see these headers in place of the request's own, and the rules that follow, too."""
    names = {name.replace(b"_", b"-") for name, _ in headers}
    take_out(arriving, permit, names)
    permit.add = [pair for pair in permit.add if pair[0].replace(b"_", b"-") not in names] + headers
    arriving.raw_headers += headers


def _denied(name: str, told: HTTPAuthorizer, said: Said, status: int) -> Denial:
    """The authorizer's own answer to the caller: its status and body, and of its headers those that may be seen.

    Without `headersToDownstreamOnDeny` those are all, as Envoy's `allowed_client_headers` has it.
    """
    if said.why and not said.headers:  # it was never asked, for the request is to blame
        code, detail = (UNSAFE, _UNREADABLE) if status == 400 else (DENIED, _FORBIDDEN)
        return deny(status, code, detail, f"no check by {name}: {said.why}", by=name)
    reason = f"the authorizer {name} answered {status}" + (f": {said.why}" if said.why else "")
    if status not in _STATUSES:
        return deny(403, DENIED, _FORBIDDEN, f"{reason}, which is no answer to a request", by=name)
    wanted = told.headers_to_downstream_on_deny
    headers = [
        *_chosen(said, (*wanted, "content-type", "location", "www-authenticate") if wanted else ("*",)),
        (b"x-meshlib-reason", DENIED.encode()),
    ]
    if status in _BODILESS:
        return Denial(status, headers, b"", reason, DENIED, name)
    headers.append((b"content-length", b"%d" % len(said.body)))
    return Denial(status, headers, said.body, reason, DENIED, name)


_STATUSES: Collection[int] = frozenset(one.value for one in HTTPStatus if one.value >= 200)
"""Those of final answers; `http.server` and WSGI servers want a phrase for each."""

_BODILESS = frozenset((204, 304))


def _chosen(said: Said, names: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    test: Test = any_text([name.lower() for name in names])
    for name, value in said.headers:
        lowered = name.lower()
        if lowered not in _OF_ITS_OWN and test(lowered.decode("latin-1")):
            yield lowered, value
