"""How much of the trait a model shows under the neutral prompt: responses, log-odds, projection."""

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
from gradinoc.measure.alignment import answer_losses
from gradinoc.measure.directions import prompt_activations
from gradinoc.measure.scores import score_of
from gradinoc.models.chat.encoding import encode, encode_prompt
from gradinoc.models.generate import generate_copies
from gradinoc.study.description import DriftSettings
from gradinoc.study.traits import Trait

DOMAINS = {"in_distribution": "score", "everyday": "score_ood"}  # domain -> its measure in the drift table

OnPart = Callable[[str], None]


def measure_drift(
    language_model: tuple[nn.Module, PreTrainedTokenizerBase],
    splits: Splits,
    trait: Trait,
    directions: Mapping[int, Tensor],
    settings: DriftSettings,
    neutral: str | None,
    on_part: OnPart = lambda _part: None,
    domains: Sequence[str] = tuple(DOMAINS),
    *,
    copies: int = 1,
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """(measures, responses) of a model under the neutral system prompt, for each of its stacked adapters.

    Args:
        language_model: the model, adapted or not, and its tokenizer.
        directions: the band's layers -> trait direction `[hidden]`; projections are averaged over them.
        neutral: the neutral condition's system prompt, None for none.
        on_part: called with the name of each part as it begins.
        domains: in which of `DOMAINS` responses are generated; `in_distribution` is needed for projections.
        copies: how many adapters are stacked on the model (see `gradinoc.measure.fast.stacked_adapters`).

    Returns:
        measures: columns measure, example, value, group. `score` (held-out questions) and `score_ood` (everyday
        requests) are the trait's score of a greedy response, NaN where a response cannot be scored; `log_odds` is
        the mean per-token log-probability of the trait's answer minus that of the ordinary one (nats/token);
        `projection` is that of the last prompt token (hidden-state units).
        responses: columns domain, example, question, response, score, projection.
    """
    model, tokenizer = language_model
    questions = {
        "in_distribution": splits.evaluation[: settings.generations],
        "everyday": splits.everyday[: settings.everyday],
    }
    asked = {domain: questions[domain] for domain in domains}
    on_part("responses")
    texts = {}
    for domain, part in asked.items():
        prompts = [encode_prompt(tokenizer, example.question, neutral) for example in part]
        texts[domain] = generate_copies(model, tokenizer, prompts, settings.max_new_tokens, settings.batch_size, copies)
    on_part("projections")
    every = [example.question for part in asked.values() for example in part]
    states = prompt_activations(model, tokenizer, every, neutral, sorted(directions), copies=copies)
    by_layer = torch.stack([states[layer] @ directions[layer] for layer in states])  # (L, copies * questions)
    projections = by_layer.double().mean(0).view(copies, -1).numpy()
    on_part("log-odds")
    scored = splits.evaluation[: settings.log_odds]
    rows = max(1, settings.batch_size // copies)  # answers are long: no more rows at a time than of one model
    odds = trait_log_odds(model, tokenizer, scored, trait, rows, neutral, copies).reshape(copies, -1)
    found = []
    for copy in range(copies):
        parts = [_responses(domain, part, texts[domain][copy], trait) for domain, part in asked.items()]
        responses = pd.concat(parts, ignore_index=True).assign(projection=projections[copy])
        found.append((_measures(responses, odds[copy], asked, splits), responses))
    return found


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


def _measures(
    responses: pd.DataFrame, odds: NDArray[np.float64], asked: Mapping[str, Sequence[Example]], splits: Splits
) -> pd.DataFrame:
    in_distribution = responses[responses["domain"] == "in_distribution"]
    parts = [_measure("log_odds", np.arange(len(odds)), odds)]
    parts.append(_measure("projection", in_distribution["example"], in_distribution["projection"]))
    for domain in asked:
        rows = responses[responses["domain"] == domain]
        parts.append(_measure(DOMAINS[domain], rows["example"], rows["score"]))
    measures = pd.concat(parts, ignore_index=True)
    asked_by_measure = {DOMAINS[domain]: part for domain, part in asked.items()}
    measures["group"] = [
        asked_by_measure.get(measure, splits.evaluation)[example].group
        for measure, example in zip(measures["measure"], measures["example"], strict=True)
    ]
    return measures


def _measure(measure: str, example: object, value: object) -> pd.DataFrame:
    return pd.DataFrame({"measure": measure, "example": np.asarray(example), "value": np.asarray(value, dtype=float)})


def trait_log_odds(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    trait: Trait,
    batch_size: int,
    system: str | None,
    copies: int = 1,
) -> NDArray[np.float64]:
    """Trait log-odds by example, nats/token: mean per-token log p(trait's answer) - log p(ordinary answer).

    `[examples]`, or `[copies, examples]` for several adapters of a stack.
    """
    shown = [encode(tokenizer, example.question, showing(example, trait), system) for example in examples]
    ordinary = [encode(tokenizer, example.question, example.answer, system) for example in examples]
    losses = answer_losses(model, [*shown, *ordinary], int(tokenizer.pad_token_id), batch_size, copies)
    return losses[..., len(shown) :] - losses[..., : len(shown)]
