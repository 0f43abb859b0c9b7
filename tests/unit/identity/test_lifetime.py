"""When an identity is overdue, and how that is said."""

from __future__ import annotations

import pytest

from meshlib.identity.lifetime import OVERDUE, OVERDUE_WHILE_AWAY, complaint, fraction
from meshlib.identity.material import Material
from meshlib.identity.spiffe import parse

DAY = 86400.0
MATERIAL = Material(parse("spiffe://example.org/web"), b"", b"", b"", 1000.0, 1000.0 + DAY)


def test_a_young_one_is_in_order() -> None:
    assert complaint(MATERIAL, 1000.0, away=False) == ""
    assert complaint(MATERIAL, 1000.0, away=True) == ""


@pytest.mark.parametrize(("away", "share"), [(False, OVERDUE), (True, OVERDUE_WHILE_AWAY)])
def test_from_its_share_of_the_lifetime_on_it_is_overdue(away: bool, share: float) -> None:
    assert complaint(MATERIAL, 1000 + share * DAY - 1, away=away) == ""
    assert "hasn't been renewed" in complaint(MATERIAL, 1000 + share * DAY + 1, away=away)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (40.0, "spiffe://example.org/web expires in 40 s and hasn't been renewed"),
        (119.0, "spiffe://example.org/web expires in 119 s and hasn't been renewed"),
        (600.0, "spiffe://example.org/web expires in 10 min and hasn't been renewed"),
        (0.0, "spiffe://example.org/web expired 0 s ago and peers refuse it"),
        (-3 * DAY, "spiffe://example.org/web expired 3 d ago and peers refuse it"),
    ],
)
def test_it_says_how_long(left: float, said: str) -> None:
    assert complaint(MATERIAL, MATERIAL.not_after - left, away=False) == said


def test_one_without_a_lifetime_is_over() -> None:
    assert fraction(MATERIAL._replace(not_after=1000.0), 1000.0) == 1.0
