"""C5. Removing the component along the direction removes the drift: no arm is trained for it yet."""

from __future__ import annotations

import pytest

from gradinoc.claims.rules.verdict import OPTIONAL


def test_c5_is_not_run(study):
    """A claim that was not run is skipped, and says what it would show."""
    pytest.skip(f"C5 not run in study {study.name}: {OPTIONAL['C5']}")
