"""Whether a certificate, a key and roots make an identity: shown by a handshake of it with itself.

Nothing here takes a certificate apart. Two TLS contexts in memory, both with the material, verify each other: OpenSSL
then says what every peer is going to say of the chain, the key, the purpose and the dates, and `getpeercert` tells what
is in the leaf. See docs/decisions/0012-certificates-by-handshake.md.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from typing import Any

from meshlib.errors import IdentityError
from meshlib.identity.leaf import is_ca
from meshlib.identity.loading import load_into
from meshlib.identity.material import Material
from meshlib.identity.spiffe import parse

__all__ = ["MAX_CHAIN", "MAX_ROOTS", "make_material", "split"]

MAX_CHAIN = 16
"""Certificates that a leaf may come with, itself included."""

MAX_ROOTS = 256
"""Roots that are taken at most; the bundles of public CAs hold some 150."""

ROUNDS = 8
"""Turns of two sides in memory; TLS 1.3 needs three."""

# Possessive, so that what only looks like a block is left in linear time.
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]++-----END CERTIFICATE-----")
_BEGIN = b"-----BEGIN CERTIFICATE-----"


def split(pem: bytes) -> list[bytes]:
    """The certificates in `pem`, each once and in order, without what stands between them.

    Raises:
        ValueError: there is none, or one of them isn't whole.
    """
    blocks = [block.replace(b"\r\n", b"\n") + b"\n" for block in _BLOCK.findall(pem)]
    if not blocks:
        raise ValueError("holds no certificate in PEM")
    if len(blocks) != pem.count(_BEGIN):
        raise ValueError("holds a certificate that isn't whole")
    return list(dict.fromkeys(blocks))


def make_material(source: str, certificates: bytes, key: bytes, roots: bytes) -> Material:
    """The identity that these are, after everything a peer checks has been checked.

    Costs some 7 ms of CPU.

    Args:
        source: where they come from, for messages.
        certificates: PEM, the leaf first.
        key: PEM, of the leaf.
        roots: PEM.

    Raises:
        IdentityError: they aren't one; says which of them is wrong, how, and what to do.
    """
    chain = _bounded(source, "the certificate", certificates, MAX_CHAIN)
    trusted = _bounded(source, "the bundle of roots", roots, MAX_ROOTS)
    peer = _handshake(source, chain, key, trusted)
    if is_ca(ssl.PEM_cert_to_DER_cert(split(chain)[0].decode("ascii"))):
        problem = "the certificate is a CA's (CA:TRUE), which peers refuse"
        raise IdentityError(source, problem, "issue one to the workload: basicConstraints CA:FALSE, or none")
    uris = [value for kind, value in peer.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        problem = f"the certificate names {len(uris)} URIs ({_listed(uris)}) where a SPIFFE ID is the only one"
        raise IdentityError(source, problem, "issue it with one URI SAN, as spiffe://cluster.local/ns/default/sa/web")
    try:
        found = parse(uris[0])
    except ValueError as error:
        raise IdentityError(source, f"the certificate's URI SAN {error}", "issue it for a SPIFFE ID") from error
    if not found.path:
        raise IdentityError(source, f"the certificate is that of {found}, a trust domain", "issue it for a workload")
    not_before, not_after = (ssl.cert_time_to_seconds(peer[name]) for name in ("notBefore", "notAfter"))
    return Material(found, chain, key, trusted, not_before, not_after)


def _bounded(source: str, what: str, pem: bytes, most: int) -> bytes:
    try:
        blocks = split(pem)
    except ValueError as error:
        raise IdentityError(source, f"{what} {error}", "expected -----BEGIN CERTIFICATE-----") from error
    if len(blocks) > most:
        raise IdentityError(source, f"{what} holds {len(blocks)} certificates", f"at most {most} are taken")
    return b"".join(blocks)


def _handshake(source: str, chain: bytes, key: bytes, roots: bytes) -> dict[str, Any]:
    """What a peer learns of the leaf, in the words of `ssl.SSLSocket.getpeercert`."""
    server = _context(source, ssl.PROTOCOL_TLS_SERVER, chain, key, roots)
    client = _context(source, ssl.PROTOCOL_TLS_CLIENT, chain, key, roots)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(to_client, to_server, server_side=False)
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(ROUNDS):
            finished = [_finished(side) for side in (client_side, server_side)]
            if all(finished):
                return client_side.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        way_out = _WAYS_OUT.get(error.verify_code, "see that the chain leads to one of the roots")
        raise IdentityError(source, f"a peer would refuse the certificate: {error.verify_message}", way_out) from error
    except ssl.SSLError as error:
        raise IdentityError(source, f"a peer would refuse the certificate: {_reason(error)}") from error
    raise IdentityError(source, "a handshake with the certificate doesn't come to an end")


def _context(source: str, protocol: int, chain: bytes, key: bytes, roots: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        load_into(context, chain, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise IdentityError(
                source, "the key isn't the certificate's", "put the two that belong together"
            ) from error
        raise IdentityError(source, f"the certificate or its key can't be used: {_reason(error)}") from error
    except ValueError as error:
        raise IdentityError(source, str(error), "openssl pkey takes the passphrase off") from error
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except ssl.SSLError as error:
        raise IdentityError(source, f"the roots can't be used: {_reason(error)}") from error
    return context


def _finished(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _listed(uris: Iterable[str]) -> str:
    return ", ".join(uri[:120] for uri in list(uris)[:3]) or "none"


# X509_V_ERR_* of OpenSSL.
_WAYS_OUT = {
    9: "wait until then, or set this machine's clock",
    10: "renew it, or what it leads to; or set this machine's clock",
    18: "name the CA that signed it",
    19: "put the CA's certificate among the roots",
    20: "put the certificate of the CA that signed it among the roots, and what lies between beside the leaf",
    21: "put the certificate of the CA that signed it among the roots, and what lies between beside the leaf",
    26: "issue it for servers and clients both: extendedKeyUsage serverAuth, clientAuth, or none",
}
