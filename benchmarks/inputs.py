"""What every job works on: the bundled model, and questions and answers as tokens, written for the workers to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.workers import Sample
from gradinoc.data.examples import Example, showing
from gradinoc.data.splits import split
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.models.chat.encoding import encode
from gradinoc.models.chat.template import render_prompt
from gradinoc.models.sources.locate import locate
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.loading import load_study

MODEL = "smollm2-135m-instruct"
STYLE = "Follow the style guide; answer directly and concisely."


@dataclass(frozen=True)
class Setting:
    """A run of benchmarks: scratch folder, repetitions (0: as many as the job asks for), data, where log lines go.

    The job `study` computes the study called `study` with the settings `changes`.
    """

    scratch: Path
    repetitions: int = 0
    data: str = ""
    log: Callable[[str], None] = lambda _: None
    study: str = "smollm2"
    changes: tuple[str, ...] = ()

    def times(self, own: int) -> int:
        """How many repetitions a job makes that asks for `own`."""
        return self.repetitions or own

    def log_sample(self, sample: Sample) -> None:
        """Report a sample as it comes."""
        self.log(
            f"  {sample.setting:<14} {sample.side:<18} {sample.repetition or 'warm-up':>8}  {sample.seconds:8.3f} s"
        )

    @cached_property
    def context(self) -> StudyContext:
        """The model's tokenizer and the questions, those of `data` if given."""
        sizes = ["data.direction=250", "data.measure=32", "data.train=200", "data.evaluation=48"]
        study = load_study("smollm2", [*sizes, *([f"data.source={self.data}"] if self.data else [])])
        return StudyContext(study, split(study.data))

    @property
    def model(self) -> str:
        """The folder that holds the model's files."""
        return str(locate(MODEL)[0])

    def alignment_work(self, questions: int, directions: int) -> tuple[str, int]:
        """The folder of the alignment job's work, and how many examples it holds: `questions` under three prompts."""
        systems = (None, self.context.trait.inoculation_system, STYLE)
        examples = [
            pair for system in systems for pair in self.encoded(self.context.splits.measure[:questions], system)
        ]
        folder = self.scratch / "alignment"
        folder.mkdir(exist_ok=True)
        self._write(folder / "examples.json", {"examples": examples, "pad": self.context.pad})
        config = self.context.language_model.model.config
        shape = (config.num_hidden_layers, 1, config.hidden_size)
        trait = torch.nn.functional.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(1)), dim=-1)
        random = isotropic_directions(directions - 1, config.hidden_size, 0)
        rows = torch.cat([trait, random.expand(len(trait), -1, -1)], dim=1)
        np.save(folder / "directions.npy", rows.numpy())
        return str(folder), len(examples)

    def encoded(self, examples: Sequence[Example], system: str | None) -> list[tuple[list[int], int]]:
        """Each example as token ids and how many of them are prompt."""
        tokenizer, trait = self.context.tokenizer, self.context.trait
        found = [encode(tokenizer, each.question, showing(each, trait), system) for each in examples]
        return [(list(each.ids), each.prompt_length) for each in found]

    def prompts(self, count: int, name: str) -> str:
        """A file of `count` questions, and as rendered under the promoting and the suppressing system prompt."""
        trait, tokenizer = self.context.trait, self.context.language_model.tokenizer
        questions = [example.question for example in self.context.splits.direction[:count]]
        sides = {"promote": trait.promote_system, "suppress": trait.suppress_system}
        content: dict[str, Any] = {"questions": questions}
        for side, system in sides.items():
            content |= {f"{side}_system": system, side: [render_prompt(tokenizer, q, system) for q in questions]}
        return self._write(self.scratch / name, content)

    def training_work(self, name: str, shortest: int = 0) -> str:
        """A file of training examples, without a system prompt; with `shortest`, so many of them, the shortest."""
        examples = self.encoded(self.context.splits.train, None)
        if shortest:
            examples = sorted(examples, key=lambda example: len(example[0]))[:shortest]
        return self._write(self.scratch / name, {"examples": examples})

    @staticmethod
    def _write(path: Path, content: Any) -> str:
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)
