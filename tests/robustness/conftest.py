"""What tests of survival compare with, a study that nobody disturbed; and what they leave behind: nobody."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from fixtures.survivors import Worker


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> tuple[Path, Worker]:
    """A store in which one worker has computed the whole of the smallest study, and that worker."""
    store = tmp_path_factory.mktemp("undisturbed")
    worker = Worker(store)
    assert worker.end() == 0, worker.error
    return store, worker


@pytest.fixture
def nobody_left():
    """After a test that failed amid its work, the processes that it started are killed: stopped ones, for instance."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
