"""Families compared at equal loss of the prompt: against statsmodels, brute force, and coverage."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from gradinoc.stats.families import Families
from gradinoc.stats.regression.equal_loss import families_at_equal_loss


def study(rng, sizes, slope=0.5, family=0.0, questions=1, spread=(0.1, 0.1)):
    """Two families whose prompts' values follow their loss; H lies a little higher in loss."""
    loss = {
        key: rng.uniform(1.8, 2.2, size) + shift for (key, size), shift in zip(sizes.items(), (0, 0.1), strict=True)
    }
    tables = {}
    for (key, size), effect, sd in zip(sizes.items(), (family, 0), spread, strict=True):
        mean = slope * (loss[key] - 2) + effect + rng.normal(0, sd, size)
        by_question = rng.normal(0, 0.2, questions) if questions > 1 else np.zeros(1)
        tables[key] = mean[:, None] + by_question + rng.normal(0, 0.3 * (questions > 1), (size, questions))
    return Families(tables), loss


def test_it_is_the_family_coefficient_with_hc2_errors():
    """One question: estimate and error are statsmodels' HC2 on the prompts in the common range of losses."""
    families, loss = study(np.random.default_rng(1), {"I": 10, "H": 10})
    effect = families_at_equal_loss(families, loss, "I", "H", "at equal loss")
    every = np.concatenate([loss["I"], loss["H"]])
    keep = (every >= max(loss["I"].min(), loss["H"].min())) & (every <= min(loss["I"].max(), loss["H"].max()))
    value = np.concatenate([families.values["I"][:, 0], families.values["H"][:, 0]])[keep]
    design = np.column_stack([np.repeat([1.0, 0.0], 10), every, np.ones(20)])[keep]
    fit = sm.OLS(value, design).fit()
    assert effect.n == keep.sum() < 20
    assert effect.estimate == pytest.approx(fit.params[0])
    assert effect.standard_error == pytest.approx(fit.HC2_se[0])


def test_degrees_of_freedom_match_the_first_two_moments_of_hc2():
    """HC2 under equal normal errors is a weighted sum of chi-squares: 100,000 draws give its df."""
    rng = np.random.default_rng(2)
    families, loss = study(rng, {"I": 5, "H": 6})
    loss = {"I": np.linspace(1.8, 2.2, 5), "H": np.linspace(1.8, 2.2, 6)}
    effect = families_at_equal_loss(families, loss, "I", "H", "at equal loss")
    design = np.column_stack([np.repeat([1.0, 0.0], [5, 6]), np.r_[loss["I"], loss["H"]], np.ones(11)])
    weight = np.linalg.pinv(design)[0]
    aside = np.eye(11) - design @ np.linalg.pinv(design)
    residuals = rng.normal(size=(100_000, 11)) @ aside
    variance = (residuals**2 / np.diag(aside)) @ weight**2
    assert effect.df == pytest.approx(2 * variance.mean() ** 2 / variance.var(), rel=0.03)


def test_what_loss_explains_is_taken_out():
    """Families that differ by their loss alone differ at unequal loss and not at equal loss."""
    rng = np.random.default_rng(3)
    loss = {"I": np.linspace(1.6, 2.1, 10), "H": np.linspace(1.9, 2.4, 10)}
    tables = {key: (2 * each + rng.normal(0, 0.01, 10))[:, None] for key, each in loss.items()}
    effect = families_at_equal_loss(Families(tables), loss, "I", "H", "at equal loss")
    assert np.mean(tables["I"]) - np.mean(tables["H"]) < -0.5
    assert abs(effect.estimate) < 0.05
    assert effect.n < 20


def test_families_without_common_losses_are_not_compared():
    """No overlap, or too few prompts in it: NaN and how many there are."""
    families, _ = study(np.random.default_rng(4), {"I": 6, "H": 6})
    apart = {"I": np.linspace(1, 2, 6), "H": np.linspace(1.9, 3, 6)}
    effect = families_at_equal_loss(families, apart, "I", "H", "at equal loss")
    assert np.isnan([effect.estimate, effect.low, effect.p]).all()
    assert "{'I': 1, 'H': 1}" in effect.method
    same = {"I": np.full(6, 2.0), "H": np.full(6, 2.0)}
    assert "single prompts" in families_at_equal_loss(families, same, "I", "H", "at equal loss").method
    with pytest.raises(ValueError, match="one loss a prompt"):
        families_at_equal_loss(families, {"I": np.ones(5), "H": np.ones(6)}, "I", "H", "at equal loss")


@pytest.mark.parametrize("spread", [(0.1, 0.1), (0.15, 0.04)], ids=["equal", "unequal"])
@pytest.mark.parametrize("sizes", [{"I": 6, "H": 6}, {"I": 10, "H": 10}])
def test_the_interval_at_equal_loss_covers(sizes, spread):
    """Of intervals that exist, 95 % hold the truth within Monte-Carlo error, families of unequal spread included."""
    rng, held, exist = np.random.default_rng(5), 0, 0
    for _ in range(400):
        families, loss = study(rng, sizes, questions=26, spread=spread)
        effect = families_at_equal_loss(families, loss, "I", "H", "at equal loss")
        exist += np.isfinite(effect.low)
        held += effect.low <= 0 <= effect.high
    assert exist > 200
    assert 0.92 <= held / exist <= 0.985


def test_p_and_interval_belong_together():
    """The p is the t's of estimate and error."""
    families, loss = study(np.random.default_rng(6), {"I": 10, "H": 10}, family=-0.3, questions=26)
    effect = families_at_equal_loss(families, loss, "I", "H", "at equal loss")
    assert effect.high < 0
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(effect.estimate) / effect.standard_error, effect.df))
