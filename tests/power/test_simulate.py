"""Simulated studies: do their tables show what their scenario says is true?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.evidence import measures
from gradinoc.claims.evidence.tables import COLUMNS, DECISION, EXPECTED, PROJECTION
from gradinoc.claims.gates.direction import G1, G2, G8A
from gradinoc.claims.rules.verdict import judge
from gradinoc.power.scenarios import SCENARIOS, Noise
from gradinoc.power.simulate import evidence_of, latent_of, simulate
from gradinoc.power.simulated.trained import fading
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

QUIET = Noise(  # no chance in what is measured; prompts still differ
    difficulty=0, loss=0, example=0, alignment=0, layer=0, family_template=0, template=0, odds=0, behaviour=1e-3,
    seed=0, run=0, step=0, run_drift=0, seed_drift=0, drift_template=0, drift_family=0, drift_prompt=0, response=1e-3,
)  # fmt: skip
SMALL = {"layers": 1, "positions": 1, "steps": 6, "evaluation": 24, "directions": 100, "beside": False}


@pytest.fixture(scope="module")
def whole():
    """A study with every table."""
    return simulate("effect", np.random.default_rng(3), examples=40, steps=6, layers=3, directions=100, matched=19)


@pytest.fixture(scope="module")
def quiet():
    """The truth of a study, and the study, in which nothing is measured with error."""
    rng = np.random.default_rng(5)
    latent = latent_of(replace(SCENARIOS["effect"], noise=QUIET), rng, **SMALL)
    return latent, evidence_of(latent, rng)


def test_every_table_is_whole(whole):
    """Each has its columns, no measurement twice, none missing, and (beside what decides) rows."""
    whole.ensure_measured()
    for name in COLUMNS:
        assert len(getattr(whole, name)), name
    assert judge(whole, Rules()).gates


def test_the_same_generator_gives_the_same_study():
    """Table by table, to the last bit; another gives another."""
    first, again, other = (simulate("effect", np.random.default_rng(seed), **SMALL) for seed in (1, 1, 2))
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name], check_exact=True)
    assert not first.alignments["alignment"].equals(other.alignments["alignment"])


def test_alignment_is_what_prompts_leave(quiet):
    """Neutral's less what each prompt takes off, on the frozen model and early in training."""
    latent, evidence = quiet
    gap = latent.prompts.set_index("condition")["gap"]
    frozen = measures.per_example(evidence).mean()
    names = list(frozen.index)
    np.testing.assert_allclose(frozen, latent.truth.alignment - gap[names], atol=1e-9)
    early = measures.in_window(evidence).xs(0, level="seed")  # runs of one seed see the same batches
    fade = fading(SMALL["steps"])[:2].mean()
    np.testing.assert_allclose(early[NEUTRAL] - early, fade * gap[list(early.index)], atol=1e-9)


@pytest.mark.parametrize(("measure", "scale"), [(EXPECTED, "drift"), (DECISION, "nats"), (PROJECTION, "moved")])
def test_drift_is_what_prompts_leave_of_neutral_drift(quiet, measure, scale):
    """The same share by every measure, within the error of responses and of questions."""
    latent, evidence = quiet
    found = measures.drift_by_question(evidence, measure).mean()
    left = latent.runs.set_index(["condition", "seed"])["left"][list(found.index)].clip(lower=0)
    np.testing.assert_allclose(found / getattr(latent.truth, scale), left, atol=0.2)
    assert np.corrcoef(found, left)[0, 1] > 0.9


def test_elicitation_is_of_the_prompt(quiet):
    """Decision log-odds rise by the scenario's nats per elicitation of the prompt."""
    latent, evidence = quiet
    odds = measures.per_question(evidence, "elicitation", "log_odds").mean()
    prompts = latent.measured.set_index("condition")
    expected = latent.truth.odds * prompts["elicitation"]
    np.testing.assert_allclose(odds[list(prompts.index)] - odds[NEUTRAL], expected, atol=1e-9)
    assert prompts.loc[INOCULATION, "elicitation"] > 0.3 > prompts.loc[LOSS_MATCHED, "elicitation"]


def test_sizes_choose_the_prompts():
    """3 inoculating and 5 harmless ones measured and trained under, the plan's own among them, without the pair."""
    sizes = {"inoculating": 3, "harmless": 5, "opposite": 0, "trained": (3, 5, 0), "rephrased": False}
    evidence = simulate("effect", np.random.default_rng(0), **SMALL, **sizes)
    members = {family: evidence.family(family, evidence.trained) for family in Family}
    assert [len(members[family]) for family in (Family.INOCULATION, Family.HARMLESS, Family.ANTI)] == [3, 5, 0]
    assert members[Family.INOCULATION][0] == INOCULATION
    assert len(evidence.planned_runs) == 3 * 3 + 2 + 4
    assert "rephrased" not in set(evidence.prompts["kind"])


def test_direction_gates_see_the_lowest_of_the_band():
    """The scenario's AUC and split-half cosine are the band's lowest at any depth; its steering is the slope."""
    truth = replace(SCENARIOS["effect"], auc=0.91, split_half=0.81, steering=2.0)
    for layers in (1, 5):
        evidence = simulate(truth, np.random.default_rng(0), **{**SMALL, "layers": layers})
        assert G1.measure(evidence, Rules())["auc"].estimate == pytest.approx(0.91)
        assert G2.measure(evidence, Rules())["split_half"].estimate == pytest.approx(0.81)
    assert G8A.measure(evidence, Rules())["slope"].estimate == pytest.approx(2.0, abs=0.3)


def test_questions_share_templates():
    """12 templates: every table of questions says of which each is."""
    evidence = simulate(replace(SCENARIOS["effect"], templates=12), np.random.default_rng(0), **SMALL)
    for name in ("alignments", "losses", "elicitation", "behaviour", "steering", "steering_losses", "drift"):
        assert evidence.tables[name]["group"].nunique() == 12, name
    assert measures.alignment_families(evidence).templates.shape[1] == 12


def test_responses_that_cannot_be_scored_are_missing_scores():
    """The share that is asked for, their text without letters, their score missing in both tables."""
    evidence = simulate(replace(SCENARIOS["effect"], unscorable=0.05), np.random.default_rng(0), **SMALL)
    rows = evidence.responses
    lost = rows["score"].isna()
    assert lost.mean() == pytest.approx(0.05, abs=0.005)
    assert lost.mean() >= 0.05
    assert (~rows["response"].map(evidence.trait.scorable) == lost).all()
    assert evidence.drift["value"].isna().sum() == lost.sum()


def test_heavy_tails_keep_the_spread():
    """Student's t with three degrees of freedom, scaled to the same standard deviation, has more far values."""
    rng = np.random.default_rng(0)
    heavy, normal = (Noise(degrees=df).draw(rng, 2.0, 400_000) for df in (3, np.inf))
    assert heavy.std() == pytest.approx(2.0, rel=0.1)
    assert (np.abs(heavy) > 8).mean() > 20 * (np.abs(normal) > 8).mean()
