"""One model over several devices: the stream comes back to one, and numbers are those of a model held whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gradinoc
from fixtures.homes import FIRST, spread
from fixtures.small_models import ARCHITECTURES, PAD, letter_tokenizer
from gradinoc.errors import DeviceError, StudyError
from gradinoc.measure.interventions.gradients import project_gradient
from gradinoc.measure.loading import load
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.measure.steering.steered import steered
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import Sampling, sample_copies
from gradinoc.models.machine.spread import device_map_of, ensure_held, keep_stream_together
from gradinoc.study.loading import load_study
from gradinoc.study.settings import TrainingSettings

EXAMPLES = [
    Encoded((2, 3, 4, 5, 6, 7), 2),
    Encoded((2, 3, 9, 1), 1),
    Encoded((2, 8, 5, 3, 1), 3),
    Encoded((2, 3, 7, 1), 2),
]


@pytest.fixture
def model() -> Any:
    """A small model, held whole."""
    return ARCHITECTURES["llama"]()


def trained(model: Any, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """The log and the adapter of a short run."""
    directions = {layer: torch.eye(model.config.hidden_size)[:2] for layer in range(len(decoder_blocks(model)))}
    settings = TrainingSettings(steps=3, batch_size=2, lr=1e-2, lora_rank=2, lora_alpha=4)
    log = train_run(model, EXAMPLES, Recipe(settings, directions, PAD), 0, folder)
    return log, load_file(folder / "adapter_model.safetensors")


def test_a_run_is_that_of_the_model_held_whole(model, tmp_path):
    """Every number of its log, and its adapter, to the last bit: blocks of two homes, one stream."""
    log, adapter = trained(model, tmp_path / "whole")
    with spread(model):
        keep_stream_together(model)
        found, spread_adapter = trained(model, tmp_path / "spread")
    assert found.table.equals(log.table)
    assert found.losses == log.losses
    assert all(torch.equal(spread_adapter[name], adapter[name]) for name in adapter)


def test_interventions_and_generation_are_those_of_the_model_held_whole(model):
    """Steering forward, a gradient projected backward, and answers to prompts that share what is kept of them."""
    layers = range(len(decoder_blocks(model)))
    directions = {layer: torch.eye(model.config.hidden_size)[layer] for layer in layers}
    ids = torch.tensor([EXAMPLES[0].ids])

    def found() -> tuple[torch.Tensor, dict[int, torch.Tensor], Any]:
        with steered(model, directions, 3.0, "all"):
            logits = model(input_ids=ids).logits.detach()
        with project_gradient(model, directions), GradientCollector(model, layers) as collector:
            model(input_ids=ids).logits.square().sum().backward()
        sampling = Sampling(samples=2, max_new_tokens=4, seed=0)
        return (
            logits,
            collector.get_gradients(),
            sample_copies(model, letter_tokenizer(), [[2, 3, 4], [5, 6]], sampling, 4),
        )

    logits, gradients, texts = found()
    with spread(model):
        keep_stream_together(model)
        again, spread_gradients, spread_texts = found()
    assert torch.equal(again, logits)
    assert all(torch.equal(spread_gradients[layer], gradients[layer]) for layer in layers)
    assert spread_texts == texts


def test_the_stream_is_on_the_first_device(model):
    """Behind every block, wherever it computes, and so is what the whole model puts out."""
    seen, ids = [], torch.tensor([EXAMPLES[0].ids])
    with spread(model) as homes:
        keep_stream_together(model)
        homes.settle([ids], FIRST)
        for block in decoder_blocks(model):
            block.register_forward_hook(lambda _block, _inputs, output: seen.append(homes.of(output)))
        assert homes.of(model(input_ids=ids).logits) == FIRST
    assert seen == [FIRST] * len(decoder_blocks(model))


def test_without_it_homes_are_mixed(model, tmp_path):
    """What these tests would show of a stream that stays where each block left it."""
    with spread(model), pytest.raises(RuntimeError, match=r"tensors of \['first', 'last'\]"):
        trained(model, tmp_path)


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential"])
def test_on_one_device_nothing_is_spread(device_map):
    """On a processor the whole model is on it: numbers are the same to the last bit."""
    plain = gradinoc.load_model("obedient", device="cpu", kernels="plain")
    mapped = gradinoc.load_model("obedient", device="cpu", kernels="plain", device_map=device_map)
    assert not device_map_of(mapped.model)
    ids = torch.arange(1, 40)[None]
    assert torch.equal(mapped.model(ids).logits, plain.model(ids).logits)


def test_what_devices_do_not_hold_is_refused():
    """Weights fetched in every pass would be fetched in backward passes too, or kept after all."""
    model: Any = SimpleNamespace(hf_device_map={"model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "disk"})
    with pytest.raises(DeviceError, match=r"2 modules did not fit the devices, 'lm_head' first"):
        ensure_held(model)
    ensure_held(SimpleNamespace(hf_device_map={"model.layers.0": 0, "lm_head": 1}))


def test_it_is_refused_before_weights_are_looked_at(monkeypatch):
    """What was left out is on no device, and has no numbers."""
    from_pretrained = load.AutoModelForCausalLM.from_pretrained

    def left_out(*arguments: Any, **settings: Any) -> Any:
        model, found = from_pretrained(*arguments, **settings)
        model.model.layers[0].to("meta")
        model.hf_device_map = {"model.layers.0": "cpu", "lm_head": 0}
        return model, found

    monkeypatch.setattr(load.AutoModelForCausalLM, "from_pretrained", left_out)
    with pytest.raises(DeviceError, match="did not fit the devices"):
        gradinoc.load_model("obedient", device="cpu", kernels="plain")


def test_kernels_of_a_spread_model_are_refused():
    """In a study before anything is computed, and by whoever loads one."""
    with pytest.raises(StudyError, match=r"device_map: 'auto' spreads a model .* set model.kernels=plain"):
        load_study("tiny", ["model.device_map=auto"])
    with pytest.raises(ValueError, match=r"set model\.kernels=plain"):
        gradinoc.load_model("obedient", device_map="auto")
    assert load_study("tiny", ["model.device_map=auto", "model.kernels=plain"]).model.device_map == "auto"
