"""A small model and an adapter for it, a hub that holds them, and how anything planted in them is noticed."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fixtures.hub import Repository, serve_hub
from fixtures.malicious import Mine
from fixtures.small_models import ARCHITECTURES, letter_tokenizer, with_lora


@pytest.fixture
def marker(tmp_path) -> Path:
    """The file that whatever is run leaves; checked after each test."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists(), "something that was planted has been run"


@pytest.fixture
def mine(marker) -> bytes:
    """A pickle that leaves the marker."""
    return pickle.dumps(Mine(marker))


@pytest.fixture
def no_unpickling(monkeypatch):
    """Whoever reads a pickle in this process fails, whether the pickle does harm or not."""

    def refuse(*_, **__):
        raise AssertionError("a pickle was about to be read")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a small Llama and its tokenizer."""
    path = tmp_path / "llama"
    ARCHITECTURES["llama"]().save_pretrained(path)
    letter_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A folder with an adapter for it."""
    path = tmp_path / "adapter"
    with_lora(ARCHITECTURES["llama"]()).save_pretrained(path)
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Opens a hub that holds a repository, and has this process take it for the real one; its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    @contextmanager
    def serve(repository: Repository):
        with serve_hub(repository) as address, monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", address)
            patch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
            )
            yield

    return serve
