"""The study that figures are drawn of."""

from __future__ import annotations

import pytest

from fixtures.figures import world
from gradinoc.claims.evidence.tables import Evidence


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """One study in which inoculation works."""
    return world()
