"""The table of faults counts what was tried, and does not call a failed test survived."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest

from fixtures import faults
from fixtures.faults import BEGIN, END, Row, Tried, summed, with_table, write_table

TRIED = [
    Tried("storage", "a bit flipped", 1, True, "test_a.py"),
    Tried("storage", "a bit flipped", 3, True, "test_a.py"),
    Tried("storage", "a bit flipped", 2, False, "test_a.py"),
    Tried("input", "broken JSON", 1, True, "test_b.py"),
]
ROWS = [Row("input", "broken JSON", 1, 1, "test_b.py"), Row("storage", "a bit flipped", 6, 4, "test_a.py")]
MORE = [*ROWS, Row("storage", "a full disk", 9, 9, "test_c.py"), Row("storage", "a full disk", 5, 5, "test_d.py")]


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


def reporter_of(*reports):
    """A terminal reporter after these reports; what it writes is lost."""
    stats = {kind: [report for report in reports if report.kind == kind] for kind in ("passed", "failed", "error")}
    return SimpleNamespace(stats=stats, section=lambda _title: None, write_line=lambda _line: None)


def report(kind, count=1):
    """What became of one test that tried faults."""
    tried = ("fault", ["storage", "a bit flipped", count, "test_a.py"])
    return SimpleNamespace(kind=kind, passed=kind == "passed", user_properties=[tried])


def summed_up(folder, exitstatus=pytest.ExitCode.TESTS_FAILED, keyword=""):
    """The rows written at the end of a session; None if no table was."""
    config = SimpleNamespace(getoption=lambda _name: folder, option=SimpleNamespace(keyword=keyword))
    faults.pytest_terminal_summary(
        reporter_of(report("passed", 4), report("failed"), report("error")), exitstatus, config
    )
    path = folder / "faults.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else None


def test_fault_whose_test_could_not_begin_is_not_survived(tmp_path):
    """Four were, one failed, one broke in its set-up."""
    (row,) = summed_up(tmp_path / "docs" / "faults")
    assert (row["tried"], row["survived"]) == ("6", "4")


@pytest.mark.parametrize("how", [{"keyword": "some"}, {"exitstatus": pytest.ExitCode.INTERRUPTED}])
def test_part_of_the_tests_does_not_replace_the_table(tmp_path, how):
    """Neither those that were chosen nor those before Ctrl-C."""
    assert summed_up(tmp_path / "docs" / "faults", **how) is None


def test_page_without_a_place_is_refused():
    """The table is not lost silently."""
    with pytest.raises(ValueError, match="no <!-- faults -->"):
        with_table("nothing here", ROWS)
