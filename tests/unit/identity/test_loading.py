"""What OpenSSL takes from memory, it takes with no file left behind."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

import pytest
import trustme

from meshlib.identity.loading import load_into

CA = trustme.CA()
LEAF = CA.issue_cert("reviews.test")
OTHER = CA.issue_cert("ratings.test")
CERTIFICATES = b"".join(blob.bytes() for blob in LEAF.cert_chain_pems)
KEY = LEAF.private_key_pem.bytes()


def handshake(server: ssl.SSLContext) -> bytes | None:
    """The certificate that a client is shown, in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(client)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    ours = client.wrap_bio(to_client, to_server, server_hostname="reviews.test")
    for _ in range(5):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.getpeercert(binary_form=True)


@pytest.fixture(params=["memory", "file"])
def temporary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary files would go; with and without memory files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    return tmp_path


def test_what_is_loaded_is_presented_and_nothing_stays_behind(temporary: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_into(context, CERTIFICATES, KEY)
    assert handshake(context) == ssl.PEM_cert_to_DER_cert(CERTIFICATES.decode())
    assert list(temporary.iterdir()) == []


def test_the_key_of_another_certificate_is_refused_and_nothing_stays_behind(temporary: Path) -> None:
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), CERTIFICATES, OTHER.private_key_pem.bytes())
    assert list(temporary.iterdir()) == []


def test_memory_is_used_where_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memory files")
    monkeypatch.delattr(tempfile, "TemporaryDirectory")
    load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), CERTIFICATES, KEY)


def test_the_file_is_closed_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modes = []

    class Looking(ssl.SSLContext):
        def load_cert_chain(self, certfile, keyfile=None, password=None):  # type: ignore[no-untyped-def]
            modes.append((os.stat(certfile).st_mode & 0o777, os.stat(Path(certfile).parent).st_mode & 0o777))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    load_into(Looking(ssl.PROTOCOL_TLS_SERVER), CERTIFICATES, KEY)
    assert modes == [(0o600, 0o700)]


def test_an_encrypted_key_is_refused_and_not_asked_about() -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(KEY, None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(ValueError, match="encrypted"):
        load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), CERTIFICATES, encrypted)
