"""What tests of survival leave behind: nothing."""

from __future__ import annotations

import multiprocessing

import pytest


@pytest.fixture
def nobody_left():
    """After a test that failed amid its work, the processes that it started are killed: stopped ones, for instance."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Kills on a cluster come last: its dozens of processes would make others miss their deadlines."""
    items.sort(key=lambda item: item.path.name == "test_cluster.py")
