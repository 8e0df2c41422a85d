"""What a study will cost: operations against torch's own count, tokens against those that really go through."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.usage import measure
from fixtures.smallest import smallest
from gradinoc.errors import DataError, ModelError
from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.gradients.alignment import GradientLogger, answer_losses, measure_alignments
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.adapters import lora_config
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode_prompt
from gradinoc.models.generate import generate
from gradinoc.models.machine.memory import training_memory
from gradinoc.pipeline.estimate import LEAST, MOST, STARTING, estimate
from gradinoc.pipeline.estimate.footprint import LIBRARIES, TOTAL
from gradinoc.pipeline.estimate.shapes import shapes_of
from gradinoc.pipeline.estimate.stopwatch import LONGEST, Stopwatch
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.study.loading import load_study
from gradinoc.study.settings import TrainingSettings
from gradinoc.study.traits import ALL_CAPS

ROOT = Path(__file__).parents[2]
# Of operations: attention, which is left out, is a sixth of them in a model of width 96, and the first block's backward
# pass, which is not, a quarter of that of four blocks.
TOLERANCE = 0.25
SETTINGS = TrainingSettings(lora_rank=32, lora_alpha=8)  # large enough for a slip in the adapters' part to show
TRAINED, GRADIENTS = "training runs", "gradients"


@pytest.fixture(scope="module")
def plain():
    """The obedient model with its own modules, whose attention is made of products that torch counts."""
    loaded = load_model("obedient", device="cpu", dtype="float32", kernels="plain")
    loaded.model.set_attn_implementation("eager")
    return loaded


@pytest.fixture(scope="module")
def counting(plain, tmp_path_factory) -> Counting:
    """What counts the work of the smallest study, without the study's own kernels."""
    return Counting(smallest(tmp_path_factory.mktemp("store"), "model.kernels=plain").context, plain.tokenizer)


@pytest.fixture(scope="module")
def shapes(plain):
    """The obedient model's shapes, from its configuration."""
    return shapes_of(plain.model.config, torch.float32, SETTINGS, fused=False)


def counted(work) -> int:
    """The operations that torch counts in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_products_of_long_passes_are_timed_on_few_rows(shapes, monkeypatch):
    """Where they are as fast: of thousands of rows each product of a larger model takes seconds."""
    rows: list[int] = []
    linear = torch.nn.functional.linear

    def watched(states, weight):
        rows.append(len(states))
        return linear(states, weight)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    stopwatch = Stopwatch(shapes, torch.device("cpu"))
    short, long = (stopwatch.seconds(Work(tokens, 0, 1, tokens), torch.float32) for tokens in (LONGEST, 64 * LONGEST))
    assert set(rows) == {LONGEST}
    assert long > 32 * short


def test_operations_are_about_those_that_torch_counts(plain, counting, shapes):
    """Of prompts read, losses of answers, gradients of states, and responses."""
    model, tokenizer, splits = plain.model, plain.tokenizer, counting.context.splits
    every, directions = list(range(shapes.layers)), {layer: torch.eye(96)[:1] for layer in range(shapes.layers)}
    questions, alike = splits.direction, counting.answers(splits.measure, "Be brief.")[:1] * 8
    prompts = [encode_prompt(tokenizer, example.question, None) for example in splits.measure[:4]]
    asked = [example.question for example in questions]
    for work, found in (
        ([counting.prompts(questions, "Be brief.")],
         counted(lambda: prompt_activations(model, tokenizer, asked, "Be brief.", every))),
        ([counting.scored(alike, 4)], counted(lambda: answer_losses(model, alike, 0, 4))),
        (counting.learned(alike, 4), counted(lambda: measure_alignments(model, alike, directions, 0, 4))),
        (counting.written(splits.measure[:4], None, 6, 2), counted(lambda: generate(model, tokenizer, prompts, 6, 2))),
    ):  # fmt: skip
        assert sum(map(shapes.flops, work)) == pytest.approx(found, rel=TOLERANCE)


def test_operations_and_memory_of_training_are_those_of_adapters_too(plain, counting, shapes):
    """Adapters forwards, their gradients backwards, through every block."""
    alike = counting.answers(counting.context.splits.measure, "Be brief.")[:1] * 4
    model = get_peft_model(plain.model, lora_config(plain.model, SETTINGS))

    def step() -> None:
        with GradientLogger(model, {layer: torch.eye(96)[:1] for layer in range(shapes.layers)}) as logger:
            batch = batched(model, alike, 0)
            logger.expect(batch, scale=1.0)
            completion_losses(model, batch).mean().backward()

    try:
        found, held = counted(step), training_memory(model)
    finally:
        model.unload()
    work = counting.trained(alike, 4)
    assert shapes.flops(work) == pytest.approx(found, rel=TOLERANCE)
    assert shapes.flops(work) > 1.2 * sum(map(shapes.flops, counting.learned(alike, 4)))
    assert shapes.training == held


def test_shapes_are_those_of_the_loaded_model(plain, shapes):
    """From the configuration alone: weights, blocks, bytes of a token with and without the study's kernels."""
    assert shapes.weights == sum(parameter.numel() for parameter in plain.model.parameters())
    assert shapes.layers == len(decoder_blocks(plain.model))
    assert shapes.training.weights == 4 * shapes.weights
    fused, half = (shapes_of(plain.model.config, dtype, SETTINGS, True) for dtype in (torch.float32, torch.bfloat16))
    assert (half.training.weights, half.training.token) == (2 * shapes.weights, fused.training.token // 2)
    assert fused.training.token < shapes.training.token, "what goes into the widest map is made anew"


def test_tokens_are_those_that_go_through_the_first_block(tmp_path):
    """Step by step, in a study that is really computed: packed, with common beginnings computed once."""
    pipeline = smallest(tmp_path / "store", "data.train=12", "training.steps=3", "model.dtype=float32")
    context, seen, at = pipeline.context, Counter(), None
    first = decoder_blocks(context.language_model.model)[0]

    def note(_module, inputs, kwargs) -> None:
        states = inputs[0] if inputs else kwargs["hidden_states"]
        seen[at] += states.shape[0] * states.shape[1]

    handle = first.register_forward_pre_hook(note, with_kwargs=True)
    stages = ("directions", "unrelated", "gradients", "training", "checkpoints", "matrix")
    chosen = [key for key in pipeline.steps if key.stage in stages]
    try:
        for at in chosen:
            pipeline.complete([at])
    finally:
        handle.remove()
    counting = Counting(context, context.language_model.tokenizer)
    foreseen = {key: sum(work.tokens for work in pipeline.steps[key].works(counting)) for key in chosen}
    assert {DIRECTIONS, UNRELATED} < foreseen.keys()
    assert {key.stage for key in chosen} == set(stages)
    for key in chosen:
        exactly = 0 if key.stage != "matrix" else 0.03  # of rephrased prompts the first wording stands for all
        assert foreseen[key] == pytest.approx(seen[key], rel=exactly), key


def test_a_matrix_grows_with_the_runs_that_are_evaluated():
    """The base model is one, a seed's runs are as many as are trained with it; not every seed has all."""
    many, few = (
        estimate(load_study("tiny", ["seeds=[0]", f"prompts.trained={trained}"])).stages.set_index("stage")
        for trained in ('["harmless_02", "harmless_03", "inoculation_01"]', "[]")
    )
    for stage in ("matrix", "drift during training", "drift"):
        assert many.loc[stage, "tokens"] > 1.8 * few.loc[stage, "tokens"], stage
    assert few.loc["drift", "tokens"] > 2 * few.loc["drift of the base model", "tokens"]


def test_passes_that_are_gathered_are_as_many_as_their_tokens_ask_for():
    """Twice the vectors are twice the tokens; one pass an example stays the least."""
    work = Work(tokens=100, logits=10, passes=4, longest=30, gathered=200)
    assert (work.times(2).passes, work.times(2).tokens, work.times(2).longest) == (4, 200, 60)
    assert (work.times(40).passes, work.times(40).longest) == (20, 200)
    alone = Work(tokens=100, logits=10, passes=4, longest=30)
    assert (alone.times(40).passes, alone.times(40).longest) == (160, 30)


def test_more_work_costs_more():
    """Of a study twice as long every stage that grows does, and nothing else; the range is around the sum."""
    small, large = (
        estimate(load_study("tiny", [f"training.steps={steps}", f"seeds={seeds}", "prompts.trained=[]"]))
        for steps, seeds in ((10, [0]), (20, [0, 1]))
    )
    one, two = (each.stages.set_index("stage") for each in (small, large))
    assert list(one.index) == list(two.index)
    assert two.loc[TRAINED, "tokens"] > 3.5 * one.loc[TRAINED, "tokens"]
    assert (two.loc["drift", "steps"], two.loc[TRAINED, "steps"]) == (2, 6)
    for same in ("directions", "unrelated prompts", GRADIENTS):
        assert two.loc[same, "flops"] == one.loc[same, "flops"]
    assert (one["seconds"] > 0).all()
    assert large.seconds == pytest.approx([share * (two["seconds"].sum() + STARTING) for share in (LEAST, MOST)])
    assert large.memory[TOTAL] > LIBRARIES + large.memory["weights"]


@pytest.mark.parametrize("extraction", ["float32", "bfloat16"])
def test_time_is_that_of_the_dtype_in_which_a_step_computes(monkeypatch, extraction):
    """What loads the copy that directions are found in takes as long as its products do; nothing else does."""
    monkeypatch.setattr(Stopwatch, "seconds", lambda _, __, dtype: 1e6 * (dtype == torch.float32))
    wanted = ["model.dtype=bfloat16", f"model.extraction_dtype={extraction}"]
    stages = estimate(load_study("tiny", wanted)).stages.set_index("stage")["seconds"]
    exact = {"directions", "unrelated prompts", "kernel", "direction of the neutral drift", "attribution"}
    assert {*stages.index[stages >= 1e6]} == (exact if extraction == "float32" else set())
    assert exact < {*stages.index}


def test_memory_counts_runs_trained_together_and_directions_of_every_kind():
    """Adapters and activations once a run; a row of float32 for each direction at each layer."""
    alone, together = (estimate(load_study("tiny", [f"training.together={n}"])).memory for n in (1, 9))
    for part in ("adapter in training, with gradients and Adam", "activations of the longest training step"):
        assert together[part] == pytest.approx(9 * alone[part], abs=9)
    assert together[TOTAL] > alone[TOTAL]
    study = load_study("tiny")
    rows = 1 + len(ALL_CAPS.contrasts) + len(ALL_CAPS.unrelated) + sum(study.nulls.draws.values())
    assert alone["directions that gradients of the frozen model are measured along"] == 4 * rows * 4 * 96


SHORT = (
    "seeds=[0]", "training.steps=2", "data.measure=8", "data.direction=24", "data.calibration=8", "drift.everyday=4",
)  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "settings"),
    [("tiny", ()), ("smollm2", SHORT), ("smollm2", (*SHORT, "model.dtype=float32"))],
    ids=["tiny", "SmolLM2", "SmolLM2 in float32"],
)
def test_memory_is_that_of_a_process_that_computes_the_study(tmp_path, name, settings):
    """Within a quarter of its largest, libraries included; batches and lengths are those of the whole study."""
    changes = [word for setting in settings for word in ("--set", setting)]
    places = ["--store", str(tmp_path / "store"), "--artifacts", str(tmp_path / "artifacts")]
    command = [sys.executable, "-m", "gradinoc", "run", name, *changes, *places]
    used = measure(command, tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}, tmp_path / "log")
    foreseen = estimate(load_study(name, list(settings))).memory[TOTAL]
    assert 0.75 < foreseen / used.memory < 1.25, f"{foreseen / 1e9:.2f} GB foreseen, {used.memory / 1e9:.2f} measured"


@pytest.mark.parametrize(
    ("setting", "error"), [("model.id=nobody/nothing", ModelError), ("data.source=nobody/nothing", DataError)]
)
def test_what_is_not_there_is_not_fetched(setting, error, monkeypatch):
    """A plan says that it does not know, and why; no hub is asked."""
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: pytest.fail("a hub was asked"))
    with pytest.raises(error, match="nothing is fetched"):
        estimate(load_study("tiny", [setting]))
