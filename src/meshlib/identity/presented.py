"""What a caller's certificate says of it. Pure: the certificate has been verified, and time is an argument."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from meshlib.identity.spiffe import SpiffeId, parse

__all__ = ["expired", "presented_id"]


def presented_id(certificate: Mapping[str, Any], trust_domain: str) -> SpiffeId:
    """The identity a certificate is for.

    Args:
        certificate: as `getpeercert()` gives it, after it was verified.
        trust_domain: ours.

    Raises:
        ValueError: it has no URI SAN or several (X509-SVID, 2), the one it has is no SPIFFE ID, or it is of another
            trust domain. The message says what came and what is expected.
    """
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        shown = ", ".join(repr(uri[:120]) for uri in uris[:3]) or "none"
        raise ValueError(f"its certificate has {len(uris)} URI SANs ({shown}); exactly one, a SPIFFE ID, is expected")
    found = parse(uris[0])
    if found.trust_domain != trust_domain:
        raise ValueError(f"its certificate is for {found}, which is not of the trust domain {trust_domain}")
    if not found.path:
        raise ValueError(f"its certificate is for {found}, which is a trust domain's and no workload's")
    return found


def expired(certificate: Mapping[str, Any], now: float) -> bool:
    """Whether a certificate's time has passed.

    Args:
        certificate: as `getpeercert()` gives it.
        now: Unix seconds.
    """
    return now > ssl.cert_time_to_seconds(certificate["notAfter"])
