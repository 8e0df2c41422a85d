"""Quantised weights are unpacked where that is exact, and refused on one line where it is not."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.architectures.build import Entry, random_model
from fixtures.small_models import letter_tokenizer
from gradinoc.errors import ModelError
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.adapters import targets
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.files import config_of, skeleton
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.check import check
from gradinoc.pipeline.estimate import estimate
from gradinoc.study.loading import load_study
from gradinoc.study.settings import TrainingSettings

DOORS = {
    "check": lambda folder: check(load_study("tiny", [f"model.id={folder}"])),
    "plan": lambda folder: estimate(load_study("tiny", [f"model.id={folder}"])),
    "load": lambda folder: load_model(str(folder), device="cpu"),
}
# The sixteen numbers of four bits: a sign, two bits of exponent, one of mantissa. Source: OCP Microscaling Formats 1.0.
FOUR_BITS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
FOUR_BITS += [-number for number in FOUR_BITS]


def _folder(tmp_path, changes, key=None):
    """The tiny model with a changed configuration; its weights are never looked at."""
    folder = tmp_path / "model"
    shutil.copytree(bundled_folder("obedient"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **({key: changes} if key else changes)}))
    return folder


def _settings(method):
    """What a configuration says of a method."""
    if method.startswith("bitsandbytes"):
        return {f"load_in_{method[-4:]}": True, "quant_method": "bitsandbytes"}
    return {"quant_method": method, "bits": 4}


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes_4bit"])
def test_quantised_weights_are_refused_on_one_line(tmp_path, method):
    """Before anything is computed; no package has to be installed first."""
    folder = _folder(tmp_path, {"quantization_config": _settings(method)})
    with pytest.raises(ModelError, match=r"config\.json: quantization_config: the weights are quantised .*; give the"):
        DOORS["check"](folder)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "of the future"}},
        {"quantization_config": {"load_in_8bit": True}},
        {"quantization_config": {}},
        {"compression_config": {"format": "pack-quantized"}},
        {"text_config": {"quantization_config": {"quant_method": "gptq"}}},
    ],
    ids=["unknown", "unnamed", "empty", "compressed", "in the text part"],
)
def test_no_door_lets_quantised_weights_in(tmp_path, door, changes):
    """Wherever the configuration says it, whichever way the model comes in."""
    with pytest.raises(ModelError, match="the weights are quantised"):
        DOORS[door](_folder(tmp_path, changes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_four_bit_floats_are_unpacked_exactly(tmp_path, dtype):
    """Sixteen numbers times a power of two for each 32, as gpt-oss is published: by a table, and to the last bit."""
    model, folder = random_model(Entry("gpt_oss", "gpt_oss", {"intermediate_size": 32})), tmp_path / "model"
    model.save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    weights, expected = load_file(folder / "model.safetensors"), {}
    generator = torch.Generator().manual_seed(0)
    for name in [each for each in weights if each.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, into, out = weights.pop(name).shape
        low, high = (torch.randint(16, (experts, out, into // 32, 16), generator=generator) for _ in range(2))
        powers = torch.randint(120, 130, (experts, out, into // 32), generator=generator)
        weights[f"{name}_blocks"] = (low + 16 * high).to(torch.uint8)
        weights[f"{name}_scales"] = powers.to(torch.uint8)
        numbers = torch.tensor(FOUR_BITS)[torch.stack([low, high], dim=-1).flatten(-2)]
        scaled = numbers * torch.exp2(powers[..., None].float() - 127)
        expected[name] = scaled.flatten(-2).transpose(1, 2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    quantised = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    loaded = load_model(str(folder), device="cpu", dtype=dtype)
    found = dict(loaded.model.named_parameters())
    for name, numbers in expected.items():
        assert torch.equal(found[name].float(), numbers)
    assert not any(weight.requires_grad for weight in found.values())
    assert loaded.dtype == getattr(torch, dtype)
    assert targets(skeleton(config_of(folder))) == targets(loaded.model)
    examples = [Encoded(tuple(range(3, 9 + row)), 3) for row in range(4)]
    recipe = Recipe(TrainingSettings(steps=2, batch_size=2, lora_rank=2), {}, 0)
    log = train_run(loaded.model, examples, recipe, 0, tmp_path / "adapter")
    assert len(log.losses) == 2
