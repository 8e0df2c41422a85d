"""Checks of a study before any weights are loaded: whether its data, prompts, trait and model go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.data.sources import line_of
from gradinoc.data.splits import ANSWERED, split
from gradinoc.errors import DataError, ModelError, StudyError, reason, shown
from gradinoc.measure.training.arguments import ensure_trainable
from gradinoc.models.accepted import ensure_inert, ensure_unquantised
from gradinoc.models.adapters import targets
from gradinoc.models.chat.encoding import Written, written
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.models.device import choose_device, choose_dtype
from gradinoc.models.files import config_of, look_at_weights, sizes_of, skeleton, template_notes, tokenizer_of
from gradinoc.models.sources.locate import described
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.trait_checks import MOST_ALIKE, answers_told_apart, shown_in_time
from gradinoc.study.description import Study
from gradinoc.study.prompts import HARMLESS, MATCHED, NEUTRAL


@dataclass(frozen=True)
class _Use:
    """Questions of one part of the data under system prompts; `room` is what generation adds, None: the answer."""

    part: str
    source: str
    examples: Sequence[Example]
    systems: Mapping[str, str | None]
    room: int | None = 0


def check(study: Study) -> list[str]:
    """Return notes on a study that can be run (none, as a rule); raise what would stop it later.

    Of a hub model only configuration and tokenizer are fetched; whether its weights are there shows in loading.

    Raises:
        DataError: the splits cannot be drawn, a question or answer is too long for the model or holds one of its
            special tokens, or most answers are the same with the trait as without it.
        StudyError: two conditions have the same prompt, more is asked for than there is, or the trait's score does not
            tell answers that show it from others, or not in as many tokens as are generated.
        ModelError: no such model, not a causal language model, damaged files, or a tokenizer or template that will not
            do.
        DeviceError: no such device or dtype.
    """
    context = StudyContext(study, split(study.data))
    notes = [*context.splits.notes, *answers_told_apart(context)]
    _budgets(context)
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
    _plain(context, tokenizer)
    prompts = _Prompts(tokenizer, str(folder), vocabulary)
    _told_apart(context, prompts)
    notes += template_notes(tokenizer, template, day, _conditions(context).values())
    lengths, completion_notes = _completions(context, prompts)
    notes += completion_notes + shown_in_time(context, tokenizer)
    if limit is not None:
        _fits(context, prompts, lengths, limit)
    return notes


# --- data and budgets


def _budgets(context: StudyContext) -> None:
    asked, there = context.study.drift.everyday, len(context.splits.everyday)
    if asked > there:
        raise StudyError(
            f"drift.everyday: {asked} requests, but {context.study.data.everyday} has {there} different ones; "
            "lower it or give more"
        )


def _plain(context: StudyContext, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise if a question or answer holds a special token, which could end its turn."""
    end, known = end_of_turn(tokenizer), tokenizer.added_tokens_decoder  # an end need not be marked as special
    special = sorted(str(added) for token, added in known.items() if added.special or token == end)
    for part, examples in context.splits.parts.items():
        for example in examples:
            texts = {"question": example.question, "answer": example.answer}
            if part in ANSWERED:
                texts[f"answer that shows {context.trait.title}"] = showing(example, context.trait)
            for field, text in texts.items():
                held = next((token for token in special if token in text), None)
                if held is not None:
                    source = context.study.data.everyday if part == "everyday" else context.study.data.source
                    raise DataError(
                        f"{line_of(source, example)}: {field}: holds {shown(held)}, a special token of the model; "
                        "expected text that ends no turn; mend or delete the line"
                    )


# --- prompts


@dataclass(frozen=True)
class _Prompts:
    """Prompts as the model's tokenizer and template make them; `place` is its folder, `vocabulary` its size."""

    tokenizer: PreTrainedTokenizerBase
    place: str
    vocabulary: int

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        try:
            found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:  # whatever settings of its own make the library stumble over
            raise ModelError(
                f"{self.place}: the tokenizer takes no text ({reason(error)}); fetch the model again or give another"
            ) from error
        self.ensure_known(found)
        return found

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
        try:
            texts = [render_prompt(self.tokenizer, question, system) for question in questions]
        except Exception as error:  # the template is a program of the model's author
            refused = "a prompt without system message" if system is None else f"the system message {shown(system)}"
            raise ModelError(
                f"{self.place}: chat_template: refuses {refused} ({reason(error)}); give a model whose template "
                "takes it"
            ) from error
        return self.ids(texts)

    def completion(self, question: str, answer: str, system: str | None, place: str) -> Written:
        """Return an answer, from `place` in the data, after its prompt."""
        try:
            found = written(self.tokenizer, question, answer, system)
        except Exception as error:  # the template is a program of the model's author
            raise ModelError(
                f"{self.place}: chat_template: refuses the answer at {place} ({reason(error)}); give a model whose "
                "template takes it, or model.chat_template"
            ) from error
        self.ensure_known([found.encoded.ids])
        return found


def _conditions(context: StudyContext) -> dict[str, str | None]:
    """Return condition -> system prompt, without those still to be chosen."""
    texts = context.study.conditions
    return {condition: context.system(condition) for condition, text in texts.items() if text != MATCHED}


def _pool(context: StudyContext) -> dict[str, str | None]:
    """The harmless prompts, if a condition's prompt is chosen from them."""
    return {prompt: prompt for prompt in HARMLESS} if MATCHED in context.study.conditions.values() else {}


def _told_apart(context: StudyContext, prompts: _Prompts) -> None:
    """Raise unless prompts that are compared differ, and questions too."""
    conditions, trait = _conditions(context), context.trait
    for one, other in combinations(conditions, 2):
        if conditions[one] == conditions[other]:
            raise StudyError(
                f"conditions: {one!r} and {other!r} have the same prompt {shown(conditions[one] or '')}; expected "
                "prompts that differ; change or remove one"
            )
    question, another = (example.question for example in context.splits.direction[:2])
    sides = {"promote": trait.promote_system, "suppress": trait.suppress_system}
    for compared in (sides, conditions):
        rendered = {name: prompts.under([question], system)[0] for name, system in compared.items()}
        for one, other in combinations(compared, 2):
            if rendered[one] == rendered[other]:
                raise ModelError(
                    f"{prompts.place}: chat_template: {one!r} and {other!r} come to the same tokens; expected a "
                    "template that shows the system message and adds none that a condition has; give another model.id "
                    "or prompt"
                )
    first, second = prompts.under([question, another], None)
    if first == second:
        raise ModelError(
            f"{prompts.place}: chat_template: shows no question; expected one that does; give another model.id"
        )


def _completions(context: StudyContext, prompts: _Prompts) -> tuple[dict[str, list[int]], list[str]]:
    """Return part -> tokens of each example's longer completion, ordinary or bearing the trait; and notes.

    All are looked at under the neutral prompt, the first one under the others too: what follows a prompt should be the
    same under any. There is one note for each kind of completion that is not as it should be.
    """
    lengths: dict[str, list[int]] = {part: [] for part in ANSWERED}
    notes, alike = dict[str, list[tuple[str | None, str]]](), list[str]()

    def look_at(example: Example, system: str | None) -> tuple[Written, Written]:
        place = line_of(context.study.data.source, example)
        ordinary, bearing = (
            prompts.completion(example.question, answer, system, place)
            for answer in (example.answer, showing(example, context.trait))
        )
        for each in (ordinary, bearing):
            if each.kind:
                notes.setdefault(each.kind, []).append((each.note, place))
        return ordinary, bearing

    for part, found in lengths.items():
        for example in getattr(context.splits, part):
            ordinary, bearing = (each.encoded for each in look_at(example, context.system(NEUTRAL)))
            found.append(max(len(ordinary.ids), len(bearing.ids)) - ordinary.prompt_length)
            if ordinary == bearing and showing(example, context.trait) != example.answer:
                alike.append(line_of(context.study.data.source, example))
    total = sum(map(len, lengths.values()))
    if len(alike) > MOST_ALIKE * total:
        raise ModelError(
            f"{prompts.place}: chat_template: the answer at {alike[0]} comes to the same tokens with "
            f"{context.trait.title} as without it, as do {len(alike)} of {total}; expected a template and a tokenizer "
            "that keep what the trait changes; give another model.id or model.chat_template"
        )
    for condition, system in _conditions(context).items():
        if condition != NEUTRAL:
            look_at(context.splits.train[0], system)
    firsts = [(len(found), *found[0]) for found in notes.values()]
    return lengths, [f"{note} ({count} answers, the first at {place})" for count, note, place in firsts]


def _uses(context: StudyContext) -> Iterator[_Use]:
    """Yield every prompt of the study, by part."""
    study, splits, trait = context.study, context.splits, context.trait
    source, conditions, pool = study.data.source, _conditions(context), _pool(context)
    neutral = {NEUTRAL: conditions[NEUTRAL]}
    contrasts = trait.unrelated.items()
    unrelated = {f"{name} {side}": each._asdict()[side] for name, each in contrasts for side in each._fields}
    sides = {"promote": trait.promote_system, "suppress": trait.suppress_system}
    yield _Use("direction", source, splits.direction, sides)
    yield _Use("direction", source, splits.direction[: study.nulls.unrelated_questions], unrelated)
    yield _Use("measure", source, splits.measure, {**conditions, **pool}, None)
    trained = {name: system for name, system in conditions.items() if name not in study.untrained}
    yield _Use("train", source, splits.train, trained, None)
    yield _Use("evaluation", source, splits.evaluation, neutral, None)
    yield _Use("evaluation", source, splits.evaluation[: study.drift.generations], neutral, study.drift.max_new_tokens)
    everyday = splits.everyday[: study.drift.everyday]
    yield _Use("everyday", study.data.everyday, everyday, neutral, study.drift.max_new_tokens)
    if pool:
        yield _Use("calibration", source, splits.calibration, {**conditions, **pool}, None)


def _fits(context: StudyContext, prompts: _Prompts, completions: Mapping[str, list[int]], limit: int) -> None:
    """Raise unless the longest prompts, with answer or generation, are within the model's context of `limit` tokens."""
    for use in _uses(context):
        questions = [example.question for example in use.examples]
        added = completions[use.part] if use.room is None else [use.room] * len(questions)
        for name, system in use.systems.items():
            lengths = [len(ids) + more for ids, more in zip(prompts.under(questions, system), added, strict=True)]
            if (longest := max(lengths, default=0)) > limit:
                place = line_of(use.source, use.examples[lengths.index(longest)])
                with_what = "with its answer " if use.room is None else ""
                if use.room:
                    with_what = f"with {use.room} new ones (drift.max_new_tokens) "
                raise DataError(
                    f"{place}: question: {longest:,} tokens {with_what}under the prompt {shown(name)} in "
                    f"data.{use.part}; expected at most {limit:,}, the model's context; shorten or delete it, or give "
                    "a model with a longer context"
                )
