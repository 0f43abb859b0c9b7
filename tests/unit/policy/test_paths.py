"""What a path may mean."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.paths import decoded_pattern, followed, read_path
from meshlib.policy.patterns import any_glob, any_path


@pytest.mark.parametrize(
    ("path", "tidy"),
    [
        ("/", "/"),
        ("", "/"),
        ("/a/b", "/a/b"),
        ("//a//b//", "/a/b/"),
        ("/./a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("\\a\\..\\b", "/b"),
        ("/.../a", "/.../a"),
        ("/a./.b", "/a./.b"),
    ],
)
def test_a_path_is_tidied(path: str, tidy: str) -> None:
    assert followed(path) == tidy


@given(st.text("/.\\ab", max_size=20))
def test_what_is_tidy_stays_so(path: str) -> None:
    tidy = followed(path)
    assert followed(tidy) == tidy
    assert tidy.startswith("/")
    assert "//" not in tidy
    assert not {".", ".."} & set(tidy.split("/"))


@given(st.text("abcXYZ019-._~!$&'()*+,:=@/", min_size=1, max_size=20))
def test_a_plain_path_has_one_reading(path: str) -> None:
    path = "/" + path
    reading = read_path(path.encode(), path, True)
    if followed(path) == path:
        assert reading.permitting == (path,)
    assert reading.fault == ""
    assert {path, followed(path)} == set(reading.permitting)


@given(st.binary(max_size=30), st.text(max_size=20), st.booleans())
def test_any_bytes_have_a_fault_or_readings(target: bytes, seen: str, exact: bool) -> None:
    reading = read_path(target, seen, exact)
    assert bool(reading.fault) != bool(reading.permitting)
    assert set(reading.permitting) <= set(reading.forbidding)


@pytest.mark.parametrize(
    ("target", "seen", "readings"),
    [
        (b"/a?x=/b", "/a", {"/a"}),
        (b"//a", "//a", {"//a", "/a"}),
        (b"/caf%C3%A9", "/café", {"/café"}),
        (b"http://h/a", "/a", {"/a"}),
        (b"http://h/a", "http://h/a", {"/a", "http://h/a"}),
        (b"http://h", "", {"/"}),
        (b"http://h", "/", {"/"}),
        (b"?x", "", {"/"}),
        (b"*", "*", {"*"}),
        (b"/a;x/b", "/a;x/b", {"/a;x/b"}),
    ],
)
def test_readings(target: bytes, seen: str, readings: set[str]) -> None:
    found = read_path(target, seen, True)
    assert (found.fault, set(found.permitting)) == ("", readings)


@pytest.mark.parametrize("seen", ["/b", "/x/a", "/A", "/a/b", ""])
def test_an_application_that_sees_another_path_than_came_has_none(seen: str) -> None:
    assert "another path" in read_path(b"/a", seen, True).fault


def test_a_target_that_was_made_up_from_what_the_application_sees_tells_nothing_more() -> None:
    assert read_path(b"/a/../b", "/a/../b", False).permitting == ("/b", "/a/../b")


@pytest.mark.parametrize(
    ("pattern", "decoded"), [("/caf%C3%A9", "/café"), ("/a b", "/a b"), ("/%ff", "/%ff"), ("/a%20b*", "/a b*")]
)
def test_patterns_are_compared_decoded(pattern: str, decoded: str) -> None:
    assert decoded_pattern(pattern) == decoded


@pytest.mark.parametrize("pattern", ["/{*}/{*}/{*}/{**}/x", "/{**}x", "/a{*}b{*}c{*}d"])
def test_a_template_costs_a_bounded_time(pattern: str) -> None:
    test = any_path([pattern])
    assert test is not None
    began = time.process_time()
    assert not test("/a" * 32_000 + "\n")
    assert time.process_time() - began < 1


def test_stars_cost_a_bounded_time() -> None:
    test = any_glob(["*a*a*a*a*a*a*a*b"])
    began = time.process_time()
    assert not test("a" * 64_000)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("target", "mount", "below"),
    [
        ("/api/admin", "/api", "/admin"),
        ("/api//admin", "/api/", "/admin"),
        ("/x/../api/admin", "/api", "/admin"),
        ("/api", "/api", "/"),
    ],
)
def test_what_forbids_reads_a_path_without_what_the_application_is_mounted_under(
    target: str, mount: str, below: str
) -> None:
    found = read_path(target.encode(), target, True, mount)
    assert below in found.forbidding
    assert below not in found.permitting


def test_a_path_that_only_begins_like_the_mount_is_left() -> None:
    assert read_path(b"/apix/y", "/apix/y", True, "/api") == read_path(b"/apix/y", "/apix/y", True)
