"""Who gets in: by certificate, by mode, and while both change."""

from __future__ import annotations

import logging
import ssl
import time

import pytest

from meshlib import IdentityError
from meshlib.identity.handshakes import HANDSHAKEN, Refused
from meshlib.identity.incoming import ServerContext
from meshlib.identity.sparing import EVERY, MOST, Sparing
from meshlib.plan.inbound import Inbound
from tests.support.authority import SERVER, Authority, Issued
from tests.unit.identity.hands import CALLER, US, HandIdentity, Wire, client_context, material


class Setting:
    """A server of `US` whose mode the test sets."""

    def __init__(self) -> None:
        self.root = Authority()
        self.inbound = Inbound()
        self.identity = HandIdentity(material(self.root.issue(US), self.root))
        self.context = ServerContext(self.identity, lambda: self.inbound)

    def wire(self) -> Wire:
        return Wire(self.context)

    def caller(self, *uris: str) -> ssl.SSLContext:
        return client_context(self.root, self.root.issue(*(uris or (CALLER,))))


@pytest.fixture
def setting() -> Setting:
    return Setting()


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("step", [None, 1], ids=["whole", "byte by byte"])
def test_a_caller_of_the_mesh_is_known_by_its_id(
    mode: str, version: ssl.TLSVersion, step: int | None, setting: Setting
) -> None:
    setting.inbound = Inbound(mode)  # type: ignore[arg-type]
    caller = setting.caller()
    caller.maximum_version = version
    wire = setting.wire()
    theirs = wire.handshake(caller, step=step)
    assert str(wire.server.peer) == CALLER
    assert wire.server.secure
    assert wire.server.version() == ("TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    assert HANDSHAKEN.get() is wire.server
    theirs.write(b"GET /")
    wire.incoming.write(wire.sent.read())
    assert wire.server.read(1024) == b"GET /"
    wire.server.write(b"200")
    wire.received.write(wire.outgoing.read())
    assert theirs.read() == b"200"


def _other_domain(root: Authority) -> Issued:
    return root.issue("spiffe://other.test/ns/default/dc/dc1/svc/front")


REFUSED = {
    "two URI SANs": (lambda root: root.issue(CALLER, CALLER + "2"), "2 URI SANs"),
    "the same URI SAN twice": (lambda root: root.issue(CALLER, CALLER), "2 URI SANs"),
    "a DNS name only": (lambda root: root.issue(names=["front.mesh.test"]), "0 URI SANs"),
    "no SAN": (lambda root: root.issue(), "0 URI SANs"),
    "another trust domain": (_other_domain, "not of the trust domain mesh.test"),
    "a trust domain that begins like ours": (
        lambda root: root.issue("spiffe://mesh.test.evil.example/ns/default/dc/dc1/svc/front"),
        "not of the trust domain mesh.test",
    ),
    "a wildcard": (lambda root: root.issue("spiffe://mesh.test/ns/default/dc/dc1/svc/*"), "is no SPIFFE ID"),
    "a NUL in the ID": (lambda root: root.issue(CALLER + "\0.evil"), "is no SPIFFE ID"),
    "an ID in other case": (lambda root: root.issue("SPIFFE://mesh.test/svc/front"), "is no SPIFFE ID"),
    "the trust domain itself": (lambda root: root.issue("spiffe://mesh.test"), "no workload"),
    "expired": (lambda root: root.issue(CALLER, ends=-1), "expired"),
    "not yet valid": (lambda root: root.issue(CALLER, begins=60), "not yet valid"),
    "another authority": (lambda _: Authority().issue(CALLER), "issuer certificate"),
    "self-signed": (lambda _: _self_signed(), "self-signed"),
    "a CA's certificate": (lambda root: root.issue(CALLER, ca=True), "is a CA's (CA:TRUE)"),
    "a server's certificate": (lambda root: root.issue(CALLER, usage=[SERVER]), "certificate purpose"),
}


def _self_signed() -> Issued:
    authority = Authority("stranger")
    issued = authority.issue(CALLER)
    return Issued(issued.certificates + authority.roots, issued.key)


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("case", REFUSED)
def test_a_caller_is_refused_with_a_reason(
    mode: str, version: ssl.TLSVersion, case: str, setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    issue, reason = REFUSED[case]
    setting.inbound = Inbound(mode)  # type: ignore[arg-type]
    wire = setting.wire()
    with pytest.raises(Refused) as refusal:
        wire.handshake(client_context(setting.root, issue(setting.root), maximum_version=version))
    assert reason in str(refusal.value)
    assert reason in caplog.text
    assert wire.server.peer is None


def test_without_a_certificate_a_caller_is_refused_in_strict_and_nobody_in_permissive(setting: Setting) -> None:
    nobody = client_context(setting.root, None)
    wire = setting.wire()
    wire.handshake(nobody)
    assert (wire.server.peer, wire.server.secure) == (None, True)
    setting.inbound = Inbound("STRICT")
    with pytest.raises(Refused, match="shows no certificate"):
        setting.wire().handshake(nobody)


def test_plain_text_is_taken_in_permissive_as_it_is(setting: Setting) -> None:
    wire = setting.wire()
    with pytest.raises(ssl.SSLWantReadError):
        wire.server.do_handshake()
    wire.incoming.write(b"G")
    wire.server.do_handshake()
    wire.incoming.write(b"ET / HTTP/1.1")
    assert wire.server.read(3) == b"GET"
    buffer = bytearray(64)
    count = wire.server.read(64, memoryview(buffer))
    assert bytes(buffer[:count]) == b" / HTTP/1.1"
    with pytest.raises(ssl.SSLWantReadError):
        wire.server.read(64)
    assert wire.server.write(b"200 OK") == 6
    assert wire.outgoing.read() == b"200 OK"
    wire.incoming.write_eof()
    assert wire.server.read(64) == b""
    assert (wire.server.peer, wire.server.secure, wire.server.getpeercert()) == (None, False, None)
    assert wire.server.cipher() is wire.server.selected_alpn_protocol() is wire.server.unwrap() is None


def test_plain_text_is_refused_in_strict_with_the_way_out(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    setting.inbound = Inbound("STRICT")
    wire = setting.wire()
    wire.incoming.write(b"GET / HTTP/1.1\r\n")
    with pytest.raises(Refused, match="plain text"):
        wire.server.do_handshake()
    assert "MESHLIB_IDENTITY" in caplog.text
    assert "PERMISSIVE" in caplog.text


def test_tls_is_refused_where_it_is_disabled_and_plain_text_is_taken(setting: Setting) -> None:
    setting.inbound = Inbound("DISABLE")
    with pytest.raises(Refused, match="DISABLE"):
        setting.wire().handshake(setting.caller())
    wire = setting.wire()
    wire.incoming.write(b"GET / HTTP/1.1\r\n")
    wire.server.do_handshake()
    assert not wire.server.secure


def test_a_port_that_may_be_plain_keeps_plain_text_possible(setting: Setting) -> None:
    """The middleware knows the port; the context of a server on an event loop doesn't."""
    setting.inbound = Inbound("STRICT", {9000: "PERMISSIVE"})
    wire = setting.wire()
    wire.incoming.write(b"GET")
    wire.server.do_handshake()
    setting.inbound = Inbound("STRICT", {9000: "STRICT"})
    wire = setting.wire()
    wire.incoming.write(b"GET")
    with pytest.raises(Refused):
        wire.server.do_handshake()


def test_a_connection_that_ends_without_a_byte_is_no_refusal(setting: Setting) -> None:
    wire = setting.wire()
    wire.incoming.write_eof()
    with pytest.raises(ssl.SSLEOFError):
        wire.server.do_handshake()


def test_nothing_is_read_before_the_handshake(setting: Setting) -> None:
    wire = setting.wire()
    wire.incoming.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ValueError, match="handshake"):
        wire.server.read(64)


def settled_session(wire: Wire, caller: ssl.SSLContext) -> ssl.SSLSession:
    """The client's session, after whatever the server sends behind its handshake."""
    theirs = wire.handshake(caller)
    wire.received.write(wire.outgoing.read())
    with pytest.raises(ssl.SSLWantReadError):
        theirs.read()
    session = theirs.session
    assert session is not None
    return session


def shown(wire: Wire) -> bytes | None:
    """The server's certificate, as the client saw it."""
    return wire.theirs.getpeercert(binary_form=True)


def test_a_new_certificate_is_shown_to_the_next_connection(setting: Setting) -> None:
    first, second = setting.wire(), setting.wire()
    first.handshake(setting.caller())
    setting.identity.give(material(setting.root.issue(US), setting.root))
    second.handshake(setting.caller())  # wrapped before, begun after
    assert shown(first) != shown(second)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_rotation_within_a_handshake_does_it_no_harm(version: ssl.TLSVersion, setting: Setting) -> None:
    wire, caller = setting.wire(), setting.caller()
    caller.maximum_version = version
    wire.handshake(caller, between=lambda: setting.identity.give(material(setting.root.issue(US), setting.root)))
    assert str(wire.server.peer) == CALLER


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_root_withdrawn_within_a_handshake_counts_already(version: ssl.TLSVersion, setting: Setting) -> None:
    new = Authority("root")
    both = client_context(setting.root, setting.root.issue(CALLER), maximum_version=version)
    wire = setting.wire()
    with pytest.raises(Refused, match="isn't good"):
        wire.handshake(both, between=lambda: setting.identity.give(material(new.issue(US), new)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_old_root_is_refused_once_it_is_withdrawn(version: ssl.TLSVersion, setting: Setting) -> None:
    old, new = setting.root, Authority()
    caller = client_context(old, old.issue(CALLER), maximum_version=version)
    caller.load_verify_locations(cadata=new.roots.decode())
    setting.identity.give(material(new.issue(US), new, old))
    setting.wire().handshake(caller)
    setting.identity.give(material(new.issue(US), new))
    with pytest.raises(Refused, match="isn't good"):
        setting.wire().handshake(caller)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_before_lets_nobody_in_after_the_root_is_withdrawn(
    version: ssl.TLSVersion, setting: Setting
) -> None:
    old, new = setting.root, Authority()
    setting.identity.give(material(new.issue(US), new, old))
    caller = client_context(old, old.issue(CALLER), maximum_version=version)
    caller.load_verify_locations(cadata=new.roots.decode())
    session = settled_session(setting.wire(), caller)
    assert not session.has_ticket
    if version == ssl.TLSVersion.TLSv1_2:
        assert session.id  # there is one to try
        again = setting.wire()
        again.handshake(caller, session)
        assert again.server.session_reused
        assert str(again.server.peer) == CALLER
    setting.identity.give(material(new.issue(US), new))
    with pytest.raises(Refused, match="isn't good"):
        setting.wire().handshake(caller, session)


def test_a_session_resumed_while_its_root_is_withdrawn_is_refused(setting: Setting) -> None:
    old, new = setting.root, Authority()
    setting.identity.give(material(new.issue(US), new, old))
    caller = client_context(old, old.issue(CALLER), maximum_version=ssl.TLSVersion.TLSv1_2)
    caller.load_verify_locations(cadata=new.roots.decode())
    session = setting.wire().handshake(caller).session
    withdraw = material(new.issue(US), new)
    with pytest.raises(Refused, match="resumes a session"):
        setting.wire().handshake(caller, session, between=lambda: setting.identity.give(withdraw), step=1)


def test_a_resumed_session_ends_with_its_certificate(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = setting.caller()
    caller.maximum_version = ssl.TLSVersion.TLSv1_2
    session = setting.wire().handshake(caller).session
    later = time.time() + 3700
    monkeypatch.setattr("meshlib.identity.incoming.time.time", lambda: later)
    with pytest.raises(Refused, match="resumes a session"):
        setting.wire().handshake(caller, session)


def test_a_material_of_no_use_is_refused_and_the_one_before_serves_on(setting: Setting) -> None:
    issued = setting.root.issue(US)
    setting.identity.give(material(Issued(issued.certificates, setting.root.issue(US).key), setting.root))
    assert setting.identity.error is not None
    setting.wire().handshake(setting.caller())


def test_protocols_a_server_asks_for_are_offered_now_and_after_a_rotation(setting: Setting) -> None:
    setting.context.set_alpn_protocols(["h2", "http/1.1"])
    for _ in range(2):
        caller = setting.caller()
        caller.set_alpn_protocols(["h2"])
        wire = setting.wire()
        wire.handshake(caller)
        assert wire.server.selected_alpn_protocol() == "h2"
        setting.identity.give(material(setting.root.issue(US), setting.root))


def test_without_a_certificate_of_its_own_a_server_doesnt_start() -> None:
    context = ServerContext(HandIdentity(), Inbound)
    with pytest.raises(IdentityError, match="files:///run/identity: there is no certificate yet"):
        context.wait(0.0)


def test_a_source_in_trouble_says_so_at_the_start() -> None:
    identity = HandIdentity()
    identity._take(IdentityError("files:///run/identity", "tls.key is missing"))
    with pytest.raises(IdentityError, match=r"tls\.key is missing"):
        ServerContext(identity, Inbound).wait()


def test_it_is_no_context_for_clients(setting: Setting) -> None:
    with pytest.raises(ValueError, match="server's"):
        setting.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="web")


def test_the_same_refusal_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    sparing = Sparing(logging.getLogger("meshlib.identity"))
    for now in (0.0, 1.0, EVERY - 0.1, EVERY):
        sparing.warning(now, "one", "one")
    sparing.warning(0.0, "two", "two")
    assert [record.message for record in caplog.records] == ["one", "one", "two"]


def test_many_strangers_fill_neither_the_memory_nor_the_log(caplog: pytest.LogCaptureFixture) -> None:
    sparing = Sparing(logging.getLogger("meshlib.identity"))
    for number in range(MOST * 3):
        sparing.warning(0.0, number, "a stranger")
    assert len(sparing._said) == len(caplog.records) == MOST
    for number in range(MOST * 3):
        sparing.warning(EVERY, number, "a stranger")
    assert len(sparing._said) == MOST
    assert len(caplog.records) == 2 * MOST
