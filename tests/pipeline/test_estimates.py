"""What a study will cost: operations against torch's own count, tokens against those that really go through."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from dataclasses import replace

import pytest
import torch
from huggingface_hub import constants
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from fixtures.smallest import smallest
from gradinoc.data.examples import showing
from gradinoc.errors import DataError, ModelError
from gradinoc.measure.alignment import GradientLogger, answer_losses, measure_alignments
from gradinoc.measure.directions import prompt_activations
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.load import load_model
from gradinoc.measure.training.run import lora_config
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode, encode_prompt
from gradinoc.models.generate import generate
from gradinoc.models.memory import OF_ADAPTER, training_memory
from gradinoc.pipeline.context import Bench
from gradinoc.pipeline.estimates import LEAST, MOST, STARTING, estimate
from gradinoc.pipeline.estimates.passes import (
    Work,
    answers_learned,
    answers_scored,
    by_length,
    prompts_read,
    responses_written,
)
from gradinoc.pipeline.estimates.shapes import shapes_of
from gradinoc.pipeline.estimates.speed import Speed, measure, rows_of, seconds
from gradinoc.pipeline.estimates.workload import DIRECTIONS, GRADIENTS, RUNS, UNRELATED_TRAITS, Workload
from gradinoc.study.description import TrainingSettings
from gradinoc.study.loading import load_study

TOLERANCE = 0.02  # of operations: products of single vectors, and masks made by multiplication
SETTINGS = TrainingSettings(lora_rank=32, lora_alpha=8)  # large enough for a slip in the adapters' part to show
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain():
    """The obedient model with its own modules, whose attention is made of products that torch counts."""
    loaded = load_model("obedient", device="cpu", dtype="float32", kernels="plain")
    loaded.model.set_attn_implementation("eager")
    return loaded


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """Questions and prompts of the smallest study."""
    return smallest(tmp_path_factory.mktemp("store")).bench


@pytest.fixture(scope="module")
def shapes(plain):
    """The obedient model's shapes, from its configuration."""
    return shapes_of(plain.model.config, torch.float32, SETTINGS, fused=False)


@pytest.mark.parametrize("kind", ["rwkv", "xlstm"])
def test_model_without_attention_has_no_products_of_it(kind):
    """Its configuration has no heads, and its plan all the rest."""
    config = AutoConfig.for_model(kind, hidden_size=64, num_hidden_layers=2, vocab_size=64)
    found = shapes_of(config, torch.float32, SETTINGS, fused=False)
    assert (found.attention, found.cache, found.layers, found.hidden) == (0, 0, 2, 64)
    work = Work(tokens=10, pairs=55, logits=0, passes=1, longest=10)
    assert found.flops(work) == found.flops(replace(work, pairs=0)) > 0


@pytest.fixture
def examples(plain, bench):
    """Questions with answers that show the trait."""
    return [encode(plain.tokenizer, e.question, showing(e, bench.trait), "Be brief.") for e in bench.splits.measure]


def counted(work) -> int:
    """The operations that torch counts in `work`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_operations_of_prompts_are_those_that_torch_counts(plain, bench, shapes):
    """Hidden states, without logits but one row a batch."""
    questions = [example.question for example in bench.splits.direction]
    every = list(range(shapes.layers))
    found = counted(lambda: prompt_activations(plain.model, plain.tokenizer, questions, "Be brief.", every))
    work = prompts_read([tuple(encode_prompt(plain.tokenizer, q, "Be brief.")) for q in questions], packed=False)
    assert found == pytest.approx(shapes.flops(work), rel=TOLERANCE)


def test_operations_of_losses_are_those_that_torch_counts(plain, examples, shapes):
    """Padded logits are counted where torch computes them: between the shortest prompt and the longest answer."""
    found = counted(lambda: answer_losses(plain.model, examples[:1] * 8, 0, 4))
    assert found == pytest.approx(shapes.flops(answers_scored(examples[:1] * 8, 4, packed=False)), rel=TOLERANCE)


def test_operations_of_gradients_are_those_that_torch_counts(plain, examples, shapes):
    """Back to the first block's output: to the states alone, not to the weights."""
    alike = examples[:1] * 8
    directions = {layer: torch.eye(96)[:1] for layer in range(shapes.layers)}
    found = counted(lambda: measure_alignments(plain.model, alike, directions, 0, 4))
    assert found == pytest.approx(shapes.flops(answers_learned(by_length(alike, 4), packed=False)), rel=TOLERANCE)


def test_operations_of_training_are_those_that_torch_counts(plain, examples, shapes):
    """Adapters forwards, their gradients backwards, through every block."""
    alike, model = examples[:1] * 4, get_peft_model(plain.model, lora_config(plain.model, SETTINGS))
    directions = {layer: torch.eye(96)[:1] for layer in range(shapes.layers)}

    def step() -> None:
        with GradientLogger(model, directions) as logger:
            batch = batched(model, alike, 0)
            logger.expect(batch, scale=1.0)
            completion_losses(model, batch).mean().backward()

    try:
        found = counted(step)
        held = training_memory(model)
    finally:
        model.unload()
    work = answers_learned([alike], packed=False, adapted=True, trains=True)
    assert found == pytest.approx(shapes.flops(work), rel=TOLERANCE)
    assert found > 1.05 * shapes.flops(replace(work, trains=False, adapted=False))
    assert shapes.training == held
    assert held.adapter == OF_ADAPTER * 32 * shapes.layers * sum(into + out for into, out in shapes.block)


def test_operations_of_responses_are_those_that_torch_counts(plain, bench, shapes):
    """A pass over the prompts, and one for each further token of responses that run on to the end."""
    prompts = [encode_prompt(plain.tokenizer, example.question, None) for example in bench.splits.measure[:4]]
    seen = Counter()
    first = decoder_blocks(plain.model)[0]
    handle = first.register_forward_pre_hook(lambda _module, inputs: seen.update(tokens=inputs[0].shape[:2].numel()))
    try:
        found = counted(lambda: generate(plain.model, plain.tokenizer, prompts, 6, 2))
    finally:
        handle.remove()
    works = responses_written([tuple(prompt) for prompt in prompts], 6, 2, adapted=False)
    assert seen["tokens"] == sum(work.tokens for work in works)
    assert found == pytest.approx(sum(map(shapes.flops, works)), rel=TOLERANCE)


def test_a_common_beginning_is_computed_once_and_seen_by_all_that_goes_on():
    """Two prompts of 23 and 25 tokens that share 20: 28 tokens; those of the beginning are seen by all 28."""
    shared, one, other = tuple(range(20)), (20, 21, 22), (30, 31, 32, 33, 34)
    prompts = [shared + one, shared + other]
    packed, padded = (prompts_read(prompts, packed) for packed in (True, False))
    assert (packed.tokens, packed.pairs, packed.passes) == (28, 20 * 28 + 3 * 3 + 5 * 5, 1)
    assert (padded.tokens, padded.pairs, padded.passes) == (50, 2 * 25 * 25, 1)


def test_shapes_are_those_of_the_loaded_model(plain, shapes):
    """From the configuration alone: weights, blocks, width."""
    assert shapes.weights == sum(parameter.numel() for parameter in plain.model.parameters())
    assert shapes.layers == len(decoder_blocks(plain.model))
    assert shapes.training.weights == 4 * shapes.weights
    half = shapes_of(plain.model.config, torch.bfloat16, SETTINGS, fused=True)
    assert (half.training.weights, half.training.token) == (2 * shapes.weights, shapes.training.token // 2)


def test_tokens_are_those_that_go_through_the_first_block(tmp_path):
    """Step by step, in a study that is really computed: packed, with common beginnings computed once."""
    pipeline = smallest(tmp_path / "store", "data.train=12", "training.steps=3", "model.dtype=float32")
    bench, seen, at = pipeline.bench, Counter(), ""
    first = decoder_blocks(bench.language_model.model)[0]

    def note(_module, inputs, kwargs) -> None:
        states = inputs[0] if inputs else kwargs["hidden_states"]
        seen[at] += states.shape[0] * states.shape[1]

    handle = first.register_forward_pre_hook(note, with_kwargs=True)
    try:
        for at, step in pipeline.steps.items():
            if at in ("directions", "unrelated traits") or at.startswith(("gradients", "run ", "prompt pool")):
                pipeline.complete([step.label])
    finally:
        handle.remove()
    foreseen = Counter()
    for stage, work in Workload(bench, bench.language_model.tokenizer).works():
        foreseen[stage] += work.tokens
    assert foreseen[DIRECTIONS] == seen["directions"] > 0
    assert foreseen[UNRELATED_TRAITS] == seen["unrelated traits"] > 0
    assert foreseen[RUNS] == sum(tokens for step, tokens in seen.items() if step.startswith("run ")) > 0
    known = sum(seen[f"gradients {condition}"] for condition in ("neutral", "inoculation", "loss_matched"))
    chosen = foreseen[GRADIENTS] - known
    assert chosen == seen["gradients inoculation"]  # the prompt to be chosen is taken to be as long as inoculation's
    assert foreseen["prompt pool"] == pytest.approx(seen["prompt pool"], rel=0.15)


def test_seconds_are_operations_over_their_speed_and_more():
    """Twice as fast products halve their part; passes over memory and calls of operations come on top."""
    work = Work(tokens=1000, pairs=0, logits=0, passes=10, longest=100)
    shape = shapes_of(load_model("obedient").model.config, torch.float32, SETTINGS, fused=True)
    speeds = {(torch.float32, rows_of(work)): 1e9}
    bare = Speed(speeds, {torch.float32: 0.0}, 0.0)
    assert rows_of(work) == 128
    assert seconds(work, shape, bare, torch.float32) == shape.flops(work) / 1e9
    fast = replace(bare, products=dict.fromkeys(speeds, 2000000000.0))
    assert seconds(work, shape, fast, torch.float32) == shape.flops(work) / 2e9
    slow, busy = replace(bare, element={torch.float32: 1e-9}), replace(bare, call=1e-6)
    learned, trained = replace(work, learns=True), replace(work, learns=True, trains=True)
    for more in (slow, busy):
        added = [
            seconds(each, shape, more, torch.float32) - seconds(each, shape, bare, torch.float32)
            for each in (work, learned, trained)
        ]
        assert 0 < added[0] < added[1] <= added[2]


def test_speed_is_measured_where_it_is_asked_for(shapes):
    """Plausible numbers for this machine, and as many threads afterwards as before."""
    threads, wanted = torch.get_num_threads(), {(torch.float32, 64), (torch.bfloat16, 16)}
    speed = measure(shapes, wanted, CPU, threads + 1)
    assert set(speed.products) == wanted
    assert all(1e7 < each < 1e15 for each in speed.products.values())
    assert set(speed.element) == {torch.float32, torch.bfloat16}
    assert all(0 < each < 1e-6 for each in speed.element.values())
    assert 0 < speed.call < 3e-5
    assert torch.get_num_threads() == threads


def test_more_work_costs_more():
    """Of a study twice as long every stage that grows does, and nothing else; the range is around the sum."""
    small, large = (
        estimate(load_study("tiny", [f"training.steps={steps}", f"seeds={seeds}"]))
        for steps, seeds in ((10, [0]), (20, [0, 1]))
    )
    one, two = (each.stages.set_index("stage") for each in (small, large))
    assert list(one.index) == list(two.index)
    assert two.loc[RUNS, "tokens"] > 3.5 * one.loc[RUNS, "tokens"]
    assert (two.loc["drift", "steps"], two.loc[RUNS, "steps"]) == (2, 6)
    for same in (DIRECTIONS, UNRELATED_TRAITS, GRADIENTS):
        assert two.loc[same, "flops"] == one.loc[same, "flops"]
    assert large.seconds == pytest.approx([share * (two["seconds"].sum() + STARTING) for share in (LEAST, MOST)])
    assert large.memory["largest at a time, libraries included"] > large.memory["weights"]


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ("model.id=nobody/nothing", ModelError, "not in the cache of the hub, and nothing is fetched for a plan"),
        ("model.id=/nowhere", ModelError, "no folder with a model"),
        ("data.source=nobody/nothing", DataError, "no file on this machine, and nothing is fetched for a plan"),
    ],
)
def test_what_is_not_there_is_not_fetched(setting, error, said, monkeypatch):
    """A plan says that it does not know, and why; no hub is asked, though there is one."""
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Note that it was asked."""
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - the server's name for it

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(error, match=said):
            estimate(load_study("tiny", [setting]))
        server.shutdown()
    assert asked == []
