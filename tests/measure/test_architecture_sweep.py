"""The sweep over every architecture: it tries all there are, and finds what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fixtures.architectures import build, checks, sweep
from fixtures.architectures.entries import ENTRIES
from gradinoc.measure.gradients import alignment as gradients
from gradinoc.measure.passes import hooks

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
# No tiny model of these can be made: they draft for another model, have no settings of their own, or need a library.
UNBUILT = {"gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody"}


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """What comes of a model when only some checks are made."""

    def examine(name, *names):
        kept = {check: checks.CHECKS[check] for check in ("preflight", "loading", *names)}
        monkeypatch.setattr(sweep, "CHECKS", kept)
        return sweep.examine(ENTRIES[name], tmp_path)

    return examine


def test_page_tells_of_every_model_type_that_is_installed():
    """A version of transformers that has others makes this fail until the sweep is done again."""
    told = set(re.findall(r"`([^`]+)` \|", PAGE.read_text(encoding="utf-8")))
    assert told >= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - told
    assert told == set(ENTRIES), told ^ set(ENTRIES)


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - UNBUILT))
def test_configuration_is_tiny(name):
    """Each type has sizes that a test can afford, and the tokenizer's vocabulary."""
    text = build.configuration(ENTRIES[name]).get_text_config()
    assert 0 < getattr(text, "num_hidden_layers", 1) <= 32
    assert getattr(text, "hidden_size", None) in (None, build.HIDDEN)
    assert getattr(text, "vocab_size", None) in (None, build.VOCABULARY)


@pytest.mark.parametrize(
    ("name", "status"), [("llama", sweep.EXACT), pytest.param("gemma2", sweep.PLAIN, marks=pytest.mark.exhaustive)]
)
def test_sound_model_passes(tried, name, status):
    """All that a study does with them agrees with brute force."""
    outcome = tried(name, *checks.CHECKS)
    assert outcome.faults == {}
    assert outcome.status == status
    assert set(outcome.apart) >= {"states", "losses", "alignments", "training", "drift", "reload"}


def _later(function, change):
    return lambda *given, **named: change(function(*given, **named))


PLANTED = {
    "states": (hooks, "token_index", lambda index: index - 1),
    "losses": (checks, "answer_losses", lambda losses: losses * 1.001),
    "alignments": (gradients, "gradient_at_positions", lambda found: found + 1e-3 * found.abs().max()),
    "generation": (checks, "generate", lambda texts: texts[::-1]),
    "blocks": (checks, "decoder_blocks", lambda blocks: blocks[1:]),
}


@pytest.mark.parametrize("check", PLANTED)
def test_planted_wrong_number_is_found(tried, monkeypatch, check):
    """A number that is a little off, in each of the checks, is told as WRONG."""
    module, name, change = PLANTED[check]
    monkeypatch.setattr(module, name, _later(getattr(module, name), change))
    outcome = tried("llama", check)
    assert outcome.status == sweep.WRONG
    assert set(outcome.faults) == {check}
