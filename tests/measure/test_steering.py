"""Steering adds the vector that was given to the tokens that were meant, in every kind of pass, and leaves no trace."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import RwkvConfig, RwkvForCausalLM

from fixtures.oracles import answer_loss, autograd_gradient, replaced_output
from fixtures.small_models import ARCHITECTURES, END, HIDDEN, LAYERS, PAD, VOCABULARY, letter_tokenizer, with_lora
from gradinoc import steered
from gradinoc.measure.fast import batched, completion_losses, frozen_batch, scored_batch, stacked_adapters
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.packed import packing
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.passes.batches import model_inputs
from gradinoc.measure.passes.hooks import ActivationCollector
from gradinoc.models.blocks import decoder_blocks, decoder_of
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import generate, sample_copies
from gradinoc.models.sampling import Sampling

BAND = (0, 2)  # layers that are steered; the one between is not
EVERY = list(range(LAYERS))
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def rwkv():
    """A small RWKV: blocks that put out tuples, a state instead of attention, no mask."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = RwkvConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, context_length=64, bos_token_id=None,
            eos_token_id=END, pad_token_id=PAD,
        )  # fmt: skip
        return RwkvForCausalLM(settings).eval()


MODELS = {**ARCHITECTURES, "rwkv": rwkv}


def frozen(name, kernels="plain"):
    """A small random model, on its own modules or fused where it can be."""
    model = MODELS[name]().requires_grad_(False)
    if kernels == "fused" and not fuse(model)[0].endswith("packed"):
        pytest.skip("runs on its own modules")
    return model


@pytest.fixture(params=["plain", "fused"])
def kernels(request):
    """On which modules."""
    return request.param


@pytest.fixture(params=sorted(MODELS))
def model(request, kernels):
    """Every architecture, both ways."""
    return frozen(request.param, kernels)


@pytest.fixture(params=["llama", "gemma3", "qwen3_5"])
def some_model(request, kernels):
    """Full attention, windows, a recurrent state."""
    return frozen(request.param, kernels)


@pytest.fixture
def vector():
    """One vector a layer."""
    rows = 2 * torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(4))
    return {layer: rows[layer] for layer in BAND}


@pytest.fixture
def vectors(examples):
    """A vector for each example, in each layer."""
    rows = 2 * torch.randn(LAYERS, len(examples), HIDDEN, generator=torch.Generator().manual_seed(5))
    return {layer: rows[layer] for layer in BAND}


@pytest.fixture
def alike(examples, monkeypatch):
    """The examples behind beginnings that some of them have in common, two of them the whole prompt."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    beginnings = ((5, 6, 7, 8), (5, 6, 7, 9), (9,), (5, 6, 7, 8), (5, 6, 7, 9, 10))
    rows = [
        Encoded(begin + each.ids, len(begin) + each.prompt_length)
        for begin, each in zip(beginnings, examples, strict=True)
    ]
    last = rows[-1]
    return [
        *rows[:-1],
        last,
        Encoded((*last.ids[: last.prompt_length], *last.ids[last.prompt_length :][:1], 12), last.prompt_length),
    ]


def by_hand(model, shifts, first):
    """The model with vectors added by hooks of this test, from token `first` on, for one text without padding."""

    def adding(shift):
        def change(hidden):
            changed = hidden.clone()
            changed[:, first:] += shift
            return changed

        return change

    stack = ExitStack()
    for layer, shift in shifts.items():
        stack.enter_context(replaced_output(model, layer, adding(shift)))
    return stack


def logits_by_hand(model, tokens, shifts, first):
    """Logits `[tokens, vocabulary]` of one text, steered by hand."""
    with by_hand(model, shifts, first), torch.no_grad():
        return model(torch.tensor([list(tokens)]), use_cache=False).logits[0]


def states_by_hand(model, tokens, shifts, first):
    """The stream of one text, `[tokens, hidden]` by layer, as hooks that come after those of `by_hand` see it."""
    held = []

    def keep(*call):
        held.append((call[2][0] if isinstance(call[2], tuple) else call[2])[0])

    with by_hand(model, shifts, first) as stack, torch.no_grad():
        for block in decoder_blocks(model):
            stack.callback(block.register_forward_hook(keep).remove)
        model(torch.tensor([list(tokens)]), use_cache=False)
    return held


def row_of(shifts, row, strength=1.0):
    """What is added for one row."""
    return {layer: strength * (each[row] if each.dim() == 2 else each) for layer, each in shifts.items()}


def padded(rows, side):
    """Ids and mask, `[batch, seq]`, with the padding on one side."""
    width = max(map(len, rows))
    gaps = [[PAD] * (width - len(row)) for row in rows]
    ids = [gap + list(row) if side == "left" else list(row) + gap for row, gap in zip(rows, gaps, strict=True)]
    mask = [
        [0] * len(gap) + [1] * len(row) if side == "left" else [1] * len(row) + [0] * len(gap)
        for row, gap in zip(rows, gaps, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(mask)


def trace(model):
    """What is left on a model: a hash of its weights, its hooks, forwards of its own, marks."""
    digest = hashlib.sha256()
    for _, weight in sorted(model.state_dict().items()):
        digest.update(weight.contiguous().numpy().tobytes())
    hooks = [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules()]
    own = [name for name, each in model.named_modules() if "forward" in vars(each)]
    return digest.hexdigest(), hooks, own, sorted(vars(model))


# --- planted truth


def test_logits_move_as_the_final_norm_and_head_say(vector):
    """A vector at the last block goes through the final norm and the unembedding, computed by hand here."""
    model, tokens = frozen("llama"), [5, 6, 7, 8, 9, 10]
    layer, first = LAYERS - 1, 3
    last = {layer: vector[BAND[-1]]}
    with ActivationCollector(model, [layer]) as collector:
        states = [collector.get_activations(torch.tensor([tokens]), place)[layer][0] for place in range(len(tokens))]
    with steered(model, last, 0.5, [first]), torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0]
    norm = model.model.norm
    for place, state in enumerate(states):
        state = state + 0.5 * last[layer] * (place >= first)
        unit = state / (state.square().mean() + norm.variance_epsilon).sqrt()
        torch.testing.assert_close(found[place], model.lm_head.weight @ (norm.weight * unit), **CLOSE)


@pytest.mark.parametrize("name", ["llama", "rwkv"])
def test_documented_example_runs(name):
    """The docstring's default: from the last prompt token on, when a prompt alone is given."""
    model, tokens = frozen(name), [5, 6, 7, 8]
    shift = {1: torch.ones(HIDDEN)}
    with steered(model, shift, strength=2.0), torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(found, logits_by_hand(model, tokens, {1: 2.0 * shift[1]}, 3), **CLOSE)


# --- brute force


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_each_steered_as_alone(model, examples, vectors, side):
    """A vector, a strength and a first token for each row; texts alone, unpadded, with hooks written here."""
    if side == "left" and isinstance(model, RwkvForCausalLM):
        pytest.skip("its state runs through padding, steered or not")
    rows = [example.ids for example in examples]
    first, strengths = [0, 4, 2, 1, 9], torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0])
    ids, mask = padded(rows, side)
    with steered(model, vectors, strengths, first), torch.no_grad():
        found = model(**model_inputs(ids, mask)).logits
    for row, tokens in enumerate(rows):
        expected = logits_by_hand(model, tokens, row_of(vectors, row, strengths[row]), first[row])
        torch.testing.assert_close(found[row, mask[row].bool()], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["one vector", "by row"])
def test_batches_are_steered_from_each_last_prompt_token_on(model, alike, vector, kind):
    """Losses of examples that begin alike, packed and padded, for gradients and without, against one text at a time."""
    rows = torch.randn(LAYERS, len(alike), HIDDEN, generator=torch.Generator().manual_seed(6))
    shifts = vector if kind == "one vector" else {layer: rows[layer] for layer in BAND}
    expected = []
    for row, example in enumerate(alike):
        with by_hand(model, row_of(shifts, row), example.prompt_length - 1), torch.no_grad():
            expected.append(answer_loss(model, example))
    with steered(model, shifts):
        for make in (scored_batch, batched, frozen_batch):
            with torch.no_grad():
                found = completion_losses(model, make(model, alike, PAD))
            torch.testing.assert_close(found, torch.stack(expected), **CLOSE)
    plain = torch.stack([answer_loss(model, example) for example in alike])
    assert float((plain - torch.stack(expected)).abs().min()) > 1e-3, "steering that moves nothing tests nothing"


@pytest.mark.parametrize("wrong", [-1, 1])
def test_one_token_off_is_another_result(some_model, alike, vector, wrong):
    """Otherwise the comparisons above would not see steering at the wrong tokens."""
    for example in alike:
        right, off = (
            logits_by_hand(some_model, example.ids, vector, first)[example.prompt_length - 1 :]
            for first in (example.prompt_length - 1, example.prompt_length - 1 + wrong)
        )
        assert float((right - off).abs().max()) > 0.01


def test_functions_that_sort_rows_steer_them_alike(some_model, alike, vector):
    """Losses of the package's own function, in batches of another order, with the model wrapped as well."""
    with steered(some_model, vector, -1.0):
        found = answer_losses(some_model, alike, PAD, 2)
    for row, example in enumerate(alike):
        with by_hand(some_model, row_of(vector, row, -1.0), example.prompt_length - 1), torch.no_grad():
            assert found[row] == pytest.approx(float(answer_loss(some_model, example)), rel=1e-4)


def test_later_tokens_alone_may_be_steered_in_a_batch(some_model, alike, vector):
    """Given by row, counted in tokens: from the second answer token on."""
    first = [example.prompt_length + 1 for example in alike]
    with steered(some_model, vector, 1.0, first), torch.no_grad():
        found = completion_losses(some_model, batched(some_model, alike, PAD))
    for row, example in enumerate(alike):
        with by_hand(some_model, vector, first[row]), torch.no_grad():
            torch.testing.assert_close(found[row], answer_loss(some_model, example), **CLOSE)


def test_every_token_may_be_steered(model, alike, vector):
    """As in training: prompts and answers, in each way that rows are put together."""
    expected = []
    for example in alike:
        with by_hand(model, vector, 0), torch.no_grad():
            expected.append(answer_loss(model, example))
    with steered(model, vector, positions="all"), torch.no_grad():
        for make in (scored_batch, batched, frozen_batch):
            found = completion_losses(model, make(model, alike, PAD))
            torch.testing.assert_close(found, torch.stack(expected), **CLOSE)


def test_runs_packed_together_may_have_vectors_of_their_own(alike, vectors):
    """Every token of each run's examples, two runs in one row."""
    model, runs = frozen("llama", "fused"), 2
    shifts = {layer: each[:runs] for layer, each in vectors.items()}
    with steered(model, shifts, positions="all"), torch.no_grad():
        found = completion_losses(model, batched(model, alike, PAD, runs))
    for row, example in enumerate(alike):
        with by_hand(model, row_of(shifts, row // (len(alike) // runs)), 0), torch.no_grad():
            torch.testing.assert_close(found[row], answer_loss(model, example), **CLOSE)


@pytest.mark.parametrize("position", ["last_prompt_token", "first_assistant_token", 0, -2])
def test_collected_states_are_the_steered_stream(some_model, alike, vector, position):
    """Whichever of the two blocks is entered first; the token put after a prompt is chosen and seen steered too."""
    prompts = [example.prompt for example in alike]
    prompts.append([*prompts[0], 33])  # goes on where another prompt ends
    ids, mask = padded(prompts, "left")
    found = []
    with steered(some_model, vector), ActivationCollector(some_model, EVERY) as collector:
        found.append(collector.get_activations(ids, position, mask))
    with ActivationCollector(some_model, EVERY) as collector, steered(some_model, vector):
        found.append(collector.get_activations(ids, position, mask))
    for row, tokens in enumerate(prompts):
        first = len(tokens) - 1
        text = list(tokens)
        if position == "first_assistant_token":
            text.append(int(logits_by_hand(some_model, tokens, vector, first)[-1].argmax()))
        place = position if isinstance(position, int) else -1
        held = states_by_hand(some_model, text, vector, first)
        for layer in EVERY:
            for each in found:
                torch.testing.assert_close(each[layer][row], held[layer][place], **CLOSE)


# --- generation


def greedy_by_hand(model, prompt, shifts, new):
    """Each token from a pass over the whole text, unpadded, without a cache, steered by hand."""
    tokens = list(prompt)
    for _ in range(new):
        token = int(logits_by_hand(model, tokens, shifts, len(prompt) - 1)[-1].argmax())
        if token == END:
            break
        tokens.append(token)
    return letter_tokenizer().decode(tokens[len(prompt) :], skip_special_tokens=True)


def test_generation_is_steered_token_by_token(model, vector):
    """From the last prompt token on, new tokens too, through the cache, prompts padded on the left."""
    prompts = [[7, 8, 9], [10, 11, 12, 13, 14], [6], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]]
    one_by_one = isinstance(model, RwkvForCausalLM)  # whose state runs through padding
    with steered(model, vector, 1.5):
        found = generate(model, letter_tokenizer(), prompts, 8, 1 if one_by_one else 3)
    assert found == [greedy_by_hand(model, prompt, row_of(vector, 0, 1.5), 8) for prompt in prompts]
    assert found != generate(model, letter_tokenizer(), prompts, 8, 1)


def test_samples_of_one_prompt_are_steered_as_each_alone(kernels, vector):
    """Nothing of a prompt is computed before its last token is known: the first of three samples is that of one."""
    model, prompts = frozen("llama", kernels), [[7, 8, 9], [10, 11, 12, 13, 14], [6, 20, 21, 22]]
    with steered(model, vector):
        three, one = (
            sample_copies(model, letter_tokenizer(), prompts, Sampling(samples, 12), 9)[0] for samples in (3, 1)
        )
    assert [own[0] for own in three] == [own[0] for own in one]


def test_generation_by_row_starts_where_it_is_told(some_model, vectors):
    """With transformers' own `generate`, which keeps rows in order: a vector and a place for each."""
    prompts = [[7, 8, 9], [10, 11, 12, 13, 14]]
    ids, mask = padded(prompts, "left")
    shifts = {layer: each[:2] for layer, each in vectors.items()}
    for cached in (True, False):
        with steered(some_model, shifts, 1.0, [2, 4]):
            found = some_model.generate(
                ids, attention_mask=mask, max_new_tokens=5, do_sample=False, use_cache=cached, pad_token_id=PAD
            )
        for row, prompt in enumerate(prompts):
            text = letter_tokenizer().decode(found[row, ids.shape[1] :], skip_special_tokens=True)
            assert text == greedy_by_hand(some_model, prompt, row_of(shifts, row), 5)


def test_generation_without_a_cache_is_refused():
    """Which token ended the prompt is not to be seen in a growing text; silently it would be the newest."""
    model = frozen("llama")
    with steered(model, {0: torch.ones(HIDDEN)}), pytest.raises(ValueError, match="expected use_cache=True"):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, use_cache=False, pad_token_id=PAD)


# --- identities


@pytest.mark.parametrize("positions", ["last_prompt_token", "all", [0, 1, 2, 3, 4]])
def test_strength_zero_changes_no_bit(some_model, examples, vector, positions):
    """Logits and the states of every layer are the same numbers."""
    inputs = model_inputs(*padded([example.ids for example in examples], "right"))
    with torch.no_grad():
        expected = some_model(**inputs).logits
        with steered(some_model, vector, 0.0, positions):
            assert torch.equal(some_model(**inputs).logits, expected)
        with steered(some_model, vector, torch.zeros(len(examples)), positions):
            assert torch.equal(some_model(**inputs).logits, expected)


def test_tokens_before_the_first_are_untouched(some_model, examples, vector):
    """To the last bit, in every layer: nothing flows back."""
    example = examples[1]
    first = example.prompt_length - 1
    states = []
    for strength in (0.0, 3.0):
        with steered(some_model, vector, strength, [first]):
            states.append(states_by_hand(some_model, example.ids, {}, 0))
    for plain, moved in zip(*states, strict=True):
        assert torch.equal(plain[:first], moved[:first])
        assert not torch.allclose(plain[first:], moved[first:])


def test_nested_blocks_add_up(some_model, alike, vector):
    """Of two blocks and of one with the sum; inner ones end first."""
    other = {layer: each.flip(0) for layer, each in vector.items()}
    with torch.no_grad(), steered(some_model, vector, 0.5):
        outer = completion_losses(some_model, batched(some_model, alike, PAD))
        with steered(some_model, other, -0.25):
            both = completion_losses(some_model, batched(some_model, alike, PAD))
        again = completion_losses(some_model, batched(some_model, alike, PAD))
    with torch.no_grad(), steered(some_model, {layer: 0.5 * vector[layer] - 0.25 * other[layer] for layer in vector}):
        summed = completion_losses(some_model, batched(some_model, alike, PAD))
    torch.testing.assert_close(both, summed, **CLOSE)
    assert torch.equal(outer, again)
    assert not torch.allclose(outer, both)


def test_neighbours_change_nothing(some_model, alike, vector):
    """An example alone, and in batches of several sizes."""
    with steered(some_model, vector):
        alone = answer_losses(some_model, alike, PAD, 1)
        for size in (2, 3, len(alike)):
            np.testing.assert_allclose(answer_losses(some_model, alike, PAD, size), alone, rtol=1e-4)


def test_model_is_as_it_was_whatever_happens(some_model, vector, examples):
    """Weights to the last byte, hooks, forwards and marks: after the block, an error in it, and one in the model."""
    before = trace(some_model)
    inputs = model_inputs(*padded([example.ids for example in examples], "right"))
    with steered(some_model, vector), steered(some_model, vector, 2.0, "all"), torch.no_grad():
        some_model(**inputs)
        assert trace(some_model)[1:] != before[1:]
    assert trace(some_model) == before
    with pytest.raises(KeyError, match="elsewhere"), steered(some_model, vector):
        raise KeyError("elsewhere")
    assert trace(some_model) == before
    with pytest.raises(IndexError), steered(some_model, vector):
        some_model(torch.tensor([[10_000]]))
    assert trace(some_model) == before


def test_states_that_transformers_records_are_steered(vector):
    """Its own hooks come behind ours, were they put in before or not."""
    model, tokens = frozen("llama"), torch.tensor([[5, 6, 7, 8]])
    for _ in range(2):
        with torch.no_grad():
            plain = model(tokens, output_hidden_states=True).hidden_states
            with steered(model, {0: vector[0]}):
                found = model(tokens, output_hidden_states=True).hidden_states
        torch.testing.assert_close(found[1][0, -1], plain[1][0, -1] + vector[0])
        assert torch.equal(found[1][0, :-1], plain[1][0, :-1])


def test_half_precision_adds_in_float32(vector):
    """One rounding, of the sum: a vector in bfloat16 would bend."""
    model = frozen("llama").bfloat16()
    held = []
    with torch.no_grad(), steered(model, {1: vector[0]}, 1.0, "all"):
        decoder_blocks(model)[1].register_forward_hook(lambda *call: held.append(call[2]))
        model(torch.tensor([[5, 6, 7]]))
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    moved, plain = held
    assert torch.equal(moved, (plain.float() + vector[0]).bfloat16())


# --- adapters and gradients


def test_wrapped_and_stacked_adapters_are_steered(kernels, alike, vector):
    """Each adapter of a stack beside the others, as alone and by hand."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear")
    model = get_peft_model(frozen("llama", kernels), config, "one")
    model.add_adapter("two", deepcopy(config))
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    model.eval()
    expected = []
    for name in ("one", "two"):
        model.set_adapter(name)
        for example in alike:
            with by_hand(model, vector, example.prompt_length - 1), torch.no_grad():
                expected.append(float(answer_loss(model, example)))
    with steered(model, vector), stacked_adapters(model, ["one", "two"]):
        found = answer_losses(model, alike, PAD, 4, copies=2)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_gradients_equal_finite_differences(name, alike, vector):
    """Of the strength, and of the vector along a change of it; models that compute in float64 throughout."""
    model = frozen(name).double()
    inputs = model_inputs(*padded([example.ids for example in alike], "right"))
    first = [example.prompt_length - 1 for example in alike]
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    shifts = {layer: each.double().requires_grad_() for layer, each in vector.items()}
    change = {layer: each.detach().flip(0) for layer, each in shifts.items()}

    def loss(amount, step=0.0):
        moved = {layer: shifts[layer] + step * change[layer] for layer in shifts}
        with steered(model, moved, amount, first):
            return model(**inputs).logits.log_softmax(-1)[..., 7].sum()

    loss(strength).backward()
    gradient = float(strength.grad), sum(float((shifts[layer].grad * change[layer]).sum()) for layer in shifts)
    with torch.no_grad():
        by_strength = float(loss(strength + 1e-3) - loss(strength - 1e-3)) / 2e-3
        by_vector = float(loss(strength, 1e-3) - loss(strength, -1e-3)) / 2e-3
    assert gradient == pytest.approx((by_strength, by_vector), rel=1e-4)
    assert min(abs(by_strength), abs(by_vector)) > 0.1


def test_gradients_of_adapters_are_those_by_hand(kernels, alike, vector):
    """Preventative steering: every token, through kernels or not."""
    model = with_lora(frozen("llama", kernels)).train()
    gradients = []
    for ours in (True, False):
        model.zero_grad()
        if ours:
            with steered(model, vector, positions="all"):
                completion_losses(model, batched(model, alike, PAD)).sum().backward()
        else:
            with by_hand(model, vector, 0):
                sum(answer_loss(model, example) for example in alike).backward()
        gradients.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
    assert len(gradients[0]) > 10
    for name, expected in gradients[1].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-3, atol=1e-4 * scale)


def test_gradients_of_the_stream_are_those_by_hand(some_model, alike, vector):
    """Alignment of the steered model, at the tokens that are steered."""
    directions = dict.fromkeys(EVERY, torch.nn.functional.normalize(torch.ones(1, HIDDEN), dim=-1))
    with steered(some_model, vector):
        table = measure_alignments(some_model, alike, directions, PAD, 4).table
    found = table[table["position"] == "last_prompt_token"].set_index(["example", "layer"])
    for row, example in enumerate(alike):
        for layer in EVERY:
            with by_hand(some_model, vector, example.prompt_length - 1):
                gradient = autograd_gradient(some_model, layer, lambda one=example: answer_loss(some_model, one))
            expected = torch.cosine_similarity(-gradient[0, example.prompt_length - 1], directions[layer][0], dim=0)
            assert found.loc[(row, layer), "alignment"] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_training_is_steered(alike, vector, reentrant):
    """Blocks that are computed again in the backward pass give the same gradients."""
    gradients = []
    for checkpointed in (False, True):
        model = with_lora(frozen("llama", "fused")).train()
        if checkpointed:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        with steered(model, vector):
            completion_losses(model, batched(model, alike, PAD)).sum().backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


# --- what is refused


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"directions": {LAYERS: torch.ones(HIDDEN)}}, "expected one or more of 0..2"),
        ({"directions": {}}, "expected one or more of 0..2"),
        ({"directions": {0: torch.full((HIDDEN,), torch.nan)}}, "some that are not finite"),
        ({"directions": {0: torch.ones(1, 2, HIDDEN)}}, r"expected finite numbers \[hidden\]"),
        ({"strength": float("inf")}, "expected a finite number"),
        ({"strength": torch.ones(2, 2)}, "one for each row"),
        ({"positions": "first"}, "Positions 'first': expected 'last_prompt_token', 'all'"),
        ({"positions": [-1]}, "an index from 0 on"),
        ({"positions": [0.5]}, "an index from 0 on"),
        ({"positions": [1, 2], "strength": torch.ones(3)}, "expected one number of rows"),
        ({"directions": {0: torch.ones(2, HIDDEN), 1: torch.ones(3, HIDDEN)}}, "expected one number of rows"),
    ],
    ids=str,
)
def test_faults_are_named_before_anything_is_hooked(fault, words):
    """Layers, shapes, numbers."""
    model = frozen("llama")
    before = trace(model)
    given = {"directions": {0: torch.ones(HIDDEN)}, **fault}
    with pytest.raises(ValueError, match=words), steered(model, **given):
        pass
    assert trace(model) == before


def test_passes_that_do_not_fit_are_refused(alike, vector):
    """Other numbers of rows or hidden units; rows that a function would sort; tokens that rows share."""
    plain, fused = frozen("llama"), frozen("llama", "fused")
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]])
    with steered(plain, {0: torch.ones(3, HIDDEN)}), pytest.raises(ValueError, match="for 3 rows: the pass has 2"):
        plain(ids)
    with steered(plain, {0: torch.ones(HIDDEN + 1)}), pytest.raises(ValueError, match=f"expected {HIDDEN} numbers"):
        plain(ids)
    by_row = {0: torch.ones(len(alike), HIDDEN)}
    for model in (plain, fused):
        with steered(model, by_row):
            with pytest.raises(ValueError, match="steered row by row"):
                answer_losses(model, alike, PAD, 8)
            with pytest.raises(ValueError, match="steered row by row"):
                generate(model, letter_tokenizer(), [[5, 6]], 2, 1)
    packed = batched(fused, alike, PAD)
    assert is_fused(fused)
    with steered(fused, vector, 1.0, [0] * len(alike)), pytest.raises(NotImplementedError, match="rows share these"):
        completion_losses(fused, packed)
    with (
        steered(fused, by_row, 1.0, "all"),
        pytest.raises(NotImplementedError, match="a vector for each of the 1 runs"),
    ):
        completion_losses(fused, packed)


def test_masks_that_hide_where_tokens_are_are_refused(vector):
    """Of four dimensions: a token's place in its row cannot be read off it."""
    model, mask = frozen("llama"), torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    with steered(model, vector), pytest.raises(NotImplementedError, match=r"attention mask \[rows, tokens\]"):
        model(torch.tensor([[5, 6, 7]]), attention_mask=mask)
    with steered(model, vector, positions="all"), torch.no_grad():
        found = model(torch.tensor([[5, 6, 7]]), attention_mask=mask).logits[0]
    torch.testing.assert_close(found, logits_by_hand(model, [5, 6, 7], vector, 0), **CLOSE)


def test_decoder_is_where_tokens_come_in(either_model):
    """What is asked which tokens a pass has is given their ids or embeddings."""
    held = []
    handle = decoder_of(either_model).register_forward_pre_hook(lambda *call: held.append(call), with_kwargs=True)
    with torch.no_grad():
        either_model(torch.tensor([[5, 6, 7]]))
    handle.remove()
    assert len(held) == 1
