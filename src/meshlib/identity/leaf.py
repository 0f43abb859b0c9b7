"""Whether a certificate is a workload's or a CA's: asked of OpenSSL, for `getpeercert()` doesn't tell."""

from __future__ import annotations

import functools
import ssl

__all__ = ["OF_A_CA", "is_ca"]

OF_A_CA = "its certificate is a CA's (CA:TRUE), and a SPIFFE ID is shown by a leaf only"

REMEMBERED = 512
"""Certificates whose answer is kept: peers come back with the one they have, and asking costs some 0.3 ms."""


@functools.lru_cache(REMEMBERED)
def is_ca(certificate: bytes) -> bool:
    """Whether a certificate may sign others, which that of a workload must not (X509-SVID, 4.1).

    A store of trusted certificates counts the CAs among its own. One in DER, put into an empty store, is judged by
    OpenSSL's `X509_check_ca`.

    Args:
        certificate: DER, as `getpeercert(True)` gives it.

    Raises:
        ValueError: it is no certificate (`ssl.SSLError` is one).
    """
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    store.load_verify_locations(cadata=certificate)
    return store.cert_store_stats()["x509_ca"] > 0
