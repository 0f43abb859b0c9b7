"""What `print(mesh.status())` shows."""

from __future__ import annotations

from meshlib.status import Status


def test_a_status_is_printed_a_fact_a_line_and_leaves_out_what_there_is_not() -> None:
    good = Status("sqlite:///mesh.db", "shop", "v7", "registry", 3.21, 4, 2)
    assert str(good).splitlines() == [
        "registry        sqlite:///mesh.db",
        "namespace       shop",
        "configuration   v7 from registry, for 3.2 s",
        "endpoints       2, under 4 names",
    ]


def test_a_status_says_what_is_wrong_and_since_when() -> None:
    bad = Status("sqlite:///mesh.db", "shop", error="it is locked", error_age=2.0, registration_error="disk full")
    assert str(bad).splitlines()[2:] == [
        "configuration   none yet",
        "endpoints       0, under 0 names",
        "registering     disk full",
        "wrong           for 2.0 s: it is locked",
    ]
