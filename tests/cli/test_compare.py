"""`gradinoc compare`: two studies side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.rules.verdict import judge
from gradinoc.cli import main
from gradinoc.cli.compare.comparison import comparison, read_artifacts
from gradinoc.power.simulate import simulate
from gradinoc.report.tables import claims_table, runs_table, write_json, write_table
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.rules import VERSION

SIZES = {"layers": 2, "steps": 6, "directions": 100, "positions": 1}


def leave(folder: Path, world: str, *settings: str, **sizes: int) -> Path:
    """What the report of a simulated study leaves for a comparison."""
    study = load_study("tiny", list(settings))
    evidence = simulate(world, np.random.default_rng(0), **{**SIZES, **sizes})
    judgement = judge(evidence, study.rules)
    published = study.published.model_dump()
    write_json(
        {"study": study.name, "rules": VERSION, "published": published, **vars(judgement)}, folder / "verdict.json"
    )
    write_table(claims_table((*judgement.gates, *judgement.claims)), folder / "claims.csv")
    write_table(runs_table(evidence), folder / "runs.csv")
    (folder / "study.json").write_text(study.model_dump_json(), encoding="utf-8")
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """An effect, and none, with another model, learning rate and number of seeds."""
    other = ("model.id=deaf", "training.lr=0.001", "seeds=[0, 1]", "name=second")
    return leave(tmp_path / "first", "effect"), leave(tmp_path / "second", "no_effect", *other, seeds=2)


def test_comparison_sets_two_studies_side_by_side(two, capsys, tmp_path):
    """Verdicts, claims, drift and settings on stdout; every effect in the table; a figure."""
    before = {path: path.read_bytes() for folder in two for path in folder.iterdir()}
    assert main(["compare", *map(str, two), "--out", str(tmp_path / "out")]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    verdicts = [json.loads((folder / "verdict.json").read_text())["verdict"] for folder in two]
    assert f"verdict {' '.join(verdicts)}" in said
    assert f"version of the rules {VERSION} {VERSION}" in said
    assert "verdict by rules 1, published supported –" in said
    assert "training.lr 0.003 0.001" in said
    assert 'model.id "obedient" "deaf"' in said
    assert "seeds [0, 1, 2] [0, 1]" in said
    assert not any(line.startswith("training.steps") for line in said)
    assert (tmp_path / "out" / "compare.png").stat().st_size > 20_000
    table = pd.read_csv(tmp_path / "out" / "compare.csv")
    for number, folder in enumerate(two, start=1):
        claims = pd.read_csv(folder / "claims.csv").dropna(subset=["effect", "estimate"])
        pairs = set(zip(claims["claim"], claims["key"], strict=True))
        listed = table[table["part"] == "claim"].dropna(subset=["first" if number == 1 else "second"])
        assert pairs == set(zip(listed["item"], listed["key"], strict=True))
    assert {path: path.read_bytes() for folder in two for path in folder.iterdir()} == before


def test_difference_is_the_second_less_the_first_where_it_says_something(two):
    """Of effects and drift; not of p, and not of what is in the units of another model."""
    table = comparison(*map(read_artifacts, two))
    known = table["difference"].notna()
    assert np.allclose(table.loc[known, "difference"], table.loc[known, "second"] - table.loc[known, "first"])
    assert known[table["key"] == "alignment.neutral"].any()
    assert (table["part"] == "p").sum() > 10
    in_units = table["key"].str.contains("projection|grad_norm")
    assert in_units.sum() >= len(CONDITIONS)
    assert not known[in_units | (table["part"] == "p")].any()
    both = table[["first", "second"]].notna().all(axis=1)
    assert known[both & ~in_units & (table["part"] != "p")].all()


def test_same_models_are_compared_in_their_own_units_and_other_traits_scores_are_not(tmp_path):
    """The projection of one model against itself; direction, answers and score are of their trait."""
    paths = [leave(tmp_path / "one", "effect"), leave(tmp_path / "two", "no_effect", "name=two")]
    same = comparison(*map(read_artifacts, paths)).set_index(["part", "item", "key"])["difference"]
    of_the_trait = [("drift", "neutral", measure) for measure in ("projection", "expected_score", "decision_log_odds")]
    of_the_trait += [("claim", "C1", "alignment.neutral"), ("claim", "C6", "share")]
    assert np.isfinite(same[of_the_trait]).all()
    note = paths[1] / "study.json"
    note.write_text(note.read_text().replace('"all_caps"', '"lower_case"'))
    other = comparison(*map(read_artifacts, paths)).set_index(["part", "item", "key"])["difference"]
    assert other[of_the_trait].isna().all()
    assert np.isfinite(other[[("claim", "G3", "loss"), ("claim", "G4", "fall"), ("claim", "G1", "auc")]]).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("verdict.json", None),
        ("verdict.json", b"[1]"),
        ("study.json", b"\xff\xfe{"),
        ("claims.csv", b"a,b\n1,2\n"),
        ("runs.csv", b""),
    ],
)
def test_comparison_of_what_is_no_report_is_refused(two, capsys, file, content):
    """In one line that names the file; nothing is written."""
    path = two[1] / file
    path.unlink() if content is None else path.write_bytes(content)
    assert main(["compare", *map(str, two)]) == 2
    assert f"{file}: " in capsys.readouterr().err
    assert not list(two[1].glob("compared-with-*"))
