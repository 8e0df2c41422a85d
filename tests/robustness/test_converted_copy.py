"""The converted copy of a packaged model is whole when it is used: damaged, it is made anew and not believed."""

from __future__ import annotations

import shutil

import pytest

from fixtures.small_models import ARCHITECTURES, letter_tokenizer
from gradinoc.errors import StoreError
from gradinoc.models.sources import converted
from gradinoc.models.sources import packaged as bundled
from gradinoc.models.sources.gguf import Header

NAME = "smollm2-135m-instruct"


@pytest.fixture
def conversions(tmp_path, monkeypatch) -> list:
    """A cache of its own, and a conversion of a second's fraction: how often it has been made."""
    made = []
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"weights")

    def convert(_header, folder, _padding):
        made.append(folder)
        ARCHITECTURES["llama"]().save_pretrained(folder)
        letter_tokenizer().save_pretrained(folder)

    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "packaged_files", lambda _: (weights,))
    monkeypatch.setattr(converted, "convert", convert)
    monkeypatch.setattr(converted, "read_header", lambda file: Header(file, {}, {}))
    return made


def contents(folder) -> dict:
    """Name and content of every file."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def flip(folder):
    """A bit of a weight."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))


DAMAGE = {
    "flipped": flip,
    "missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "planted": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "list missing": lambda folder: (folder / converted.CHECKSUMS).unlink(),
    "removed": shutil.rmtree,
}


@pytest.mark.fault("Damaged files", "the converted copy of a packaged model, damaged in the cache")
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_copy_is_made_anew(conversions, damage):
    """The files are again as they were, and nothing else is there."""
    folder = bundled.bundled_folder(NAME)
    before = contents(folder)
    DAMAGE[damage](folder)
    assert bundled.bundled_folder(NAME) == folder
    assert contents(folder) == before
    assert len(conversions) == 2
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


@pytest.mark.fault("Damaged files", "a cache of converted models that cannot be written to")
def test_cache_that_cannot_be_written_to_is_named(conversions, tmp_path, monkeypatch):
    """With what to do, on one line."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match=r"cannot be kept there .* set GRADINOC_CACHE to a folder") as error:
        bundled.bundled_folder(NAME)
    assert str(error.value).isprintable()
    assert conversions == []
