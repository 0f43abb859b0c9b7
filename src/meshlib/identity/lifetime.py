"""When an identity ought to have been renewed. Pure: time is an argument."""

from __future__ import annotations

from meshlib.identity.material import Material

__all__ = ["OVERDUE", "OVERDUE_WHILE_AWAY", "complaint", "fraction"]

OVERDUE = 0.92
"""Share of its lifetime after which an identity is overdue although its source seems well. Consul's agent renews at
some moment between 0.6 and 0.9, SPIRE at 0.5, cert-manager at 2/3."""

OVERDUE_WHILE_AWAY = 2 / 3
"""The same, while the source is in trouble: nobody is going to renew it in silence."""


def fraction(material: Material, now: float) -> float:
    """The share of its lifetime that has passed; more than 1 when it has expired.

    Args:
        material: of which.
        now: Unix seconds.
    """
    whole = material.not_after - material.not_before
    return (now - material.not_before) / whole if whole > 0 else 1.0


def complaint(material: Material, now: float, *, away: bool) -> str:
    """What is wrong with the age of an identity in force, "" when nothing is.

    Args:
        material: in force.
        now: Unix seconds.
        away: whether its source is in trouble.
    """
    left = material.not_after - now
    if left <= 0:
        return f"{material.id} expired {_span(now - material.not_after)} ago and peers refuse it"
    if fraction(material, now) < (OVERDUE_WHILE_AWAY if away else OVERDUE):
        return ""
    return f"{material.id} expires in {_span(left)} and hasn't been renewed"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"
