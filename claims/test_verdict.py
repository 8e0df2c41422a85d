"""Does inoculation prompting reduce persona drift by rotating gradients away from the trait's direction?"""

from __future__ import annotations

from gradinoc.claims.rules.verdict import Verdict


def test_inoculation_works_by_rotating_gradients(study, evidence, judgement, artifacts):
    """Inoculation reduces drift by rotating gradients away from the trait's direction: gates and every claim hold."""
    artifacts.report(study, evidence, judgement)
    assert judgement.verdict is Verdict.SUPPORTED, judgement.sentence
