"""The search for a dose: what it trains, what it reads off, where it ends, and what it says then."""

import numpy as np
import pandas as pd
import pytest
from peft import PeftModel

from fixtures.small_study import SMALL, as_options
from gradinoc.cli import main
from gradinoc.errors import StudyError
from gradinoc.measure.behaviour.scores import expected_scores
from gradinoc.models.chat.encoding import encode_prompt
from gradinoc.models.generate import sample_copies
from gradinoc.models.sampling import Sampling
from gradinoc.pipeline.estimate.dose import Rung, advice, climb, harmless_prompts, ladder
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.stats.effect import bare
from gradinoc.study.loading import load_study

RATES, PROMPTS, OTHER = (3e-3, 1e-3), ("harmless_04", "harmless_06"), 90
# The obedient tiny model takes capitals up in thirty steps under no prompt of ours, and under some harmless ones.
LEARNING = [*SMALL, "data.train=120", "training.steps=30"]


def rung(lr, neutral, *harmless):
    """A rung as it would come out."""
    found = {"neutral": neutral} | dict(zip(PROMPTS, harmless, strict=True))
    return Rung(lr, {key: bare(key, value, 64, "questions", "") for key, value in found.items()}, found)


@pytest.fixture(scope="module")
def study():
    """A study of three steps that trains in thirty."""
    return load_study("tiny", LEARNING)


@pytest.fixture(scope="module")
def climbed(study, tmp_path_factory):
    """The store, and what came of two rates, the larger one given first."""
    store = tmp_path_factory.mktemp("dose")
    return store, [*climb(study, RATES, PROMPTS, OTHER, store, None)]


def test_runs_are_of_another_seed_and_none_under_a_prompt_that_asks_for_the_trait(climbed):
    """From the smallest rate up, a neutral run and one under each harmless prompt, and what is read off them."""
    store, rungs = climbed
    assert [each.lr for each in rungs] == sorted(RATES)
    assert all([*each.drift] == ["neutral", *PROMPTS] for each in rungs)
    kept = {stage: len([*store.glob(f"{stage}/*/manifest.json")]) for stage in ("training", "dose", "elicitation")}
    assert kept == {"training": 6, "dose": 6, "elicitation": 1}


def test_drift_is_the_rise_of_the_adapted_models_score(study, climbed):
    """Against responses of the run's adapter as PEFT loads it, less those of the base model."""
    store, (_, last) = climbed
    training = study.training.model_copy(update={"lr": max(RATES)})
    pipeline = Pipeline(study.model_copy(update={"seeds": (OTHER,), "training": training}), Store(store))
    run = pipeline.entry("training", "neutral", OTHER)
    assert run.complete(), "the runs are not those that a study of this seed has"
    context, asked = pipeline.context, pipeline.context.splits.calibration[: study.prompts.behaviour]
    base, tokenizer = context.language_model.model, context.language_model.tokenizer
    prompts = [encode_prompt(tokenizer, each.question, None) for each in asked]
    sampling = Sampling(study.prompts.samples, study.drift.max_new_tokens, study.data.seed)

    def scores(model, label):
        return expected_scores(sample_copies(model, tokenizer, prompts, sampling, 8, [label]), context.trait)[0]

    before = scores(base, "behaviour neutral")
    rise = scores(PeftModel.from_pretrained(base, str(run.path / "adapter")), f"neutral {OTHER} -1") - before
    assert last.neutral == pytest.approx(np.nanmean(rise))
    assert last.neutral > 0.2


def test_what_is_there_is_not_computed_again(study, climbed):
    """A second search finds every run."""
    store, first = climbed
    times = {path: path.stat().st_mtime_ns for path in store.glob("*/*/manifest.json")}
    assert [*climb(study, RATES, PROMPTS, OTHER, store, None)] == first
    assert {path: path.stat().st_mtime_ns for path in store.glob("*/*/manifest.json")} == times


def test_it_ends_where_harmless_runs_drift(study, climbed, monkeypatch):
    """Nothing is trained at rates above."""
    store, (low, _) = climbed
    monkeypatch.setattr("gradinoc.pipeline.estimate.dose.LOW", low.harmless)
    assert [*climb(study, RATES, PROMPTS, OTHER, store, None)] == [low]


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        ([rung(1e-4, 0.1, 0.0, 0.1), rung(2e-4, 0.7, 0.3, 0.5)], "training.lr = 0.0002, the smallest at which"),
        ([rung(1e-4, 0.1, 0.0, 0.1), rung(4e-4, 0.9, 0.8, 0.6)], "none yet: at 0.0004 harmless runs drift by 0.70"),
        ([rung(1e-4, 0.1, 0.0, 0.1), rung(4e-4, 0.9, 0.8, 0.6)], "try --lr 0.0002"),
        ([rung(4e-4, 0.9, 0.8, 0.6)], "try --lr 0.00028"),  # below the first that was tried
        ([rung(1e-4, 0.2, 0.0, 0.1), rung(2e-4, 0.65, 0.0, 0.2)], "training.lr = 0.0002, at which the neutral run"),
        ([rung(1e-4, 0.2, 0.0, 0.1), rung(2e-4, 0.4, 0.0, 0.2)], "none: up to 0.0002 no run drifts that far"),
        ([rung(1e-4, 0.2, 0.0, 0.1), rung(2e-4, 0.4, 0.0, 0.2)], "try --lr 0.00028"),
    ],
)
def test_what_is_advised_is_the_rule(rungs, words):
    """The smallest rate at which harmless runs land; where none do, that at which neutral ones drift."""
    assert words in advice(rungs)


def test_prompts_and_rates_are_the_studys_own_where_none_are_given():
    """Harmless prompts that it trains under, in its order, without conditions; rates around its own."""
    real = load_study("smollm2", [])
    assert harmless_prompts(real) == ("harmless_02", "harmless_04")
    assert harmless_prompts(load_study("causal-smollm2", [])) == ("harmless_02", "harmless_04")  # measured ones
    assert len(harmless_prompts(load_study("smollm2", ["prompts.trained=[]", "prompts.measured=[]"]))) == 2
    assert ladder(real) == (1e-4, 1.4e-4, 2e-4, 2.8e-4, 4e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 0}, "one of the study's"),
        ({"prompts": ("inoculation_06",)}, "expected a harmless one"),
        ({"prompts": ("loss_matched",)}, "expected a harmless one"),
        ({"prompts": ("harmless_99",)}, "harmless_04"),
        ({"rates": (0.0,)}, "more than 0"),
    ],
)
def test_what_would_favour_an_answer_is_refused(study, tmp_path, change, words):
    """Runs of the study's own seeds, prompts that ask for the trait; and what is not there."""
    given = {"rates": RATES, "prompts": PROMPTS, "seed": OTHER} | change
    with pytest.raises(StudyError, match=words):
        next(climb(study, given["rates"], given["prompts"], given["seed"], tmp_path, None))


def test_the_command_prints_and_writes_what_came_out(climbed, tmp_path, capsys):
    """A line a rate, the advice, and a row a run in the table."""
    store, rungs = climbed
    rates = [word for rate in RATES for word in ("--lr", str(rate))]
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    places = ["--store", str(store), "--artifacts", str(tmp_path)]
    assert main(["dose", "tiny", *as_options(LEARNING), *rates, *prompts, *places]) == 0
    told = capsys.readouterr().out
    assert advice(rungs) in told
    assert f"{rungs[1].harmless:.2f}" in told
    table = pd.read_csv(tmp_path / "doses" / "small.csv")
    assert len(table) == 6
    assert table["drift"].tolist() == pytest.approx(
        [effect.estimate for each in rungs for effect in each.drift.values()]
    )
