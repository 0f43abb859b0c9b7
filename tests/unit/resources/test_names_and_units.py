"""Host names and durations."""

from __future__ import annotations

import pytest

from meshlib.resources import aliases, fqdn
from meshlib.resources.names import host_fault
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
