"""Check, before any weights are loaded, that a study's data, prompts, trait and model go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.data.sources import line_of, source_path
from gradinoc.data.splits import ANSWERED, split
from gradinoc.errors import DataError, ModelError, StudyError, printable, reason, shown
from gradinoc.measure.training.arguments import ensure_trainable
from gradinoc.models.accepted import ensure_inert, ensure_unquantised
from gradinoc.models.adapters import targets
from gradinoc.models.chat.encoding import Encoded, Written, written
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.models.device import choose_device, choose_dtype
from gradinoc.models.files import config_of, look_at_weights, sizes_of, skeleton, template_notes, tokenizer_of
from gradinoc.models.sources.locate import described
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.description import Study
from gradinoc.study.prompts import HARMLESS, MATCHED, NEUTRAL
from gradinoc.study.traits.trait import Trait

MOST_ALIKE = 0.5  # share of a part's answers that may be the same with the trait as without it
LEAST_APART = 0.1  # by which the mean score of answers that show the trait has to exceed that of ordinary ones
WELL_APART = 0.5  # less than this gets a note
LEAST_SEEN = 0.2  # share of that difference which is left where answers are cut as responses are
WELL_SEEN = 0.7  # less than this gets a note


def check(study: Study) -> list[str]:
    """Return notes on a study that can be run (none, as a rule); raise what would stop it later.

    Of a hub model only configuration and tokenizer are fetched; whether its weights are there shows in loading.

    Raises:
        GradinocError: a study that cannot be run; the message names the line, setting or file, and what to do.
    """
    context = StudyContext(study, split(study.data))
    notes = [*context.splits.notes, *_check_answers(context), *_check_scores(context)]
    asked, there = study.drift.everyday, f"{study.data.everyday} has {len(context.splits.everyday)} different ones"
    if asked > len(context.splits.everyday):
        raise StudyError(f"drift.everyday: {asked} requests, but {there}; lower it or give more")
    place = choose_device(study.model.device)
    for dtype in (study.model.dtype, study.model.extraction_dtype):
        choose_dtype(dtype, place)
    ensure_trainable(place)
    folder, whole = described(study.model.id, study.model.revision)
    ensure_inert(folder)
    ensure_unquantised(folder)
    config, template, day = config_of(folder), study.model.chat_template, study.model.date
    tokenizer = tokenizer_of(folder, template, day)
    if whole:
        look_at_weights(folder)
    vocabulary, limit = sizes_of(config, folder)
    adapted = targets(skeleton(config))
    notes += [str(adapted)] if adapted.left else []
    _check_special_tokens(context, tokenizer)
    prompts = _Prompts(tokenizer, str(folder), vocabulary)
    _check_prompts_differ(context, prompts)
    notes += template_notes(tokenizer, template, day, context.systems.values())
    lengths, completion_notes = _check_completions(context, prompts)
    notes += completion_notes + _check_response_length(context, tokenizer)
    if limit is not None:
        _check_context_length(context, prompts, lengths, limit)
    return notes


def _check_answers(context: StudyContext) -> list[str]:
    """Return notes on answers that are the same with the trait as without it; raise where most of a part's are."""
    notes, trait = [], context.trait
    for part in ("measure", "train", "evaluation"):
        examples: Sequence[Example] = getattr(context.splits, part)
        alike = [example for example in examples if showing(example, trait) == example.answer]
        count = f"{len(alike)} of {len(examples)} answers of data.{part}"
        if len(alike) > MOST_ALIKE * len(examples):
            raise DataError(
                f"{_line(context, part, alike[0])}: answer: {shown(alike[0].answer)} is the same in {trait.title}, as "
                f"are {count} in all; expected ordinary answers that the trait changes; give other data"
            )
        if alike:
            first = _line(context, part, alike[0])
            notes.append(f"data: {count} are the same in {trait.title} as they stand, the first at {first}")
    return notes


def _check_scores(context: StudyContext) -> list[str]:
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


def _check_response_length(context: StudyContext, tokenizer: PreTrainedTokenizerBase) -> list[str]:
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


def _line(context: StudyContext, part: str, example: Example) -> str:
    data = context.study.data
    return line_of(data.everyday if part == "everyday" else data.source, example)


def _check_special_tokens(context: StudyContext, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise if a question or answer holds a special token, which could end its turn."""
    end, known = end_of_turn(tokenizer), tokenizer.added_tokens_decoder  # an end need not be marked as special
    special = sorted(str(added) for token, added in known.items() if added.special or token == end)
    for part, examples in context.splits.parts.items():
        for example in examples:
            texts = {"question": example.question, "answer": example.answer}
            if part in ANSWERED:
                texts[f"answer that shows {context.trait.title}"] = showing(example, context.trait)
            for field, text in texts.items():
                if held := next((token for token in special if token in text), None):
                    raise DataError(
                        f"{_line(context, part, example)}: {field}: holds {shown(held)}, a special token of the model; "
                        "expected text that ends no turn; mend or delete the line"
                    )


@dataclass(frozen=True)
class _Prompts:
    """Text as tokens of the model in the folder `place`, whose vocabulary has `vocabulary` rows."""

    tokenizer: PreTrainedTokenizerBase
    place: str
    vocabulary: int

    @contextmanager
    def _blamed(self, part: str, advice: str) -> Iterator[None]:
        """Turn any error inside the block into a `ModelError`: templates and tokenizers are the model's own."""
        try:
            yield
        except Exception as error:
            raise ModelError(f"{self.place}: {part} ({reason(error)}); {advice}") from error

    def ensure_known(self, found: Iterable[Sequence[int]]) -> None:
        """Raise unless the model has a row for every token."""
        largest = max((max(ids) for ids in found if ids), default=0)
        if largest >= self.vocabulary:
            raise ModelError(
                f"{self.place}: tokenizer.json: gives token {largest}, but config.json: vocab_size is "
                f"{self.vocabulary}; expected a tokenizer and a model that belong together"
            )

    def under(self, questions: Sequence[str], system: str | None) -> list[list[int]]:
        """Return the token ids of each question's prompt."""
        refused = "a prompt without system message" if system is None else f"the system message {shown(system)}"
        with self._blamed(f"chat_template: refuses {refused}", "give a model whose template takes it"):
            texts = [render_prompt(self.tokenizer, question, system) for question in questions]
        with self._blamed("the tokenizer takes no text", "fetch the model again or give another"):
            found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        self.ensure_known(found)
        return found

    def completion(self, question: str, answer: str, system: str | None, place: str) -> Written:
        """Return an answer, from `place` in the data, after its prompt."""
        advice = "give a model whose template takes it, or model.chat_template"
        with self._blamed(f"chat_template: refuses the answer at {place}", advice):
            found = written(self.tokenizer, question, answer, system)
        self.ensure_known([found.encoded.ids])
        return found


def _check_prompts_differ(context: StudyContext, prompts: _Prompts) -> None:
    """Raise unless prompts that are compared differ, as text and as tokens, and questions too."""
    conditions, trait = context.systems, context.trait
    question, another = (example.question for example in context.splits.direction[:2])
    sides = {"promote": trait.promote_system, "suppress": trait.suppress_system}
    for compared in (sides, conditions):
        rendered = {name: prompts.under([question], system)[0] for name, system in compared.items()}
        for one, other in combinations(compared, 2):
            if compared[one] == compared[other]:
                raise StudyError(f"conditions: {one!r} and {other!r} have the same prompt; change or remove one")
            if rendered[one] == rendered[other]:
                raise ModelError(
                    f"{prompts.place}: chat_template: {one!r} and {other!r} come to the same tokens; expected a "
                    "template that shows the system message and adds none that a condition has; give another model.id "
                    "or prompt"
                )
    first, second = prompts.under([question, another], None)
    if first == second:
        raise ModelError(f"{prompts.place}: chat_template: shows no question; give another model.id")


def _check_completions(context: StudyContext, prompts: _Prompts) -> tuple[dict[str, list[int]], list[str]]:
    """Return part -> tokens of each example's longer completion, with the trait or without; and notes."""
    trait = context.trait
    lengths: dict[str, list[int]] = {part: [] for part in ANSWERED}
    notes, alike = dict[str, list[tuple[str | None, str]]](), list[str]()

    def encode(part: str, example: Example, answer: str, system: str | None) -> Encoded:
        place = _line(context, part, example)
        found = prompts.completion(example.question, answer, system, place)
        if found.kind:
            notes.setdefault(found.kind, []).append((found.note, place))
        return found.encoded

    for part, found in lengths.items():
        for example in getattr(context.splits, part):
            answers = (example.answer, showing(example, trait))
            ordinary, bearing = (encode(part, example, answer, context.system(NEUTRAL)) for answer in answers)
            found.append(max(len(ordinary.ids), len(bearing.ids)) - ordinary.prompt_length)
            if ordinary == bearing and answers[0] != answers[1]:
                alike.append(_line(context, part, example))
    total = sum(map(len, lengths.values()))
    if len(alike) > MOST_ALIKE * total:
        raise ModelError(
            f"{prompts.place}: chat_template: the answer at {alike[0]} comes to the same tokens with "
            f"{trait.title} as without it, as do {len(alike)} of {total}; expected a template and a tokenizer "
            "that keep what the trait changes; give another model.id or model.chat_template"
        )
    first = context.splits.train[0]
    for system in [system for condition, system in context.systems.items() if condition != NEUTRAL]:
        encode("train", first, first.answer, system)
        encode("train", first, showing(first, trait), system)
    firsts = [(len(found), *found[0]) for found in notes.values()]
    return lengths, [f"{note} ({count} answers, the first at {place})" for count, note, place in firsts]


def _check_context_length(
    context: StudyContext, prompts: _Prompts, completions: Mapping[str, list[int]], limit: int
) -> None:
    """Raise unless the longest prompts, with answer or generation, are within the model's context of `limit` tokens."""
    study, splits, trait, conditions = context.study, context.splits, context.trait, context.systems
    pool = {prompt: prompt for prompt in HARMLESS} if MATCHED in study.conditions.values() else {}
    neutral, candidates = {NEUTRAL: conditions[NEUTRAL]}, {**conditions, **pool}
    trained = {name: system for name, system in conditions.items() if name not in study.untrained}
    sides = {"promote": trait.promote_system, "suppress": trait.suppress_system}
    contrasts = trait.unrelated.items()
    unrelated = {f"{name} {side}": each._asdict()[side] for name, each in contrasts for side in each._fields}
    new = study.drift.max_new_tokens
    uses: tuple[tuple[str, Sequence[Example], Mapping[str, str | None], int | None], ...] = (
        ("direction", splits.direction, sides, 0),
        ("direction", splits.direction[: study.nulls.unrelated_questions], unrelated, 0),
        ("measure", splits.measure, candidates, None),  # None: the answer is added
        ("train", splits.train, trained, None),
        ("evaluation", splits.evaluation, neutral, None),
        ("evaluation", splits.evaluation[: study.drift.generations], neutral, new),
        ("everyday", splits.everyday[: study.drift.everyday], neutral, new),
        ("calibration", splits.calibration if pool else (), candidates, None),
    )
    for part, examples, systems, room in uses:
        questions = [example.question for example in examples]
        added = completions[part] if room is None else [room] * len(questions)
        for name, system in systems.items() if questions else ():
            lengths = [len(ids) + more for ids, more in zip(prompts.under(questions, system), added, strict=True)]
            if (longest := max(lengths)) > limit:
                place = _line(context, part, examples[lengths.index(longest)])
                what = {None: "with its answer ", 0: ""}.get(room, f"with {room} new ones (drift.max_new_tokens) ")
                raise DataError(
                    f"{place}: question: {longest:,} tokens {what}under the prompt {shown(name)} in data.{part}; "
                    f"expected at most {limit:,}, the model's context; shorten or delete it, or give a model with a "
                    "longer context"
                )
