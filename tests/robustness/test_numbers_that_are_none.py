"""A number that is not finite in a table is named, and no verdict rests on it."""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest

from fixtures.complaints import complaint as one_line
from gradinoc.claims.evidence.tables import BEFORE, COLUMNS, SCORED, Evidence
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Judgement, Verdict, judge
from gradinoc.errors import NumericalError
from gradinoc.pipeline import run as pipeline_module
from gradinoc.pipeline.storage.store import Store
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import bare
from gradinoc.study.loading import load_study
from gradinoc.study.rules import Rules

FAMILY = "Numerical faults"

BOTH = [math.nan, math.inf]


complaint = partial(one_line, NumericalError)


@pytest.fixture(scope="module")
def supported() -> Evidence:
    """A simulated study in which every claim holds."""
    return simulate("effect", np.random.default_rng(2))


CELLS = [
    (name, column)
    for name, table in simulate("effect", np.random.default_rng(2)).tables.items()
    for column in table.columns
    if pd.api.types.is_float_dtype(table[column])
]


DECIDING = [
    ("alignments", "alignment"), ("training", "alignment"), ("elicitation", "log_odds"), ("nulls", "alignment"),
    ("drift", "value"), ("responses", "score"), ("runs", "final_loss"), ("losses", "trait_loss"), ("layers", "auc"),
    ("matrix", "log_odds"), ("behaviour", "score"), ("steering", "log_odds"), ("training_nulls", "alignment"),
]  # fmt: skip


def planted(evidence: Evidence, name: str, column: str, row: int, value: float) -> Evidence:
    """The evidence with one number replaced."""
    table = evidence.tables[name].copy()
    table.loc[row, column] = value
    return dataclasses.replace(evidence, **{name: table})


@pytest.mark.fault(FAMILY, "NaN or infinity in a column of a stored table")
def test_number_that_was_not_measured_is_named(supported, faults_tried):
    """Table, column and row; of responses without letters alone NaN is a measurement."""
    for (name, column), value in product(CELLS, BOTH):
        table = supported.tables[name]
        broken = planted(supported, name, column, len(table) // 2, value)
        scored = name == "drift" and table.loc[len(table) // 2, "measure"] in SCORED
        if math.isnan(value) and (scored or (name, column) in (("responses", "score"), ("behaviour", "score"))):
            broken.ensure_measured()
            continue
        said = complaint(broken.ensure_measured)
        assert said.startswith(f"Evidence table {name!r}, column {column!r} is {value} in 1 of {len(table)} rows"), said
    supported.ensure_measured()
    faults_tried(len(CELLS) * len(BOTH))


def judged(evidence: Evidence) -> Judgement | None:
    """What the judge says; None where it refuses to, because a number is none."""
    try:
        return judge(evidence, Rules())
    except ValueError as error:
        if re.search(r"nan|NaN|finite|inf", str(error)):
            return None
        raise


@pytest.mark.fault(FAMILY, "NaN or infinity in a number that the judge sees")
@pytest.mark.parametrize(("name", "column"), DECIDING, ids=lambda part: part)
def test_verdict_never_rests_on_a_number_that_is_none(supported, name, column):
    """Planted in the band, at the position that decides: refused, or a gate fails, or no finding changes."""
    table, before = supported.tables[name], judged(supported)
    assert all(finding.status is Status.SUPPORTED for finding in (*before.gates, *before.claims))
    rows = pd.Series(True, index=table.index)
    if "layer" in table:
        rows &= table["layer"].isin(supported.band)
    if "position" in table:
        rows &= table["position"] == supported.primary_position
    row = np.random.default_rng(1).choice(table.index[rows])
    found = judged(planted(supported, name, column, row, math.nan))
    if found is not None:
        for finding in (*found.gates, *found.claims):
            if finding.status is not Status.UNDECIDED and finding.key != "G4":  # which says what diverged
                assert not re.search(r"\bnan\b|\binf\b", finding.statement), finding
                assert all(math.isfinite(effect.estimate) for effect in finding.effects), finding
        unscored = name in ("drift", "responses", "behaviour")  # where NaN is a response without letters
        assert found.verdict is Verdict.UNDECIDED or unscored, "a number that is none decided"
        if all(finding.status is Status.SUPPORTED for finding in (*found.gates, *found.claims)) and not unscored:
            assert found == before, "a number that decides was left out"


@pytest.mark.fault(FAMILY, "an effect that cannot be measured")
def test_no_nan_is_shown_as_an_effect():
    """One run a condition: within conditions nothing varies, and the words say so in place of a number."""
    effect = bare("r within conditions", math.nan, 3, "runs", "nothing varies")
    assert str(effect) == "not measurable (n 3 runs)"
    few = simulate("effect", np.random.default_rng(0), seeds=1)
    found = judge(few, Rules())
    spoken = [found.sentence, *found.warnings, *(each.statement for each in (*found.gates, *found.claims))]
    assert not any(re.search(r"\bnan\b", words) for words in spoken), spoken


@pytest.mark.fault(FAMILY, "responses none of which has a letter")
def test_responses_without_letters_are_reported_by_their_gate(supported):
    """There is a judgement, G6 says why nothing follows, and what could not be scored has no number."""
    drift, responses = supported.drift.copy(), supported.responses.copy()
    rows = (drift["condition"] == "inoculation") & (drift["phase"] != BEFORE) & drift["measure"].isin(SCORED)
    drift.loc[rows, "value"] = math.nan
    rows = (responses["condition"] == "inoculation") & (responses["phase"] != BEFORE)
    responses.loc[rows, "score"], responses.loc[rows, "response"] = math.nan, "12 34"
    broken = dataclasses.replace(supported, drift=drift, responses=responses)
    broken.ensure_measured()
    found = judge(broken, Rules())
    assert found.verdict is Verdict.UNDECIDED
    failed = {gate.key for gate in found.gates if gate.status is not Status.SUPPORTED}
    assert {"G5", "G6", "G9"} <= failed
    assert found["C6"].status is Status.UNDECIDED
    words = " ".join(each.statement for each in (*found.gates, *found.claims))
    assert "inoculation none that could be scored" in words
    assert not re.search(r"\bnan\b", words)


@pytest.mark.fault(FAMILY, "a measurement that is in a table twice")
def test_measurement_that_is_there_twice_is_named(supported, faults_tried):
    """A mean would count it twice."""
    names = [name for name, table in supported.tables.items() if name != "layers" and len(table)]
    assert set(COLUMNS) - {*names, "layers"} <= {"weights", "arms", "energies"}, "tables of arms alone are not there"
    for name in names:
        table = supported.tables[name]
        twice = pd.concat([table, table.iloc[[len(table) // 2]]], ignore_index=True)
        said = complaint(dataclasses.replace(supported, **{name: twice}).ensure_measured)
        assert said.startswith(f"Evidence table {name!r}, 1 of {len(twice)} rows are there twice"), said
    faults_tried(len(names))


@pytest.mark.fault(FAMILY, "a column of numbers that holds something else")
def test_column_that_holds_no_numbers_is_named(supported):
    """Objects are not looked at one by one."""
    table = supported.alignments.astype({"alignment": object})
    said = complaint(dataclasses.replace(supported, alignments=table).ensure_measured)
    assert said.startswith("Evidence table 'alignments', column 'alignment' holds object in place of numbers"), said


@pytest.mark.fault(FAMILY, "a run whose loss rose")
def test_loss_that_rose_is_reported_as_divergence(supported):
    """G4 fails, by name, and nothing is decided."""
    runs = supported.runs.copy()
    runs.loc[3, ["initial_loss", "final_loss"]] = 1.5, 7.25
    found = judge(dataclasses.replace(supported, runs=runs), Rules())
    gate = next(gate for gate in found.gates if gate.key == "G4")
    assert gate.status is Status.REFUTED
    assert f"{runs.loc[3, 'condition']} seed {runs.loc[3, 'seed']} from 1.5 to 7.25" in gate.statement
    assert found.verdict is Verdict.UNDECIDED


@pytest.mark.fault(FAMILY, "NaN or infinity in a table on its way out of the store")
def test_tables_are_looked_at_when_they_leave_the_store(supported, monkeypatch, tmp_path):
    """Whoever wrote them."""
    tables = planted(supported, "nulls", "alignment", 0, math.nan).tables
    monkeypatch.setattr(pipeline_module, "load_tables", lambda _folders, name, _columns: tables[name])
    monkeypatch.setattr(pipeline_module.Pipeline, "complete", lambda *_: [])
    study = pipeline_module.Pipeline(load_study("tiny"), Store(tmp_path))
    assert "table 'nulls', column 'alignment' is nan" in complaint(study.evidence)
