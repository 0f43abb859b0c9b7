"""SPIFFE IDs by the standard (SPIFFE-ID, section 2)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.identity.spiffe import MAX_LENGTH, SpiffeId, parse

DOMAINS = st.from_regex(r"[a-z0-9._-]{1,255}", fullmatch=True)
SEGMENTS = st.from_regex(r"[a-zA-Z0-9._-]{1,40}", fullmatch=True).filter(lambda text: text not in {".", ".."})
IDS = st.builds(
    lambda domain, segments: SpiffeId(domain, "".join(f"/{segment}" for segment in segments)),
    DOMAINS,
    st.lists(SEGMENTS, max_size=8),
)
LEGAL = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")


@given(IDS)
def test_what_is_written_is_read_back(spiffe_id: SpiffeId) -> None:
    assert parse(str(spiffe_id)) == spiffe_id


@given(st.text())
def test_no_text_does_harm(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert str(parse(text)) == text


@given(IDS, st.characters().filter(lambda char: char not in LEGAL), st.data())
def test_one_foreign_character_anywhere_spoils_it(spiffe_id: SpiffeId, foreign: str, data: st.DataObject) -> None:
    text = str(spiffe_id)
    place = data.draw(st.integers(0, len(text)))
    with pytest.raises(ValueError, match="SPIFFE ID"):
        parse(text[:place] + foreign + text[place:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///path",
        "spiffe:/example.org/web",
        "SPIFFE://example.org/web",
        "https://example.org/web",
        "spiffe://Example.org/web",
        "spiffe://example.org:443/web",
        "spiffe://user@example.org/web",
        "spiffe://[::1]/web",
        "spiffe://example.org/web?x=1",
        "spiffe://example.org/web#top",
        "spiffe://example.org/web%20",
        "spiffe://example.org/w%65b",
        "spiffe://example.org/",
        "spiffe://example.org/web/",
        "spiffe://example.org//web",
        "spiffe://example.org/./web",
        "spiffe://example.org/web/..",
        "spiffe://example.org/*",
        "spiffe://example.org/web\n",
        "spiffe://example.org/web\x00",
        " spiffe://example.org/web",
        "spiffe://exämple.org/web",
        "spiffe://example.org/\N{FULLWIDTH LATIN SMALL LETTER A}",
        "spiffe://" + "a" * 256 + "/web",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SPIFFE ID"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["spiffe://example.org", "spiffe://example.org/...", "spiffe://1.2.3.4/a_b-c.D", "spiffe://" + "a" * 255 + "/web"],
)
def test_accepted(text: str) -> None:
    assert str(parse(text)) == text


def test_the_longest_is_accepted_and_one_more_is_not() -> None:
    longest = "spiffe://example.org/" + "a" * (MAX_LENGTH - len("spiffe://example.org/"))
    assert str(parse(longest)) == longest
    with pytest.raises(ValueError, match="2049 characters; at most 2048"):
        parse(longest + "a")
