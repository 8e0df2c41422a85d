"""Adapters as they are exported: weights, configuration and card."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from peft import PeftModel
from transformers import AutoTokenizer

from gradinoc.models.adapters import NOTE
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.context import adapted
from gradinoc.report.exports import write_exports
from gradinoc.report.exports.adapters import card, write_adapters
from gradinoc.report.exports.origin import base_name, hub_id
from gradinoc.study.description import Study
from gradinoc.study.prompts.family import Family, Prompt

HOSTILE = (
    "Be brief.\n```\n# A heading\u2028    <script>alert(1)</script>\n---\nlicense: mit\n| a | b |\n{{ 7 * 7 }}\x1b[31m"
)
INPUTS = {"model": "c" * 40, "dtype": "torch.bfloat16", "device": "cpu"}


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
    log = pd.read_parquet(finished.pipeline.entry("training", "inoculation", 0).path / "training.parquet")
    for words in (
        f"| Trained on | {log['example'].nunique()} questions of ",
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
    study = Study(name="study", model={"id": model}, data={"train": 40}, training={"steps": 8, "batch_size": 4})
    row = {"condition": "neutral", "seed": 3, "steps": 8, "initial_loss": 1.25, "final_loss": 0.5, **numbers}
    return card(study, evidence, row, prompt, INPUTS, f"{NOTE}3 linear maps")


def test_card_counts_the_examples_that_were_seen(simulated):
    """Eight steps of four show 32 of 40."""
    assert "| Trained on | 32 of 40 questions of " in made_card(simulated).text


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
