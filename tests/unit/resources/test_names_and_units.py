"""Host names and durations."""

from __future__ import annotations

import pytest

from meshlib.resources import aliases, fqdn
from meshlib.resources.names import host_fault, service_name
from meshlib.resources.units import parse_duration


@pytest.mark.parametrize(
    ("host", "full"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("Reviews", "reviews.shop.svc.cluster.local"),
        ("reviews.", "reviews.shop.svc.cluster.local"),
        ("api.example.com.", "api.example.com"),
        ("reviews.other", "reviews.other"),
        ("*", "*"),
        ("::1", "::1"),
    ],
)
def test_a_short_name_belongs_to_its_namespace(host: str, full: str) -> None:
    assert fqdn(host, "shop") == full


def test_a_service_answers_to_its_short_name_only_at_home() -> None:
    full = "reviews.shop.svc.cluster.local"
    abroad = (full, "reviews.shop.svc", "reviews.shop")
    assert aliases(full, "other") == abroad
    assert aliases(full, "shop") == (*abroad, "reviews")
    assert aliases("api.example.com", "shop") == ("api.example.com",)
    assert aliases("svc.cluster.local", "shop") == ("svc.cluster.local",)


@pytest.mark.parametrize(
    ("host", "full"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("Reviews.", "reviews.shop.svc.cluster.local"),
        ("reviews.shop", "reviews.shop.svc.cluster.local"),
        ("reviews.other", "reviews.other.svc.cluster.local"),
        ("reviews.third.svc", "reviews.third.svc.cluster.local"),
        ("reviews.third.svc.cluster.local", "reviews.third.svc.cluster.local"),
        ("reviews.service.consul", "reviews.default.svc.cluster.local"),
        ("reviews.service.dc_2.consul", "reviews.service.dc_2.consul"),
    ],
)
def test_a_host_that_may_be_a_service_has_its_full_name(host: str, full: str) -> None:
    assert service_name(host, "shop", {"other"}) == full
    assert service_name(full, "shop") == full


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "example.com", "reviews.third", "www.example.com", "127.0.0.1", "::1", "re_views", "-a", "", ".",
        "*.shop", "*", "a" * 64, "reviews.service.d/c.consul", "v1.reviews.service.consul", "reviews.-.svc",
        "reviews.shop.svc.cluster.local.example", "reviews..svc", "reviews.service..consul", "é",
    ],
)  # fmt: skip
def test_a_host_that_is_no_service_has_none(host: str) -> None:
    assert service_name(host, "shop", {"other"}) is None


@pytest.mark.parametrize("host", ["a", "a.b", "a_b", "10.0.0.1", "::1", "a-b.c.", "*", "*.a.com"])
def test_a_host_name_is_accepted(host: str) -> None:
    assert host_fault(host, wildcard=True) is None


@pytest.mark.parametrize("host", ["", ".", "a..b", "-a", "a/b", "a:80", "a*", "*a", "*.*", "a" * 64, "a." * 200, "ä"])
def test_what_is_no_host_name_is_refused(host: str) -> None:
    assert host_fault(host, wildcard=True) is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1.5s", 1.5), ("250ms", 0.25), ("1h30m", 5400), ("2000us", 0.002), (".5s", 0.5), ("1ms", 0.001)],
)  # fmt: skip
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1", "1 s", "1s ", "-1s", "1d", "0s", "999us", "8761h", "1s" * 100, "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|1ms|unit"):
        parse_duration(text)
