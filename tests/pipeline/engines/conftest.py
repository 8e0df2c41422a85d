"""The smallest study, computed by one process, for engines to be compared with."""

from __future__ import annotations

import pytest

from fixtures.smallest import SMALLEST
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """The smallest study, computed by this process as far as it is asked for."""
    settings = [*SMALLEST, "model.threads=1", "engine.workers=2"]
    return Pipeline(load_study("tiny", settings), Store(tmp_path_factory.mktemp("alone")))
