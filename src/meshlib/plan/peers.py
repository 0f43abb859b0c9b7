"""How connections to an endpoint are secured."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["PeerTls"]


class PeerTls(NamedTuple):
    """TLS towards one endpoint; hashable, so that equal ones share a context and a connection.

    Attributes:
        mode: SIMPLE: no certificate of ours. MUTUAL: the one in `certificate` and `key`. ISTIO_MUTUAL: the
            mesh identity, and its trust bundle in place of `roots`.
        sni: the server name sent. Without `names` the peer's certificate must be for it.
        names: SPIFFE IDs, other URIs, DNS names or IP addresses; the peer's certificate must have one of them. Compared
            whole, never by prefix.
        roots: path of a PEM file with the CAs to trust, "" for the system's.
        certificate, key: paths of PEM files.
        verify: False accepts any peer; never with ISTIO_MUTUAL.
    """

    mode: Literal["SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]
    sni: str
    names: tuple[str, ...] = ()
    roots: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True
