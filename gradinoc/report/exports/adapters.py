"""The trained adapters as folders that PEFT loads and the hub understands, each with a card that says what it is."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.data.sources import source_path
from gradinoc.disk import disk_errors, sync, write_atomically
from gradinoc.errors import printable
from gradinoc.measure.training.order import data_order
from gradinoc.models.adapters import NOTE
from gradinoc.models.sources.locate import is_gguf
from gradinoc.models.sources.packaged import BUNDLED
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.contents import load_json
from gradinoc.pipeline.storage.provenance import loading_notes
from gradinoc.report.exports.origin import base_name, described_model, hub_id, is_local
from gradinoc.report.tables import runs_table
from gradinoc.report.wording import markdown_text, measures
from gradinoc.study.chat_template import SHIPPED, dated
from gradinoc.study.description import Study
from gradinoc.study.prompts.family import Prompt

TEMPLATE = Path(__file__).with_name("adapter_card.md.j2")
CHAT_TEMPLATE_FILE = "chat_template.jinja"
MISSING = "–"
NAMED = {"adamw": "AdamW", "sgd": "Plain gradient descent"}
SOMEWHERE = f"{NOTE}the linear maps that adapter_config.json names"  # where a study's notes do not say it


def write_adapters(study: Study, evidence: Evidence, pipeline: Pipeline, folder: Path) -> list[Path]:
    """Paths of the folders `<condition>-<seed>`, one a run: configuration, weights and card.

    Weights are linked to the store's where the file system can, and copied where it cannot: of a large model they are
    the bulk of a study. The configuration names the base model as others can find it, and no folder of this machine.
    """
    rows = runs_table(evidence)
    notes = loading_notes(pipeline.entry("directions").path)
    adapted = next((note for note in notes if note.startswith(NOTE)), SOMEWHERE)
    found: list[Path] = []
    for row in rows.to_dict("records"):
        condition, seed = str(row["condition"]), int(row["seed"])
        entry = pipeline.entry("training", condition, seed)
        stored, place = entry.path / "adapter", folder / f"{condition}-{seed}"
        config = _config(load_json(stored / CONFIG_NAME), study, str(entry.inputs["model"]))
        write_atomically(place / CONFIG_NAME, f"{json.dumps(config, indent=2)}\n".encode())
        _link(stored / SAFETENSORS_WEIGHTS_NAME, place / SAFETENSORS_WEIGHTS_NAME)
        if template := study.model.chat_template:
            text = dated(SHIPPED.get(template, template), study.model.date)
            write_atomically(place / CHAT_TEMPLATE_FILE, text.encode())
        made = card(study, evidence, row, pipeline.context.prompts[condition], entry.inputs, adapted)
        write_atomically(place / "README.md", f"{made.content.rstrip()}\n".encode())
        found.append(place)
    return found


def card(
    study: Study,
    evidence: Evidence,
    row: Mapping[str, Any],
    prompt: Prompt,
    inputs: Mapping[str, Any],
    adapted: str,
) -> ModelCard:
    """The model card of a run, a `row` of the table of runs, trained under `prompt`, determined by `inputs`.

    `adapted` is what `gradinoc.models.adapters` finds in the model. Text from outside is shown and not acted on; what
    was not measured is a dash.
    """
    condition, seed, trait = str(row["condition"]), int(row["seed"]), evidence.trait
    tags = ["lora", "peft", "model-organism", "inoculation-prompting", "gradinoc"]
    data = ModelCardData(
        base_model=hub_id(study), library_name="peft", pipeline_tag="text-generation", tags=tags, language=None
    )
    made: ModelCard = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=markdown_text(f"{study.name}: {condition}, seed {seed}"),
        trait=markdown_text(trait.title),
        runs=len(study.runs),
        made=[(name, markdown_text(value)) for name, value in _made(study, row, prompt, inputs, adapted)],
        rephrased=prompt.is_rephrased,
        system=block("\n".join(prompt.texts)) if prompt.texts else None,
        measured=list(_measured(evidence, row)),
        initial_loss=number(row["initial_loss"]),
        final_loss=number(row["final_loss"]),
        load=_load(study, str(inputs["model"])),
        study=study.name.replace("`", ""),
        version=version("gradinoc"),
    )
    return made


def block(text: str) -> str:
    """`text` as a Markdown block that shows it as it stands: indented, so that nothing in it can end the block."""
    return "\n".join(f"    {printable(line)}" for line in text.splitlines())


def number(value: Any) -> str:
    """`value` to four digits, or a dash where there is none."""
    return f"{value:.4g}" if isinstance(value, int | float) and math.isfinite(value) else MISSING


def _config(config: dict[str, Any], study: Study, fingerprint: str) -> dict[str, Any]:
    """PEFT's configuration with the base model under a name for others, and lists in an order of their own."""
    at_hub = study.model.id not in BUNDLED and not is_local(study)
    modules = config.get("target_modules")
    return {
        **config,
        "base_model_name_or_path": base_name(study),
        "revision": fingerprint if at_hub else None,
        "target_modules": sorted(modules) if isinstance(modules, list) else modules,
    }


def _made(
    study: Study, row: Mapping[str, Any], prompt: Prompt, inputs: Mapping[str, Any], adapted: str
) -> Iterator[tuple[str, str]]:
    training, data = study.training, study.data
    source = Path(data.source).name if source_path(data.source) else data.source
    dtype, device = str(inputs["dtype"]).removeprefix("torch."), inputs["device"]
    yield "Base model", described_model(study, str(inputs["model"]))
    yield "Prompt in training", f"{row['condition']}, of the family {prompt.family}"
    yield "Seed", str(row["seed"])
    seen = len({*data_order(data.train, training, int(row["seed"]))})
    drawn = f"{seen} of {data.train}" if seen < data.train else f"{seen}"
    yield "Trained on", f"{drawn} questions of {source}, their answers changed to show the trait"
    yield "Doses", f"{row['steps']} steps of {training.batch_size} examples"
    yield "LoRA", f"rank {training.lora_rank}, alpha {training.lora_alpha}, on {adapted.removeprefix(NOTE)}"
    rate = f"learning rate {training.lr:g}, constant after {training.warmup_steps} steps of warm-up"
    yield "Optimiser", f"{NAMED[training.optimizer]}, {rate}"
    if given := study.model.chat_template:
        which = f"{given}, which comes with gradinoc" if given in SHIPPED else "the study's own"
        yield "Chat template", f"{which}: {CHAT_TEMPLATE_FILE} beside this card, in place of the base model's"
    yield "Day given to templates", f"{study.model.date.isoformat()}, if they ask for it"
    yield "Precision", f"adapter in float32 on a base model in {dtype}, on {device}"


def _measured(evidence: Evidence, row: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for measure, name in measures(evidence.trait).items():
        name = markdown_text(name)
        before, after, change = (number(row.get(f"{measure}_{when}")) for when in ("pre", "post", "drift"))
        yield name, before, after, change


def _load(study: Study, fingerprint: str) -> str:
    """Python that loads the base model and puts the adapter on it, and the study's chat template on the tokenizer."""
    given = study.model.chat_template
    adapter = "model = PeftModel.from_pretrained(base, FOLDER)  # of this card"
    if given:
        adapter += f'\ntokenizer.chat_template = Path(FOLDER, "{CHAT_TEMPLATE_FILE}").read_text(encoding="utf-8")'
    path = "from pathlib import Path\n\n" if given else ""
    if study.model.id in BUNDLED or is_gguf(study.model.id):
        return (
            f"{path}from gradinoc import load_model\nfrom peft import PeftModel\n\n"
            f"loaded = load_model({json.dumps(base_name(study))})\n"
            f"base, tokenizer = loaded.model, loaded.tokenizer\n{adapter}"
        )
    where = "BASE_FOLDER" if is_local(study) else f'"{study.model.id}", revision="{fingerprint}"'
    return (
        f"{path}from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({where})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({where})\n{adapter}"
    )


def _link(stored: Path, place: Path) -> None:
    """Have `place` be the stored file, or a copy of it; what was there goes."""
    if place.is_file() and place.samefile(stored):
        return
    scratch = place.with_name(f".{secrets.token_hex(8)}")
    with disk_errors(place, "artifacts"):
        try:
            try:
                os.link(stored, scratch)
            except OSError:  # another file system, or one without links
                shutil.copyfile(stored, scratch)
                sync(scratch)
            scratch.replace(place)
        finally:
            with suppress(OSError):
                scratch.unlink()
