"""`gradinoc doctor MODEL`: whether a model is fit for a study, and what it reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gradinoc.cli.output import say_table
from gradinoc.cli.plan import PROMPTS
from gradinoc.data.splits import split
from gradinoc.errors import printable
from gradinoc.measure.load import LanguageModel
from gradinoc.pipeline.check import check
from gradinoc.pipeline.context import Bench
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study


def examine_model(model: str, study: str, settings: Sequence[str]) -> None:
    """Print what the self-tests of a model came to, what was noted of it, and the prompts of a study as it reads them.

    The model is loaded as the study would load it, in both dtypes if directions are found in another one.

    Raises:
        GradinocError: it cannot be used; the message says why and what to do.
    """
    described = with_model(load_study(study, list(settings)), model)
    noted = check(described)
    bench = Bench(described, split(described.data))
    loaded = bench.language_model
    _say(bench, loaded, noted)
    if bench.extraction_is_apart:
        _say_self_tests(bench.extraction_model(), "As directions are found")
    sys.stdout.write(f"\n{PROMPTS}\n\n")
    say_table(("prompt or tokens", "as the model reads it"), bench.rendered(loaded.tokenizer).rows())
    sys.stdout.write("\nThe model is fit for a study.\n")


def with_model(study: Study, model: str) -> Study:
    """The study with another model, and as many threads as the machine has."""
    return study.model_copy(update={"model": study.model.model_copy(update={"id": model, "threads": 0})})


def _say(bench: Bench, loaded: LanguageModel, noted: Sequence[str]) -> None:
    sys.stdout.write(f"{printable(loaded.name)}, fingerprint {bench.fingerprint[:16]}\n\n")
    notes = dict.fromkeys([*noted, *loaded.notes])
    say_table(("", "noted"), [[str(place), note] for place, note in enumerate(notes, start=1)])
    _say_self_tests(loaded, "As gradients are measured")


def _say_self_tests(loaded: LanguageModel, when: str) -> None:
    sys.stdout.write(f"\n{when}\n\n")
    say_table(("self-test", "came to"), [list(each) for each in loaded.tried.items()])
