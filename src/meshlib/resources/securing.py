"""What types can't say of TLS: ClientTLSSettings and PeerAuthentication, by the rules Istio has for them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshlib.resources import destinations
from meshlib.resources.documents import Path, show
from meshlib.resources.security import PeerAuthenticationSpec
from meshlib.resources.shapes import Finding, check_host, check_labels

__all__ = ["check_peer_authentication", "check_tls"]

_MAX_NAMES = 100
_NAME = re.compile(r"[\x21-\x7e]{1,2048}")
_FILES = {"clientCertificate": "client_certificate", "privateKey": "private_key", "caCertificates": "ca_certificates"}


def check_tls(tls: destinations.ClientTLSSettings, at: Path) -> Iterator[Finding]:
    """The certificate that the mode needs, and none that it has no use for."""
    written = {name: getattr(tls, field) for name, field in _FILES.items()}
    yield from _files(tls.mode, written, at)
    for name, path in written.items():
        if path and (not path.startswith("/") or "\0" in path):
            yield (*at, name), f"{show(path)} is not an absolute path of a PEM file"
    if tls.insecure_skip_verify and tls.mode not in ("SIMPLE", "MUTUAL"):
        yield (*at, "insecureSkipVerify"), f"has no meaning with mode: {tls.mode}; remove it, or write SIMPLE or MUTUAL"
    if tls.insecure_skip_verify and tls.subject_alt_names:
        yield (*at, "subjectAltNames"), "are not looked at with insecureSkipVerify; remove one of them"
    if tls.sni:
        yield from check_host(tls.sni, (*at, "sni"), wildcard=False)
    if len(tls.subject_alt_names) > _MAX_NAMES:
        yield (*at, "subjectAltNames"), f"has {len(tls.subject_alt_names)} names; at most {_MAX_NAMES} are allowed"
    for index, name in enumerate(tls.subject_alt_names):
        if not _NAME.fullmatch(name) or "*" in name:
            message = f"{show(name)} is not a name: a SPIFFE ID, another URI, a host or an address expected, without *"
            yield (*at, "subjectAltNames", index), message


def _files(mode: str, written: dict[str, str], at: Path) -> Iterator[Finding]:
    own = ("clientCertificate", "privateKey")
    if mode == "MUTUAL":
        for name in own:
            if not written[name]:
                yield (*at, name), "is required with mode: MUTUAL; ISTIO_MUTUAL uses this process's identity instead"
        return
    unused = [name for name in (*own, "caCertificates") if written[name] and (mode != "SIMPLE" or name in own)]
    for name in unused:
        way_out = "write mode: MUTUAL" if mode != "ISTIO_MUTUAL" else "the identity brings its own; write mode: MUTUAL"
        yield (*at, name), f"has no meaning with mode: {mode}; remove it, or {way_out}"


def check_peer_authentication(spec: PeerAuthenticationSpec, at: Path) -> Iterator[Finding]:
    """Ports are the numbers of ports, and stand only where a selector says whose they are."""
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    yield from check_labels(chosen, (*at, "selector", "matchLabels"))
    if spec.port_level_mtls and not chosen:
        yield (*at, "portLevelMtls"), "needs a selector that says whose ports they are; write selector.matchLabels"
    for port in spec.port_level_mtls:
        if not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65535:
            yield (*at, "portLevelMtls", port), f"{show(port)} is not a port: a number from 1 to 65535 expected"
