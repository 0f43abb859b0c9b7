"""Which endpoints are spoken to with TLS: by a DestinationRule's `tls`, else by the identity they announce."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.plan.hosts import Member
from meshlib.plan.peers import PeerTls
from meshlib.resources import ClientTLSSettings

__all__ = ["peers_of"]


def peers_of(
    host: str, members: Iterable[Member], tls: ClientTLSSettings | None, *, identity: bool
) -> dict[tuple[str, int], PeerTls]:
    """TLS towards each of a host's endpoints that is not spoken to in the clear.

    Args:
        host: fully qualified, the server name sent where the rule names none.
        members: its endpoints.
        tls: what holds for them by DestinationRules; None: mTLS with those that announce an identity.
        identity: whether this process has one. Without, `tls: None` is plain; ISTIO_MUTUAL then fails on the wire,
            because what was asked for to be secured must not go out in the clear.
    """
    found = ((member, _peer(host, member, tls, identity=identity)) for member in members)
    return {(member.host, member.port): peer for member, peer in found if peer is not None}


def _peer(host: str, member: Member, tls: ClientTLSSettings | None, *, identity: bool) -> PeerTls | None:
    if tls is None:
        return PeerTls("ISTIO_MUTUAL", host, (member.identity,)) if identity and member.identity else None
    if tls.mode == "DISABLE":
        return None
    sni = tls.sni or host
    if tls.mode == "ISTIO_MUTUAL":
        # Without names nobody is accepted: an endpoint that announces no identity can't prove that it is the service.
        announced = (member.identity,) if member.identity else ()
        return PeerTls("ISTIO_MUTUAL", sni, tls.subject_alt_names or announced)
    return PeerTls(
        tls.mode,
        sni,
        tls.subject_alt_names,
        roots=tls.ca_certificates,
        certificate=tls.client_certificate,
        key=tls.private_key,
        verify=not tls.insecure_skip_verify,
    )
