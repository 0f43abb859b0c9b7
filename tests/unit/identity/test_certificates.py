"""What makes an identity, and how each thing that doesn't is refused."""

from __future__ import annotations

import time

import pytest

from meshlib.errors import IdentityError
from meshlib.identity.certificates import MAX_CHAIN, MAX_ROOTS, make_material, split
from meshlib.identity.spiffe import SpiffeId
from tests.support.authority import CLIENT, SERVER, Authority, Issued

WEB = "spiffe://example.org/ns/default/sa/web"
CA = Authority()
GOOD = CA.issue(WEB)


def refusal(issued: Issued, roots: bytes = CA.roots) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        make_material("files:///keys", issued.certificates, issued.key, roots)
    assert str(caught.value).startswith("files:///keys: ")
    return caught.value


def test_what_fits_is_an_identity() -> None:
    issued = CA.issue(WEB)
    made = make_material("files:///keys", issued.certificates, issued.key, CA.roots)
    assert made.id == SpiffeId("example.org", "/ns/default/sa/web")
    assert (made.certificates, made.key, made.roots) == (issued.certificates, issued.key, CA.roots)
    assert made.not_after - made.not_before == pytest.approx(3660, abs=1)
    assert made.not_after == pytest.approx(time.time() + 3600, abs=60)


def test_a_chain_leads_to_the_root() -> None:
    issued = Authority("between", parent=CA).issue(WEB)
    made = make_material("-", issued.certificates, issued.key, CA.roots)
    assert len(split(made.certificates)) == 2


def test_without_what_lies_between_it_leads_nowhere() -> None:
    issued = Authority("between", parent=CA).issue(WEB)
    leaf = Issued(split(issued.certificates)[0], issued.key)
    error = refusal(leaf)
    assert "unable to get local issuer" in error.problem
    assert "beside the leaf" in error.way_out


def test_a_new_root_crossed_by_the_old_is_accepted_by_who_knows_only_the_old() -> None:
    new = Authority("new root")
    issued = new.issue(WEB)
    made = make_material("-", issued.certificates + new.crossed_by(CA), issued.key, CA.roots)
    assert made.id.path == "/ns/default/sa/web"


def test_each_root_is_kept_once_and_without_the_text_around_it() -> None:
    other = Authority("other").roots
    roots = b"# our CA \xc3\xa9\n" + CA.roots.replace(b"\n", b"\r\n") + b"\nthe next\n" + other + CA.roots
    assert make_material("-", GOOD.certificates, GOOD.key, roots).roots == CA.roots + other


def test_the_key_does_not_show_in_a_repr() -> None:
    assert b"PRIVATE" not in repr(make_material("-", GOOD.certificates, GOOD.key, CA.roots)).encode()


@pytest.mark.parametrize(
    ("issued", "problem", "way_out"),
    [
        pytest.param(Issued(GOOD.certificates, CA.issue(WEB).key), "key isn't the certificate's", "belong", id="key"),
        pytest.param(CA.issue(WEB, ends=-10), "has expired", "renew", id="expired"),
        pytest.param(CA.issue(WEB, begins=86_400, ends=90_000), "not yet valid", "clock", id="not yet"),
        pytest.param(Authority().issue(WEB), "would refuse the certificate: ", "root", id="another CA"),
        pytest.param(CA.issue(WEB, usage=[SERVER]), "purpose", "clientAuth", id="servers only"),
        pytest.param(CA.issue(WEB, usage=[CLIENT]), "purpose", "serverAuth", id="clients only"),
        pytest.param(CA.issue(WEB, ca=True), "is a CA's (CA:TRUE)", "CA:FALSE", id="a CA's"),
        pytest.param(CA.issue(WEB, WEB + "2"), "names 2 URIs", "one URI SAN", id="two"),
        pytest.param(CA.issue(names=["web.test"]), "names 0 URIs (none)", "one URI SAN", id="none"),
        pytest.param(CA.issue("https://web.test/"), "is no SPIFFE ID", "SPIFFE ID", id="no SPIFFE ID"),
        pytest.param(CA.issue("spiffe://example.org"), "a trust domain", "workload", id="no path"),
        pytest.param(Issued(b"", GOOD.key), "the certificate holds no certificate in PEM", "BEGIN", id="empty"),
        pytest.param(Issued(GOOD.certificates[:-30], GOOD.key), "no certificate", "BEGIN", id="cut"),
        pytest.param(Issued(GOOD.certificates * 2 + GOOD.certificates[:99], GOOD.key), "whole", "BEGIN", id="cut last"),
        pytest.param(Issued(GOOD.certificates, b""), "can't be used", "", id="no key"),
        pytest.param(Issued(GOOD.certificates, GOOD.key[:60]), "can't be used", "", id="half a key"),
    ],
)
def test_refused(issued: Issued, problem: str, way_out: str) -> None:
    error = refusal(issued)
    assert problem in error.problem
    assert way_out in error.way_out


def test_names_of_other_kinds_may_stand_beside_the_id() -> None:
    issued = CA.issue(WEB, names=["web.test"])
    assert str(make_material("-", issued.certificates, issued.key, CA.roots).id) == WEB


@pytest.mark.parametrize(
    "roots",
    [b"", b"garbage", CA.roots[:100], b"-----BEGIN CERTIFICATE-----\n" * 1000],
    ids=["empty", "garbage", "cut", "beginnings"],
)
def test_roots_that_are_none_are_refused(roots: bytes) -> None:
    assert "the bundle of roots holds" in refusal(GOOD, roots).problem


def test_a_root_of_garbage_is_refused() -> None:
    roots = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert "the roots can't be used" in refusal(GOOD, roots).problem


@pytest.mark.parametrize(("name", "most"), [("the certificate", MAX_CHAIN), ("the bundle of roots", MAX_ROOTS)])
def test_more_certificates_than_anybody_needs_are_refused_before_they_are_read(name: str, most: int) -> None:
    many = b"".join(b"-----BEGIN CERTIFICATE-----\n%04d\n-----END CERTIFICATE-----\n" % n for n in range(most + 1))
    error = refusal(GOOD, many) if name != "the certificate" else refusal(Issued(many, GOOD.key))
    assert error.problem == f"{name} holds {most + 1} certificates"
