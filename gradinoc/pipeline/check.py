"""What can be known of a study before any weights are loaded: whether its data, prompts and model go together."""

from __future__ import annotations

from collections import Counter
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
from gradinoc.pipeline.context import Bench
from gradinoc.pipeline.trait_checks import MOST_ALIKE, answers_told_apart, shown_in_time
from gradinoc.study.description import Study
from gradinoc.study.prompts import HARMLESS, MATCHED, NEUTRAL

Systems = Mapping[str, str | None]


@dataclass(frozen=True)
class _Use:
    """Questions of one part of the data under system prompts; `room` is what generation adds, None: the answer."""

    part: str
    source: str
    examples: Sequence[Example]
    systems: Systems
    room: int | None = 0


def check(study: Study) -> list[str]:
    """What whoever runs the study should know (nothing, as a rule), if nothing speaks against running it.

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
    bench = Bench(study, split(study.data))
    notes = [*bench.splits.notes, *answers_told_apart(bench)]
    _budgets(bench)
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
    vocabulary, context = sizes_of(config, folder)
    adapted = targets(skeleton(config))
    notes += [str(adapted)] if adapted.left else []
    _plain(bench, tokenizer)
    prompts = _Prompts(tokenizer, str(folder), vocabulary)
    _told_apart(bench, prompts)
    notes += template_notes(tokenizer, template, day, _conditions(bench).values())
    lengths, completion_notes = _completions(bench, prompts)
    notes += completion_notes + shown_in_time(bench, tokenizer)
    if context is not None:
        _fits(bench, prompts, lengths, context)
    return notes


# --- data and budgets


def _budgets(bench: Bench) -> None:
    asked, there = bench.study.drift.everyday, len(bench.splits.everyday)
    if asked > there:
        raise StudyError(
            f"drift.everyday: {asked} requests, but {bench.study.data.everyday} has {there} different ones; "
            "lower it or give more"
        )


def _plain(bench: Bench, tokenizer: PreTrainedTokenizerBase) -> None:
    """See to it that no question or answer speaks the template's own language, and could end its turn."""
    end, known = end_of_turn(tokenizer), tokenizer.added_tokens_decoder  # an end need not be marked as special
    special = sorted(str(added) for token, added in known.items() if added.special or token == end)
    for part, examples in bench.splits.parts.items():
        for example in examples:
            texts = {"question": example.question, "answer": example.answer}
            if part in ANSWERED:
                texts[f"answer that shows {bench.trait.title}"] = showing(example, bench.trait)
            for field, text in texts.items():
                held = next((token for token in special if token in text), None)
                if held is not None:
                    source = bench.study.data.everyday if part == "everyday" else bench.study.data.source
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
        """Token ids of each text."""
        try:
            found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:  # whatever settings of its own make the library stumble over
            raise ModelError(
                f"{self.place}: the tokenizer takes no text ({reason(error)}); fetch the model again or give another"
            ) from error
        self.ensure_known(found)
        return found

    def ensure_known(self, found: Iterable[Sequence[int]]) -> None:
        """See to it that the model has a row for every token."""
        largest = max((max(ids) for ids in found if ids), default=0)
        if largest >= self.vocabulary:
            raise ModelError(
                f"{self.place}: tokenizer.json: gives token {largest}, but config.json: vocab_size is "
                f"{self.vocabulary}; expected a tokenizer and a model that belong together"
            )

    def under(self, questions: Sequence[str], system: str | None) -> list[list[int]]:
        """Token ids of each question's prompt."""
        try:
            texts = [render_prompt(self.tokenizer, question, system) for question in questions]
        except Exception as error:  # the template is a program of the model's author
            refused = "a prompt without system message" if system is None else f"the system message {shown(system)}"
            raise ModelError(
                f"{self.place}: chat_template: refuses {refused} ({reason(error)}); give a model whose template "
                "takes it"
            ) from error
        return self.ids(texts)


def _conditions(bench: Bench) -> dict[str, str | None]:
    """Condition -> its system prompt, those left out that are still to be chosen."""
    texts = bench.study.conditions
    return {condition: bench.system(condition) for condition, text in texts.items() if text != MATCHED}


def _pool(bench: Bench) -> dict[str, str | None]:
    """The harmless prompts, if a condition's prompt is chosen from them."""
    return {prompt: prompt for prompt in HARMLESS} if MATCHED in bench.study.conditions.values() else {}


def _told_apart(bench: Bench, prompts: _Prompts) -> None:
    """Whether prompts that are compared differ, and questions too."""
    conditions, trait = _conditions(bench), bench.trait
    for one, other in combinations(conditions, 2):
        if conditions[one] == conditions[other]:
            raise StudyError(
                f"conditions: {one!r} and {other!r} have the same prompt {shown(conditions[one] or '')}; expected "
                "prompts that differ; change or remove one"
            )
    question, another = (example.question for example in bench.splits.direction[:2])
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


@dataclass(frozen=True)
class _Answered:
    """An example with its ordinary answer and the one that shows the trait, as the template writes both."""

    example: Example
    place: str  # file and line
    written: tuple[Written, Written]


def _answered(bench: Bench, prompts: _Prompts, part: str, system: str | None) -> Iterator[_Answered]:
    """The examples of a part under a system prompt."""
    for example in getattr(bench.splits, part):
        place = line_of(bench.study.data.source, example)
        try:
            ordinary, bearing = (
                written(prompts.tokenizer, example.question, answer, system)
                for answer in (example.answer, showing(example, bench.trait))
            )
        except Exception as error:  # the template is a program of the model's author
            raise ModelError(
                f"{prompts.place}: chat_template: refuses the answer at {place} ({reason(error)}); give a model whose "
                "template takes it, or model.chat_template"
            ) from error
        prompts.ensure_known(each.encoded.ids for each in (ordinary, bearing))
        yield _Answered(example, place, (ordinary, bearing))


def _completions(bench: Bench, prompts: _Prompts) -> tuple[dict[str, list[int]], list[str]]:
    """Part -> tokens of each example's longer completion, ordinary or bearing the trait; and notes on completions.

    All are looked at under the neutral prompt, the first one under the others too: what follows a prompt should be the
    same under any. There is one note for each kind of thing that is not as it should be, on the first such answer.
    """
    lengths: dict[str, list[int]] = {part: [] for part in ANSWERED}
    kinds, firsts, alike = Counter[str](), dict[str, tuple[str | None, str]](), list[_Answered]()

    def look_at(found: _Answered) -> None:
        for each in found.written:
            if kind := each.kind:
                kinds[kind] += 1
                firsts.setdefault(kind, (each.note, found.place))

    for part, found in lengths.items():
        for each in _answered(bench, prompts, part, bench.system(NEUTRAL)):
            ordinary, bearing = (one.encoded for one in each.written)
            found.append(max(len(ordinary.ids), len(bearing.ids)) - ordinary.prompt_length)
            if ordinary == bearing and showing(each.example, bench.trait) != each.example.answer:
                alike.append(each)
            look_at(each)
    _ensure_told_apart(bench, prompts, alike, sum(map(len, lengths.values())))
    for condition, system in _conditions(bench).items():
        if condition != NEUTRAL:
            look_at(next(_answered(bench, prompts, "train", system)))
    return lengths, [f"{note} ({kinds[kind]} answers, the first at {place})" for kind, (note, place) in firsts.items()]


def _ensure_told_apart(bench: Bench, prompts: _Prompts, alike: Sequence[_Answered], total: int) -> None:
    """See to it that template and tokenizer keep what the trait changes, in most answers."""
    if len(alike) > MOST_ALIKE * total:
        raise ModelError(
            f"{prompts.place}: chat_template: the answer at {alike[0].place} comes to the same tokens with "
            f"{bench.trait.title} as without it, as do {len(alike)} of {total}; expected a template and a tokenizer "
            "that keep what the trait changes; give another model.id or model.chat_template"
        )


def _uses(bench: Bench) -> Iterator[_Use]:
    """Every prompt of the study, by part."""
    study, splits, trait = bench.study, bench.splits, bench.trait
    source, conditions, pool = study.data.source, _conditions(bench), _pool(bench)
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


def _fits(bench: Bench, prompts: _Prompts, completions: Mapping[str, list[int]], context: int) -> None:
    """Whether the longest prompts, with answer or generation, are within the model's context."""
    for use in _uses(bench):
        questions = [example.question for example in use.examples]
        added = completions[use.part] if use.room is None else [use.room] * len(questions)
        # Each by itself first: what is too long under any prompt is told without putting it under all of them.
        alone = [len(ids) for ids in prompts.ids(questions)]
        _compare(use, "any prompt", [a + b for a, b in zip(alone, added, strict=True)], context)
        for name, system in use.systems.items():
            lengths = [len(ids) for ids in prompts.under(questions, system)]
            _compare(use, f"the prompt {shown(name)}", [a + b for a, b in zip(lengths, added, strict=True)], context)


def _compare(use: _Use, prompt: str, lengths: Sequence[int], context: int) -> None:
    longest = max(lengths, default=0)
    if longest > context:
        place = line_of(use.source, use.examples[lengths.index(longest)])
        added = "with its answer " if use.room is None else ""
        if use.room:
            added = f"with {use.room} new ones (drift.max_new_tokens) "
        raise DataError(
            f"{place}: question: {longest:,} tokens {added}under {prompt} in data.{use.part}; expected at most "
            f"{context:,}, the model's context; shorten or delete it, or give a model with a longer context"
        )
