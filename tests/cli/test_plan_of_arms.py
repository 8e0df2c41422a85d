"""`gradinoc plan` of a study with arms: it says where C7b found nothing to remove, before anything is spent."""

from __future__ import annotations

import pytest

from gradinoc.cli import main

QUICK = ["--no-cost", "--no-power"]


def planned(tmp_path, capsys, *options):
    """What the plan of the study on SmolLM2 says on stdout."""
    assert main(["plan", "causal-smollm2", *QUICK, "--artifacts", str(tmp_path), *options]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_plan_says_that_there_is_next_to_nothing_to_remove(tmp_path, capsys):
    """The share that was published, and how many runs are spent on it."""
    said = planned(tmp_path, capsys)
    assert "0.0025 of what inoculation changes runs along the direction" in said
    assert "37 of the 40 runs with an intervention" in said


@pytest.mark.parametrize("setting", ["published.carried=0.4", "arms={}"])
def test_plan_says_it_only_where_it_is_so(setting, tmp_path, capsys):
    """A share above C7b's bar, and a study without arms."""
    assert "runs along the direction: there is next to nothing" not in planned(tmp_path, capsys, "--set", setting)
