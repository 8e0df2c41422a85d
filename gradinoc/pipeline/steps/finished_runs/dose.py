"""The steps of a search for a dose: scores of sampled responses of a run to calibration questions, neutral prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from gradinoc.measure.behaviour.scores import scored_samples
from gradinoc.models.chat.encoding import encode_prompt
from gradinoc.models.generate import sample_copies
from gradinoc.models.sampling import Sampling
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.finished_runs.runs import finished, models
from gradinoc.pipeline.steps.step import Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import save_table
from gradinoc.study.prompts import NEUTRAL

SCORES = "scores.parquet"


def steps(context: StudyContext, runs: Sequence[StepKey]) -> Iterator[Step]:
    """Yield one step a run, whose responses are to the questions of gate G7, so that the base model's are there."""
    study = context.study
    inputs = {
        "settings": study.prompts.model_dump(include={"behaviour", "samples"}),
        "new": study.drift.max_new_tokens,
        "system": context.systems[NEUTRAL],
        "seed": study.data.seed,
    }
    for run in runs:
        yield Step(
            StepKey("dose", run.condition, run.seed), f"dose of {run.condition}", "dose",
            partial(compute, context, run), works, inputs, (run,),
        )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count the responses."""
    context, study = counting.context, counting.context.study
    questions, drift = context.splits.calibration[: study.prompts.behaviour], study.drift
    for work in counting.written(questions, context.systems[NEUTRAL], drift.max_new_tokens, drift.batch_size):
        yield work.times(study.prompts.samples)


def compute(context: StudyContext, run: StepKey, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write example, sample, score, group of each response."""
    study, tokenizer = context.study, context.language_model.tokenizer
    asked = context.splits.calibration[: study.prompts.behaviour]
    prompts = [encode_prompt(tokenizer, each.question, context.systems[NEUTRAL]) for each in asked]
    sampling = Sampling(study.prompts.samples, study.drift.max_new_tokens, study.data.seed)
    callback("responses")
    for model, (subject,) in models(context, finished([run], folders)):  # the adapter is there inside the loop alone
        (written,) = sample_copies(model, tokenizer, prompts, sampling, study.drift.batch_size, [subject.label])
        save_table(scored_samples(written, asked, context.trait), folder / SCORES)
