"""What both middlewares do to let requests in: look at the plan in force and at whom to believe, and tell the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from meshlib.identity.sparing import Sparing
from meshlib.identity.spiffe import SpiffeId
from meshlib.inbound.admit import Denial, Peer, admit, restricts, unready
from meshlib.inbound.forwarded import Hops, caller_of
from meshlib.policy.intentions import RequestView

if TYPE_CHECKING:
    from meshlib.mesh import Mesh
    from meshlib.plan.plan import Plan

__all__ = ["Entry", "Gate"]

log = logging.getLogger("meshlib.inbound")

BLIND = (
    "this server doesn't let meshlib see a caller's certificate (%s): every caller counts as one without an identity; "
    "use uvicorn, hypercorn or gunicorn, with meshlib's middleware outermost"
)

NOT_BELIEVED = "; what it sent as x-forwarded-client-cert doesn't count: it is no hop of MESHLIB_TRUSTED_HOPS"


class Entry(NamedTuple):
    """What became of a request.

    Attributes:
        denial: why it doesn't come in; None: it does.
        caller: for whom it is made, verified.
        believed: whether `x-forwarded-client-cert` may be seen by the application.
    """

    denial: Denial | None
    caller: SpiffeId | None
    believed: bool


class Gate:
    """Judges requests by the plan in force.

    Args:
        mesh: whose plan and identity.

    Attributes:
        claims: whether the mesh knows callers by their identity.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.claims = mesh.settings.identity != "none" or bool(mesh.settings.trusted_hops)
        self._mesh = mesh
        self._hops = Hops(mesh.settings.trusted_hops)
        self._denials = Sparing(log)
        self._told = False
        # While there is no plan, a service waits for one: in a process that starts, or was forked a moment ago, it may
        # say STRICT. One store, for threads come through at once.
        self._unplanned = self.claims or mesh.settings.service is not None
        self._seen: tuple[Plan | None, bool] = (None, self._unplanned)
        if self.claims and "granian" in sys.modules:
            self._tell("granian")

    def on(self, plan: Plan | None) -> bool:
        """Whether there is anything to judge by `plan`, or to tell the application. Where not, this is all it costs."""
        seen = self._seen
        if seen[0] is not plan:
            on = self._unplanned if plan is None else self.claims or restricts(plan.inbound)
            seen = self._seen = plan, on
        return seen[1]

    @property
    def trust_domain(self) -> str | None:
        """Ours; None: we have no identity."""
        identity = self._mesh.identity
        material = identity.material if identity is not None else None
        return material.id.trust_domain if material is not None else None

    def judge(
        self,
        plan: Plan | None,
        peer: Peer,
        address: str | None,
        forwarded: Sequence[bytes],
        request: RequestView,
        port: int | None,
    ) -> Entry:
        """Whether a request comes in, and for whom.

        Args:
            plan: in force; None: there is none.
            peer: the other end of its connection.
            address: the IP address of that, None where it isn't known.
            forwarded: its `x-forwarded-client-cert` headers.
            request: its head.
            port: it came to, None on a Unix socket.
        """
        if not peer.known:
            self._tell("there is no way from a request to its connection")
        caller, believed = peer.id, True
        if forwarded:
            believed = self._hops.trusts(peer.id, address)
            if believed:
                caller = caller_of(b",".join(forwarded), self._hops, self.trust_domain)
        denial = admit(plan.inbound, peer, caller, request, port) if plan is not None else self._unready()
        if denial is not None or not believed:
            self._log(denial, caller, address, request, "" if believed else NOT_BELIEVED)
        return Entry(denial, caller, believed)

    def _unready(self) -> Denial | None:
        """What becomes of a request when no plan came: who has no identity asks nobody for one, and serves on."""
        return unready() if self.claims else None

    def _log(
        self, denial: Denial | None, caller: SpiffeId | None, address: str | None, request: RequestView, note: str
    ) -> None:
        who = f"{caller or 'a caller without an identity'} ({address or 'no IP address'})"
        now = time.monotonic()
        if denial is None:
            self._denials.warning(now, (NOT_BELIEVED, address), "a request of %s came in%s", who, note)
            return
        about = (denial.reason, caller, note)
        what = f"{request.method[:20]} {request.path[:200]}"
        self._denials.warning(now, about, "denied %r to %s: %s%s", what, who, denial.reason, note)

    def _tell(self, why: str) -> None:
        if self.claims and not self._told:
            self._told = True
            log.error(BLIND, why)
