"""What all tests share; nothing here imports torch before a test needs it."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# How long an example takes says nothing on a busy machine. By day the same examples each time, so that the tests say
# something of the change under test alone; by night (`HYPOTHESIS_PROFILE=fresh`) new ones.
settings.register_profile("fresh", deadline=None, print_blob=True)
settings.register_profile("gradinoc", settings.get_profile("fresh"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gradinoc"))

SHAPES = ((4, 3), (9, 5), (2, 1), (6, 7), (11, 4))  # prompt and completion tokens of the examples


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Models this small gain nothing from more threads, and pay for them dearly when tests run side by side."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder of the test's own for converted models."""
    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def examples():
    """Prompts and completions of different lengths, of random tokens; each completion closes its turn."""
    import torch

    from fixtures.small_models import END, VOCABULARY
    from gradinoc.models.chat.encoding import Encoded

    generator = torch.Generator().manual_seed(1)
    return [
        Encoded((*torch.randint(5, VOCABULARY, (prompt + answer,), generator=generator).tolist(), END), prompt)
        for prompt, answer in SHAPES
    ]
