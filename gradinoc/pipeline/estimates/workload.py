"""What a study asks of its model: its own questions and answers, under its own prompts, counted step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.measure.training.run import EARLY, data_order
from gradinoc.models.chat.encoding import Encoded, encode, encode_prompt
from gradinoc.pipeline.context import Bench
from gradinoc.pipeline.estimates.passes import (
    Tokens,
    Work,
    answers_learned,
    answers_scored,
    by_length,
    prompts_read,
    responses_written,
)
from gradinoc.pipeline.steps.matched import BATCH as MATCHED_BATCH
from gradinoc.pipeline.steps.pool import BATCH as POOL_BATCH
from gradinoc.study.prompts import HARMLESS, INOCULATION, MATCHED, NEUTRAL

MEASURED = 8  # examples whose gradients are measured in one pass
LOOKS = 3  # checkpoints whose loss is taken until one is found at inoculation's: about; it depends on the losses

DIRECTIONS, UNRELATED_TRAITS, POOL, GRADIENTS = "directions", "unrelated traits", "prompt pool", "gradients"
BASE, RUNS, MATCHED_RUNS = "drift of the base model", "training runs", "matched checkpoints"
EARLY_DRIFT, DRIFT = "early drift", "drift"


@dataclass(frozen=True)
class Workload:
    """Everything that a study asks of its model.

    What nobody knows beforehand is taken for granted: that every response is as long as it may be, that a prompt still
    to be chosen is as long as inoculation's, and `LOOKS`.
    """

    bench: Bench
    tokenizer: PreTrainedTokenizerBase

    @property
    def packed(self) -> bool:
        """Whether batches are packed: by the study's own kernels, if the model takes them."""
        return self.bench.study.model.kernels == "fused"

    @property
    def trained(self) -> list[str]:
        """Conditions under which runs are trained."""
        study = self.bench.study
        return [condition for condition in study.conditions if condition not in study.untrained]

    def works(self) -> Iterator[tuple[str, Work]]:
        """(stage, work) of every step, in the order of a study."""
        study = self.bench.study
        yield from self._directions()
        if MATCHED in study.conditions.values():
            yield POOL, self._pool()
        for condition in study.conditions:
            examples = self._encoded(self.bench.splits.measure, self._system(condition))
            yield GRADIENTS, answers_learned(by_length(examples, MEASURED), self.packed)
        for work in self._drift(1, adapted=False):
            yield BASE, work
        for condition in self.trained:
            for seed in study.seeds:
                yield from ((RUNS, work) for work in self._run(condition, seed))
        for stage, works in (
            (MATCHED_RUNS, self._matched()),
            (EARLY_DRIFT, self._drift(len(self.trained), everyday=False)),
            (DRIFT, self._drift(len(self.trained))),
        ):
            yield from ((stage, work.times(len(study.seeds))) for work in works)

    def _directions(self) -> Iterator[tuple[str, Work]]:
        trait, questions = self.bench.trait, self.bench.splits.direction
        few = questions[: self.bench.study.nulls.unrelated_questions]
        sides = [(DIRECTIONS, questions, side) for side in (trait.promote_system, trait.suppress_system)]
        sides += [(UNRELATED_TRAITS, few, side) for contrast in trait.unrelated.values() for side in contrast]
        for stage, asked, system in sides:
            yield stage, prompts_read(self._prompts(asked, system), self.packed, extraction=True)

    def _pool(self) -> Work:
        """Losses of the calibration answers under every candidate and every prompt of the study."""
        conditions = self.bench.study.conditions
        systems = [*(self._system(name) for name, text in conditions.items() if text != MATCHED), *HARMLESS]
        # The candidates differ by a few tokens: one of middling length stands for all.
        middling = sorted(systems, key=lambda text: len(text or ""))[len(systems) // 2]
        encoded = self._encoded(self.bench.splits.calibration, middling)
        return answers_scored(encoded, POOL_BATCH, self.packed).times(len(systems))

    def _run(self, condition: str, seed: int) -> Iterator[Work]:
        """Every step of a run, and its first examples once more at the end."""
        training, examples = self.bench.study.training, self.bench.splits.train
        rows, size = data_order(len(examples), training, seed), training.batch_size
        met = self._encoded([examples[row] for row in rows], self._system(condition))
        batches = [met[start : start + size] for start in range(0, len(met), size)]
        learned = answers_learned(batches, self.packed, adapted=True, trains=True)
        yield learned
        if training.gradient_checkpointing:  # each block once more, on the way back
            yield Work(learned.tokens, learned.pairs, 0, learned.passes, learned.longest, adapted=True)
        early = [example for batch in batches[: max(1, round(EARLY * len(batches)))] for example in batch]
        yield answers_scored(early, size, self.packed, adapted=True)

    def _matched(self) -> Iterator[Work]:
        examples = self._encoded(self.bench.splits.measure, self._system(NEUTRAL))
        yield answers_scored(examples, MATCHED_BATCH, self.packed, adapted=True).times(LOOKS)
        yield answers_learned(by_length(examples, MATCHED_BATCH), self.packed, adapted=True)

    def _drift(self, copies: int, *, adapted: bool = True, everyday: bool = True) -> Iterator[Work]:
        """Responses, projections and log-odds of so many models, in one pass over all."""
        splits, settings, system = self.bench.splits, self.bench.study.drift, self._system(NEUTRAL)
        parts = [splits.evaluation[: settings.generations]]
        if everyday:
            parts.append(splits.everyday[: settings.everyday])
        asked = [self._prompts(part, system) for part in parts]
        for prompts in asked:
            for work in responses_written(prompts, settings.max_new_tokens, settings.batch_size, adapted):
                yield work.together(copies)
        every = [prompt for prompts in asked for prompt in prompts]
        yield prompts_read(every, self.packed, adapted=adapted).together(copies)
        scored = splits.evaluation[: settings.log_odds]
        answers = [
            encode(self.tokenizer, example.question, answer, system)
            for example in scored
            for answer in (showing(example, self.bench.trait), example.answer)
        ]
        rows = max(1, settings.batch_size // copies)
        yield answers_scored(answers, rows, self.packed, adapted).together(copies)

    def _system(self, condition: str) -> str | None:
        chosen = self.bench.study.conditions[condition] == MATCHED
        return self.bench.system(INOCULATION if chosen else condition)

    def _prompts(self, examples: Iterable[Example], system: str | None) -> list[Tokens]:
        return [tuple(encode_prompt(self.tokenizer, each.question, system)) for each in examples]

    def _encoded(self, examples: Iterable[Example], system: str | None) -> list[Encoded]:
        trait = self.bench.trait
        return [encode(self.tokenizer, each.question, showing(each, trait), system) for each in examples]
