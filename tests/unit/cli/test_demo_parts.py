"""The parts of the demo that need no processes."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import pytest

from meshlib.cli.demo import documents
from meshlib.cli.demo.claims import Claim, crowded, lines
from meshlib.cli.demo.load import percentile, sigma3
from meshlib.cli.demo.screen import Screen, bar, spark
from meshlib.resources import Source, encode, load


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_uvicorn_it_says_how_to_install_it(meshlib: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = meshlib("demo")
    assert ran.status == 1
    assert ran.err == ("meshlib: the demo needs uvicorn, which is not installed: pip install 'servicemesh[demo]'\n")


def test_its_documents_are_applied_as_written_without_a_note() -> None:
    every = [documents.rules(), documents.split(90, 10), documents.whole()]
    for changed in (documents.slow(2.0), documents.broken(50), documents.split(0, 100)):
        kept = [one for one in every if one.key != changed.key]
        loaded = load([Source(str(one.key), encode(one)) for one in (*kept, changed)], strict=True)
        assert loaded.problems == ()


def test_the_table_of_claims_marks_what_is_false() -> None:
    table = list(lines([Claim(2, "a share", "10 %", "9 %", True), Claim(3, "none failed", "0", "4", False)]))
    assert table == [
        "      CLAIM         ASKED   MEASURED",
        "✓ 2   a share       10 %    9 %",
        "✗ 3   none failed   0       4",
    ]


def test_a_machine_with_too_much_to_do_is_named_beside_what_came_of_it() -> None:
    assert crowded(3.9, 2) is None
    assert "8.3 processes wanted its 2 CPUs" in str(crowded(8.3, 2))


def test_three_deviations_shrink_with_the_root_of_the_count() -> None:
    assert sigma3(0.5, 100) == pytest.approx(0.15)
    assert sigma3(0.5, 400) == pytest.approx(0.075)
    assert sigma3(1.0, 400) == 0.0
    assert sigma3(0.5, 0) == 1.0


def test_a_percentile_is_the_nearest_value() -> None:
    assert percentile(range(1, 101), 99) == 100
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([], 50) == 0.0


def test_a_graph_reaches_from_nothing_to_the_greatest_value() -> None:
    assert spark([0, 1, 8]) == "▁▂█"
    assert spark([0, 0]) == "▁▁"
    assert spark([]) == ""


def test_a_bar_is_as_wide_as_it_is_asked_to_be() -> None:
    assert bar([("v1", 0.5), ("v2", 0.25), ("v3", 0.25)], 8) == "████▒▒░░  █ v1  50%  ▒ v2  25%  ░ v3  25%"
    assert bar([("v1", 0.0)], 4) == "      █ v1   0%"


def test_what_is_drawn_is_replaced_by_what_is_said() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.draw(["one", "two"])
    screen.say("that was it")
    assert stream.getvalue() == "one\ntwo\n\x1b[2F\x1b[Jthat was it\n"


def test_a_line_too_wide_for_the_terminal_is_not_drawn_so_that_it_can_be_erased() -> None:
    stream = Terminal()
    Screen(stream).draw(["x" * 500])
    assert stream.getvalue() == "\n"


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.cursor(shown=False)
    screen.draw(["one"])
    screen.say("two")
    assert stream.getvalue() == "two\n"
