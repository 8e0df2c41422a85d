"""Check a study's prompts as a model reads them: they differ, its answers follow them, and its context holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.data.splits import ANSWERED
from gradinoc.errors import DataError, ModelError, StudyError, reason, shown
from gradinoc.models.chat.encoding import Encoded, Written, written
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.pipeline.check.answers import MOST_ALIKE, place_in_data
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.prompts import HARMLESS, NEUTRAL
from gradinoc.study.prompts.family import Kind, Prompt

System = str | None
# Tokens by which a prompt may grow or shrink with the question that it stands before: at the seam of the two.
SEAM = 16


def check_special_tokens(context: StudyContext, tokenizer: PreTrainedTokenizerBase) -> None:
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
                    place = place_in_data(context, part, example)
                    raise DataError(
                        f"{place}: {field}: holds {shown(held)}, a special token of the model; expected text that ends "
                        "no turn; mend or delete the line"
                    )


@dataclass(frozen=True)
class Prompts:
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


def every_prompt(context: StudyContext) -> dict[str, System]:
    """Return name -> system message of all that is measured, trained or evaluated under, every wording by itself."""
    found: dict[str, System] = {}
    for key, prompt in (context.evaluations | context.prompts).items():
        found |= wordings(key, prompt)
    return found


def wordings(key: str, prompt: Prompt) -> dict[str, System]:
    """Return name -> system message of a prompt; of a rephrased one every wording, numbered."""
    if not prompt.templates:
        return {key: prompt.text}
    return {f"{key}, wording {place}": text for place, text in enumerate(prompt.templates, start=1)}


def check_prompts_differ(context: StudyContext, prompts: Prompts) -> None:
    """Raise unless prompts differ, as text and as tokens, and questions too.

    An empty system message may come to what a template writes where there is none.
    """
    trait, systems = context.trait, every_prompt(context)
    systems.pop(str(Kind.EMPTY), None)
    question, another = (example.question for example in context.splits.direction[:2])
    for compared in ({"promote": trait.promote_system, "suppress": trait.suppress_system}, systems):
        by_text: dict[System, str] = {}
        by_tokens: dict[tuple[int, ...], str] = {}
        for name, system in compared.items():
            if (other := by_text.setdefault(system, name)) != name:
                raise StudyError(f"conditions: {other!r} and {name!r} have the same prompt; change or remove one")
            ids = tuple(prompts.under([question], system)[0])
            if (other := by_tokens.setdefault(ids, name)) != name:
                raise ModelError(
                    f"{prompts.place}: chat_template: {other!r} and {name!r} come to the same tokens; expected a "
                    "template that shows the system message and adds none that a condition has; give another model.id "
                    "or prompt"
                )
    first, second = prompts.under([question, another], None)
    if first == second:
        raise ModelError(f"{prompts.place}: chat_template: shows no question; give another model.id")


def check_completions(context: StudyContext, prompts: Prompts) -> tuple[dict[str, list[int]], list[str]]:
    """Return part -> tokens of each example's longer completion, with the trait or without; and notes."""
    trait, neutral = context.trait, context.systems[NEUTRAL]
    lengths: dict[str, list[int]] = {part: [] for part in ANSWERED}
    notes, alike = dict[str, list[tuple[str | None, str]]](), list[str]()

    def encode(part: str, example: Example, answer: str, system: str | None) -> Encoded:
        place = place_in_data(context, part, example)
        found = prompts.completion(example.question, answer, system, place)
        if found.kind:
            notes.setdefault(found.kind, []).append((found.note, place))
        return found.encoded

    for part, found in lengths.items():
        for example in getattr(context.splits, part):
            answers = (example.answer, showing(example, trait))
            ordinary, bearing = (encode(part, example, answer, neutral) for answer in answers)
            found.append(max(len(ordinary.ids), len(bearing.ids)) - ordinary.prompt_length)
            if ordinary == bearing and answers[0] != answers[1]:
                alike.append(place_in_data(context, part, example))
    total = sum(map(len, lengths.values()))
    if len(alike) > MOST_ALIKE * total:
        raise ModelError(
            f"{prompts.place}: chat_template: the answer at {alike[0]} comes to the same tokens with "
            f"{trait.title} as without it, as do {len(alike)} of {total}; expected a template and a tokenizer "
            "that keep what the trait changes; give another model.id or model.chat_template"
        )
    first = context.splits.train[0]
    others = (prompt for key, prompt in (context.evaluations | context.prompts).items() if key != NEUTRAL)
    for system in [prompt.texts[0] if prompt.texts else None for prompt in others]:
        encode("train", first, first.answer, system)
        encode("train", first, showing(first, trait), system)
    firsts = [(len(found), *found[0]) for found in notes.values()]
    return lengths, [f"{note} ({count} answers, the first at {place})" for count, note, place in firsts]


@dataclass(frozen=True)
class Use:
    """Questions of a part under prompts, with `room` for new tokens behind each; None: with their answer."""

    part: str
    examples: Sequence[Example]
    systems: Mapping[str, System]
    room: int | None


def uses(context: StudyContext) -> list[Use]:
    """Return all that a study puts before its model."""
    study, splits, trait = context.study, context.splits, context.trait
    neutral: dict[str, System] = {NEUTRAL: context.systems[NEUTRAL]}
    contrasts = {f"contrast {place}": sides for place, sides in enumerate(trait.contrasts, start=1)}
    sides = {
        f"{name} {side}": getattr(pair, side)
        for name, pair in (contrasts | trait.unrelated).items()
        for side in pair._fields
    }
    calibrated = context.systems | {"promote": trait.promote_system, "suppress": trait.suppress_system}
    trained = [wordings(key, prompt) for key, prompt in study.trained.items()]
    evaluated = [wordings(key, prompt) for key, prompt in context.evaluations.items()]
    few = splits.direction[: study.nulls.unrelated_questions]
    new = study.drift.max_new_tokens
    return [
        Use("direction", splits.direction, sides, 0),
        Use("direction", few, {text: text for text in HARMLESS}, 0),
        Use("direction", few, neutral, None),
        Use("measure", splits.measure, context.systems, None),
        Use("calibration", splits.calibration, calibrated, None),
        Use("calibration", splits.calibration[: study.prompts.behaviour], calibrated, new),
        Use("train", splits.train, {name: text for each in trained for name, text in each.items()}, None),
        Use("evaluation", splits.evaluation, neutral, None),
        Use("evaluation", splits.evaluation[: study.drift.generations], neutral, new),
        Use("evaluation", splits.evaluation[: study.drift.matrix],
            {name: text for each in evaluated for name, text in each.items()}, None),
        Use("everyday", splits.everyday[: study.drift.everyday], neutral, new),
    ]  # fmt: skip


def check_context_length(
    context: StudyContext, prompts: Prompts, completions: Mapping[str, list[int]], limit: int
) -> None:
    """Raise unless the longest prompts, with answer or generation, are within the model's context of `limit` tokens.

    Every question is read under the neutral prompt, and under the others the longest of them; where that comes near to
    the limit, all.
    """
    plain: dict[tuple[str, int], list[int]] = {}
    neutral = context.systems[NEUTRAL]
    for use in uses(context):
        questions = [example.question for example in use.examples]
        if not questions:
            continue
        key = use.part, len(questions)
        if key not in plain:
            plain[key] = list(map(len, prompts.under(questions, neutral)))
        added = [use.room] * len(questions) if use.room is not None else completions[use.part][: len(questions)]
        totals = [length + more for length, more in zip(plain[key], added, strict=True)]
        longest = max(range(len(totals)), key=totals.__getitem__)
        for name, system in use.systems.items():
            grown = len(prompts.under([questions[longest]], system)[0]) - plain[key][longest]
            if totals[longest] + grown + SEAM > limit:
                _check_all(context, prompts, use, (name, system), added, limit)


def _check_all(
    context: StudyContext, prompts: Prompts, use: Use, prompt: tuple[str, System], added: Sequence[int], limit: int
) -> None:
    """Raise if a question of a use, under this prompt, with what is added to it, is longer than the model's context."""
    name, system = prompt
    questions = [example.question for example in use.examples]
    lengths = [len(ids) + more for ids, more in zip(prompts.under(questions, system), added, strict=True)]
    if (longest := max(lengths)) > limit:
        place = place_in_data(context, use.part, use.examples[lengths.index(longest)])
        what = {None: "with its answer ", 0: ""}.get(use.room, f"with {use.room} new ones (drift.max_new_tokens) ")
        raise DataError(
            f"{place}: question: {longest:,} tokens {what}under the prompt {shown(name)} in data.{use.part}; "
            f"expected at most {limit:,}, the model's context; shorten or delete it, or give a model with a "
            "longer context"
        )
