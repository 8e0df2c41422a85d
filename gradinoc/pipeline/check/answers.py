"""Check what a trait does to a study's answers: they differ with it, its score rises, responses are long enough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.data.sources import line_of, source_path
from gradinoc.errors import DataError, StudyError, printable, reason, shown
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.traits.trait import Trait

MOST_ALIKE = 0.5  # share of a part's answers that may be the same with the trait as without it
LEAST_APART = 0.1  # by which the mean score of answers that show the trait has to exceed that of ordinary ones
WELL_APART = 0.5  # less than this gets a note
LEAST_SEEN = 0.2  # share of that difference which is left where answers are cut as responses are
WELL_SEEN = 0.7  # less than this gets a note


def check_answers(context: StudyContext) -> list[str]:
    """Return notes on answers that are the same with the trait as without it; raise where most of a part's are."""
    notes, trait = [], context.trait
    for part in ("measure", "train", "evaluation", "calibration"):
        examples: Sequence[Example] = getattr(context.splits, part)
        alike = [example for example in examples if showing(example, trait) == example.answer]
        count = f"{len(alike)} of {len(examples)} answers of data.{part}"
        if len(alike) > MOST_ALIKE * len(examples):
            raise DataError(
                f"{place_in_data(context, part, alike[0])}: answer: {shown(alike[0].answer)} is the same in "
                f"{trait.title}, as are {count} in all; expected ordinary answers that the trait changes; give other "
                "data"
            )
        if alike:
            first = place_in_data(context, part, alike[0])
            notes.append(f"data: {count} are the same in {trait.title} as they stand, the first at {first}")
    return notes


def check_scores(context: StudyContext) -> list[str]:
    """Return a note if the trait's score rises little in answers that show it; raise if it does not."""
    trait, examples, answers = context.trait, context.splits.evaluation, context.study.data.trait_answers
    ordinary = _mean_score(trait, [example.answer for example in examples])
    bearing = _mean_score(trait, [showing(example, trait) for example in examples])
    where = "the trait's transform" if answers is None else printable(source_path(answers))
    found = (
        f"trait {trait.name}: the {trait.score_name} of answers that show it ({where}) is {bearing:.2f} on average, of "
        f"ordinary ones {ordinary:.2f}"
    )
    if not bearing - ordinary >= LEAST_APART:
        raise StudyError(f"{found}; expected it to rise by {LEAST_APART} or more; mend score or transform")
    return [f"{found}: the difference is small"] if bearing - ordinary < WELL_APART else []


def check_response_length(context: StudyContext, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a note if responses are too short to show most of the trait (a sign-off, say); raise if hardly any."""
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


def _mean_score(trait: Trait, answers: Sequence[str]) -> float:
    """Return the mean score of the answers that can be scored, NaN if none can; the trait may be the user's own."""
    scores = []
    for answer in answers:
        place = f"trait {trait.name}: score"
        try:
            found = [trait.score(answer)] if trait.scorable(answer) else []
        except Exception as error:
            raise StudyError(f"{place}: fails at {shown(answer)} ({reason(error)}); mend it") from error
        for score in found:
            if not 0 <= score <= 1:
                expected = "expected a fraction between 0 and 1; mend it"
                raise StudyError(f"{place}: {shown(score)} of {shown(answer)}; {expected}")
        scores += found
    return float(np.mean(scores)) if scores else float("nan")


def place_in_data(context: StudyContext, part: str, example: Example) -> str:
    """Return the file and line of an example."""
    data = context.study.data
    return line_of(data.everyday if part == "everyday" else data.source, example)
