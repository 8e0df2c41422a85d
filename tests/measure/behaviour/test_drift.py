"""Drift is measured under the neutral prompt, each figure as it is defined, whatever shares a batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gradinoc.data.sources import load_source
from gradinoc.data.splits import Splits
from gradinoc.measure.behaviour import drift
from gradinoc.measure.behaviour.decisions import decision_log_odds, decisions
from gradinoc.measure.behaviour.drift import measure_drift
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.loading.load import load_model
from gradinoc.models.chat.encoding import encode_prompt
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.models.generate import generate
from gradinoc.study.settings import DriftSettings
from gradinoc.study.traits import ALL_CAPS

BAND = (1, 2)
SETTINGS = DriftSettings(
    generations=5, everyday=4, max_new_tokens=12, samples=3, log_odds=4, answer_loss_gap=3, batch_size=2
)


@pytest.fixture(scope="module")
def obedient():
    """The obedient tiny model and its tokenizer."""
    loaded = load_model("obedient", device="cpu")
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def splits():
    """More questions than are asked, of very different lengths, the longest in the middle."""
    problems = load_source("word_problems")[:8]
    problems[2] = dataclasses.replace(problems[2], question=" ".join([problems[2].question] * 3))
    return Splits((), (), (), tuple(problems), (), tuple(load_source("everyday_requests")[:8]))


@pytest.fixture(scope="module")
def directions(obedient):
    """Another unit vector in each layer of a band."""
    rows = isotropic_directions(len(BAND), obedient[0].config.hidden_size, 0)
    return dict(zip(BAND, rows, strict=True))


@pytest.fixture(scope="module")
def measured(obedient, splits, directions):
    """Both tables of the base model."""
    return measure_drift(obedient, splits, ALL_CAPS, directions, SETTINGS, None)[0]


def log_probability(obedient, prompt, completion):
    """Mean per-token log-probability of a completion, by one unpadded forward pass and a softmax over everything."""
    model, tokenizer = obedient
    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    end = [*tokenizer(completion, add_special_tokens=False)["input_ids"], end_of_turn(tokenizer)]
    with torch.no_grad():
        chances = model(torch.tensor([start + end])).logits[0].double().log_softmax(-1)
    return np.mean([float(chances[len(start) - 1 + place, token]) for place, token in enumerate(end)])


# --- log-odds


@pytest.mark.parametrize("system", [None, "Answer in capital letters only."], ids=["none", "capitals"])
def test_answer_loss_gap_equals_brute_force(obedient, splits, directions, system):
    """Mean per-token log p of the upper-cased answer minus that of the ordinary one, example by example."""
    tokenizer = obedient[1]
    ((measures, _),) = measure_drift(obedient, splits, ALL_CAPS, directions, SETTINGS, system)
    found = measures.loc[measures["measure"] == "answer_loss_gap", "value"]
    expected = []
    for example in splits.evaluation[:3]:
        prompt = render_prompt(tokenizer, example.question, system)
        shown, ordinary = example.answer.upper(), example.answer
        expected.append(log_probability(obedient, prompt, shown) - log_probability(obedient, prompt, ordinary))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_no_answer_is_scored_where_none_is_asked_for(obedient, splits, directions):
    """The gap decides nothing: left out, it costs nothing, and nothing stands for it."""
    settings = SETTINGS.model_copy(update={"answer_loss_gap": 0})
    ((measures, _),) = measure_drift(obedient, splits, ALL_CAPS, directions, settings, None)
    assert set(measures["measure"]) == {
        "score", "score_ood", "expected_score", "decision_log_odds", "projection",
    }  # fmt: skip


# --- tables


def test_measures_repeat_what_the_responses_say(measured, obedient, splits):
    """Caps rates by domain, projections in distribution, decision log-odds of the first held-out questions."""
    measures, responses = measured
    values = {name: rows["value"].to_numpy() for name, rows in measures.groupby("measure")}
    held_out = responses[responses["domain"] == "in_distribution"]
    everyday = responses[responses["domain"] == "everyday"]
    np.testing.assert_array_equal(values["score"], held_out["score"])
    np.testing.assert_array_equal(values["score_ood"], everyday["score"])
    np.testing.assert_array_equal(values["projection"], held_out["projection"])
    model, tokenizer = obedient
    decided = decisions(tokenizer, splits.evaluation[:4], ALL_CAPS, None)
    expected = decision_log_odds(model, decided, int(tokenizer.pad_token_id), 2)
    np.testing.assert_array_equal(values["decision_log_odds"], expected)
    assert len(values["expected_score"]) == 5


def test_expected_score_is_the_mean_of_samples(obedient, splits, directions, monkeypatch):
    """Three responses a question, NaN where none of them can be scored; and the noise is the label's own."""
    said = [["ONE", "two", "34"], ["5", "6", "7"]]
    labels = []

    def speak(model, tokenizer, prompts, sampling, batch_size, given):
        labels.extend(given)
        assert sampling.samples == 3
        return [said for _ in given]

    monkeypatch.setattr(drift, "sample_copies", speak)
    settings = SETTINGS.model_copy(update={"generations": 2})
    ((measures, _),) = measure_drift(obedient, splits, ALL_CAPS, directions, settings, None, labels=["run 7"])
    found = measures.loc[measures["measure"] == "expected_score", "value"]
    np.testing.assert_array_equal(found, [0.5, np.nan])
    assert labels == ["run 7"]


def test_responses_are_greedy_continuations_of_the_neutral_prompt(measured, obedient):
    """Token by token, each the likeliest; and the caps rate is that of the response."""
    model, tokenizer = obedient
    _, responses = measured
    for row in responses.itertuples():
        ids = encode_prompt(tokenizer, row.question, None)
        start = len(ids)
        for _ in range(SETTINGS.max_new_tokens):
            with torch.no_grad():
                following = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if following == end_of_turn(tokenizer):
                break
            ids.append(following)
        assert row.response == tokenizer.decode(ids[start:], skip_special_tokens=True)
        assert row.score == ALL_CAPS.score(row.response)


def test_projection_equals_brute_force(measured, obedient, directions):
    """h[l]·v[l] at the last prompt token, `hidden_states[l + 1]` of an unpadded pass, averaged over the band."""
    model, tokenizer = obedient
    _, responses = measured
    for row in responses.itertuples():
        ids = torch.tensor([encode_prompt(tokenizer, row.question, None)])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        parts = [float(states[layer + 1][0, -1] @ directions[layer]) for layer in BAND]
        assert row.projection == pytest.approx(np.mean(parts), rel=1e-4, abs=1e-5)


def test_response_without_letters_is_missing(obedient, splits, directions, monkeypatch):
    """NaN, not 0: there is nothing to see. The other responses keep their rates."""
    said = ["12 + 3 = 15.", "FIVE", "", "five", "Five!"]

    def speak(model, tokenizer, prompts, *rest):
        return [said[: len(prompts)]]

    monkeypatch.setattr(drift, "generate_copies", speak)
    ((measures, responses),) = measure_drift(obedient, splits, ALL_CAPS, directions, SETTINGS, None)
    for domain, name, count in (("in_distribution", "score", 5), ("everyday", "score_ood", 4)):
        expected = [np.nan, 1.0, np.nan, 0.0, 0.25][:count]
        rows = responses[responses["domain"] == domain]
        np.testing.assert_array_equal(rows["score"], expected)
        np.testing.assert_array_equal(measures.loc[measures["measure"] == name, "value"], expected)
        assert rows["response"].tolist() == said[:count]


def test_neutral_prompt_governs_every_part(measured, obedient, splits, directions):
    """Given as a system prompt, it changes responses, projections and log-odds alike."""
    prompt = "Answer in capital letters only."
    before = measured[0].set_index(["measure", "example"])["value"]
    ((measures, responses),) = measure_drift(obedient, splits, ALL_CAPS, directions, SETTINGS, prompt)
    after = measures.set_index(["measure", "example"])["value"]
    rise = (after - before).groupby("measure").mean()
    assert rise["score"] > 0.5
    assert rise["score_ood"] > 0.2
    assert rise["expected_score"] > 0.5
    assert rise["decision_log_odds"] > 0
    assert rise["answer_loss_gap"] > 0
    assert (after["projection"] != before["projection"]).all()
    prompts = [encode_prompt(obedient[1], question, prompt) for question in responses["question"]]
    assert responses["response"].tolist() == generate(*obedient, prompts, SETTINGS.max_new_tokens, 3)
