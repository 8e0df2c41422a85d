"""The obedient tiny model and a run of it."""

from __future__ import annotations

import pytest
import torch

from fixtures.trained import load_obedient, run


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are then added in the same order each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def obedient():
    """One for all tests: each hands it back as it came."""
    return load_obedient()


@pytest.fixture(scope="module")
def plain(obedient, tmp_path_factory):
    """A run that others are compared with, and the folder of its adapter."""
    folder = tmp_path_factory.mktemp("plain")
    return run(obedient, folder), folder
