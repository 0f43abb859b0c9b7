"""A certificate authority in memory, for certificates of every kind: good ones, and each wrong in one way."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["BOTH", "CLIENT", "SERVER", "Authority", "Issued", "self_signed"]

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
BOTH = (SERVER, CLIENT)


class Issued(NamedTuple):
    """A certificate with what leads to its root, and its key: PEM both."""

    certificates: bytes
    key: bytes

    @property
    def key_der(self) -> bytes:
        """The key as PKCS#8 in DER."""
        key = serialization.load_pem_private_key(self.key, None)
        plain = serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)


class Authority:
    """Signs what it is asked to.

    Args:
        name: common name of the root; two of one name are told apart by their keys only.
        parent: signs this one's certificate, which then comes along with what it issues.
    """

    def __init__(self, name: str = "root", parent: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._signed_by(parent or self)
        self._chain: bytes = b"" if parent is None else _pem(self._certificate) + parent._chain
        self._parent = parent

    @property
    def roots(self) -> bytes:
        """The certificate at the top, PEM."""
        return self._parent.roots if self._parent else _pem(self._certificate)

    def crossed_by(self, older: Authority) -> bytes:
        """This authority's certificate, signed by an older one: who trusts that one, trusts this one. PEM."""
        return _pem(self._signed_by(older))

    def issue(
        self,
        *uris: str,
        begins: float = -60,
        ends: float = 3600,
        usage: Sequence[x509.ObjectIdentifier] = BOTH,
        names: Sequence[str] = (),
        ca: bool = False,
    ) -> Issued:
        """A leaf for `uris`, valid from `begins` to `ends` seconds from now, and for the DNS `names` too.

        With `ca` it may sign others as well, which no workload's may.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        alternatives += [x509.DNSName(name) for name in names]
        builder = _builder(x509.Name([]), key.public_key(), begins, ends).issuer_name(self._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=ca), critical=True)
        builder = builder.add_extension(self._authority_key(), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
        return Issued(_pem(builder.sign(self._key, hashes.SHA256())) + self._chain, _key_pem(key))

    def _signed_by(self, other: Authority) -> x509.Certificate:
        builder = _builder(self._name, self._key.public_key(), -3600, 86400).issuer_name(other._name)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(own, critical=False)
        builder = builder.add_extension(other._authority_key(), critical=False)
        return builder.sign(other._key, hashes.SHA256())

    def _authority_key(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def self_signed(uri: str) -> Issued:
    """A leaf for `uri` that nobody but its own key vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(x509.Name([]), key.public_key(), -60, 3600).issuer_name(x509.Name([]))
    alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = builder.add_extension(alternatives, critical=True)
    return Issued(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: float, ends: float) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(seconds=begins))
        .not_valid_after(now + dt.timedelta(seconds=ends))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
