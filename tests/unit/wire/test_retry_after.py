"""When an endpoint says to come back."""

from __future__ import annotations

import pytest

from meshlib.wire.outgoing import retry_after


def test_seconds_are_seconds() -> None:
    assert retry_after([(b"Retry-After", b" 120 ")]) == 120.0


def test_a_date_gone_by_is_now() -> None:
    assert retry_after([(b"retry-after", b"Mon, 01 Jan 2001 00:00:00 GMT")]) == 0.0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"soon",
        b"-5",
        b"\xb2",
        b"31\xb2",
        b"Mon, 99999999999999999999 Jan 2020 00:00:00 GMT",
        b"Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
    ],
)
def test_what_cant_be_read_is_never(value: bytes) -> None:
    asked = retry_after([(b"Retry-After", value)])
    assert asked is not None
    assert asked < 0


@pytest.mark.parametrize("name", [b"x-envoy-overloaded", b"X-Envoy-Overloaded"])
def test_who_is_overloaded_is_not_asked_again_whatever_else_he_says(name: bytes) -> None:
    assert retry_after([(b"retry-after", b"1"), (name, b"true")]) == -1.0
