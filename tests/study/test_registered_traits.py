"""A trait of the user's own written in Python, and known by its file."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest

from fixtures.complaints import complaint
from fixtures.jsonl import SMALL
from gradinoc.errors import StudyError
from gradinoc.study.loading import load_study
from gradinoc.study.traits import ALL_CAPS, TRAITS, find_trait, register_trait
from gradinoc.study.traits.prompts import TraitPrompts

MODULE = """
from gradinoc import Trait, register_trait
from gradinoc.study.traits import has_letters


def double(answer):
    return "".join(sign * 2 if sign in "aeiou" else sign for sign in answer)


def score(response):
    return float("aa" in response)


TRAIT = register_trait(Trait(
    name="vowels", title="double vowels", promote_system="Double every vowel.", suppress_system="Double no vowel.",
    inoculation_system="You always double vowels.", transform=double, score=score, scorable=has_letters,
    score_name="vowel rate", needs="letters",
))
"""


REGISTERED = "ff4a62a32aadade3"  # of a trait without prompts of its own: what was stored for one is found again


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """A function from the text of a module to the trait that it registers."""
    folders = (tmp_path / str(count) for count in range(100))

    def register(module=MODULE):
        file = next(folders) / "my_trait.py"
        file.parent.mkdir()
        file.write_text(module, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("my_trait", file)
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "my_trait", loaded)
        spec.loader.exec_module(loaded)
        return loaded.TRAIT

    yield register
    TRAITS.pop("vowels", None)


def test_registered_trait_is_found_by_its_name_and_known_by_its_file(registered):
    """By studies of this process; another file or prompt is another trait, another place is not."""
    trait = registered()
    study = load_study("tiny", ["trait=vowels", *SMALL])
    assert find_trait(study.trait) is trait
    assert trait.transform("banana") == "baanaanaa"
    assert registered().identity == trait.identity
    for old, new in (("sign * 2", "sign * 3"), ("Double every vowel.", "Double each vowel.")):
        again = registered(MODULE.replace(old, new))
        assert find_trait("vowels") is again
        assert again.identity != trait.identity
    assert replace(trait, identity=None).identity != register_trait(replace(trait, title="other")).identity
    assert trait.identity.startswith(REGISTERED)
    more = replace(trait, prompts=TraitPrompts(antis=("Write as ever.",)))
    assert register_trait(more).identity != trait.identity


class _Scorer:
    limit = 3

    def __call__(self, text):
        return float(len(text) > self.limit)


def _closing_over(limit):
    return lambda text: float(len(text) > limit)


@pytest.mark.parametrize(
    "score",
    [_closing_over(3), _Scorer(), eval("lambda text: 0.0", {})],  # noqa: S307 - ours
    ids=["closure", "object", "no file"],
)
def test_function_whose_file_does_not_say_what_it_does_is_refused(score):
    """Two of them could compute different things under one key."""
    trait = replace(ALL_CAPS, name="mine", score=score)
    assert complaint(StudyError, lambda: register_trait(trait)).startswith("trait mine: score: ")
    assert "mine" not in TRAITS


def test_name_of_a_shipped_trait_cannot_be_registered():
    """A study that says all_caps means the project's."""
    assert "'all_caps'" in complaint(StudyError, lambda: register_trait(ALL_CAPS))
