"""Directions, tables and results as they are exported, for other tools."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from gguf import GGUFReader
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import stats

import gradinoc
from gradinoc.errors import DataError
from gradinoc.pipeline.steps.base_model.directions import trait_directions
from gradinoc.report.exports.inoculation_prompting import intervals, results
from gradinoc.report.tables import claims_table
from gradinoc.study.prompts import CONDITIONS

# --- directions


def test_directions_come_back_as_they_were_found(finished, left):
    """Every layer's direction is the store's, to the bit, by its number; the file says what of, and by whom."""
    path = left / "directions" / "directions.safetensors"
    loaded, stored = gradinoc.load_directions(path), trait_directions(finished.pipeline.entry("directions").path)
    assert list(loaded) == sorted(stored)
    assert all(torch.equal(loaded[layer], stored[layer]) for layer in stored)
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    trait = finished.pipeline.context.trait
    assert said["promote_system"] == trait.promote_system
    assert said["suppress_system"] == trait.suppress_system
    assert said["model_fingerprint"] == finished.pipeline.context.fingerprint
    assert json.loads(said["band"]) == finished.pipeline.evidence("directions").band
    assert (said["study"], said["model"], said["position"]) == ("small", "obedient", "last_prompt_token")


def test_control_vector_has_the_fields_that_repeng_reads(left):
    """Architecture, model type, layer count and one tensor a layer, all but block 0: what repeng and llama.cpp load."""
    reader = GGUFReader(left / "directions" / "directions.gguf")
    loaded = gradinoc.load_directions(left / "directions" / "directions.safetensors")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "qwen3"
    assert fields["controlvector.layer_count"] == len(reader.tensors) == len(loaded) - 1
    assert {tensor.name for tensor in reader.tensors} == {f"direction.{layer}" for layer in loaded if layer > 0}
    for tensor in reader.tensors:
        np.testing.assert_array_equal(tensor.data, loaded[int(tensor.name.split(".")[1])].numpy())
    assert json.loads(fields["gradinoc.band"])


def test_file_of_something_else_is_refused(tmp_path):
    """What is no file, no safetensors, or holds other tensors is refused in a line that names it."""
    (tmp_path / "text").write_text("not a tensor")
    save_file({"weight": torch.ones(2)}, tmp_path / "weights")
    save_file({}, tmp_path / "empty")
    for name in ("absent", "text", "weights", "empty"):
        with pytest.raises(DataError, match=f"{name}: .*expected") as caught:
            gradinoc.load_directions(tmp_path / name)
        assert "\n" not in str(caught.value)


# --- tables


def test_parquet_holds_the_tables_of_the_study(left, evidence, findings):
    """Every table comes back from Parquet as it was, claims with every effect of every gate and claim."""
    tables = {path.stem: pd.read_parquet(path) for path in (left / "tables").glob("*.parquet")}
    assert set(tables) == {*evidence.tables, "claims", "metrics", "matrix_means"}
    widened = {"runs", "prompts"}
    for name in set(evidence.tables) - widened:
        pd.testing.assert_frame_equal(tables[name], evidence.tables[name], check_exact=True)
    for name in widened:
        assert set(evidence.tables[name].columns) < set(tables[name].columns)
    pd.testing.assert_frame_equal(tables["claims"], claims_table(findings), check_exact=True)


def test_responses_are_json_lines_and_in_no_csv(left, evidence):
    """A response is a line of JSON in full precision; no CSV holds a text of the model or a question."""
    lines = (left / "tables" / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    assert [row["response"] for row in read] == evidence.responses["response"].tolist()
    assert [row["score"] for row in read] == [None if np.isnan(s) else s for s in evidence.responses["score"]]
    for path in left.rglob("*.csv"):
        text = path.read_text(encoding="utf-8")
        assert not any(row["response"] in text for row in read if len(row["response"]) > 5)
        assert not any(row["question"] in text for row in read)


# --- the inoculation-prompting repository's form


def test_results_have_that_repositorys_columns_and_groups(simulated):
    """Rows name model, group and evaluation as its plots expect them; a score that is missing stays missing."""
    rows = results(simulated)
    assert {"score", "model", "group", "evaluation_id"} <= set(rows.columns)
    further = set(simulated.responses["condition"]) - {"base", *CONDITIONS}
    assert set(rows["group"]) == {"baseline", "finetuning", "inoculated", "placebo"} | further
    assert set(rows["evaluation_id"]) == set(simulated.responses["domain"])
    kept = simulated.responses
    assert len(rows) == len(kept)
    assert rows["score"].isna().sum() == kept["score"].isna().sum() > 0
    assert rows.loc[rows["group"] == "finetuning", "model"].unique().tolist() == ["neutral-0", "neutral-1", "neutral-2"]


def test_intervals_are_t_intervals_over_models(simulated):
    """Means and bounds are scipy's t interval of the models' means; a model without scores is not counted."""
    rows = results(simulated)
    table = intervals(rows)
    assert list(table.columns[:7]) == [
        "mean", "lower_bound", "upper_bound", "count", "confidence", "group", "evaluation_id"
    ]  # fmt: skip
    assert len(table) == rows.groupby(["group", "evaluation_id"], observed=True).ngroups
    for row in table.itertuples():
        part = rows[(rows["group"] == row.group) & (rows["evaluation_id"] == row.evaluation_id)]
        means = np.array([np.nanmean(scores) for _, scores in part.groupby("model")["score"] if scores.notna().any()])
        assert row.count == len(means)
        assert row.mean == pytest.approx(means.mean())
        if len(means) > 1:
            low, high = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
            assert (row.lower_bound, row.upper_bound) == pytest.approx((low, high))
        else:
            assert np.isnan([row.lower_bound, row.upper_bound]).all()
    counts = table.set_index(["group", "evaluation_id"])["count"]
    assert counts["baseline"].eq(1).all()
    assert counts["inoculated"].eq(2).all()
    assert counts["finetuning"].eq(3).all()
