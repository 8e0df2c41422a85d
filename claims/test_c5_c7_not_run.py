"""C5 and C7. Where the drift comes from: claims for which no arm is trained yet. What needs them is not pronounced."""

from __future__ import annotations

import pytest

from gradinoc.claims.verdict import NOT_RUN


@pytest.mark.parametrize("key", NOT_RUN)
def test_claim_is_not_run(key, study):
    """A claim that was not run is skipped, and says what it would show."""
    pytest.skip(f"{key} not run in study {study.name}: {NOT_RUN[key]}")
