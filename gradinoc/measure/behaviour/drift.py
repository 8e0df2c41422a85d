"""How much of the trait a model shows under the neutral prompt: responses, decision log-odds, projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.data.splits import Splits
from gradinoc.measure.behaviour.decisions import decision_log_odds, decisions
from gradinoc.measure.behaviour.scores import expected_scores, score_of
from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.models.chat.encoding import encode, encode_prompt
from gradinoc.models.generate import generate_copies, sample_copies
from gradinoc.models.sampling import Sampling
from gradinoc.study.settings import DriftSettings
from gradinoc.study.traits import Trait

HELD_OUT, EVERYDAY = "in_distribution", "everyday"  # domains of questions

OnPart = Callable[[str], None]


def measure_drift(
    language_model: tuple[nn.Module, PreTrainedTokenizerBase],
    splits: Splits,
    trait: Trait,
    directions: Mapping[int, Tensor],
    settings: DriftSettings,
    neutral: str | None,
    on_part: OnPart = lambda _part: None,
    *,
    labels: Sequence[str] = ("",),
    seed: int = 0,
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """(measures, responses) of a model under the neutral system prompt, for each of its stacked adapters.

    Args:
        language_model: the model, adapted or not, and its tokenizer.
        directions: the band's layers -> trait direction `[hidden]`; projections are averaged over them.
        neutral: the neutral condition's system prompt, None for none.
        on_part: called with the name of each part as it begins.
        labels: one of each adapter that is stacked on the model (see `gradinoc.measure.fast.stacked_adapters`), or of
            the model: they tell the noise of their samples apart.
        seed: of the samples.

    Returns:
        measures: columns measure, example, value, group. `score` (held-out questions) and `score_ood` (everyday
        requests) are the trait's score of a greedy response, `expected_score` the mean score of `settings.samples`
        responses at temperature 1, fractions, NaN where none can be scored; `decision_log_odds` (nats) are those of
        `gradinoc.measure.behaviour.decisions`, left out where a question decides nothing; `answer_loss_gap` is the mean
        per-token log-probability of the trait's answer minus that of the ordinary one (nats/token); `projection` is
        that of the last prompt token (hidden-state units).
        responses: columns domain, example, question, response, score, projection; the greedy ones.
    """
    model, tokenizer = language_model
    copies, asked = len(labels), {
        HELD_OUT: splits.evaluation[: settings.generations], EVERYDAY: splits.everyday[: settings.everyday]
    }  # fmt: skip
    on_part("responses")
    prompts = {
        domain: [encode_prompt(tokenizer, example.question, neutral) for example in part]
        for domain, part in asked.items()
    }
    texts = {
        domain: generate_copies(model, tokenizer, ids, settings.max_new_tokens, settings.batch_size, copies)
        for domain, ids in prompts.items()
    }
    on_part("sampled responses")
    sampling = Sampling(settings.samples, settings.max_new_tokens, seed)
    sampled = sample_copies(model, tokenizer, prompts[HELD_OUT], sampling, settings.batch_size, labels)
    expected = expected_scores(sampled, trait)
    on_part("projections")
    projections = _projections(language_model, asked, directions, neutral, copies)
    on_part("log-odds")
    odds, gaps = _log_odds(language_model, splits, trait, settings, neutral, copies)
    found = []
    for copy in range(copies):
        parts = [_responses(domain, part, texts[domain][copy], trait) for domain, part in asked.items()]
        responses = pd.concat(parts, ignore_index=True).assign(projection=projections[copy])
        held_out, everyday = (responses[responses["domain"] == domain] for domain in asked)
        columns = {
            "score": held_out["score"], "expected_score": expected[copy], "decision_log_odds": odds[copy],
            "answer_loss_gap": gaps[copy], "projection": held_out["projection"],
        }  # fmt: skip
        measures = [_measure(name, values, splits.evaluation) for name, values in columns.items()]
        measures.append(_measure("score_ood", everyday["score"], asked[EVERYDAY]))
        found.append((pd.concat(measures, ignore_index=True), responses))
    return found


def _projections(
    language_model: tuple[nn.Module, PreTrainedTokenizerBase],
    asked: Mapping[str, Sequence[Example]],
    directions: Mapping[int, Tensor],
    neutral: str | None,
    copies: int,
) -> NDArray[np.float64]:
    """Mean projection over the layers of `directions` at the last prompt token, `[copies, questions]`."""
    every = [example.question for part in asked.values() for example in part]
    states = prompt_activations(*language_model, every, neutral, sorted(directions), copies=copies)
    by_layer = torch.stack([states[layer] @ directions[layer] for layer in states])  # (L, copies * questions)
    values: NDArray[np.float64] = by_layer.double().mean(0).view(copies, -1).numpy()
    return values


def _log_odds(
    language_model: tuple[nn.Module, PreTrainedTokenizerBase],
    splits: Splits,
    trait: Trait,
    settings: DriftSettings,
    neutral: str | None,
    copies: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Decision log-odds, and answer loss gaps of as many questions as are asked for, each `[copies, questions]`."""
    model, tokenizer = language_model
    pad, rows = int(tokenizer.pad_token_id), max(1, settings.batch_size // copies)
    decided = decisions(tokenizer, splits.evaluation[: settings.log_odds], trait, neutral)
    odds = decision_log_odds(model, decided, pad, rows, copies).reshape(copies, -1)
    scored = splits.evaluation[: settings.answer_loss_gap]
    shown = [encode(tokenizer, example.question, showing(example, trait), neutral) for example in scored]
    ordinary = [encode(tokenizer, example.question, example.answer, neutral) for example in scored]
    losses = answer_losses(model, [*shown, *ordinary], pad, rows, copies).reshape(copies, -1)
    return odds, losses[:, len(shown) :] - losses[:, : len(shown)]


def _responses(domain: str, asked: Sequence[Example], texts: Sequence[str], trait: Trait) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "domain": domain,
            "example": np.arange(len(asked)),
            "question": [example.question for example in asked],
            "response": texts,
            "score": [score_of(trait, text) for text in texts],
        }
    )


def _measure(measure: str, values: object, examples: Sequence[Example]) -> pd.DataFrame:
    """Values of the first of `examples`; of decision log-odds those that there are."""
    value = np.asarray(values, dtype=np.float64)
    groups = [example.group for example in examples[: len(value)]]
    table = pd.DataFrame({"measure": measure, "example": np.arange(len(value)), "value": value, "group": groups})
    return table.dropna(subset="value") if measure == "decision_log_odds" else table
