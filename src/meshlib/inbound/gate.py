"""What both middlewares do to let requests in: look at the plan in force and at whom to believe, and tell the log."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshlib.identity.sparing import Sparing
from meshlib.inbound.admit import Peer, admission, restricts, unready
from meshlib.inbound.clocks import Clocks
from meshlib.inbound.denials import GIVEN_UP, TOO_LARGE, UNSAFE, UNVERIFIED, Denial, Permit
from meshlib.inbound.drivers import AsyncPerformers, Performers, async_performers, performers
from meshlib.inbound.effects import Admission, Ask, Count, FetchKeys
from meshlib.inbound.external import Authorizers
from meshlib.inbound.forwarded import ADDRESSES, HEADER, Hops, caller_of, remote_of
from meshlib.inbound.heads import Visitor
from meshlib.inbound.pulse import LoopPulse
from meshlib.policy.arriving import Arriving

if TYPE_CHECKING:
    from meshlib.mesh import Mesh
    from meshlib.plan.plan import Plan

__all__ = ["Gate"]

log = logging.getLogger("meshlib.inbound")

BLIND = (
    "this server doesn't let meshlib see a caller's certificate (%s): every caller counts as one without an identity; "
    "use uvicorn, hypercorn or gunicorn, with meshlib's middleware outermost"
)

NOT_BELIEVED = "; what it sent as x-forwarded-client-cert doesn't count: it is no hop of MESHLIB_TRUSTED_HOPS"

NAMELESS = (
    "MESHLIB_SERVICE isn't set: until this process calls somebody through the mesh, nothing reads the documents, "
    "and those on what comes in aren't enforced; set it if there are any"
)

OF_CALLERS = frozenset((UNVERIFIED, UNSAFE, TOO_LARGE))
"""Codes whose reasons show what the caller wrote."""


class Gate:
    """Judges requests by the plan in force.

    Args:
        mesh: whose plan and identity.

    Attributes:
        claims: whether the mesh knows callers by their identity.
        performers, async_performers: what performs the effects of admission, by their types.
        clocks: what admission knows of time and chance.
    """

    def __init__(self, mesh: Mesh) -> None:
        authorizers, counts = mesh.part(Authorizers), mesh.counts
        self.performers: Performers = {
            **performers(),
            Ask: authorizers.ask,
            Count: lambda effect: counts.count(effect.spendings),
            FetchKeys: lambda effect: mesh.keys.fetch_soon(effect.source).wait(effect.wait),
        }
        self.async_performers: AsyncPerformers = {
            **async_performers(),
            Ask: authorizers.aask,
            Count: lambda effect: counts.acount(effect.spendings),
            FetchKeys: lambda effect: mesh.keys.fetch_soon(effect.source).sleep(effect.wait),
        }
        self.clocks = self._last_clocks = Clocks(time.monotonic, time.time, random.random)
        self.claims = mesh.settings.identity != "none" or bool(mesh.settings.trusted_hops)
        self._mesh = mesh
        self._hops = Hops(mesh.settings.trusted_hops)
        self._denials = Sparing(log)
        self._told = False
        # While there is no plan, a service waits for one, and serves nobody without: in a process that starts, or was
        # forked a moment ago, it may forbid what is asked. One store, for threads come through at once.
        self._unplanned = self.claims or mesh.settings.service is not None
        self._seen: tuple[object, bool] = (object(), False)  # of no plan
        if not self._unplanned and mesh.plan is None:
            log.warning(NAMELESS)
        if self.claims and "granian" in sys.modules:
            self._tell("granian")

    def on(self, plan: Plan | None) -> bool:
        """Whether there is anything to judge by `plan`, or to tell the application. Where not, this is all it costs."""
        seen = self._seen
        if seen[0] is not plan:
            if plan is None:
                return self._unplanned or self._mesh.resumes
            seen = self._seen = plan, self.claims or restricts(plan.inbound)
        return seen[1]

    @property
    def trust_domain(self) -> str | None:
        """Ours; None: we have no identity."""
        identity = self._mesh.identity
        material = identity.material if identity is not None else None
        return material.id.trust_domain if material is not None else None

    def visitor(self, peer: Peer, address: str | None, headers: Sequence[tuple[bytes, bytes]], names: bytes) -> Visitor:
        """Who makes a request.

        Args:
            peer: the other end of its connection.
            address: the IP address of that, None where it isn't known.
            headers: of the request, names in lower case.
            names: all of them in one.
        """
        if not peer.known:
            self._tell("there is no way from a request to its connection")
        if b"x-forwarded-" not in names:
            return Visitor(peer, address, peer.id, address or "", True)
        caller, remote = peer.id, address or ""
        if not peer.known and ADDRESSES in names and "uvicorn" in sys.modules:
            # Where we can't see the connection, uvicorn may have taken the address from that very header.
            address = None
        trusted = self._hops.trusts(peer.id, address)
        forwarded = [value for name, value in headers if name == HEADER]
        if trusted:
            if forwarded:
                caller = caller_of(b",".join(forwarded), self._hops, self.trust_domain)
            if addresses := [value for name, value in headers if name == ADDRESSES]:
                remote = remote_of(b",".join(addresses), self._hops) or remote
        return Visitor(peer, address, caller, remote, trusted or not forwarded)

    def admission(
        self, plan: Plan | None, visitor: Visitor, arriving: Arriving, pulse: LoopPulse | None = None
    ) -> Admission:
        """One request's; see `meshlib.inbound.admit`.

        Args:
            plan: in force; None: there is none.
            visitor: who makes it.
            arriving: its head.
            pulse: of the event loop that serves it; None: there is none, or the plan has no use for it.
        """
        if plan is None:
            return _unplanned_admission(serves=not self.claims and self._mesh.begins_empty)
        clocks = self.clocks if pulse is None else self._clocks_on(pulse)
        return admission(plan.inbound, visitor.peer, visitor.caller, arriving, clocks)

    def _clocks_on(self, pulse: LoopPulse) -> Clocks:
        clocks = self._last_clocks
        if clocks.pulse is not pulse:
            clocks = self._last_clocks = self.clocks._replace(pulse=pulse)
        return clocks

    def expired(self) -> Denial:
        """The answer to a request whose caller had stopped waiting when it came. It is counted, and not looked at."""
        self._mesh.decisions.count("denied", GIVEN_UP.code)
        return GIVEN_UP

    def tell(self, answer: Denial | Permit, visitor: Visitor, arriving: Arriving) -> None:
        """Count what became of a request, and have the log say it, as far as it is worth a line."""
        decisions = self._mesh.decisions
        if type(answer) is Denial:
            if not answer.code:
                return
            decisions.count("denied", answer.code, answer.by)
        else:
            decisions.allow()
            if visitor.believed and not answer.notes:
                return
        for said in answer.notes:
            decisions.count(said.kind, by=said.by)
        address = visitor.address
        who = f"{visitor.caller or 'a caller without an identity'} ({address or 'no IP address'})"
        what = f"{arriving.method[:20]} {arriving.seen[:200]}"
        now = self.clocks.now()
        note = "" if visitor.believed else NOT_BELIEVED
        if type(answer) is Denial:
            # Words that callers choose would let them fill what the log remembers, and so keep others out of it.
            words = "" if answer.code in OF_CALLERS else answer.reason
            about = (answer.code, answer.by, words, visitor.caller, note)
            self._denials.warning(now, about, "denied %r to %s: %s%s", what, who, answer.reason, note)
        elif note:
            self._denials.warning(now, (NOT_BELIEVED, address), "a request of %s came in%s", who, note)
        for said in answer.notes:
            self._denials.warning(now, (said, visitor.caller), "%r of %s: %s", what, who, said)

    def _tell(self, why: str) -> None:
        if self.claims and not self._told:
            self._told = True
            log.error(BLIND, why)


def _unplanned_admission(*, serves: bool) -> Admission:
    """What becomes of a request when no plan came: nobody knows what it would forbid.

    Args:
        serves: whether it can't forbid anything.
    """
    return Permit() if serves else unready()
    yield
