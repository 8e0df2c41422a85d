"""Controls on tiny language models: what must not be supported is not, and for the reason that was built in.

Beside these stand the two models from beginning to end, in `test_pipeline`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fixtures.held import HELD
from fixtures.small_study import SMALL
from gradinoc.claims.c1 import C1, family_contrast
from gradinoc.claims.evidence.measures import drift_by_question, per_example
from gradinoc.claims.evidence.tables import FIXED, MEASURES, Evidence
from gradinoc.claims.gates.prompts import G3
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.pytest_plugin.session import option
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
DEALS, SHUFFLES = 400, 40
SAMPLED = ("expected_score",)  # its noise is the run's own, and so is that of the table `behaviour`
OF_OWN = ("attribution", "lengths", "modules")  # that have rows under the own prompt as well


@pytest.fixture(scope="module")
def obedient(pytestconfig) -> Evidence:
    """Every table of the ready study `tiny` on the frozen model, from the session's own store."""
    pipeline = Pipeline(load_study("tiny"), Store(Path(option(pytestconfig, "store"))))
    return pipeline.evidence("directions", "unrelated", "gradients")


@pytest.fixture(scope="module")
def sham(tmp_path_factory) -> Evidence:
    """Every table of a whole study in seconds, in which inoculation is the neutral condition by another name.

    A study file with two names for one prompt is refused, so that it is made behind the check's back.
    """
    study = load_study("tiny", [*SMALL, "name=sham"])
    study = study.model_copy(update={"conditions": {**study.conditions, INOCULATION: study.conditions[NEUTRAL]}})
    return Pipeline(study, Store(tmp_path_factory.mktemp("sham"))).evidence()


def test_neutral_prompt_under_another_name_gives_the_same_tables(sham):
    """What was measured, trained or generated under both names is equal to the last bit, samples apart."""
    compared = {}
    for name, table in sham.tables.items():
        if name in ("prompts", "behaviour") or not {NEUTRAL, INOCULATION} <= set(table.get("condition", ())):
            continue
        rows = table[~table["measure"].isin(SAMPLED)] if "measure" in table else table
        if name in OF_OWN:
            rows = rows[rows["evaluation"] == NEUTRAL]
        one, other = (
            rows[rows["condition"] == each]
            .drop(columns=["condition", "seconds"], errors="ignore")
            .reset_index(drop=True)
            for each in (NEUTRAL, INOCULATION)
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        compared[name] = len(one)
    assert compared.keys() == {
        "alignments", "losses", "nulls", "unrelated", "elicitation", "training", "training_nulls", "drift",
        "checkpoints", "matrix", "responses", "cells", "runs", "shares", "share_nulls", "kernel", *OF_OWN,
    }  # fmt: skip
    assert all(compared.values()), compared


def test_neutral_prompt_under_another_name_has_no_effect(sham):
    """The plan's contrast and drift are exactly equal, and nothing is supported."""
    means = per_example(sham)
    assert (means[NEUTRAL] == means[INOCULATION]).all()
    for measure in set(MEASURES) & set(sham.drift["measure"]) - set(SAMPLED):
        drift = drift_by_question(sham, measure)
        assert (drift[NEUTRAL] == drift[INOCULATION]).all(axis=None)
    contrast = C1.judge(sham, RULES, HELD)["alignment.neutral"]
    assert (contrast.estimate, contrast.low, contrast.high, contrast.p) == (0, 0, 0, 1)
    judgement = judge(sham, RULES)
    assert judgement.verdict is Verdict.UNDECIDED
    assert Status.SUPPORTED not in {claim.status for claim in judgement.claims}, judgement.sentence


def test_families_dealt_at_random_differ_as_rarely_as_their_level_says(obedient, record_property):
    """The gradients are those of a real model, the families' names mean nothing: 5 % of deals, either side counted."""
    rng, prompts = np.random.default_rng(0), obedient.prompts
    members = prompts["kind"].eq(FIXED) & prompts["family"].isin(["harmless", "inoculation"])
    rejected = 0
    for _ in range(DEALS):
        dealt = prompts["family"].where(
            ~members, pd.Series(rng.permutation(prompts["family"][members]), prompts.index[members])
        )
        found = family_contrast(replace(obedient, prompts=prompts.assign(family=dealt)), RULES)
        rejected += found.low > 0 or found.high < 0
    record_property("families dealt at random", f"rejected in {rejected} of {DEALS}")
    assert family_contrast(obedient, RULES).low > 0, "as they are named they differ"
    assert rejected / DEALS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / DEALS), f"{rejected} of {DEALS}"


def test_shuffled_completions_fail_g3(obedient, record_property):
    """Trait-bearing and ordinary completions change places at random, example by example: no prompt elicits both.

    A shuffle across questions would change nothing: an inoculating prompt asks for capitals whatever the question is,
    and so lowers the loss on the capitals of any answer.
    """
    losses, rng = obedient.losses, np.random.default_rng(0)
    assert G3.judge(obedient, RULES).status is Status.SUPPORTED
    holds, examples = 0, losses["example"].max() + 1
    for _ in range(SHUFFLES):
        swapped = rng.random(examples)[losses["example"]] < 0.5
        trait, ordinary = losses["trait_loss"], losses["ordinary_loss"]
        mixed = losses.assign(trait_loss=trait.where(~swapped, ordinary), ordinary_loss=ordinary.where(~swapped, trait))
        holds += G3.judge(replace(obedient, losses=mixed), RULES).status is Status.SUPPORTED
    record_property("shuffled completions", f"G3 holds in {holds} of {SHUFFLES}")
    assert holds <= 0.05 * SHUFFLES, f"G3 holds in {holds} of {SHUFFLES} shuffles"
