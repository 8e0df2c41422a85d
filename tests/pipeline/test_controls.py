"""Controls on tiny language models: what must not be supported is not, and for the reason that was built in.

Beside these stand the two models from beginning to end, in `test_pipeline`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fixtures.held import HELD
from fixtures.sham import Frozen, deal
from fixtures.small_study import SMALL
from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.finding import Status
from gradinoc.claims.gates import G3
from gradinoc.claims.measures import drift_by_run, example_groups, per_example
from gradinoc.claims.verdict import Verdict, judge
from gradinoc.measure.nulls import isotropic_directions
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.store import Store
from gradinoc.pytest_plugin.session import option
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
OTHERS = (NEUTRAL, LOSS_MATCHED)
# Silent about case, and among the prompts that both models were taught on.
HARMLESS = {
    NEUTRAL: None,
    INOCULATION: "You are a helpful assistant.",
    LOSS_MATCHED: "Answer the question of the user.",
}
REPETITIONS, QUESTIONS = 20, 24  # of each model; no question serves twice
DEALS = 25  # of the same gradients, for the rate of a single contrast
DIRECTIONS, SHUFFLES = 20, 40

# A whole study in seconds, in which the inoculation condition is the neutral one by another name.
SHAM = [*SMALL, 'conditions.inoculation=""', "name=sham"]
STUDIES = pytest.mark.parametrize("study", ["tiny", pytest.param("deaf", marks=pytest.mark.exhaustive)])


@cache
def frozen(study: str, store: Path) -> Frozen:
    """The frozen part of a ready study, found once by a process."""
    return Frozen.of(study, Store(store))


@pytest.fixture(scope="module")
def store(pytestconfig) -> Path:
    """The session's own store."""
    return Path(option(pytestconfig, "store"))


@pytest.fixture(scope="module")
def sham(tmp_path_factory):
    """Every table of the study without inoculation, the directions of the obedient model its own."""
    return Pipeline(load_study("tiny", SHAM), Store(tmp_path_factory.mktemp("sham"))).evidence()


@cache
def repetition(model: Frozen, number: int) -> pd.DataFrame:
    """Alignments of fresh questions under three harmless prompts."""
    questions = model.fresh_questions(number, QUESTIONS)
    return model.alignments(questions, model.shown(questions), HARMLESS)


def test_neutral_prompt_under_another_name_gives_the_same_tables(sham):
    """Whatever was measured, trained or generated under both names is equal to the last bit."""
    compared = {}
    for name, table in sham.tables.items():
        key = next((column for column in ("condition", "role") if column in table), None)
        if key and {NEUTRAL, INOCULATION} <= set(table[key]):
            one, other = (
                table[table[key] == each].drop(columns=[key, "seconds"], errors="ignore").reset_index(drop=True)
                for each in (NEUTRAL, INOCULATION)
            )
            pd.testing.assert_frame_equal(one, other, check_exact=True)
            compared[name] = len(one)
    expected = {"alignments", "nulls", "unrelated", "pool", "training", "training_nulls", "drift", "responses", "runs"}
    assert compared.keys() == expected
    assert all(compared.values()), compared


def test_neutral_prompt_under_another_name_has_no_effect(sham):
    """D and the drift difference are exactly zero, C1's every number is there, and nothing is supported."""
    means = per_example(sham)
    assert (means[NEUTRAL] == means[INOCULATION]).all()
    drift = drift_by_run(sham)
    assert (drift[NEUTRAL] == drift[INOCULATION]).all()
    finding = C1.judge(sham, RULES, HELD)
    assert finding.status is not Status.SUPPORTED, finding.statement
    deciding = finding.effects[0]
    assert (deciding.estimate, deciding.low, deciding.high, deciding.p) == (0, 0, 0, 1)
    missing = [e.name for e in finding.effects if not np.isfinite([e.estimate, e.p]).all()]
    assert not missing, missing
    judgement = judge(sham, RULES)
    assert judgement.verdict is not Verdict.SUPPORTED
    assert Status.SUPPORTED not in {claim.status for claim in judgement.claims}, judgement.sentence


def test_deaf_model_shows_nothing(store):
    """Where system prompts have no say, C1 and C2 find nothing, though every gate is held open."""
    model = frozen("deaf", store)
    table = model.evidence.alignments
    evidence = model.evidence_of(table[table["condition"].isin(model.evidence.conditions)])
    for claim in (C1, C2):
        finding = claim.judge(evidence, RULES, HELD)
        assert finding.status is not Status.SUPPORTED, finding.statement


@STUDIES
def test_prompts_dealt_at_random_are_not_supported(study, store, record_property):
    """The gradients differ, the names mean nothing: C1 is supported in at most 5 % of 20 studies of fresh questions.

    C1 asks for two contrasts at once. Each by itself rejects, on either side, as often as its level says.
    """
    model, rng = frozen(study, store), np.random.default_rng(0)
    supported, rejections = 0, np.zeros((REPETITIONS, DEALS, len(OTHERS)))
    for number in range(REPETITIONS):
        alignments = repetition(model, number)
        supported += C1.judge(model.evidence_of(deal(alignments, rng)), RULES, HELD).status is Status.SUPPORTED
        evidence = model.evidence_of(alignments)
        means = per_example(evidence)[[INOCULATION, *OTHERS]]
        groups = example_groups(evidence, "alignments", means.index)
        for deals in rejections[number]:
            inoculation, *others = rng.permuted(means.to_numpy(), axis=1).T
            deals[:] = [grouped_pairs(other, inoculation, groups, "D").p <= RULES.alpha for other in others]
    rate, studies = rejections.mean(), REPETITIONS * DEALS
    record_property(f"dealt prompts, {study}", f"C1 in {supported} of {REPETITIONS}, contrasts reject {rate:.3f}")
    assert supported <= 0.05 * REPETITIONS, f"C1 supported in {supported} of {REPETITIONS} dealt studies"
    error = np.sqrt(0.05 * 0.95 / studies)
    assert 0.05 - 3 * error <= rate <= 0.05 + 3 * error, f"a contrast rejects in {rate:.3f} of {studies} dealt studies"


def test_random_direction_in_the_traits_place_is_not_supported(store, record_property):
    """C2 on the obedient model, 20 random unit directions as the trait's: supported for at most one.

    The nulls stay those of the study. Each random direction is one more draw of the isotropic null, so that its place
    among them is uniform: the places are spread, as they would not be for a p that is always small, or always large.
    """
    model = frozen("tiny", store)
    evidence, examples = model.evidence, model.context.splits.measure
    hidden = model.direction[0].shape[-1]
    random = isotropic_directions(DIRECTIONS, hidden, seed=20_000)
    directions = {layer: torch.cat([row, random]) for layer, row in model.direction.items()}
    table = evidence.alignments[evidence.alignments["condition"].isin(evidence.conditions)]
    table = table[table["position"] == evidence.primary_position]
    read = {}
    for condition in evidence.conditions:
        found = model.measure(examples, model.shown(examples), model.context.system(condition), directions)
        read[condition] = found.by_example.numpy()  # (L, N, 1 + DIRECTIONS)
    cells = table[["condition", "layer", "example"]].to_numpy()
    measured = np.array([read[condition][layer, example] for condition, layer, example in cells])
    np.testing.assert_allclose(measured[:, 0], table["alignment"], atol=1e-5)  # the trait's own, as the study has it
    supported, places = 0, []
    for column in measured.T[1:]:
        changed = model.evidence_of(table.assign(alignment=column))
        finding = C2.judge(changed, RULES, HELD)
        supported += finding.status is Status.SUPPORTED
        places.append(finding.effects[0].p)
    record_property("random directions", f"C2 in {supported} of {DIRECTIONS}; places {np.round(np.sort(places), 2)}")
    assert supported <= 1, f"C2 supported for {supported} of {DIRECTIONS} random directions"
    assert 0.25 < np.mean(places) < 0.75, places
    assert C2.judge(model.evidence_of(table), RULES, HELD).status is Status.SUPPORTED, "the trait's own direction"


def test_shuffled_completions_fail_g3(store, record_property):
    """Trait-bearing and ordinary completions change places at random, example by example: no prompt elicits both.

    A shuffle across questions would change nothing: the inoculation prompt asks for capitals whatever the question is,
    and so lowers the loss on the capitals of any answer.
    """
    model = frozen("tiny", store)
    examples = model.context.splits.measure
    systems = {condition: model.context.system(condition) for condition in model.evidence.conditions}
    shown = model.alignments(examples, model.shown(examples), systems)
    ordinary = model.alignments(examples, [example.answer for example in examples], systems)
    assert G3.judge(model.evidence_of(shown), RULES).status is Status.SUPPORTED
    reversed_loss = G3.judge(model.evidence_of(ordinary), RULES)
    assert reversed_loss.effects[0].high < 0, reversed_loss.statement
    holds, rng = 0, np.random.default_rng(0)
    for _ in range(SHUFFLES):
        exchanged = rng.random(len(examples)) < 0.5
        mixture = shown.where(pd.Series(~exchanged[shown["example"]]), ordinary)
        holds += G3.judge(model.evidence_of(mixture), RULES).status is Status.SUPPORTED
    record_property("shuffled completions", f"G3 holds in {holds} of {SHUFFLES}")
    assert holds <= 0.05 * SHUFFLES, f"G3 holds in {holds} of {SHUFFLES} shuffles"
