"""How connections to peers are secured, when that changes, and which connections may then go on."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import time
from pathlib import Path

import pytest

from meshlib.errors import IdentityError
from meshlib.identity.loading import load_into
from meshlib.identity.outgoing import PeerContexts
from meshlib.identity.secured import Link, Secured, fit
from meshlib.identity.verifying import Expecting, OutgoingContext, explain, mismatch
from meshlib.plan.peers import PeerTls
from tests.support.authority import Authority, Issued
from tests.unit.identity.hands import CALLER, HandIdentity, material

ROOT, OTHER = Authority("root"), Authority("other")
REVIEWS = "spiffe://mesh.test/ns/default/dc/dc1/svc/reviews"
PEER = PeerTls("ISTIO_MUTUAL", "reviews.default.svc.cluster.local", (REVIEWS,))


def context(secured: Secured) -> ssl.SSLContext:
    assert secured.context is not None, secured.problem
    return secured.context


def base(contexts: PeerContexts, peer: PeerTls) -> OutgoingContext:
    """What peers of the mesh share."""
    made = context(contexts.get(peer))
    assert isinstance(made, Expecting)
    return made.context


def ours(*roots: Authority) -> HandIdentity:
    return HandIdentity(material(ROOT.issue(CALLER), *(roots or (ROOT,))))


# Whether an open connection may go on

CONTEXT = OutgoingContext(ssl.PROTOCOL_TLS_CLIENT)


def made(*roots: bytes, expires: float | None = 1000.0) -> Secured:
    return Secured(CONTEXT, "reviews", "", frozenset(roots), expires)


def test_a_connection_goes_on_while_nothing_changes_whatever_the_time() -> None:
    secured = made(b"one")
    assert fit(secured, 0.0, 0.0, secured, 5000.0)


def test_a_connection_ends_when_a_root_it_was_made_under_is_withdrawn() -> None:
    assert not fit(made(b"old", b"new"), 0.0, 0.0, made(b"new", expires=2000.0), 1.0)


def test_a_root_more_ends_no_connection() -> None:
    assert fit(made(b"old"), 0.0, 0.0, made(b"old", b"new", expires=2000.0), 1.0)


@pytest.mark.parametrize(("share", "last"), [(0.0, 840.0), (0.5, 920.0), (0.999, 999.8)])
def test_with_a_new_certificate_connections_end_one_by_one_before_the_old_one_does(share: float, last: float) -> None:
    old, new = made(b"one"), made(b"one", expires=2000.0)
    assert fit(old, 200.0, share, new, last - 1)
    assert not fit(old, 200.0, share, new, last + 1)


def test_a_connection_by_other_files_than_now_ends_at_once() -> None:
    assert not fit(Secured(CONTEXT, "api"), 0.0, 0.0, Secured(CONTEXT, "api"), 1.0)


def test_no_connection_goes_on_where_none_could_be_opened() -> None:
    assert not fit(made(b"one"), 0.0, 0.0, Secured(None, "reviews", "why"), 1.0)


def test_a_link_remembers_what_it_was_made_with() -> None:
    identity = ours()
    contexts = PeerContexts(identity)
    link = Link(lambda: contexts.get(PEER), time.monotonic())
    assert link.fit(time.monotonic())
    identity.give(material(ROOT.issue(CALLER), ROOT))
    assert contexts.get(PEER) is not link.secured
    assert link.fit(time.monotonic())
    assert not link.fit(time.monotonic() + 3600)
    identity.give(material(OTHER.issue(CALLER), OTHER))
    assert not link.fit(time.monotonic())


# Contexts


def test_equal_peers_share_what_was_made() -> None:
    contexts = PeerContexts(ours())
    contexts.prepare([PEER])
    assert contexts.get(PEER) is contexts.get(PeerTls(*PEER))
    assert contexts.get(PEER).server_hostname == PEER.sni
    assert contexts.get(PEER).roots == frozenset([ROOT.roots])


def test_any_number_of_announced_identities_costs_one_context() -> None:
    identity = ours()
    contexts = PeerContexts(identity)
    peers = [PEER._replace(names=(f"{REVIEWS}{number}",)) for number in range(3)]
    contexts.prepare(peers)
    [first] = {base(contexts, peer) for peer in peers}
    assert base(contexts, PEER) is first
    identity.give(material(ROOT.issue(CALLER), ROOT))
    [second] = {base(contexts, peer) for peer in peers}
    assert second is not first


def test_those_who_share_a_context_are_told_apart() -> None:
    contexts = PeerContexts(ours())
    handshaken(contexts, ROOT.issue(REVIEWS))
    ratings = PEER._replace(names=(REVIEWS.replace("reviews", "ratings"),))
    assert base(contexts, ratings) is base(contexts, PEER)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"expected .*/svc/ratings"):
        handshaken(contexts, ROOT.issue(REVIEWS), ratings)


def test_a_context_that_names_nobody_lets_nobody_through() -> None:
    contexts = PeerContexts(ours())
    issued = ROOT.issue(REVIEWS)
    with pytest.raises(ssl.SSLCertVerificationError, match="nobody said") as caught:
        shaken(base(contexts, PEER), issued)
    assert "nobody said" in explain(caught.value)


def test_our_certificates_end_is_told_in_monotonic_seconds() -> None:
    contexts = PeerContexts(ours(), clock=lambda: 100.0, wall=time.time)
    expires = contexts.get(PEER).expires
    assert expires == pytest.approx(3700.0, abs=60)


def test_what_no_plan_needs_is_dropped_and_made_again_when_asked_for() -> None:
    contexts = PeerContexts(ours())
    contexts.prepare([PEER])
    first = contexts.get(PEER)
    contexts.prepare([])
    assert contexts.get(PEER) is not first
    assert context(contexts.get(PEER)) is not None


def test_what_two_plans_need_is_kept() -> None:
    contexts = PeerContexts(ours())
    contexts.prepare([PEER])
    first = contexts.get(PEER)
    contexts.prepare([PEER, PEER._replace(names=(CALLER,))])
    assert contexts.get(PEER) is first


def test_tls_before_1_2_and_renegotiation_are_not_offered() -> None:
    made = base(PeerContexts(ours()), PEER)
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    assert made.options & ssl.OP_NO_RENEGOTIATION
    assert made.verify_mode is ssl.CERT_REQUIRED


def test_before_the_first_certificate_the_reason_is_told_as_it_is_then() -> None:
    identity = HandIdentity()
    contexts = PeerContexts(identity)
    contexts.prepare([PEER])
    assert contexts.get(PEER).context is None
    assert "no certificate yet from files:///run/identity: nothing came" in contexts.get(PEER).problem
    identity._take(IdentityError("files:///run/identity", "key.pem isn't there"))
    assert "key.pem isn't there" in contexts.get(PEER).problem
    identity.give(material(ROOT.issue(CALLER), ROOT))
    assert context(contexts.get(PEER)) is not None


def test_without_an_identity_the_way_out_is_named() -> None:
    assert "MESHLIB_IDENTITY" in PeerContexts(None).get(PEER).problem


def test_nobody_is_accepted_where_no_identity_is_known() -> None:
    found = PeerContexts(ours()).get(PEER._replace(names=()))
    assert found.context is None
    assert "no identity is known" in found.problem


def test_nobody_is_accepted_for_an_identity_that_our_bundle_cant_vouch_for() -> None:
    strange = ("spiffe://elsewhere.test/ns/default/dc/dc1/svc/reviews", "spiffe://mesh.test.elsewhere/x", "https://x/")
    for name in strange:
        found = PeerContexts(ours()).get(PEER._replace(names=(name,)))
        assert found.context is None
        assert "is not of the trust domain mesh.test" in found.problem
    both = context(PeerContexts(ours()).get(PEER._replace(names=(*strange, REVIEWS, "reviews.test"))))
    assert isinstance(both, Expecting)
    assert both.names == (REVIEWS, "reviews.test")


def test_a_material_that_cant_be_used_is_refused_and_the_one_before_stays() -> None:
    identity = ours()
    contexts = PeerContexts(identity)
    contexts.prepare([PEER])
    before = contexts.get(PEER)
    good = material(ROOT.issue(CALLER), ROOT)
    identity.give(good._replace(key=ROOT.issue(CALLER).key))
    assert contexts.get(PEER) is before
    assert "can't be used" in str(identity.error)


# Files


def files(folder: Path, root: Authority) -> PeerTls:
    issued = root.issue(names=["client.test"])
    for name, content in (("roots", root.roots), ("cert", issued.certificates), ("key", issued.key)):
        (folder / name).write_bytes(content)
    return PeerTls("MUTUAL", "api.test", (), str(folder / "roots"), str(folder / "cert"), str(folder / "key"))


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    contexts = PeerContexts(None)
    peer = files(tmp_path, ROOT)
    contexts.prepare([peer])
    first = contexts.get(peer)
    contexts.refresh()
    assert contexts.get(peer) is first
    files(tmp_path, OTHER)
    os.utime(tmp_path / "roots", ns=(1, 1))
    contexts.refresh()
    [root] = context(contexts.get(peer)).get_ca_certs()
    assert root["subject"] == ((("commonName", "other"),),)


def test_with_files_that_cant_be_read_any_more_the_last_good_ones_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = PeerContexts(None)
    peer = files(tmp_path, ROOT)
    contexts.prepare([peer])
    first = contexts.get(peer)
    (tmp_path / "cert").write_bytes(b"rubbish")
    with caplog.at_level(logging.WARNING, "meshlib.identity"):
        contexts.refresh()
        contexts.refresh()
    assert contexts.get(peer) is first
    assert len(caplog.records) == 1
    assert "stays in force" in caplog.text


@pytest.mark.parametrize("missing", ["roots", "cert", "key"])
def test_a_file_that_isnt_there_is_named_and_taken_when_it_comes(tmp_path: Path, missing: str) -> None:
    contexts = PeerContexts(None)
    peer = files(tmp_path, ROOT)
    content = (tmp_path / missing).read_bytes()
    (tmp_path / missing).unlink()
    contexts.prepare([peer])
    assert str(tmp_path / missing) in contexts.get(peer).problem
    (tmp_path / missing).write_bytes(content)
    contexts.refresh()
    assert context(contexts.get(peer)) is not None


def test_a_name_alone_makes_no_context_of_its_own() -> None:
    contexts = PeerContexts(None)
    one, other = PeerTls("SIMPLE", "one.test"), PeerTls("SIMPLE", "other.test")
    contexts.prepare([one, other])
    assert context(contexts.get(one)) is context(contexts.get(other))
    assert contexts.get(other).server_hostname == "other.test"


def test_the_server_name_is_checked_unless_somebody_is_named_or_nothing_is_verified(tmp_path: Path) -> None:
    contexts = PeerContexts(None)
    peer = files(tmp_path, ROOT)
    assert context(contexts.get(peer)).check_hostname
    assert not context(contexts.get(peer._replace(names=("spiffe://mesh.test/x",)))).check_hostname
    unverified = context(contexts.get(peer._replace(verify=False)))
    assert (unverified.check_hostname, unverified.verify_mode) == (False, ssl.CERT_NONE)


def test_names_that_share_a_context_share_the_next_one_too(tmp_path: Path) -> None:
    contexts = PeerContexts(None)
    one = files(tmp_path, ROOT)
    other = one._replace(sni="other.test")
    contexts.prepare([one, other])
    before = context(contexts.get(one))
    files(tmp_path, OTHER)
    os.utime(tmp_path / "roots", ns=(1, 1))
    contexts.refresh()
    assert context(contexts.get(one)) is context(contexts.get(other))
    assert context(contexts.get(one)) is not before


def test_a_peer_that_shows_a_ca_is_refused_within_the_handshake_whoever_it_names() -> None:
    contexts = PeerContexts(ours())
    handshaken(contexts, ROOT.issue(REVIEWS))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"is a CA's \(CA:TRUE\)") as caught:
        handshaken(contexts, ROOT.issue(REVIEWS, ca=True))
    assert explain(caught.value).startswith("its certificate is a CA's")


def handshaken(contexts: PeerContexts, issued: Issued, peer: PeerTls = PEER) -> None:
    shaken(context(contexts.get(peer)), issued)


def shaken(ours: ssl.SSLContext, issued: Issued) -> None:
    """Do a handshake in memory with a server that shows `issued`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_into(server, issued.certificates, issued.key)
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [ours.wrap_bio(to_us, to_them), server.wrap_bio(to_them, to_us, server_side=True)]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()


# Names


@pytest.mark.parametrize(
    ("alternatives", "name"),
    [
        ([("URI", REVIEWS)], REVIEWS),
        ([("URI", REVIEWS), ("DNS", "a.test")], REVIEWS),
        ([("URI", REVIEWS), ("DNS", "a.test")], "a.test"),
        ([("URI", "https://a.test/x"), ("URI", "https://b.test/")], "https://b.test/"),
        ([("IP Address", "0:0:0:0:0:0:0:1")], "::1"),
        ([("IP Address", "10.0.0.1")], "10.0.0.1"),
    ],
)
def test_a_name_is_found_among_the_alternatives_of_its_kind(alternatives: list[tuple[str, str]], name: str) -> None:
    assert mismatch({"subjectAltName": alternatives}, ["elsewhere.test", name]) == ""


@pytest.mark.parametrize(
    ("alternatives", "name"),
    [
        ([], REVIEWS),
        ([("URI", REVIEWS + "2")], REVIEWS),
        ([("URI", REVIEWS), ("URI", REVIEWS)], REVIEWS),
        ([("DNS", REVIEWS)], REVIEWS),
        ([("URI", "a.test")], "a.test"),
        ([("DNS", "10.0.0.1")], "10.0.0.1"),
        ([("DNS", "*.test")], "a.test"),
        ([("DNS", "a.test.evil")], "a.test"),
    ],
)
def test_whoever_isnt_expected_is_named_beside_who_is(alternatives: list[tuple[str, str]], name: str) -> None:
    problem = mismatch({"subjectAltName": alternatives}, [name])
    assert problem.startswith("its certificate is for ")
    assert name in problem
    assert all(value in problem for _, value in alternatives)


def test_what_a_stranger_wrote_into_a_certificate_is_bounded_and_cant_forge_a_line() -> None:
    problem = mismatch({"subjectAltName": [("URI", "spiffe://x/\nall is well" + "y" * 10_000)]}, [REVIEWS])
    assert "\n" not in problem
    assert len(problem) < 600


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionResetError(), "hung up"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "hung up"),
        (ConnectionAbortedError("taking longer than 60 seconds"), "taking longer"),
    ],
)
def test_a_failed_handshake_is_told_in_words(error: Exception, words: str) -> None:
    assert words in explain(error)
