"""The trait direction: a planted one is found, random ones are random, separations and the band add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from fixtures.small_models import HIDDEN, LAYERS, letter_tokenizer
from gradinoc.measure.directions.extraction import declare_band, extract_trait_direction, layer_statistics, separation
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode_prompt

EVERY = list(range(LAYERS))
PROMOTE, SUPPRESS, MARK = "SHOUT Z", "SAY A", "Z"
QUESTIONS = ["HOW MANY 12", "WHO", "a b c d", "WHAT IS 7 AND 35 AND 8", "9", "aaaa bb", "SUM 1 2 3 4 5 6 7"]


@pytest.fixture
def tokenizer():
    """One token a letter."""
    return letter_tokenizer()


@pytest.fixture
def planted(llama, tokenizer):
    """The model and a unit vector: block 1 adds 30 times the vector wherever the text holds the mark."""
    vector = nn.functional.normalize(torch.randn(HIDDEN, generator=torch.Generator().manual_seed(5)), dim=0)
    mark, texts = tokenizer(MARK, add_special_tokens=False)["input_ids"][0], {}
    llama.get_input_embeddings().register_forward_pre_hook(lambda *call: texts.update(ids=call[1][0]))

    def add(block, inputs, output):
        marked = (texts["ids"] == mark).any(-1)  # (B,)
        return output + 30 * marked[:, None, None] * vector

    decoder_blocks(llama)[1].register_forward_hook(add)
    return llama, vector


def brute_force(model, tokenizer, system, position="last_prompt_token"):
    """The mean state of each layer over the questions, one question at a time: `[layers + 1, hidden]` float64."""
    states = []
    for question in QUESTIONS:
        ids = encode_prompt(tokenizer, question, system)
        with torch.no_grad():
            if position == "first_assistant_token":
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            found = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        states.append(torch.cat(found)[:, -1].double())
    return torch.stack(states).mean(0)


def extract(model, tokenizer, questions=QUESTIONS, promote=PROMOTE, suppress=SUPPRESS, **more):
    """Trait directions of every layer."""
    return extract_trait_direction(model, tokenizer, questions, promote, suppress, EVERY, **more)


def table_of(promote, suppress, layer=0):
    """Projections of one layer, as `separation` gives them."""
    sides = [("promote", promote), ("suppress", suppress)]
    return pd.DataFrame(
        [(row, side, layer, value) for side, values in sides for row, value in enumerate(values)],
        columns=["example", "side", "layer", "projection"],
    )


# --- the trait direction


def test_planted_direction_is_found(planted, tokenizer):
    """What the system prompt adds to the residual stream comes back, from the block that adds it, with its sign."""
    model, vector = planted
    found = extract(model, tokenizer, promote="SHOUT Z", suppress="SHOUT A")
    assert float(found[1] @ vector) > 0.99
    assert abs(float(found[0] @ vector)) < 0.7, "Block 0 has not seen it yet"
    turned = extract(model, tokenizer, promote="SHOUT A", suppress="SHOUT Z")
    assert float(turned[1] @ vector) < -0.99


@pytest.mark.parametrize("position", ["last_prompt_token", "first_assistant_token"])
def test_directions_equal_brute_force(frozen_model, tokenizer, position):
    """One unpadded question at a time: difference of means, divided by its length; all architectures."""
    found = extract(frozen_model, tokenizer, position=position)
    means = [brute_force(frozen_model, tokenizer, system, position) for system in (PROMOTE, SUPPRESS)]
    for layer in EVERY[:-1]:  # the last hidden state has been through the final norm
        difference = (means[0] - means[1])[layer + 1]
        torch.testing.assert_close(found[layer], (difference / difference.norm()).float(), rtol=0, atol=1e-5)


def test_equal_prompts_have_no_direction(llama, tokenizer):
    """Nothing differs: an error, rather than noise scaled to length 1."""
    with pytest.raises(ValueError, match="equal mean activations: they must differ"):
        extract(llama, tokenizer, promote="A", suppress="A")


# --- random directions


def test_isotropic_directions_follow_from_their_seed_alone():
    """The same seed, the same rows; another one, others; the global generator has no part in it, and is left alone."""
    state = torch.random.get_rng_state()
    first = isotropic_directions(5, 8, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(isotropic_directions(5, 8, 1), first)
    assert not torch.allclose(isotropic_directions(5, 8, 2), first, atol=1e-3)
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("hidden", [3, 576])
@pytest.mark.parametrize("axis", ["first", "diagonal"])
def test_isotropic_cosines_spread_as_one_over_root_hidden(hidden, axis):
    """Against any fixed vector the mean is 0 and the sd 1/√d; d · cos² summed is within chi-square's bounds."""
    count = 4000
    fixed = torch.eye(hidden)[0] if axis == "first" else torch.full((hidden,), hidden**-0.5)
    cosines = (isotropic_directions(count, hidden, hidden) @ fixed).double().numpy()
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], count)
    assert low < hidden * (cosines**2).sum() < high
    assert abs(cosines.mean()) < 4 / np.sqrt(count * hidden)
    # (1 + cos) / 2 is beta-distributed: this tells a sphere from a cube, whose sd is the same.
    shape = (hidden - 1) / 2
    assert stats.kstest((1 + cosines) / 2, stats.beta(shape, shape).cdf).pvalue > 1e-3


# --- separation and band


def test_separation_projects_every_prompt_on_its_layers_direction():
    """Scalar products by hand, under the right side, layer and number."""
    promote = {4: torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 7: torch.tensor([[5.0, 6.0]])}
    suppress = {layer: -10 * states for layer, states in promote.items()}
    table = separation(promote, suppress, {4: torch.tensor([0.0, 1.0]), 7: torch.tensor([1.0, 0.0])})
    assert table.set_index(["layer", "side", "example"])["projection"].to_dict() == {
        (4, "promote", 0): 2, (4, "promote", 1): 4, (4, "suppress", 0): -20, (4, "suppress", 1): -40,
        (7, "promote", 0): 5, (7, "suppress", 0): -50,
    }  # fmt: skip


def test_layer_statistics_of_a_known_table():
    """Layer 3: means 2 apart, both sds 1: d = 2, eight of nine pairs in order, one tie. Layer 5: the other way."""
    apart = table_of([3.0, 4.0, 5.0], [1.0, 2.0, 3.0], layer=3)
    reverse = table_of([0.0, 1.0], [2.0, 3.0], layer=5)
    found = layer_statistics(pd.concat([reverse, apart]).sample(frac=1, random_state=0)).set_index("layer")
    assert found.index.tolist() == [3, 5]
    assert found["cohens_d"].tolist() == pytest.approx([2.0, -2 / np.sqrt(0.5)])
    assert found["auc"].tolist() == pytest.approx([8.5 / 9, 0.0])


@pytest.mark.parametrize(
    ("values", "band"),
    [
        ([0.4, 1.0, 2.0, 1.9, 0.99], [1, 2, 3]),  # exactly a half is in
        ([3.0, 0.1, 3.0], [0, 2]),
        ([-5.0, 1.0, 0.4], [1]),  # the sign counts
        ([-3.0, -1.0, -2.0], [1]),  # nothing separates: gate G1 says so, not an empty band
        ([0.0, 0.0], [0, 1]),
    ],
)
def test_band_holds_layers_of_at_least_half_the_largest_separation(values, band):
    """By Cohen's d, and it is never empty."""
    table = pd.DataFrame({"layer": range(len(values)), "cohens_d": values})
    assert declare_band(table) == band
    assert declare_band(table.assign(layer=table["layer"] + 10)) == [layer + 10 for layer in band]
