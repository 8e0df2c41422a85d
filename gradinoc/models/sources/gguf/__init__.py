"""GGUF files: what one states about its model, tokenizer and weights, as a folder that transformers reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from gradinoc.models.sources.gguf.architectures import config_of
from gradinoc.models.sources.gguf.header import Header, read_header
from gradinoc.models.sources.gguf.tokenizer import IDS, build_tokenizer, ensure_tokenizer
from gradinoc.models.sources.gguf.weights import load_weights, unpacked_bytes

__all__ = ["Header", "convert", "no_progress_bars", "read_header", "unpacked_bytes"]


def convert(header: Header, folder: Path, padding: str | None = None) -> None:
    """Write the model of a GGUF file into `folder` as safetensors, with its tokenizer.

    `padding` is a special token to pad with in place of the file's own. Beside the weights a few rows are in memory.

    Raises:
        ModelError: an architecture, tokenizer or tensor that is not known here, or one that transformers would read
            differently.
    """
    config, tokenizer = config_of(header), build_tokenizer(header)
    if padding is not None:
        tokenizer.pad_token = padding
    config.pad_token_id = tokenizer.pad_token_id
    with no_progress_bars():
        tokenizer.save_pretrained(folder)
        _state_absent(folder / "tokenizer_config.json")
        config.save_pretrained(folder)  # which says what the tokenizer is read as
        ensure_tokenizer(header, tokenizer, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        model = load_weights(header, config)
        _set_ends(header, model, tokenizer)
        model.save_pretrained(folder)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own bars while something is loaded."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


def _state_absent(file: Path) -> None:
    """Have a tokenizer's settings say which special tokens it lacks: some classes would add their own."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if absent := {name: None for name in IDS if name not in settings}:
        file.write_text(json.dumps(settings | absent, indent=2, ensure_ascii=False), encoding="utf-8")


def _set_ends(header: Header, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have generation stop at the end of a text, of a turn, and of a message, where the file names them apart."""
    stated = (header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    ends = list(dict.fromkeys(each for each in stated if each is not None))
    model.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    model.generation_config.pad_token_id = tokenizer.pad_token_id
