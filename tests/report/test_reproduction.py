"""A study that was computed again, beside the tables of the first time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradinoc.cli import main
from gradinoc.cli.compare import reproduce
from gradinoc.errors import StudyError
from gradinoc.report.reproduction import CLAIMS, MATRIX, RUNS, Agreement, agrees, read_banked, reproduction

BANKED = Path(__file__).parents[2] / "docs" / "smollm2"


@pytest.fixture
def fresh(tmp_path) -> Path:
    """The banked tables of the study on SmolLM2, to be changed."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    for name in (CLAIMS, RUNS, MATRIX):
        shutil.copy(BANKED / name, folder)
    return folder


def change(folder: Path, name: str, place: dict[str, object], column: str, value: object) -> None:
    """Write another value into the one row of a table."""
    table = pd.read_csv(folder / name)
    chosen = np.logical_and.reduce([table[key] == wanted for key, wanted in place.items()])
    assert chosen.sum() == 1
    table.loc[chosen, column] = value
    table.to_csv(folder / name, index=False)


def found(folder: Path, **place: str) -> pd.DataFrame:
    """What is not equal."""
    table = reproduction(read_banked(BANKED), folder)
    assert set(table["agreement"]) <= {*Agreement}
    return table[table["agreement"] != Agreement.EQUAL]


def test_same_tables_are_equal_in_every_number(fresh):
    """Every status, effect, number of a run but its time, and cell; each once."""
    table = reproduction(read_banked(BANKED), fresh)
    assert set(table["agreement"]) == {Agreement.EQUAL}
    assert agrees(table)
    counts = table["table"].value_counts()
    claims, runs = pd.read_csv(BANKED / CLAIMS), pd.read_csv(BANKED / RUNS)
    assert counts[CLAIMS] == claims["effect"].notna().sum() + claims["claim"].nunique()
    numbers = runs.select_dtypes("number").drop(columns=["seed", "seconds"])
    assert counts[RUNS] == numbers.size
    assert counts[MATRIX] == len(pd.read_csv(BANKED / MATRIX))
    assert not table.duplicated(["table", "row", "quantity"]).any()


@pytest.mark.parametrize(("share", "agreement"), [
    (1e-8, Agreement.EQUAL), (0.9, Agreement.NOISE), (-0.9, Agreement.NOISE), (1.1, Agreement.DIFFERENT),
])  # fmt: skip
def test_effect_is_judged_by_its_own_interval(fresh, share, agreement):
    """Moved by a share of the way from its estimate to the interval's end."""
    place = {"claim": "C6", "key": "share"}
    row = pd.read_csv(BANKED / CLAIMS).set_index(["claim", "key"]).loc["C6", "share"]
    end = row["high"] if share > 0 else row["low"]
    change(fresh, CLAIMS, place, "estimate", row["estimate"] + abs(share) * (end - row["estimate"]))
    apart = found(fresh)
    assert list(apart["agreement"]) == ([] if agreement is Agreement.EQUAL else [agreement])
    assert agrees(reproduction(read_banked(BANKED), fresh)) is (agreement is not Agreement.DIFFERENT)


def test_effect_without_an_interval_is_told_and_not_judged(fresh):
    """It may be anything: no noise is known of it."""
    change(fresh, CLAIMS, {"claim": "C7c", "key": "r2"}, "estimate", 0.9)
    (row,) = found(fresh).to_dict("records")
    assert (row["agreement"], row["fresh"]) == (Agreement.UNTOLD, 0.9)
    assert agrees(reproduction(read_banked(BANKED), fresh))


@pytest.mark.parametrize(("column", "value", "named"), [("n", 3, "share (n 14, now 3)"), ("estimate", None, "share")])
def test_effect_of_other_observations_or_not_measured_is_different(fresh, column, value, named):
    """However close its estimate; of how many is said."""
    change(fresh, CLAIMS, {"claim": "C6", "key": "share"}, column, value)
    (row,) = found(fresh).to_dict("records")
    assert (row["quantity"], row["agreement"]) == (named, Agreement.DIFFERENT)


def test_another_p_alone_is_no_other_effect(fresh):
    """Permutations may have been drawn in another order; a status that turns on it shows."""
    change(fresh, CLAIMS, {"claim": "C6", "key": "share"}, "p", 0.5)
    assert list(found(fresh)["agreement"]) == [Agreement.NOISE]


def test_another_status_is_different(fresh):
    """Though every number is the same."""
    table = pd.read_csv(fresh / CLAIMS)
    table.loc[table["claim"] == "C6", "status"] = "supported"
    table.to_csv(fresh / CLAIMS, index=False)
    (row,) = found(fresh).to_dict("records")
    assert (row["row"], row["quantity"], row["banked"], row["fresh"]) == ("C6", "status", "undecided", "supported")
    assert not agrees(reproduction(read_banked(BANKED), fresh))


def test_claim_that_only_one_of_them_has(fresh):
    """One that is gone is different; what a later version adds was not published, and speaks against nothing."""
    table = pd.read_csv(fresh / CLAIMS)
    table["claim"] = table["claim"].replace("C7b", "C8")
    table.to_csv(fresh / CLAIMS, index=False)
    apart = found(fresh)
    assert set(apart["row"]) == {"C7b", "C8"}
    assert set(apart.loc[apart["row"] == "C7b", "agreement"]) == {Agreement.DIFFERENT}
    assert set(apart.loc[apart["row"] == "C8", "agreement"]) == {Agreement.NEW}
    assert apart.set_index("row").loc["C7b", "fresh"].isna().all()
    assert not agrees(reproduction(read_banked(BANKED), fresh))
    both = pd.concat([pd.read_csv(BANKED / CLAIMS), table[table["claim"] == "C8"]])
    both.to_csv(fresh / CLAIMS, index=False)
    assert agrees(reproduction(read_banked(BANKED), fresh))


def test_run_is_judged_by_what_seeds_differ_by(fresh):
    """Two standard deviations between runs of a prompt that has several, pooled: here by hand."""
    runs = pd.read_csv(BANKED / RUNS)
    sums = [(each - each.mean()).pow(2).sum() for _, each in runs.groupby("condition")["final_loss"]]
    spread = np.sqrt(sum(sums) / (len(runs) - runs["condition"].nunique()))
    place = {"condition": "harmless_04", "seed": 0}
    (before,) = runs.loc[(runs["condition"] == "harmless_04") & (runs["seed"] == 0), "final_loss"]
    for off, agreement in ((1.9, Agreement.NOISE), (2.1, Agreement.DIFFERENT)):
        change(fresh, RUNS, place, "final_loss", before + off * spread)
        (row,) = found(fresh).to_dict("records")
        assert (row["row"], row["quantity"], row["agreement"]) == ("harmless_04/0", "final_loss", agreement)
    assert agrees(reproduction(read_banked(BANKED), fresh))  # one run is no claim


def test_runs_of_one_seed_each_have_no_noise_to_be_judged_by(tmp_path):
    """They are told, and not judged."""
    for name, loss in (("banked", 1.0), ("fresh", 2.0)):
        (tmp_path / name).mkdir()
        shutil.copy(BANKED / CLAIMS, tmp_path / name)
        pd.DataFrame({"condition": ["a", "b"], "seed": 0, "final_loss": [loss, 3.0]}).to_csv(
            tmp_path / name / RUNS, index=False
        )
    table = reproduction(read_banked(tmp_path / "banked"), tmp_path / "fresh")
    assert list(table.loc[table["table"] == RUNS, "agreement"]) == [Agreement.UNTOLD, Agreement.EQUAL]


def test_cell_of_the_matrix_is_judged_by_its_interval(fresh):
    """As an effect is; it does not decide whether the study agrees."""
    place = {"condition": "neutral", "evaluation": "inoculation"}
    change(fresh, MATRIX, place, "drift", 99.0)
    (row,) = found(fresh).to_dict("records")
    assert (row["row"], row["agreement"]) == ("neutral under inoculation", Agreement.DIFFERENT)
    assert agrees(reproduction(read_banked(BANKED), fresh))


def test_rounding_is_no_noise(fresh):
    """What every run has alike, but for rounding, has none: a score before training."""
    change(fresh, RUNS, {"condition": "neutral", "seed": 1}, "score_ood_pre", 0.5)
    row = found(fresh, table=RUNS)
    assert [*row["quantity"]] == ["score_ood_pre"]
    assert [*row["agreement"]] == [Agreement.UNTOLD]


def test_noise_of_runs_is_of_those_that_were_measured(tmp_path):
    """Missing numbers are none; what no seed changes has no noise; whole seeds are seeds however they are written."""
    seeds = [*range(10)]
    banked = pd.DataFrame({"condition": "a", "seed": seeds, "drift": [1.0, 2.0] + 8 * [np.nan], "before": 3.0})
    again = banked.assign(seed=banked["seed"].astype(float), drift=banked["drift"] + 1.4, before=3.1)
    for name, runs in (("banked", banked), ("fresh", again)):
        (tmp_path / name).mkdir()
        shutil.copy(BANKED / CLAIMS, tmp_path / name)
        runs.to_csv(tmp_path / name / RUNS, index=False)
    table = reproduction(read_banked(tmp_path / "banked"), tmp_path / "fresh")
    runs = table[table["table"] == RUNS].set_index(["row", "quantity"])["agreement"]
    assert runs["a/0", "drift"] == runs["a/1", "drift"] == Agreement.NOISE  # 1.4 < 2 sqrt(0.5)
    assert runs["a/2", "drift"] == Agreement.EQUAL
    assert runs["a/0", "before"] == Agreement.UNTOLD


@pytest.mark.parametrize("bound", [np.inf, np.nan])
def test_interval_without_an_end_is_none(fresh, bound, tmp_path):
    """Whatever lies in it."""
    banked = tmp_path / "banked"
    banked.mkdir()
    shutil.copy(BANKED / CLAIMS, banked)
    place = {"claim": "C6", "key": "share"}
    change(banked, CLAIMS, place, "high", bound)
    change(fresh, CLAIMS, place, "estimate", 9.0)
    table = reproduction(read_banked(banked), fresh)
    row = table[(table["row"] == "C6") & (table["quantity"] == "share")]
    assert list(row["agreement"]) == [Agreement.UNTOLD]


@pytest.mark.parametrize(("name", "column"), [(CLAIMS, "estimate"), (CLAIMS, "n"), (MATRIX, "drift"), (RUNS, "seed")])
def test_banked_table_with_text_for_a_number_is_refused_at_once(fresh, name, column):
    """Before anything is computed, in a line."""
    table = pd.read_csv(fresh / name)
    table[column] = "about three"
    table.to_csv(fresh / name, index=False)
    with pytest.raises(StudyError, match=f"{name}: damaged"):
        read_banked(fresh)
    table.drop(columns=column).to_csv(fresh / name, index=False)
    with pytest.raises(StudyError, match=f"{name}: damaged"):
        read_banked(fresh)


@pytest.mark.parametrize("name", [CLAIMS, RUNS])
def test_tables_that_cannot_be_read_are_named(fresh, name):
    """Fresh tables that are gone, and banked ones that are none."""
    (fresh / name).write_text("nothing\n1\n")
    with pytest.raises(StudyError, match=f"{name}: damaged"):
        reproduction(read_banked(BANKED), fresh)
    (fresh / name).unlink()
    with pytest.raises(StudyError, match=f"{name}: cannot be read"):
        reproduction(read_banked(BANKED), fresh)


def test_table_that_was_not_banked_is_not_compared(fresh, tmp_path):
    """Claims are enough."""
    banked = tmp_path / "banked"
    banked.mkdir()
    shutil.copy(BANKED / CLAIMS, banked)
    assert set(reproduction(read_banked(banked), fresh)["table"]) == {CLAIMS}


@pytest.mark.parametrize("same", [True, False])
def test_command_computes_reports_and_compares(same, fresh, tmp_path, monkeypatch, capsys):
    """With exit code 1 if the study does not agree; what is different is named."""
    if not same:
        change(fresh, CLAIMS, {"claim": "C6", "key": "share"}, "estimate", 9.0)
    done: list[str] = []
    monkeypatch.setattr(reproduce, "run_steps", lambda *_: done.append("run"))
    monkeypatch.setattr(reproduce, "write_up", lambda *_: done.append("report"))
    plan = BANKED.parent / "results" / "smollm2-plan.json"
    fresh.rename(tmp_path / "smollm2")
    code = main(["reproduce", str(plan), str(BANKED), f"--artifacts={tmp_path}"])
    said = capsys.readouterr().out
    assert (done, code) == (["run", "report"], 0 if same else 1)
    assert ("does not agree" in said) is ("Different" in said) is (not same)
    written = pd.read_csv(tmp_path / "smollm2" / "reproduction.csv")
    assert (written["agreement"] == "different").sum() == (0 if same else 1)


def test_what_was_banked_is_looked_at_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    """Not hours later."""
    monkeypatch.setattr(reproduce, "run_steps", lambda *_: pytest.fail("was computed"))
    plan = BANKED.parent / "results" / "smollm2-plan.json"
    assert main(["reproduce", str(plan), str(tmp_path)]) == 2
    assert "claims.csv: cannot be read" in capsys.readouterr().err


def test_what_was_banked_is_not_written_over(fresh, tmp_path, capsys):
    """A study beside itself is always equal."""
    fresh.rename(tmp_path / "smollm2")
    plan = BANKED.parent / "results" / "smollm2-plan.json"
    assert main(["reproduce", str(plan), str(tmp_path / "smollm2"), f"--artifacts={tmp_path}"]) == 2
    assert "would be written over" in capsys.readouterr().err
