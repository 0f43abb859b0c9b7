"""What an arriving request passes on to the calls made while serving it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.context import ATTEMPT_HEADER, DEADLINE_HEADER, PASSED_ON, PRIORITY_HEADER, Inherited
from meshlib.inbound.arrival import LONGEST_DEADLINE_MS, LONGEST_TRACE_VALUE, MOST_TRACE_HEADERS, inherit

NOW = 100.0


def test_a_request_without_headers_of_ours_inherits_nothing() -> None:
    assert inherit([(b"host", b"web"), (b"accept", b"*/*")], NOW) == Inherited()


def test_the_deadline_is_counted_from_the_arrival() -> None:
    assert inherit([(DEADLINE_HEADER, b"1500")], NOW) == Inherited(deadline=NOW + 1.5)


def test_the_tightest_of_several_deadlines_holds() -> None:
    assert inherit([(DEADLINE_HEADER, b"1500"), (DEADLINE_HEADER, b"500")], NOW) == Inherited(deadline=NOW + 0.5)


def test_a_request_with_no_time_left_is_expired() -> None:
    assert inherit([(DEADLINE_HEADER, b"0")], NOW) is None


@pytest.mark.parametrize("value", [b"", b"-1", b"+5", b"1.5", b"1_0", b" 5", b"5s", b"nan", b"86400001", b"9" * 5000])
def test_a_deadline_that_makes_no_sense_is_passed_over(value: bytes) -> None:
    assert inherit([(DEADLINE_HEADER, value)], NOW) == Inherited()


@pytest.mark.parametrize("name", ["critical", "default", "best-effort"])
def test_the_priority_is_taken_over(name: str) -> None:
    assert inherit([(PRIORITY_HEADER, name.encode())], NOW) == Inherited(priority=name)


@pytest.mark.parametrize("value", [b"", b"Critical", b" critical", b"urgent", b"critical,default", b"\xff" * 5000])
def test_a_priority_that_makes_no_sense_is_passed_over(value: bytes) -> None:
    assert inherit([(PRIORITY_HEADER, value)], NOW) == Inherited()


def test_the_attempt_count_is_taken_over() -> None:
    assert inherit([(ATTEMPT_HEADER, b"3")], NOW) == Inherited(attempt=3)


@pytest.mark.parametrize("value", [b"", b"0", b"-2", b"two", b"1001", b"9" * 5000])
def test_an_attempt_count_that_makes_no_sense_is_the_first(value: bytes) -> None:
    assert inherit([(ATTEMPT_HEADER, value)], NOW) == Inherited()


def test_the_trace_is_what_a_service_passes_on() -> None:
    headers = [(name, b"of " + name) for name in sorted(PASSED_ON)]
    assert inherit([(b"cookie", b"secret"), *headers], NOW) == Inherited(trace=tuple(headers))


def test_more_trace_headers_than_anybody_needs_are_cut() -> None:
    inherited = inherit([(b"tracestate", b"a=%d" % number) for number in range(1000)], NOW)
    assert inherited is not None
    assert len(inherited.trace) == MOST_TRACE_HEADERS


@pytest.mark.parametrize("before", [[], [(b"b3", b"0")]])
def test_a_trace_header_that_is_too_long_is_left_out(before: list[tuple[bytes, bytes]]) -> None:
    too_long = (b"baggage", b"x" * (LONGEST_TRACE_VALUE + 1))
    after = (b"traceparent", b"00")
    assert inherit([*before, too_long, after], NOW) == Inherited(trace=(*before, after))


names = st.sampled_from([DEADLINE_HEADER, ATTEMPT_HEADER, *sorted(PASSED_ON), b"host"])


@given(st.lists(st.tuples(names, st.binary(max_size=20) | st.integers(0, 10**9).map(lambda n: b"%d" % n))))
def test_whatever_arrives_what_is_inherited_keeps_its_bounds(headers: list[tuple[bytes, bytes]]) -> None:
    inherited = inherit(headers, NOW)
    if inherited is None:
        assert any(name == DEADLINE_HEADER and int(value) == 0 for name, value in headers if value.isdigit())
        return
    assert inherited.deadline is None or NOW < inherited.deadline <= NOW + LONGEST_DEADLINE_MS / 1000
    assert inherited.attempt >= 1
    assert set(inherited.trace) <= set(headers)
