"""Families of prompts compared: variances against analysis of variance, p against scipy, coverage by simulation."""

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from gradinoc.stats import families as comparing
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.families import Families, compare, contrast, permuted_labels, rank_among


def templates(rng, questions=64, count=26):
    """Template of each question, of unequal sizes."""
    return np.sort(np.concatenate([np.arange(count), rng.integers(0, count, questions - count)]))


def drawn(rng, sizes, groups, prompt=0.1, template=0.2, both=0.1, rest=0.3):
    """A table of each family whose means are all zero: prompts, templates and their interaction at random."""
    count = groups.max() + 1
    common = rng.normal(0, 1, count)
    return {
        key: rng.normal(0, prompt, (size, 1))
        + (common + rng.normal(0, template, count) / np.sqrt(2) + rng.normal(0, both, (size, count)))[:, groups]
        + rng.normal(0, rest, (size, len(groups)))
        for key, size in sizes.items()
    }


def coverage(sizes, studies=400, **spreads):
    """The share of simulated studies whose interval of I - H holds zero."""
    rng = np.random.default_rng(20)
    held = 0
    for _ in range(studies):
        groups = templates(rng)
        effect = compare(Families(drawn(rng, sizes, groups, **spreads), groups), "I", "H", "I - H")
        held += effect.low <= 0 <= effect.high
    return held / studies


def test_one_question_gives_welch():
    """With a single question only prompts are sampled: estimate, interval and p are Welch's."""
    one, other = np.array([0.1, 0.4, 0.2]), np.array([0.5, 0.9, 0.7, 0.4, 0.6])
    effect = compare(Families({"I": one[:, None], "H": other[:, None]}), "I", "H", "I - H")
    welch = stats.ttest_ind(one, other, equal_var=False)
    interval = welch.confidence_interval()
    assert effect.p == pytest.approx(welch.pvalue, rel=1e-12)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert (effect.n, effect.unit) == (8, "prompts")
    assert "Welch" in effect.method


def test_the_variance_is_that_of_crossed_analysis_of_variance():
    """For one family, no templates: (MS prompts + MS questions - MS rest) / cells, the quasi-F's, and its df."""
    rng = np.random.default_rng(3)
    table = rng.normal(0, 1, (5, 1)) + rng.normal(0, 1, (1, 9)) + rng.normal(0, 0.5, (5, 9))
    rows, columns = np.indices(table.shape)
    frame = pd.DataFrame({"y": table.ravel(), "p": rows.ravel(), "q": columns.ravel()})
    square = anova_lm(smf.ols("y ~ C(p) + C(q)", frame).fit())["mean_sq"]
    parts = np.array([square["C(p)"], square["C(q)"], -square["Residual"]]) / table.size
    effect = contrast(Families({"I": table}), {"I": 1.0}, "mean")
    assert effect.standard_error**2 == pytest.approx(parts.sum(), rel=1e-10)
    assert effect.df == pytest.approx(parts.sum() ** 2 / (parts**2 / [4, 8, 32]).sum(), rel=1e-10)


def test_two_prompts_still_have_an_interval():
    """Where prompts differ by noise alone, what is taken off leaves no fewer degrees of freedom than the fewest, 1."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        effect = compare(Families({"I": rng.normal(size=(2, 6)), "H": rng.normal(size=(5, 6))}), "I", "H", "I - H")
        assert effect.df >= 1
        assert effect.low < effect.high


def test_what_a_question_brings_to_every_prompt_cancels():
    """Adding a number to a question under all prompts changes neither estimate nor interval of a difference."""
    rng = np.random.default_rng(4)
    groups = templates(rng)
    tables = drawn(rng, {"I": 3, "H": 5}, groups)
    before = compare(Families(tables, groups), "I", "H", "I - H")
    shift = rng.normal(0, 10, len(groups))
    after = compare(Families({key: table + shift for key, table in tables.items()}, groups), "I", "H", "I - H")
    assert (after.estimate, after.low) == pytest.approx((before.estimate, before.low), rel=1e-9)


def test_questions_of_one_template_count_once():
    """Repeating every question under its template changes nothing; calling the copies templates narrows."""
    rng = np.random.default_rng(5)
    groups = np.arange(12)
    tables = drawn(rng, {"I": 4, "H": 6}, groups, template=0.5, prompt=0.01)
    doubled = {key: np.repeat(table, 2, axis=1) for key, table in tables.items()}
    once = compare(Families(tables, groups), "I", "H", "I - H")
    twice = compare(Families(doubled, np.repeat(groups, 2)), "I", "H", "I - H")
    alone = compare(Families(doubled), "I", "H", "I - H")
    assert twice.standard_error == pytest.approx(once.standard_error, rel=1e-10)
    assert alone.standard_error < 0.9 * once.standard_error


def test_a_single_prompt_has_no_interval_and_says_so():
    """What another prompt of its kind would do is unknown: NaN, with the family named."""
    rng = np.random.default_rng(6)
    effect = compare(Families(drawn(rng, {"I": 1, "H": 5}, templates(rng))), "I", "H", "I - H")
    assert np.isnan([effect.low, effect.high, effect.p]).all()
    assert np.isfinite(effect.estimate)
    assert "single prompt of I" in effect.method


@pytest.mark.parametrize("sizes", [{"I": 3, "H": 5}, {"I": 6, "H": 6}, {"I": 10, "H": 10}])
@pytest.mark.parametrize(
    "spreads",
    [{}, {"template": 0.0, "both": 0.0}, {"prompt": 0.02, "template": 0.4}],
    ids=["both", "prompts", "templates"],
)
def test_the_interval_covers_at_the_sizes_of_a_study(sizes, spreads):
    """95 % of 400 intervals hold the truth within three Monte-Carlo errors, whichever part is larger."""
    assert 0.92 <= coverage(sizes, **spreads) <= 0.985


def test_either_source_alone_would_be_too_narrow():
    """Where both matter, Welch over prompts covers too little, and questions by template still less."""
    rng, held = np.random.default_rng(20), np.zeros(2)
    for _ in range(300):
        groups = templates(rng)
        tables = drawn(rng, {"I": 10, "H": 10}, groups, template=0.3)
        prompts = compare(Families({key: table.mean(axis=1)[:, None] for key, table in tables.items()}), "I", "H", "d")
        questions = grouped_pairs(tables["I"].mean(axis=0), tables["H"].mean(axis=0), groups, "d")
        held += [effect.low <= 0 <= effect.high for effect in (prompts, questions)]
    assert (held / 300 < 0.92).all()


def test_label_permutation_is_scipys():
    """Exact p of 3 against 5, one- and two-sided, with ties; the smallest one-sided p is 1/56."""
    one, other = [0.1, 0.4, 0.2], [0.5, 0.9, 0.4, 0.4, 0.1]
    rng = np.random.default_rng(0)
    difference = lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis)
    for tail, scipys in (("greater", "less"), ("two-sided", "two-sided")):
        mine = permuted_labels(other, one, rng, "H - I", tail)
        his = stats.permutation_test((one, other), difference, alternative=scipys, n_resamples=10_000)
        p = his.pvalue if tail == "greater" else np.mean(np.abs(his.null_distribution) >= abs(his.statistic) - 1e-12)
        assert mine.p == pytest.approx(p)
    assert permuted_labels([2, 3, 4], [1, 1, 1, 0, 0], rng, "d").p == pytest.approx(1 / 56)
    with pytest.raises(ValueError, match="tail"):
        permuted_labels(one, other, rng, "d", "less")


def test_many_prompts_are_permuted_at_random(monkeypatch):
    """Beyond the limit p is (1 + #) / (1 + K): close to the exact one, never zero."""
    rng = np.random.default_rng(1)
    one, other = rng.normal(0.8, 1, 6), rng.normal(0, 1, 6)
    exact = permuted_labels(one, other, rng, "d").p
    monkeypatch.setattr(comparing, "EXACT_LABELS", 10)
    assert permuted_labels(one, other, rng, "d").p == pytest.approx(exact, abs=0.005)
    assert permuted_labels(one + 100, other, rng, "d").p == pytest.approx(1 / 924, rel=0.4)
    monkeypatch.setattr(comparing, "RANDOM_LABELS", 99)
    assert permuted_labels(np.arange(20) + 100, other, rng, "d").p == 0.01


def test_exchangeable_prompts_are_rejected_in_five_per_cent():
    """Over all ways to draw three of eight prompts from one family, p <= 0.05 in at most 5 %."""
    values, rng = np.random.default_rng(2).normal(size=8), np.random.default_rng(0)
    ps = []
    for chosen in itertools.combinations(range(8), 3):
        rest = [i for i in range(8) if i not in chosen]
        ps.append(permuted_labels(values[list(chosen)], values[rest], rng, "d").p)
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(2 / 56)


def test_rank_counts_those_above_where_questions_are_plenty():
    """Without noise the p is the plain rank's, (1 + #) / (1 + n), ties counted against it."""
    rest = np.array([0.1, 0.2, 0.3, 0.4])[:, None] + np.zeros((4, 12))
    for value, above in ((0.35, 1), (0.3, 2), (0.5, 0), (0.0, 4)):
        families = Families({"one": np.full((1, 12), value), "H": rest})
        assert rank_among(families, "one", "H", "place").p == pytest.approx((1 + above) / 5)


def test_rank_adds_the_error_of_questions():
    """A prompt that leads by less than its error is not first: each tail is scipy's paired t, upper against lower."""
    rng = np.random.default_rng(7)
    prompt, rest = rng.normal(0.1, 1, (1, 12)), rng.normal(0, 1, (5, 12))
    effect = rank_among(Families({"one": prompt, "H": rest}), "one", "H", "place")
    tails = [stats.ttest_rel(prompt[0], row, alternative="greater").pvalue for row in rest]
    assert effect.p == pytest.approx((1 + sum(tails)) / 6)
    assert effect.n == 5


def test_the_interval_of_one_prompt_covers_its_own_difference():
    """It holds the choice of the others and of templates: for a fixed prompt, 95 % within Monte-Carlo error."""
    rng, held = np.random.default_rng(8), 0
    for _ in range(400):
        groups = templates(rng)
        tables = drawn(rng, {"one": 1, "H": 10}, groups, prompt=0.0)
        tables["H"] = tables["H"] + rng.normal(0, 0.1, (10, 1))
        effect = rank_among(Families(tables, groups), "one", "H", "place")
        held += effect.low <= 0 <= effect.high
    assert 0.92 <= held / 400 <= 0.985


def test_one_prompt_among_its_like_is_seldom_first():
    """A prompt drawn from the family has a place of p <= 0.05 in at most 5 % (24 others, 64 questions)."""
    rng, first = np.random.default_rng(9), 0
    for _ in range(300):
        groups = templates(rng)
        first += rank_among(Families(drawn(rng, {"one": 1, "H": 24}, groups), groups), "one", "H", "place").p <= 0.05
    assert first / 300 <= 0.05


def test_tables_must_fit():
    """Unequal questions, a missing value and wrong groups are refused with what was received."""
    with pytest.raises(ValueError, match="same questions"):
        Families({"I": np.zeros((2, 3)), "H": np.zeros((2, 4))})
    with pytest.raises(ValueError, match=r"family I.*NaN"):
        Families({"I": np.full((2, 3), np.nan)})
    with pytest.raises(ValueError, match="one group"):
        Families({"I": np.zeros((2, 3))}, np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match="single prompt"):
        rank_among(Families({"I": np.zeros((2, 3)), "H": np.zeros((2, 3))}), "I", "H", "place")
