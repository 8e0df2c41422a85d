"""The table of faults counts what was tried, and does not call a failed test survived."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest

from fixtures import faults
from fixtures.faults import BEGIN, END, Tried, summed, with_table, write_table

TRIED = [
    Tried("storage", "a bit flipped", 4, 4, "test_a.py"),
    Tried("input", "broken JSON", 1, 1, "test_b.py"),
    Tried("storage", "a bit flipped", 2, 0, "test_a.py"),
]
ROWS = [Tried("input", "broken JSON", 1, 1, "test_b.py"), Tried("storage", "a bit flipped", 6, 4, "test_a.py")]
COUNTS = {"passed": 4, "failed": 1, "error": 1}
MORE = [*ROWS, Tried("storage", "a full disk", 9, 9, "test_c.py"), Tried("storage", "a full disk", 5, 5, "test_d.py")]


def test_faults_are_summed_by_kind():
    """Of six flipped bits two were in a test that failed."""
    assert summed(TRIED) == ROWS


def test_table_takes_its_place_in_the_page(tmp_path):
    """And the page around it stays; writing again changes nothing."""
    page = tmp_path / "docs" / "robustness.md"
    page.parent.mkdir()
    page.write_text(f"above\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
    for _ in range(2):
        write_table(MORE, tmp_path / "docs" / "faults")
        text = page.read_text()
        assert text.startswith(f"above\n\n{BEGIN}\n| faults | kinds |")
        assert text.endswith(f"{END}\n\nbelow\n")
        assert "| storage | 2 | 1 | `test_a.py`, `test_c.py`, `test_d.py` |" in text
        assert "old" not in text
    with (tmp_path / "docs" / "faults" / "faults.csv").open() as file:
        assert [row["survived"] for row in csv.DictReader(file)] == ["1", "4", "9", "5"]


def test_page_without_a_place_is_refused():
    """The table is not lost silently."""
    with pytest.raises(ValueError, match="no <!-- faults -->"):
        with_table("nothing here", ROWS)


@pytest.mark.parametrize(
    ("exitstatus", "keyword", "worker", "expected"),
    [
        (pytest.ExitCode.TESTS_FAILED, "", {}, ["6", "4"]),
        (pytest.ExitCode.TESTS_FAILED, "some", {}, None),
        (pytest.ExitCode.INTERRUPTED, "", {}, None),
        (pytest.ExitCode.OK, "", {"workerinput": {}}, None),
    ],
)
def test_only_a_whole_session_replaces_the_table(tmp_path, exitstatus, keyword, worker, expected):
    """Of six faults four were survived, one test failed, one broke in its set-up: those are not survived.

    What else a test says of itself is no fault, and a worker of xdist's knows of its own tests alone.
    """
    tried = {kind: (faults.FAULT, ["storage", "a bit flipped", count, "test_a.py"]) for kind, count in COUNTS.items()}
    other = ("killed", "5 studies")
    stats = {
        kind: [SimpleNamespace(passed=kind == "passed", user_properties=[other, each])] for kind, each in tried.items()
    }
    reporter = SimpleNamespace(stats=stats, section=lambda _: None, write_line=lambda _: None)
    config = SimpleNamespace(getoption=lambda _: tmp_path, option=SimpleNamespace(keyword=keyword), **worker)
    faults.pytest_terminal_summary(reporter, exitstatus, config)
    assert (tmp_path / "faults.csv").exists() == (expected is not None)
    if expected:
        (row,) = csv.DictReader((tmp_path / "faults.csv").read_text().splitlines())
        assert [row["tried"], row["survived"]] == expected
