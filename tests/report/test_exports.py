"""What a study leaves for other tools is what it measured, says what it is, and names no folder of this machine."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from gguf import GGUFReader
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import stats
from transformers import AutoTokenizer

import gradinoc
from gradinoc.claims.rules.verdict import judge
from gradinoc.errors import DataError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.adapters import NOTE
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.context import adapted
from gradinoc.pipeline.steps.base_model.directions import trait_directions
from gradinoc.power.simulate import simulate
from gradinoc.report.exports import write_exports
from gradinoc.report.exports.adapters import card, write_adapters
from gradinoc.report.exports.inoculation_prompting import intervals, results
from gradinoc.report.exports.origin import base_name, hub_id
from gradinoc.report.tables import claims_table
from gradinoc.study.description import Study
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.prompts.family import Family, Prompt

HOSTILE = (
    "Be brief.\n```\n# A heading\u2028    <script>alert(1)</script>\n---\nlicense: mit\n| a | b |\n{{ 7 * 7 }}\x1b[31m"
)
INPUTS = {"model": "c" * 40, "dtype": "torch.bfloat16", "device": "cpu"}


@pytest.fixture(scope="module")
def evidence(finished):
    """Every table of the finished study."""
    return finished.pipeline.evidence()


@pytest.fixture(scope="module")
def findings(finished, evidence):
    """Its gates and claims."""
    judgement = judge(evidence, finished.study.rules)
    return (*judgement.gates, *judgement.claims)


@pytest.fixture(scope="module")
def left(finished, evidence, findings, tmp_path_factory) -> Path:
    """A folder with all that the finished study leaves for other tools."""
    folder = tmp_path_factory.mktemp("exports")
    write_exports(finished.study, evidence, finished.pipeline, folder, findings)
    return folder


@pytest.fixture(scope="module")
def obedient():
    """The base model of the study."""
    return load_model("obedient", device="cpu", kernels="plain")


@pytest.fixture(scope="module")
def simulated():
    """Evidence of three seeds, with responses that have no score: single ones, and all of one run's."""
    made = simulate("effect", np.random.default_rng(1), layers=3, steps=6, directions=100)
    responses = made.responses.copy()
    lost = (responses["condition"] == "inoculation") & (responses["seed"] == 1) & (responses["phase"] == "post")
    responses.loc[lost | (responses["example"] == 2), "score"] = np.nan
    return replace(made, responses=responses)


# --- adapters


def test_adapter_is_the_trained_one_wherever_peft_loads_it(finished, left, obedient):
    """On the base model, an exported adapter gives the very logits of the one in the store, and not the base's."""
    ids = torch.tensor([[5, 9, 2, 31, 7]])
    plain = obedient.model(ids).logits
    for condition, seed in finished.study.runs:
        stored = finished.pipeline.entry("training", condition, seed).path / "adapter"
        with adapted(obedient.model, stored) as model:
            wanted = model(ids).logits
        wrapped = PeftModel.from_pretrained(obedient.model, str(left / "adapters" / f"{condition}-{seed}"))
        try:
            assert torch.equal(wrapped(ids).logits, wanted)
        finally:
            wrapped.unload()
        assert not torch.equal(wanted, plain)


def test_adapters_hold_weights_configuration_and_card_and_no_path(finished, left):
    """Three files a run; the weights are the store's own, and none of the texts names a folder of this machine."""
    for folder in (left / "adapters").iterdir():
        assert {path.name for path in folder.iterdir()} == {
            "README.md", "adapter_config.json", "adapter_model.safetensors"
        }  # fmt: skip
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "obedient"
        assert config["revision"] is None
        assert config["target_modules"] == sorted(config["target_modules"])
        texts = (folder / "README.md").read_text() + json.dumps(config)
        condition, seed = folder.name.rsplit("-", 1)
        stored = finished.pipeline.entry("training", condition, int(seed)).path
        for path in (Path.home(), Path.cwd(), stored, finished.place):
            assert str(path) not in texts
        weights = folder / "adapter_model.safetensors"
        assert weights.samefile(stored / "adapter" / "adapter_model.safetensors"), "copied, where it could be linked"


def test_exporting_again_puts_things_right(finished, evidence, findings, left):
    """What was damaged in the artifacts is replaced, the store's file is not, and nothing else is left behind."""
    folder = left / "adapters" / "neutral-0"
    before = sorted(folder.iterdir())
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(b"damaged")
    write_exports(finished.study, evidence, finished.pipeline, left, findings)
    assert weights.read_bytes() == content
    assert sorted(folder.iterdir()) == before
    assert finished.pipeline.entry("training", "neutral", 0).complete()


def test_card_says_what_the_adapter_is(finished, evidence, left):
    """The card's head is the hub's, and its body has prompt, doses, losses and drift of this very run."""
    made = ModelCard.load(left / "adapters" / "inoculation-0" / "README.md")
    assert made.data.to_dict() == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "peft", "model-organism", "inoculation-prompting", "gradinoc"],
    }, "a base model, licence or data set is claimed that is not known"
    runs = pd.read_parquet(left / "tables" / "runs.parquet").set_index(["condition", "seed"])
    run = runs.loc[("inoculation", 0)]
    steps, batch = finished.study.training.steps, finished.study.training.batch_size
    for words in (
        evidence.trait.inoculation_system, f"{steps} steps of {batch} examples", "| Seed | 0 |",
        f"{run['initial_loss']:.4g} nats/token when they were met, {run['final_loss']:.4g} after",
        " | ".join(f"{run[f'decision_log_odds_{when}']:.4g}" for when in ("pre", "post", "drift")),
        "Prompt in training | inoculation, of the family inoculation |",
        'load_model("obedient")', f"LoRA | rank {finished.study.training.lora_rank},", "28 linear maps",
    ):  # fmt: skip
        assert words in made.text, words


BRIEF = Prompt("brief", Family.HARMLESS, "Be brief.")


def made_card(evidence, prompt=BRIEF, model="Qwen/Qwen3-0.6B", **numbers):
    """The card of a run of three figures."""
    study = Study(name="study", model={"id": model})
    row = {"condition": "neutral", "seed": 3, "steps": 8, "initial_loss": 1.25, "final_loss": 0.5, **numbers}
    return card(study, evidence, row, prompt, INPUTS, f"{NOTE}3 linear maps")


def test_card_shows_a_prompt_and_does_nothing_with_it(simulated):
    """A prompt that is Markdown, HTML, YAML and a template stands in the card letter by letter, as a block of text."""
    made = made_card(simulated, replace(BRIEF, text=HOSTILE))
    tokens = MarkdownIt("commonmark").enable("table").parse(made.text)
    (block,) = (token.content for token in tokens if token.type == "code_block")
    assert block.splitlines() == [
        "Be brief.", "```", "# A heading", "    <script>alert(1)</script>", "---", "license: mit", "| a | b |",
        "{{ 7 * 7 }}\\x1b[31m",
    ]  # fmt: skip
    kinds = [token.type for token in tokens]
    assert kinds == [token.type for token in MarkdownIt("commonmark").enable("table").parse(made_card(simulated).text)]
    assert made.data.to_dict().get("license") is None


def test_card_of_a_rephrased_prompt_has_its_wordings(simulated):
    """Every wording, and that one of them was drawn for every example; of no system message it says so."""
    made = made_card(simulated, Prompt("rephrased", Family.HARMLESS, None, ("Be brief.", "Be short.")))
    assert "one of which was drawn for every example:\n\n    Be brief.\n    Be short.\n" in made.text
    assert "put in front of every question: none." in made_card(simulated, Prompt("none", Family.NEUTRAL, None)).text


def test_card_of_a_hub_model_pins_what_was_used(simulated):
    """A hub model is named by id and commit in the card's head, in its body, and in the code that loads it."""
    made = made_card(simulated)
    assert made.data.base_model == "Qwen/Qwen3-0.6B"
    assert f'from_pretrained("Qwen/Qwen3-0.6B", revision="{INPUTS["model"]}")' in made.text
    again = ModelCard(made.content)  # parsed from its text, as the hub would
    assert again.data.to_dict() == made.data.to_dict()


def test_card_says_how_to_get_the_study_s_template(simulated):
    """Whether it is ours or a file's; of a model with a template of its own there is nothing to say."""
    base = Study(name="study", model={"id": "Qwen/Qwen3-0.6B-Base"})
    row = {"condition": "neutral", "seed": 3, "steps": 8, "initial_loss": 1.25, "final_loss": 0.5}
    for given in ("plain", "{{ messages }}"):
        study = base.model_copy(update={"model": base.model.model_copy(update={"chat_template": given})})
        code = card(study, simulated, row, BRIEF, INPUTS, NOTE).text.split("```python\n")[1].split("```")[0]
        assert 'tokenizer.chat_template = Path(FOLDER, "chat_template.jinja").read_text(encoding="utf-8")\n' in code
        imported = [node for node in ast.parse(code).body if isinstance(node, ast.ImportFrom)]
        assert {"Path", "PeftModel"} <= {each.asname or each.name for node in imported for each in node.names}
    assert "chat_template" not in card(base, simulated, row, BRIEF, INPUTS, NOTE).text


def test_adapter_brings_the_study_s_template(finished, evidence, tmp_path):
    """Told the study's day, so that the prompts are those of the training; without one, the base model has its own."""
    model = finished.study.model.model_copy(
        update={"chat_template": "{{ strftime_now('%F') }}{{ messages[0].content }}"}
    )
    study = finished.study.model_copy(update={"model": model})
    (folder, *_) = write_adapters(study, evidence, finished.pipeline, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder("obedient"))
    tokenizer.chat_template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "!"}], tokenize=False) == "2024-07-26!"


@pytest.mark.parametrize(("name", "public", "hub"), [
    ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    ("/home/ada/models/secret-7b", "secret-7b", None),
    ("smollm2-135m-instruct", "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
])  # fmt: skip
def test_base_model_has_a_name_for_others(name, public, hub, simulated):
    """Hub ids and bundled names stay, a folder is called by its own name alone, and only what is there is linked to."""
    study = Study(name="study", model={"id": name})
    assert (base_name(study), hub_id(study)) == (public, hub)
    assert "/home/ada" not in made_card(simulated, model=name).content


def test_what_was_not_measured_is_a_dash(simulated):
    """A number that is missing or not finite is a dash in the card, never 0 or nan."""
    made = made_card(simulated, expected_score_pre=float("nan"), expected_score_post=0.25, final_loss=float("inf"))
    assert "| – | 0.25 | – |" in made.text
    assert "1.25 nats/token when they were met, – after training" in made.text
    assert not re.search(r"\bnan\b|\binf\b", made.text)


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
