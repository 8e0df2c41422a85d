"""The variances that plans rest on are those of the tiny study."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.power.variances import TINY, estimate, load_variances
from gradinoc.pytest_plugin.session import option
from gradinoc.study.loading import STUDIES, load_study


def test_shipped_variances_are_those_of_the_tiny_study(pytestconfig):
    """The file is the study's as it is now, and travels with the package."""
    study = load_study("tiny")
    pipeline = Pipeline(study, Store(Path(option(pytestconfig, "store"))))
    now, shipped = estimate(pipeline.evidence(), study.rules, study.name), load_variances(TINY)
    assert (TINY.parent, shipped.study) == (STUDIES, "tiny")
    for name in ("alignment", "fall", "loss", "drift", "nats", "odds", "steering", "moved"):
        now_is, was = getattr(now.scenario, name), getattr(shipped.scenario, name)
        assert was == pytest.approx(now_is, rel=0.05, abs=0.005), name
    assert shipped.scenario.noise.nulls == pytest.approx(now.scenario.noise.nulls, rel=0.05)
