"""Adapters are where they are said to be: on maps of the decoder blocks that training changes, and nowhere else."""

from __future__ import annotations

import inspect
import shutil
import warnings
from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from fixtures.adapted import SETTINGS, few_steps, logits_of, mixture, token_ids, with_adapters
from fixtures.small_models import ARCHITECTURES
from fixtures.small_study import SMALLEST
from gradinoc.errors import ModelError
from gradinoc.measure.fast import stacked_adapters
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.adapters import lora_config, save_adapter
from gradinoc.models.adapters import ROUTER, is_linear, kind, map_shapes, targets
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.machine.memory import OF_ADAPTER
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.check import check
from gradinoc.pipeline.context import adapted
from gradinoc.pipeline.estimate import estimate, shapes_of
from gradinoc.study.loading import load_study

# What is known of a few families, by hand: kinds of map that get an adapter.
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
KNOWN = {
    "mixtral": ATTENTION,
    "gpt_oss": ATTENTION,
    "granitemoe": ATTENTION,
    "olmoe": ATTENTION,
    "gemma3": {*ATTENTION, "gate_proj", "up_proj", "down_proj"},
    "mamba": {"in_proj"},
    "jamba": {*ATTENTION, "in_proj", "x_proj", "out_proj", "gate_proj", "up_proj", "down_proj"},
    "falcon": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
}


# Mixtures of experts first, then hybrids and state spaces, then what is odd otherwise.
FAMILIES = (
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe", "granitemoeshared", "phimoe", "llama4_text",
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "laguna", "minimax", "hunyuan_v1_moe", "jetmoe",
    "longcat_flash", "lfm2_moe", "qwen3_next", "jamba", "granitemoehybrid", "nemotron_h", "bamba", "falcon_h1", "mamba",
    "mamba2", "falcon_mamba", "zamba", "lfm2", "bart", "falcon", "bloom", "moshi", "gemma3", "gemma4_text",
)  # fmt: skip


# One of each kind; all of them with --exhaustive, and `make architectures` tries every type that there is.
SHARPEST = {"mixtral", "qwen2_moe", "gpt_oss", "jamba", "mamba", "longcat_flash", "gemma3"}


@pytest.fixture(
    params=[pytest.param(each, marks=[] if each in SHARPEST else [pytest.mark.exhaustive]) for each in FAMILIES]
)
def family(request) -> str:
    """A type of model whose blocks hold more than plain linear maps, or hold them elsewhere."""
    return request.param


def test_every_adapter_is_trained_and_comes_back_alone(family, tmp_path):
    """Three steps change both factors of each; PEFT puts what is exported on a fresh base, where it does the same."""
    model = mixture(family)
    expected = set(targets(model).adapted)
    wrapped = with_adapters(model)
    before = few_steps(wrapped)
    trained = {name: weight for name, weight in wrapped.named_parameters() if weight.requires_grad}
    assert {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained} == expected
    still = [name for name, weight in trained.items() if torch.equal(weight, before[name])]
    assert not still, f"{len(still)} of {len(trained)} weights were not trained: {still[:3]}"
    save_adapter(wrapped.eval(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        fresh = PeftModel.from_pretrained(mixture(family), tmp_path).eval()
    moved = logits_of(wrapped, token_ids())
    assert (logits_of(fresh, token_ids()) - moved).norm() < 1e-5 * moved.norm()
    assert not torch.allclose(moved, logits_of(mixture(family), token_ids()), atol=1e-3)


def test_every_linear_map_is_adapted_or_has_a_reason(family):
    """Nothing is left out without a word; and what is adapted is in the decoder blocks."""
    model = mixture(family)
    found, head = targets(model), model.get_output_embeddings()
    assert targets(mixture(family, "meta")) == found, "a plan, which has no weights, says something else"
    maps = {name for name, module in model.named_modules() if is_linear(module) and module is not head}
    assert maps == set(found.adapted) | (maps & set(found.left))
    assert not set(found.adapted) & set(found.left)
    within = {module for block in decoder_blocks(model) for module in block.modules()}
    assert all(model.get_submodule(name) in within for name in found.adapted)


@pytest.mark.parametrize("family", KNOWN)
def test_known_families_are_adapted_where_they_should_be(family):
    """By hand: routers, experts in one tensor, kernels that read weights, and a tower for images stay as they are."""
    assert {kind(name).split(".")[-1] for name in targets(mixture(family)).adapted} == KNOWN[family]


def test_what_is_adapted_is_called(family):
    """An independent look: in a forward pass every map with an adapter is run as a module."""
    model = mixture(family)
    called = set()
    for name in targets(model).adapted:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name))
    logits_of(model, token_ids())
    assert called == set(targets(model).adapted)


def test_routers_are_those_whose_choice_the_library_records(family):
    """An independent list: the classes that transformers takes router logits from, where these are routers alone."""
    model = mixture(family)
    recorded = (getattr(module, "_can_record_outputs", None) or {} for module in model.modules())
    kinds = set()
    for outputs in recorded:
        given = outputs.get("router_logits", [])
        kinds |= {getattr(each, "target_class", each) for each in (given if isinstance(given, list) else [given])}
    routers = [
        f"{name}."
        for name, module in model.named_modules()
        if any(inspect.isclass(each) and type(module) is each and "Attention" not in each.__name__ for each in kinds)
    ]
    found = targets(model)
    assert not [name for name in found.adapted if any(f"{name}.".startswith(router) for router in routers)]
    for router in routers:
        assert any(reason == "router" and f"{name}.".startswith(router) for name, reason in found.left.items()), router


def test_stacked_adapters_equal_one_by_one(family):
    """Each part of a batch is seen through its own adapter, whatever the blocks do with tokens."""
    model = mixture(family)
    fuse(model)
    wrapped = with_adapters(model, init_lora_weights=False)
    wrapped.add_adapter("second", deepcopy(wrapped.peft_config["default"]))
    wrapped.eval()
    ids, alone = token_ids(3, 10), []
    for name in ("default", "second"):
        wrapped.set_adapter(name)
        alone.append(logits_of(wrapped, ids))
    assert not torch.allclose(*alone, atol=1e-3)
    with stacked_adapters(wrapped, ["default", "second"]):
        together = logits_of(wrapped, ids.repeat(2, 1))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", [*sorted(ARCHITECTURES), "obedient"])
def test_plain_models_are_adapted_as_before(name):
    """Where all linear maps are in the blocks, they are PEFT's "all-linear", with its random numbers in its order."""
    model = ARCHITECTURES[name]() if name in ARCHITECTURES else load_model(name, device="cpu").model
    found = []
    for config in (
        lora_config(model, SETTINGS),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", fan_in_fan_out=name == "gpt2"),
    ):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            torch.manual_seed(3)
            wrapped = get_peft_model(model, config)
        found.append({name: each.detach() for name, each in wrapped.named_parameters() if each.requires_grad})
        wrapped.unload()
    ours, theirs = found
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[each], theirs[each]) for each in ours)
    assert not targets(model).left


def test_model_with_nothing_to_adapt_is_refused_with_the_reasons():
    """The message names what there is instead."""
    model = mixture("mamba")
    for block in decoder_blocks(model):
        block.mixer.in_proj = nn.Identity()
    with pytest.raises(ModelError, match="no linear map in its decoder blocks"):
        targets(model)


@pytest.mark.parametrize(
    ("name", "chooses"),
    [
        *((name, True) for name in ("router", "moe_router", "gating", "gate", "shared_expert_gate", "experts_gate")),
        *((name, False) for name in ("gate_proj", "gate_up_proj", "delegate", "investigating")),
    ],
)
def test_router_is_known_by_its_name(name, chooses):
    """What weighs experts, and no map of an MLP whose name holds the same letters."""
    assert bool(ROUTER.search(name)) is chooses


def test_maps_of_a_block_are_those_that_a_token_goes_through():
    """Of four experts two, and once each what is no expert; adapters are not counted."""
    model = mixture("mixtral")
    block = decoder_blocks(model)[1]
    expected = [(64, 64), (64, 32), (64, 32), (64, 64), *[(64, 192), (96, 64)] * 2]
    assert sorted(map_shapes(block, model.config)) == sorted(expected)
    with_adapters(model)
    assert sorted(map_shapes(block, model.config)) == sorted(expected)


# --- what is stored


def test_grown_embedding_is_no_part_of_an_adapter(tmp_path):
    """A row that a user added, for padding say, is their own: nobody else's base model has it."""
    base = tmp_path / "base"
    ARCHITECTURES["llama"]().save_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base).requires_grad_(False)
    rows, ids = model.config.vocab_size, token_ids() % model.config.vocab_size
    model.resize_token_embeddings(rows + 1, mean_resizing=False)
    wrapped = with_adapters(model)
    few_steps(wrapped, ids)
    save_adapter(wrapped.eval(), tmp_path / "adapter")
    fresh = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits_of(fresh, ids), logits_of(wrapped, ids)[..., :rows])
    assert all(".lora_" in name for name in load_file(tmp_path / "adapter" / SAFETENSORS_WEIGHTS_NAME))


@pytest.mark.parametrize("change", ["missing", "added"])
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_adapter_that_is_not_all_in_place_is_refused(tmp_path, change):
    """PEFT would leave random what a file lacks, with a warning, and pass over what has no place."""
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    wrapped = with_adapters(model)
    save_adapter(wrapped, tmp_path)
    wrapped.unload()
    weights = load_file(tmp_path / SAFETENSORS_WEIGHTS_NAME)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    kept = weights.pop(name)
    if change == "added":
        weights |= {name: kept, name.replace(".0.", ".9."): kept.clone()}
    save_file(weights, tmp_path / SAFETENSORS_WEIGHTS_NAME)
    context = adapted(model, tmp_path)
    with pytest.raises(ModelError, match="1 of its weights have no place"):
        context.__enter__()
    assert not any("lora" in name for name, _ in model.named_modules()), "the base model is handed back as it came"


# --- what a study says of it


def _study_of(kind, tmp_path):
    """A study of the tiny model of a type, saved with a tokenizer that can chat."""
    shutil.copytree(
        bundled_folder("obedient"), tmp_path / kind, ignore=shutil.ignore_patterns("*model*", "config.json")
    )
    mixture(kind, vocab_size=1000, max_position_embeddings=2048).save_pretrained(tmp_path / kind)
    return load_study("tiny", [*SMALLEST, f"model.id={tmp_path / kind}"])


@pytest.mark.parametrize("kind", ["mixtral", pytest.param("mamba", marks=pytest.mark.exhaustive)])
def test_what_is_left_alone_is_told_before_a_study(tmp_path, kind):
    """The check and the plan say it of a model's files, without its weights, as loading does."""
    study = _study_of(kind, tmp_path)
    told = str(targets(mixture(kind)))
    assert "left alone" in told
    assert told in check(study)
    assert estimate(study).adapted == told
    assert told in load_model(study.model.id, device="cpu").notes


def test_plan_knows_the_size_of_the_adapters(family):
    """As many weights as training changes, whatever the blocks hold."""
    model = mixture(family)
    shapes = shapes_of(model.config, torch.float32, SETTINGS, fused=False)
    wrapped = with_adapters(model)
    assert shapes.training.adapter == OF_ADAPTER * sum(
        weight.numel() for weight in wrapped.parameters() if weight.requires_grad
    )
    assert shapes.block
