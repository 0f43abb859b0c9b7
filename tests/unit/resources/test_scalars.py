"""Scalars mean what YAML 1.1's safe loaders say, except that dates stay text."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshlib.resources import scalars

WORDS = ["yes", "No", "ON", "true", "Null", "=", "y"]


@given(st.text("0123456789+-._:xbeEaAfFnN~", max_size=12) | st.sampled_from(WORDS))
def test_a_plain_scalar_reads_as_the_safe_loader_reads_it(text: str) -> None:
    tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))
    if tag.endswith((":timestamp", ":merge", ":value")):
        assert scalars.plain(text) == text
        return
    node = yaml.ScalarNode(tag, text)
    try:
        expected = yaml.SafeLoader("").construct_object(node)
    except (ValueError, OverflowError):
        return
    try:
        found = scalars.plain(text)
    except ValueError:
        assert isinstance(expected, int | float)
        return
    assert type(found) is type(expected)
    assert found == pytest.approx(expected) if isinstance(expected, float) else found == expected


@pytest.mark.parametrize(("text", "value"), [("2024-01-01", "2024-01-01"), ("1:30", 90), ("0o7", "0o7"), ("010", 8)])
def test_the_odd_ones(text: str, value: object) -> None:
    assert scalars.plain(text) == value
