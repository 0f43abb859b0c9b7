"""Whether a request may come in, step by step. Start reading here.

Admission is a generator. It decides; the driver acts: it performs each effect and sends back what came of it. The same
admission serves ASGI and WSGI. Most requests yield no effect at all.
"""

from __future__ import annotations

from typing import NamedTuple

from meshlib.identity.spiffe import SpiffeId
from meshlib.inbound.authorizing import authorize
from meshlib.inbound.bounds import fault_of
from meshlib.inbound.clocks import Clocks
from meshlib.inbound.cors import preflight
from meshlib.inbound.denials import DENIED, GIVEN_UP, UNREADY, Denial, Permit, deny
from meshlib.inbound.effects import Admission
from meshlib.inbound.faults import inject
from meshlib.inbound.limiting import limit
from meshlib.inbound.placing import place, shed
from meshlib.inbound.tokens import authenticate
from meshlib.plan.inbound import Inbound
from meshlib.policy.arriving import Arriving
from meshlib.policy.intentions import decide, source_of
from meshlib.resources import Intentions

__all__ = ["Peer", "admission", "given_up", "restricts", "unready"]


class Peer(NamedTuple):
    """Who is at the other end of a connection.

    Attributes:
        id: the identity its certificate was verified for, None: it showed none.
        secure: whether the connection is TLS.
        known: whether the server lets its connections be looked at. Where it doesn't, `id` is None, and nobody guesses.
    """

    id: SpiffeId | None = None
    secure: bool = False
    known: bool = True


def restricts(inbound: Inbound) -> bool:
    """Whether there is anything to do for a request."""
    strict = inbound.mode == "STRICT" or "STRICT" in inbound.ports.values()
    return strict or bool(inbound.closed) or any(step is not None for step in _steps(inbound))


def _steps(inbound: Inbound) -> tuple[object, ...]:
    of_callers = inbound.intentions, inbound.tokens, inbound.authorization
    return *of_callers, inbound.limits, inbound.load, inbound.bounds, inbound.cors, inbound.faults


def admission(inbound: Inbound, peer: Peer, caller: SpiffeId | None, arriving: Arriving, clocks: Clocks) -> Admission:
    """One request as a generator of effects.

    Args:
        inbound: what the plan says.
        peer: the other end of the connection.
        caller: for whom the request is made: `peer.id`, or whom a trusted hop forwards.
        arriving: the request's head.
        clocks: of the driver.

    Returns:
        (by StopIteration) a denial, or a permit whose `end` must be called when the request has ended.
    """
    permit = Permit()
    try:
        denial = _turned_away(inbound, arriving, permit, clocks) or _of_connection(inbound, peer, arriving.port)
        # Who calls: the token, then what he may do by it.
        if denial is None and inbound.tokens is not None:
            done = authenticate(inbound.tokens, arriving, permit, clocks.wall)
            denial = done if done is None or isinstance(done, Denial) else (yield from done)
        if denial is None and inbound.authorization is not None:
            done = authorize(inbound.authorization, arriving, permit)
            denial = done if done is None or isinstance(done, Denial) else (yield from done)
        if denial is None and inbound.intentions is not None:
            denial = _intended(inbound.intentions, caller, arriving)
        # Only who may come in is counted, so that nobody can use up a limit of others'.
        if denial is None and inbound.limits is not None:
            done = limit(inbound.limits, arriving, permit, clocks.now)
            denial = done if done is None or isinstance(done, Denial) else (yield from done)
        # The place is taken last, so that nobody holds one while waiting for anything else.
        if denial is None and inbound.load is not None:
            done = place(inbound.load, arriving, permit, clocks)
            denial = done if done is None or isinstance(done, Denial) else (yield from done)
        # A fault stands where the application's own would.
        if denial is None and inbound.faults is not None:
            done = inject(inbound.faults, arriving, clocks.random)
            denial = done if done is None or isinstance(done, Denial) else (yield from done)
    except BaseException:
        permit.end(None, clocks.now())
        raise
    if denial is None:
        return permit
    permit.end(denial.status, clocks.now())
    if permit.notes:
        denial = denial._replace(notes=permit.notes)
    return _readable(denial, permit) if permit.reply and denial.code else denial


def _turned_away(inbound: Inbound, arriving: Arriving, permit: Permit, clocks: Clocks) -> Denial | None:
    """What is too much is turned away before anything is spent on it: judging callers is work, too."""
    if inbound.closed:
        return closed(inbound.closed)
    if inbound.bounds is not None and (denial := fault_of(inbound.bounds, arriving)) is not None:
        return denial
    # A preflight is answered here and never reaches the application, so nobody has to be known for it.
    if inbound.cors is not None and (denial := preflight(inbound.cors, arriving, permit)) is not None:
        return denial
    if inbound.load is not None:
        return shed(inbound.load, arriving, permit, clocks)
    return None


def _of_connection(inbound: Inbound, peer: Peer, port: int | None) -> Denial | None:
    if peer.id is not None or inbound.mode_of(port) != "STRICT":
        return None
    came = "TLS without a certificate" if peer.secure else "plain text"
    detail = "PeerAuthentication says STRICT: callers need an identity and mTLS"
    return deny(403, DENIED, detail, f"it is {came}, and PeerAuthentication says STRICT")


def _intended(intentions: Intentions, caller: SpiffeId | None, arriving: Arriving) -> Denial | None:
    source = source_of(caller.path) if caller is not None else None
    decision = decide(intentions, source, arriving.view())
    if decision.allowed:
        return None
    who = str(caller) if caller is not None else "a caller without an identity"
    return deny(403, DENIED, f"{who} may not do this", decision.reason)


def _readable(denial: Denial, permit: Permit) -> Denial:
    """The denial with what the response was to have, so that a page of another origin can read it."""
    said = {name for name, _ in denial.headers}
    return denial._replace(headers=(*denial.headers, *(pair for pair in permit.reply if pair[0] not in said)))


def given_up(permit: Permit, now: float) -> Denial:
    """What becomes of a permit when its caller has stopped waiting by now (monotonic seconds)."""
    permit.end(GIVEN_UP.status, now)
    return _readable(GIVEN_UP._replace(notes=permit.notes), permit)


def closed(why: str) -> Denial:
    """The answer while a policy that may forbid a request can't be read, and there is no older one."""
    return deny(503, UNREADY, "this service's policies can't be applied", why)


def unready() -> Denial:
    """The answer while there is no configuration to judge by, and callers are to be judged."""
    detail = "this service has no configuration yet that says who may call it"
    return deny(503, UNREADY, detail, "there is no configuration yet, and none on disk")
