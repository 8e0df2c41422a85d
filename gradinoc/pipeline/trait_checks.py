"""Whether a study's answers show its trait, its score says so, and responses are long enough to show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.data.sources import line_of, source_path
from gradinoc.errors import DataError, GradinocError, StudyError, printable, reason, shown
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.traits.trait import Trait

MOST_ALIKE = 0.5  # share of a part's answers that may be the same with the trait as without it
LEAST_APART = 0.1  # by which the mean score of answers that show the trait has to exceed that of ordinary ones
WELL_APART = 0.5  # less than this is worth a note
LEAST_SEEN = 0.2  # share of that difference which is left where answers are cut as responses are
WELL_SEEN = 0.7  # less than this is worth a note


def answers_told_apart(context: StudyContext) -> list[str]:
    """Notes on answers that show the trait no more than ordinary ones do: there is little to be learned from them.

    Raises:
        DataError: most answers of a part are the same with the trait as without it.
        StudyError: the trait's score is no higher where an answer shows it.
    """
    notes, trait = [], context.trait
    for part in ("measure", "train", "evaluation"):
        examples: Sequence[Example] = getattr(context.splits, part)
        alike = [example for example in examples if showing(example, trait) == example.answer]
        if not alike:
            continue
        place = line_of(context.study.data.source, alike[0])
        count = f"{len(alike)} of {len(examples)} answers of data.{part}"
        if len(alike) > MOST_ALIKE * len(examples):
            raise DataError(
                f"{place}: answer: {shown(alike[0].answer)} is the same in {trait.title}, as are {count} in all; "
                "expected ordinary answers that the trait changes; give other data"
            )
        notes.append(f"data: {count} are the same in {trait.title} as they stand, the first at {place}")
    return notes + _scores_apart(context)


def _scores_apart(context: StudyContext) -> list[str]:
    trait, examples = context.trait, context.splits.evaluation
    ordinary = _mean_score(trait, [example.answer for example in examples])
    bearing = _mean_score(trait, [showing(example, trait) for example in examples])
    where = "the trait's transform"
    if context.study.data.trait_answers is not None:
        where = printable(source_path(context.study.data.trait_answers))
    found = (
        f"trait {trait.name}: the {trait.score_name} of answers that show it ({where}) is {bearing:.2f} on average, of "
        f"ordinary ones {ordinary:.2f}"
    )
    if not bearing - ordinary >= LEAST_APART:
        raise StudyError(f"{found}; expected it to rise by {LEAST_APART} or more; mend score or transform")
    return [f"{found}: there is not much to tell apart"] if bearing - ordinary < WELL_APART else []


def _mean_score(trait: Trait, answers: Sequence[str]) -> float:
    """Mean score of the answers that can be scored; NaN if none can.

    Raises:
        StudyError: a score that is no fraction, or none at all: the trait may be one of the user's own.
    """
    scores = []
    for answer in answers:
        try:
            found = trait.score(answer) if trait.scorable(answer) else None
        except GradinocError:
            raise
        except Exception as error:
            raise StudyError(
                f"trait {trait.name}: score: fails at {shown(answer)} ({reason(error)}); mend it"
            ) from error
        if found is not None and not 0 <= found <= 1:
            raise StudyError(
                f"trait {trait.name}: score: {shown(found)} of {shown(answer)}; expected a fraction between 0 and 1; "
                "mend it"
            )
        scores += [] if found is None else [found]
    return float(np.mean(scores)) if scores else float("nan")


def shown_in_time(context: StudyContext, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Notes on responses of `drift.max_new_tokens` tokens that are too short to show the trait.

    What stands at the end of an answer, as a sign-off does, is never reached where responses are cut before it.

    Raises:
        StudyError: answers that show the trait, cut like that, hardly score higher than ordinary ones.
    """
    drift, trait = context.study.drift, context.trait
    examples = context.splits.evaluation[: drift.generations]
    bearing = [showing(example, trait) for example in examples]
    tokens: list[list[int]] = tokenizer(bearing, add_special_tokens=False, verbose=False)["input_ids"]
    cut = [str(tokenizer.decode(ids[: drift.max_new_tokens])) for ids in tokens]
    ordinary = _mean_score(trait, [example.answer for example in examples])
    whole, seen = _mean_score(trait, bearing), _mean_score(trait, cut)
    found = (
        f"drift.max_new_tokens: cut after {drift.max_new_tokens} tokens, answers that show {trait.title} have a "
        f"mean {trait.score_name} of {seen:.2f}, and of {whole:.2f} as a whole; expected responses that reach it; "
        f"raise it to {max(map(len, tokens))}, the longest of these answers"
    )
    if not seen - ordinary >= LEAST_SEEN * (whole - ordinary):
        raise StudyError(found)
    return [found] if seen - ordinary < WELL_SEEN * (whole - ordinary) else []
