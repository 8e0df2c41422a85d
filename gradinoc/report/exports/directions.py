"""Trait directions for other tools: safetensors with metadata, and the control vector of repeng and llama.cpp.

A layer is the 0-based number of a decoder block, and a direction lives in what that block puts out. steering-vectors,
repeng and llama.cpp number alike:

    SteeringVector(load_directions("directions.safetensors"), "decoder_block").apply(model, multiplier=4.0)
    ControlModel(model, band).set_control(ControlVector.import_gguf("directions.gguf"), 4.0)

Directions have length 1, so that a multiplier is in hidden-state units.

What to know of the versions that these were tried with:

* steering-vectors 0.12.2 needs transformers below 5. A model *saved* by transformers 5 and read by 4 loses its rotary
  base without a word: give it the base model as it was published, and not a copy or a merged model saved from here.
* repeng 0.4.0 needs NumPy below 2. On transformers 5 it steers `generate` right only where prompts are padded on the
  left. It has no direction for block 0: leave 0 out of the layers given to `ControlModel`. Directions that it finds
  itself are taken after the final norm at the last block, and there they are not comparable with these.
* `hidden_states` of a steered model may or may not show the steering; see
  `gradinoc.measure.passes.hooks.ActivationCollector`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from gguf import GGUFWriter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.disk import disk_errors, write_atomically
from gradinoc.errors import DataError, reason
from gradinoc.models.files import config_of
from gradinoc.models.sources.locate import described
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.base_model.directions import trait_directions
from gradinoc.report.exports.origin import base_name
from gradinoc.study.description import Study

TENSOR = "direction."  # and the layer: what repeng and llama.cpp call it too
ARCHITECTURE = "controlvector"


def write_directions(study: Study, evidence: Evidence, pipeline: Pipeline, folder: Path) -> list[Path]:
    """Paths of `directions.safetensors`, every layer, and of `directions.gguf`, every layer but the first.

    llama.cpp refuses a control vector for block 0, and repeng finds none there; a model of one block has no such file.
    """
    step = pipeline.entry("directions")
    directions = trait_directions(step.path)
    described_by = _metadata(study, evidence, step.inputs)
    content = save({f"{TENSOR}{layer}": each.contiguous() for layer, each in directions.items()}, described_by)
    paths = [write_atomically(folder / "directions.safetensors", content)]
    if len(directions) > 1:
        config = config_of(described(study.model.id, study.model.revision)[0])
        above = {layer: each for layer, each in directions.items() if layer > 0}
        paths.append(_write_gguf(above, str(config.model_type), described_by, folder / "directions.gguf"))
    return paths


def load_directions(path: str | Path) -> dict[int, Tensor]:
    """Layer (0-based decoder block) -> direction in its output, `[hidden]` float32 of length 1.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}); expected a study's directions.safetensors"
        ) from error
    odd = [name for name in found if not (name.startswith(TENSOR) and name.removeprefix(TENSOR).isdecimal())]
    if odd or not found:
        raise DataError(
            f"{path}: holds {min(odd, default='no tensor')}; expected tensors "
            f"{TENSOR}<layer>, as in a study's directions.safetensors"
        )
    by_layer = {int(name.removeprefix(TENSOR)): each for name, each in found.items()}
    return dict(sorted(by_layer.items()))


def _metadata(study: Study, evidence: Evidence, inputs: Mapping[str, object]) -> dict[str, str]:
    """What a direction is of, and how it was made: text, as safetensors has it."""
    trait, half = evidence.trait, study.data.direction // 2
    revision = {"revision": study.model.revision} if study.model.revision else {}
    return {
        **revision,
        "format": "gradinoc.measure.directions.1",
        "study": study.name,
        "trait": trait.name,
        "model": base_name(study),
        "model_fingerprint": str(inputs["model"]),
        "position": evidence.primary_position,
        "layers": "0-based decoder blocks; a direction lives in the output of its block",
        "band": json.dumps(evidence.band),
        "promote_system": trait.promote_system,
        "suppress_system": trait.suppress_system,
        "made": f"difference of the mean residual streams of {half} questions under the two prompts, to length 1",
        "found_in": str(inputs["extraction_dtype"]),
    }


def _write_gguf(directions: Mapping[int, Tensor], model_type: str, described_by: Mapping[str, str], path: Path) -> Path:
    """`path`, holding the directions as repeng's `ControlVector.export_gguf` writes them, and what they are of."""
    with disk_errors(path, "artifacts"), TemporaryDirectory() as scratch:
        written = Path(scratch, path.name)
        writer = GGUFWriter(written, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_type)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(directions))
        for key, text in described_by.items():
            writer.add_string(f"gradinoc.{key}", text)
        for layer, direction in directions.items():
            writer.add_tensor(f"{TENSOR}{layer}", direction.to(torch.float32).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return write_atomically(path, written.read_bytes())
