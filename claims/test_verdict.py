"""Does inoculation prompting reduce persona drift by rotating gradients away from the trait's direction?"""

from __future__ import annotations

from gradinoc.claims.verdict import Verdict


def test_inoculation_works_by_rotating_gradients(study, evidence, judgement, artifacts):
    """Inoculation reduces drift by rotating gradients away from the trait's direction: gates hold, C1-C4 supported."""
    artifacts.report(study, evidence, judgement)
    assert judgement.verdict is Verdict.SUPPORTED, judgement.sentence
