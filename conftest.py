"""The project's own tests, beside the claims: gradinoc's plugin, fixtures of the tests, and which of them are run."""

from __future__ import annotations

from pathlib import Path

import pytest

# The plugin too, by the name that pip registers it under: a checkout need not be installed.
pytest_plugins = ["gradinoc.pytest_plugin", "fixtures.faults", "fixtures.finished"]

TESTS = Path(__file__).parent / "tests"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the project's tests out where a study is named on the command line, unless they are named too."""
    if not config.getoption("--study") or any("tests" in Path(argument).parts for argument in config.args):
        return
    left_out = [item for item in items if TESTS in item.path.parents]
    items[:] = [item for item in items if TESTS not in item.path.parents]
    config.hook.pytest_deselected(items=left_out)
