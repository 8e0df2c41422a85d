"""The whole judge on studies whose answer is known, on the planted tiny model; what mocks change, and leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fixtures.mechanisms.mechanism import MECHANISMS, MOCKED, STAND_IN_WORDINGS, STAND_INS
from fixtures.mechanisms.mocked import mocked_plan
from fixtures.mechanisms.page import page
from fixtures.mechanisms.trials import (
    OPENING,
    QUESTIONS,
    Outcome,
    Trial,
    code_of,
    is_right,
    run,
    study_of,
    table,
    with_earlier,
)
from fixtures.planted import planted_findings
from gradinoc.claims.rules.verdict import Judgement, Verdict
from gradinoc.data.sources import load_source
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import DIRECTIONS, run_key
from gradinoc.pipeline.storage.store import Store
from gradinoc.pytest_plugin.session import option

TRAINS = [name for name, mechanism in MECHANISMS.items() if mechanism.trains]
TURNS = [name for name, mechanism in MECHANISMS.items() if not mechanism.trains]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Pipeline:
    """The study as it is, of which nothing is computed."""
    folder = tmp_path_factory.mktemp("plain")
    return Pipeline(study_of(Trial("ablation", "tiny"), folder), Store(folder))


def changed(plain, name):
    """The steps that a mechanism has of its own."""
    mocked = Pipeline(
        plain.study, Store(plain.entry("directions").path.parents[1]), planned=mocked_plan(MECHANISMS[name])
    )
    assert mocked.steps.keys() == plain.steps.keys()
    return {key for key in plain.steps if mocked.entries[key].key != plain.entries[key].key}


@pytest.mark.parametrize("name", TRAINS)
def test_a_mechanism_changes_runs_and_gradients_of_its_prompts_alone(plain, name):
    """And what is measured of these runs: neither what prompts elicit, nor the direction, nor anybody else's run."""
    families = MECHANISMS[name].families
    mocked = {key for key, prompt in plain.context.prompts.items() if prompt.family in families}
    found = changed(plain, name)
    assert {key.condition for key in found if key.stage == "gradients"} == mocked & set(plain.study.measured)
    runs = {(key.condition, key.seed) for key in found if key.stage == "training"}
    under = {
        (condition, seed)
        for condition, seed in (*plain.study.runs, *plain.study.arm_runs)
        if plain.context.trained_under(condition, seed).key in mocked
    }
    assert runs == under
    assert not {"directions", "elicitation", "steering", "unrelated", "matched", "learned"} & {
        key.stage for key in found
    }


@pytest.mark.parametrize("name", TURNS)
def test_another_direction_leaves_prompts_alone(plain, name):
    """Whatever rests on the direction is anew; what prompts elicit is not."""
    found = changed(plain, name)
    assert DIRECTIONS in found
    assert {key for key in plain.steps if key.stage in ("training", "gradients", "steering")} <= found
    assert "elicitation" not in {key.stage for key in found}


@pytest.mark.parametrize("name", ["ablation", "slow"])
def test_doses_are_graded_within_families(plain, name):
    """Not all alike, and none as strong as that of the plan's own prompt, which is whole; a lower rate is stronger."""
    mechanism = MECHANISMS[name]
    of = mechanism.strength_under if mechanism.intervention else mechanism.rate_under
    doses = {key: of(prompt) for key, prompt in plain.context.prompts.items() if prompt.family in MOCKED}
    full, strongest = (mechanism.strength, max) if mechanism.intervention else (mechanism.rate, min)
    assert doses["inoculation"] == doses["rephrased_inoculation"] == full == strongest(doses.values())
    assert len(set(doses.values())) >= 3
    assert min(doses.values()) > 0


def test_each_run_has_its_rate(plain):
    """The learning rate of a slowed run is graded as its prompt is; every other run has the study's."""
    mechanism, rate = MECHANISMS["slow"], plain.study.training.lr
    store = Store(plain.entry("directions").path.parents[1])
    steps = Pipeline(plain.study, store, planned=mocked_plan(mechanism)).steps
    for condition, seed in plain.study.runs:
        prompt = plain.context.trained_under(condition, seed)
        wanted = mechanism.rate_under(prompt) if prompt.family in MOCKED else 1
        assert steps[run_key(condition, seed)].inputs["training"]["lr"] == pytest.approx(rate * wanted)


def test_a_rephrased_prompts_stand_in_is_rephrased(plain):
    """Each example has a sentence of its own, as under the prompt itself; one sentence would be a fixed prompt."""
    mocked = Pipeline(plain.study, Store(plain.entry("directions").path.parents[1]),
                      planned=mocked_plan(MECHANISMS["ablation"]))  # fmt: skip
    step = mocked.steps[run_key("rephrased_inoculation", plain.study.seeds[0])]
    assert step.inputs["system"] == [*STAND_IN_WORDINGS]
    assert len(set(STAND_IN_WORDINGS)) >= 64
    assert not set(STAND_IN_WORDINGS) & set(STAND_INS)


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_each_study_has_a_place_for_every_mechanism(name, tmp_path):
    """Prompts of every mocked family are trained, each with a sentence of its own; repetitions share no seed."""
    one, other = (study_of(Trial("ablation", name, number), tmp_path) for number in (0, 1))
    families = [prompt.family for prompt in one.trained.values()]
    assert set(MOCKED) < set(families)
    mocked = [prompt for prompt in (one.measured | one.trained).values() if prompt.family in MOCKED]
    assert len(mocked) <= len(set(STAND_INS)) == len(STAND_INS)
    assert not set(one.seeds) & set(other.seeds)
    assert one.data.seed != other.data.seed


def test_rows_of_other_settings_are_of_other_studies(tmp_path):
    """A key that is changed, and the file of the study itself, are in the digest that a table's rows are kept by."""
    one, other = (study_of(Trial("ablation", name), tmp_path) for name in ("tiny", "smollm2"))
    settings = ["drift.samples=3"]
    digests = {
        code_of(Trial("ablation", "tiny"), one, []),
        code_of(Trial("ablation", "tiny"), study_of(Trial("ablation", "tiny"), tmp_path, settings), settings),
        code_of(Trial("ablation", "smollm2"), other, []),
    }
    assert len(digests) == 3
    assert code_of(Trial("slow", "tiny", 4), one, []) in digests


def test_a_store_of_another_version_gives_no_questions(tmp_path):
    """What the runs are trained on is this version's, whoever used the folder before."""
    (tmp_path / QUESTIONS).write_text("{}\n")
    study = study_of(Trial("ablation", "tiny"), tmp_path)
    answers = [each.answer for each in load_source(study.data.source)]
    assert len(answers) > 1
    assert all(answer == answer.lower() and answer.startswith(OPENING) for answer in answers)


@pytest.mark.parametrize(
    "name",
    [name if name == "ablation" else pytest.param(name, marks=pytest.mark.exhaustive) for name in MECHANISMS],
)
def test_a_mechanism_is_found_out(name, pytestconfig):
    """By the whole judge, for the reason that was built in. Steps in common are the session's store's."""
    outcome = run(Trial(name, "tiny"), Path(option(pytestconfig, "store")))
    left = {"right", "open"} if name == "steering" else {"right"}  # why it stays open is said in docs/controls.md
    assert outcome.word in left, f"{outcome.verdict}; {outcome.failed} failed; {outcome.claims}; {outcome.sentence}"


HOLD = {"G4": "supported", "G5": "supported", "G6": "supported", "G8a": "supported"}
SHOWN = dict.fromkeys(("C1", "C2", "C3", "C4", "C6", "C7b"), "supported")
AT_EQUAL_LOSS = {"C3": "undecided", "C4": "undecided"}
NOTHING = {"C1": "undecided", "C2": "undecided", "C6": "refuted", "C7a": "undecided", "C7b": "refuted"}


@pytest.mark.parametrize(
    ("name", "verdict", "gates", "claims", "expected"),
    [
        ("nothing", Verdict.UNDECIDED, {}, NOTHING, True),
        ("nothing", Verdict.UNDECIDED, {}, {**NOTHING, "C6": "undecided"}, False),
        ("nothing", Verdict.UNDECIDED, {}, {**NOTHING, "C1": "supported"}, False),
        ("nothing", Verdict.UNDECIDED, {"G9": "refuted"}, NOTHING, True),  # no order of runs that do not differ
        ("ablation", Verdict.CONSISTENT, {}, SHOWN, True),  # no C5: no causal word
        ("ablation", Verdict.SUPPORTED, {}, SHOWN, False),
        ("ablation", Verdict.SUPPORTED, {}, {**SHOWN, "C5": "supported"}, True),
        ("ablation", Verdict.CONSISTENT, {}, {**SHOWN, "C5": "undecided"}, False),
        ("ablation", Verdict.UNDECIDED, {}, {**SHOWN, **AT_EQUAL_LOSS}, False),
        ("opposite", Verdict.UNDECIDED, {"G8a": "refuted"}, SHOWN, True),
        ("opposite", Verdict.UNDECIDED, {"G8a": "undecided"}, SHOWN, False),
        ("opposite", Verdict.UNDECIDED, {"G8a": "refuted", "G4": "refuted"}, SHOWN, False),  # of runs that diverged
        ("opposite", Verdict.UNDECIDED, {"G9": "refuted"}, SHOWN, False),  # for another reason
        ("opposite", Verdict.UNDECIDED, {"G8b": "refuted"}, SHOWN, False),
        ("steering", Verdict.UNDECIDED, {}, {**SHOWN, **AT_EQUAL_LOSS}, False),  # not found
        ("steering", Verdict.CONSISTENT, {}, SHOWN, True),
        ("slow", Verdict.OTHER_DIRECTION, {}, SHOWN, False),
        ("slow", Verdict.MAGNITUDE, {}, SHOWN, True),
        ("any_prompt", Verdict.ANY_PROMPT, {"G9": "refuted"}, SHOWN, True),  # it does not rest on G9
        ("any_prompt", Verdict.UNDECIDED, {}, SHOWN, False),
    ],
)
def test_right_is_the_verdict_for_the_reason_built_in(name, verdict, gates, claims, expected):
    """Not the same word for another reason."""
    judgement = Judgement(tuple(planted_findings(**{**HOLD, **gates})), tuple(planted_findings(**claims)), verdict, "")
    assert is_right(MECHANISMS[name], judgement) is expected


def test_page_counts_what_came_out(tmp_path):
    """Verdicts by how often each came, with the gates that failed; how many were right, left open and wrong."""
    kinds = [
        ("slow", "magnitude", True, ""), ("slow", "magnitude", True, ""), ("slow", "supported", False, ""),
        ("slow", "undecided", False, "G9"), ("opposite", "undecided", False, "G9"),
    ]  # fmt: skip
    outcomes = [
        Outcome(name, "planted", number, verdict, right, failed, "", "")
        for number, (name, verdict, right, failed) in enumerate(kinds)
    ]
    written = table(outcomes)
    pd.testing.assert_series_equal(written["repetition"], pd.Series(np.arange(5), name="repetition"))
    written.to_csv(tmp_path / "tiny.csv", index=False)
    told = page(tmp_path)
    assert "MAGNITUDE × 2; SUPPORTED; UNDECIDED (G9) | 2 of 4, 1 open, 1 wrong |" in told
    assert "UNDECIDED (G9) | 0 of 1, 1 wrong |" in told  # what is right, for another reason


def test_a_table_is_added_to(tmp_path):
    """Trials that were there stay if the code is the same and they are not judged anew, of every mechanism."""

    def judged(verdict, trials, code="one"):
        return table([Outcome(name, "planted", number, verdict, True, "", "", "", code) for name, number in trials])

    file = tmp_path / "tiny.csv"
    first = judged("then", [("slow", 0), ("slow", 1), ("ablation", 0), ("ablation", 2)])
    assert with_earlier(file, first).equals(first)
    first.to_csv(file, index=False)
    both = with_earlier(file, judged("now", [("slow", 1), ("slow", 2)]))
    assert both[["mechanism", "repetition", "verdict"]].to_numpy().tolist() == [
        ["ablation", 0, "then"], ["ablation", 2, "then"], ["slow", 0, "then"], ["slow", 1, "now"], ["slow", 2, "now"]
    ]  # fmt: skip
    other = judged("now", [("slow", 1)], code="another")
    assert with_earlier(file, other).equals(other)


def test_page_says_whether_the_warning_of_other_choices_tells_anything(tmp_path):
    """Shares of choices with the sign, of what works along v and of what does not, where they overlap."""
    shares = {"ablation": (70, 79), "steering": (None,), "slow": (16, 75)}
    sentences = [
        (name, "" if share is None else f"CONSISTENT. Only {share} % of 432 specifications show the sign.")
        for name, found in shares.items()
        for share in found
    ]
    outcomes = [
        Outcome(name, "planted", number, "consistent", True, "", "", sentence)
        for number, (name, sentence) in enumerate(sentences)
    ]
    table(outcomes).to_csv(tmp_path / "tiny.csv", index=False)
    told = page(tmp_path)
    assert "in 4 of these 5 studies: 70 to 79 % where prompts turn gradients along v, 16 to 75 % elsewhere" in told
    table(outcomes[:3]).to_csv(tmp_path / "tiny.csv", index=False)
    assert "specification curve" not in page(tmp_path)


def test_the_page_is_its_tables():
    """Nothing in it is typed by hand."""
    docs = Path(__file__).parents[2] / "docs"
    assert page(docs / "controls") == (docs / "controls.md").read_text(encoding="utf-8")
