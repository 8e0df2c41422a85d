"""The rules of the claims in words, with the bars of a study; a gate's is in its finding's reason."""

from __future__ import annotations

from gradinoc.claims.gates import Finding
from gradinoc.study.rules import Rules


def rule_of(finding: Finding, rules: Rules) -> str:
    """How a claim is decided, in two or three sentences; empty for a gate, whose reason says it."""
    return (
        RULES[finding.key].format(
            level=f"{100 * (1 - rules.alpha):g} %",
            alpha=f"{rules.alpha:g}",
            equivalence=f"{100 * rules.equivalence:g} %",
            margin=f"{100 * rules.null_margin:g} %",
            match=f"{100 * rules.loss_match:g} %",
            overlap=f"{rules.overlap:g}",
            correlation=f"{rules.correlation_margin:g}",
        )
        if finding.key in RULES
        else ""
    )


RULES = {
    "C1": "Supported if the {level} intervals of alignment, neutral minus inoculation and loss_matched minus "
    "inoculation, both lie above zero. Refuted if either lies at or below zero, or around zero and is "
    "equivalent to it (within {equivalence} of the neutral alignment). Otherwise undecided.",
    "C2": "T(v) is alignment, neutral minus inoculation, along the trait direction. Supported if every p of its place "
    "among other directions, with and without its sampling error, is at most {alpha}, and the mean over "
    "isotropic directions is equivalent to zero (within {margin} of T(v)). Refuted if that mean's interval lies "
    "above {margin} of T(v). Otherwise, and where T(v) is not above zero, undecided.",
    "C3": "Supported if alignment, neutral minus inoculation, lies above zero among common losses and at equal loss, "
    "by regression, in bins, within examples, and against every further control whose loss is inoculation's "
    "(within {match} of neutral's distance). Refuted if the effect is equivalent to zero at equal loss (within "
    "{margin} of it) and not shown within examples, or if alignment is equivalent to unchanged (within "
    "{equivalence}) and not shown to fall, while loss or gradient norm fall. Otherwise, and where losses overlap "
    "by less than {overlap}, undecided.",
    "C4": "Supported if the runs' early alignment and their drift in log-odds correlate by r above zero, with a "
    "permutation p within seeds of at most {alpha}, and the interval of drift, neutral minus inoculation, lies "
    "above zero. Refuted if that interval lies at or below zero; if r is below zero with such a p; if r is "
    "equivalent to zero (within {correlation}); or if the drift difference is (within {margin} of the neutral "
    "drift), unless its interval lies above zero or r does with such a p. Otherwise undecided.",
}  # fmt: skip
