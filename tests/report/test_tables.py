"""Tables of the report: claims, metrics, runs, and the file of the verdict."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Finding, Status
from gradinoc.claims.rules.verdict import Judgement
from gradinoc.report import write_finding
from gradinoc.report.tables import claims_table, metrics_table, write_table
from gradinoc.study.rules import VERSION


def test_the_verdict_file_round_trips(written: Path, judgement: Judgement) -> None:
    """verdict.json is strict JSON and holds the whole judgement, a missing number as null."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads((written / "verdict.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert (read.pop("study"), read.pop("rules")) == ("simulated", VERSION)
    assert read.pop("published") == {"dtype": None, "carried": None, "first_verdict": "refuted"}
    assert read == json.loads(
        re.sub(r"\bNaN\b", "null", json.dumps(asdict(judgement), default=lambda each: each.item()))
    )
    missing = [e for finding in (*judgement.gates, *judgement.claims) for e in finding.effects if math.isnan(e.p)]
    assert missing, "no effect without p: this test would not see NaN"


def test_claims_table_has_a_row_an_effect(written: Path, judgement: Judgement) -> None:
    """In the order of the judgement, numbers in full, a missing one empty."""
    with (written / "claims.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    effects = [(finding, e) for finding in (*judgement.gates, *judgement.claims) for e in finding.effects]
    assert len(rows) == len(effects)
    for row, (finding, effect) in zip(rows, effects, strict=True):
        assert (row["claim"], row["status"], row["effect"]) == (finding.key, str(finding.status), effect.name)
        assert float(row["estimate"]) == effect.estimate
        assert row["p"] == "" if math.isnan(effect.p) else float(row["p"]) == effect.p
        assert row["n"] == str(effect.n)


def test_metrics_are_the_means_of_the_tables(written: Path, evidence: Evidence) -> None:
    """Frozen, training and drift rows, against means taken by hand."""
    table = pd.read_csv(written / "metrics.csv")

    def one(condition: str, **where) -> float:
        rows = table[table["condition"] == condition]
        for column, value in where.items():
            rows = rows[rows[column].isna() if value is None else rows[column] == value]
        assert len(rows) == 1, f"{where}: {len(rows)} rows"
        return rows["value"].iloc[0]

    place = {"layer": 2, "position": "completion_sum"}
    frozen = evidence.alignments.query("condition == 'inoculation' and layer == 2 and position == 'completion_sum'")
    count = len(frozen)
    for metric in ("alignment", "projection", "grad_norm"):
        values = frozen[metric].to_numpy()
        assert one("inoculation", seed=None, step=None, metric=metric, **place) == pytest.approx(values.sum() / count)
    losses = {row.example: row.loss for row in frozen.itertuples()}
    assert one("inoculation", seed=None, metric="loss") == pytest.approx(sum(losses.values()) / count)
    step = evidence.training.query("condition == 'neutral' and seed == 1 and step == 3 and layer == 2")
    step = step[step["position"] == "completion_sum"]
    assert one("neutral", seed=1, step=3, metric="alignment", **place) == pytest.approx(step["alignment"].mean())
    assert one("neutral", seed=1, step=3, metric="loss") == pytest.approx(step["loss"].mean())
    where = "condition == 'neutral' and seed == 2"
    post = evidence.drift.query(f"{where} and phase == 'post' and measure == 'decision_log_odds'")
    assert one("neutral", seed=2, metric="decision_log_odds_post") == pytest.approx(post["value"].mean())
    kept = evidence.checkpoints.query(where)
    first = kept["step"].min()
    found = one("neutral", seed=2, step=first, metric="decision_log_odds")
    assert found == pytest.approx(kept.loc[kept["step"] == first, "log_odds"].mean())
    assert one("base", metric="score_pre") >= 0


def test_runs_table_has_a_row_a_run_and_its_drift(written: Path, evidence: Evidence) -> None:
    """After minus before, for every measure, and the run's own losses."""
    table = pd.read_csv(written / "runs.csv")
    assert len(table) == len(evidence.runs) == len(evidence.planned_runs)
    row = table.query("condition == 'inoculation' and seed == 1").iloc[0]
    values = evidence.drift.query("measure == 'projection'")
    after = values.query("condition == 'inoculation' and seed == 1")["value"].mean()
    before = values.query("condition == 'base'")["value"].mean()
    assert row["projection_drift"] == pytest.approx(after - before)
    assert row["final_loss"] < row["initial_loss"]


def test_metrics_are_the_same_whatever_the_order_of_rows(evidence: Evidence) -> None:
    """A study that was interrupted, or run by several workers, leaves the same table."""
    shuffled = replace(evidence, training=evidence.training.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(metrics_table(evidence), metrics_table(shuffled), rtol=1e-12)


def test_a_finding_replaces_its_own_rows_only(tmp_path: Path, judgement: Judgement) -> None:
    """Claims write one by one, in any order and again: the table ends as if written at once."""
    findings = [*judgement.claims[::-1], *judgement.gates, judgement.claims[0]]
    for finding in findings:
        write_finding(finding, tmp_path)
    whole = write_table(claims_table([*judgement.gates, *judgement.claims]), tmp_path / "whole.csv")
    assert (tmp_path / "claims.csv").read_text() == whole.read_text()
    left = json.loads((tmp_path / "findings" / "C1.json").read_text())
    assert left["statement"] == judgement.claims[0].statement


POISONS = {
    "empty": b"",
    "an unclosed quote": b'claim,status\n"G1,holds\n',
    "another table": b"name,value\na,1\n",
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_table_that_is_none_is_written_anew(tmp_path, poison):
    """A claim's test does not fail for what somebody left in the artifacts."""
    (tmp_path / "claims.csv").write_bytes(poison)
    write_finding(Finding("G1", "A gate.", Status.SUPPORTED, "It holds.", "The rule."), tmp_path)
    assert list(pd.read_csv(tmp_path / "claims.csv")["claim"]) == ["G1"]
