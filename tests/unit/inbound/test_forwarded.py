"""x-forwarded-client-cert: read as Envoy writes it, believed of trusted hops only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.identity.spiffe import parse
from meshlib.inbound.forwarded import LONGEST, MOST_HOPS, Hops, caller_of, elements

DOMAIN = "mesh.test"
FRONT = "spiffe://mesh.test/ns/default/dc/dc1/svc/front"
GATEWAY = "spiffe://mesh.test/gateway"
EDGE = "spiffe://mesh.test/edge"
HOPS = Hops([GATEWAY, EDGE])


def caller(header: str, hops: Hops = HOPS) -> str | None:
    found = caller_of(header.encode(), hops, DOMAIN)
    return None if found is None else str(found)


def test_a_header_is_read_as_envoy_writes_it() -> None:
    text = f'By={GATEWAY};Hash=468e;Subject="CN=\\"x\\",O=a;b=c";URI={FRONT};DNS=a.test,By={EDGE};URI={GATEWAY}'
    assert elements(text.encode()) == [
        [("by", GATEWAY), ("hash", "468e"), ("subject", 'CN="x",O=a;b=c'), ("uri", FRONT), ("dns", "a.test")],
        [("by", EDGE), ("uri", GATEWAY)],
    ]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "URI",
        "URI=a;",
        "URI=a,",
        ",URI=a",
        'URI="a',
        'URI="a"b',
        "URI=a=b",
        "=a",
        "U RI=a",
        "URI=" + "a" * LONGEST,
        ",".join([f"URI={FRONT}"] * (MOST_HOPS + 1)),
    ],
)
def test_what_is_not_in_the_format_counts_for_nobody(header: str) -> None:
    assert elements(header.encode()) is None
    assert caller(header) is None


@given(st.binary(max_size=200))
def test_no_header_does_any_harm(header: bytes) -> None:
    found = elements(header)
    assert found is None or all(pair for element in found for pair in element)
    caller_of(header, HOPS, DOMAIN)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"URI={FRONT}", FRONT),
        (f"By={GATEWAY};Hash=1;uri={FRONT}", FRONT),
        (f"URI=spiffe://mesh.test/forged,URI={FRONT}", FRONT),
        (f"URI={FRONT},URI={GATEWAY}", FRONT),
        (f"URI=spiffe://mesh.test/forged,URI={FRONT},URI={EDGE},URI={GATEWAY}", FRONT),
        (f"URI={GATEWAY}", None),
        (f"URI={FRONT};URI={FRONT}", None),
        ("Hash=1", None),
        (f"URI={FRONT},Hash=1", None),
        ("URI=spiffe://other.test/ns/default/dc/dc1/svc/front", None),
        ("URI=spiffe://mesh.test", None),
        (f"URI={FRONT}/../admin", None),
    ],
)
def test_the_caller_is_the_nearest_that_is_no_trusted_hop(header: str, expected: str | None) -> None:
    assert caller(header) == expected


def test_without_an_identity_of_ours_nobody_else_has_one() -> None:
    assert caller_of(f"URI={FRONT}".encode(), HOPS, None) is None


@pytest.mark.parametrize(
    ("peer", "address", "trusted"),
    [
        (GATEWAY, "192.0.2.1", True),
        (GATEWAY + "2", "192.0.2.1", False),
        (None, "192.0.2.1", False),
        (None, "10.1.2.3", True),
        (FRONT, "10.1.2.3", True),
        (None, "10.2.0.1", False),
        (None, "::ffff:10.1.2.3", True),
        (None, "2001:db8::1", True),
        (None, "testclient", False),
        (None, None, False),
    ],
)
def test_a_hop_is_trusted_by_its_identity_or_its_address(peer: str | None, address: str | None, trusted: bool) -> None:
    hops = Hops([GATEWAY, "10.1.0.0/16", "2001:db8::/32"])
    assert hops.trusts(None if peer is None else parse(peer), address) is trusted
    assert not Hops([]).trusts(None if peer is None else parse(peer), address)
