"""Cross-origin requests, by the `corsPolicy` of VirtualServices for this service.

As Envoy's CORS filter does it: a preflight of an origin that is allowed is answered 200 here; what another origin asks
goes to the application, whose answer a browser then keeps from the page.
"""

from __future__ import annotations

from meshlib.inbound.denials import Denial, Permit
from meshlib.plan.cors import Cors
from meshlib.policy.arriving import Arriving

__all__ = ["preflight"]

_EMPTY = ((b"content-length", b"0"),)
_VARY = (b"vary", b"origin")
"""The answer names its origin: a cache mustn't give it to another."""


def preflight(cors: Cors, arriving: Arriving, permit: Permit) -> Denial | None:
    """The answer to a preflight; for another cross-origin request `permit` gets the headers of the response."""
    origins = arriving.values(b"origin")
    if len(origins) != 1:
        return None
    rule = cors.fitting(arriving)
    if rule is None:
        return None
    asks = arriving.method == "OPTIONS" and bool(arriving.header(b"access-control-request-method"))
    if not rule.allows(origins[0].decode("latin-1")):
        if asks and not rule.forwards:
            return Denial(200, _EMPTY, b"", "a preflight of an origin that isn't allowed")
        return None
    allowed = (b"access-control-allow-origin", origins[0]), _VARY
    if asks:
        return Denial(200, (*_EMPTY, *allowed, *rule.preflight), b"", "a preflight")
    permit.reply.extend((*allowed, *rule.actual))
    return None
