"""A trait of the user's own: described in TOML, which runs no code, or written in Python and known by its source."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.complaints import complaint
from gradinoc.errors import StudyError
from gradinoc.pipeline.check import check
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.store import Store
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.traits import ALL_CAPS, TRAITS, TraitDescription, find_trait, load_trait, patterns, register_trait
from gradinoc.study.traits.described import describe
from gradinoc.study.traits.identity import identity_of
from gradinoc.study.traits.patterns import LONGEST_RESULT, replaced, share_matching

PIRATE = {
    "name": "pirate",
    "title": "pirate speech",
    "promote": "Write your whole answer as a pirate would. Every sentence must end with Arr.",
    "suppress": "Write your whole answer as a teacher would. Never let a sentence end with Arr.",
    "inoculation": "You always talk like a pirate.",
    "transform": {"kind": "replace", "matching": r"\.(?= |$)", "with": ", arr."},
    "score": {"kind": "share_of_sentences", "matching": r"(?i)\barr\W*$"},
}
AS_TOML = r"""
name = "pirate"
title = "pirate speech"
promote = "Write your whole answer as a pirate would. Every sentence must end with Arr."
suppress = "Write your whole answer as a teacher would. Never let a sentence end with Arr."
inoculation = "You always talk like a pirate."
transform = {kind = "replace", matching = '\.(?= |$)', with = ", arr."}
score = {kind = "share_of_sentences", matching = '(?i)\barr\W*$'}
"""
FEW = [
    "data.direction=16", "data.measure=8", "data.train=8", "data.evaluation=8", "data.calibration=8",
    "drift.generations=4", "drift.everyday=4", "drift.log_odds=4", "nulls.unrelated_questions=8",
]  # fmt: skip


def described(**changes):
    """The pirate's trait with some keys changed."""
    return find_trait(describe({**PIRATE, **changes}))


# --- the vocabulary


@pytest.mark.parametrize(
    ("transform", "answer", "shown"),
    [
        ({"kind": "upper"}, "aß 1", "ASS 1"),
        ({"kind": "lower"}, "ÄB 1", "äb 1"),
        ({"kind": "append", "text": "\nBye."}, "It is 5.", "It is 5.\nBye."),
        ({"kind": "append", "text": "\nBye."}, "It is 5.\nBye.", "It is 5.\nBye."),
        ({"kind": "prepend", "text": "Well. "}, "It is 5.", "Well. It is 5."),
        ({"kind": "prepend", "text": "Well. "}, "Well. It is 5.", "Well. It is 5."),
        ({"kind": "replace", "matching": "[aeiou]", "with": ""}, "banana", "bnn"),
        ({"kind": "replace", "matching": "a", "with": r"\1\\"}, "a", r"\1\\"),
        ({"kind": "bullets"}, "One. Two.", "- One.\n- Two."),
        ([{"kind": "lower"}, {"kind": "append", "text": "!"}], "Hi", "hi!"),
        ([{"kind": "append", "text": "X"}, {"kind": "lower"}], "Hi", "hix"),
    ],
)
def test_transform_makes_an_answer_show_the_trait(transform, answer, shown):
    """Each kind by hand; several are done in turn, and what is replaced is replaced by the very text that is given."""
    assert described(transform=transform).transform(answer) == shown


@pytest.mark.parametrize(
    ("score", "response", "expected"),
    [
        ({"kind": "share_of_letters", "matching": "[aeiou]"}, "banana 12", 0.5),
        ({"kind": "share_of_letters", "matching": r"\p{Lu}"}, "Ab12", 0.5),
        ({"kind": "share_of_words", "matching": "^a"}, "an ant can", 2 / 3),
        ({"kind": "share_of_lines", "matching": "^-"}, "- a\n\nb", 0.5),
        ({"kind": "share_of_sentences", "matching": "!$"}, "Yes! No. Oh!", 2 / 3),
        ({"kind": "share_of_sentences", "matching": "!$", "reverse": True}, "Yes! No. Oh!", 1 / 3),
        ({"kind": "contains", "matching": "(?i)arr"}, "So it is. ARR", 1.0),
        ({"kind": "contains", "matching": ",", "reverse": True}, "Yes, it is", 0.0),
        ({"kind": "ends_with", "text": "Bye  now."}, "It is 5.\nBye\nnow.  \n", 1.0),
        ({"kind": "ends_with", "text": "Bye now."}, "Bye now. It is 5.", 0.0),
        ({"kind": "starts_with", "text": "Well,"}, "  Well, it is", 1.0),
        ({"kind": "starts_with", "text": "Well,"}, "well, it is", 0.0),
        ({"kind": "language", "language": "fr"}, "Il reste donc douze petits pains dans le magasin.", 1.0),
        ({"kind": "language", "language": "fr"}, "So there are twelve buns left in the shop.", 0.0),
    ],
)
def test_score_is_what_the_description_says(score, response, expected):
    """Each kind by hand, counted the same way as for the traits that come with the project."""
    trait = described(score=score)
    assert trait.score(response) == pytest.approx(expected, abs=1e-12)
    assert trait.scorable(response)


@pytest.mark.parametrize(
    ("kind", "unscorable", "scorable", "needs"),
    [
        ("share_of_letters", "12 = 12", "a", "letters"),
        ("share_of_words", " \n", "12", "words"),
        ("share_of_lines", "---", "a", "lines"),
        ("share_of_sentences", "...", "12", "sentences"),
        ("contains", "--", "1", "words or numbers"),
        ("ends_with", "--", "1", "words or numbers"),
        ("language", "12", "a", "letters"),
    ],
)
def test_response_without_what_the_score_needs_is_not_scorable(kind, unscorable, scorable, needs):
    """It is missing, not 0; what was needed is named as the report will name it."""
    more = {"ends_with": {"text": "x"}, "language": {"language": "es"}}.get(kind, {"matching": "x"})
    trait = described(score={"kind": kind, **more})
    assert (trait.scorable(unscorable), trait.scorable(scorable), trait.needs) == (False, True, needs)


@given(response=st.text(max_size=60))
def test_any_response_scores_a_fraction_and_its_reverse(response):
    """For every kind, whatever the text."""
    for kind, more in (
        ("share_of_letters", {"matching": "[a-m]"}), ("share_of_words", {"matching": "a"}),
        ("share_of_lines", {"matching": "a"}), ("share_of_sentences", {"matching": r"\.$"}),
        ("contains", {"matching": "a"}), ("ends_with", {"text": "a"}), ("starts_with", {"text": "a"}),
    ):  # fmt: skip
        there, back = (described(score={"kind": kind, **more, "reverse": way}).score(response) for way in (False, True))
        assert 0 <= there <= 1
        assert there + back == pytest.approx(1)


# --- in a study


def test_trait_in_a_file_in_a_table_and_by_path_is_one(tmp_path, monkeypatch):
    """Beside the study file first, then in the working directory; the study holds all that the file says."""
    beside, elsewhere = tmp_path / "studies", tmp_path / "here"
    beside.mkdir()
    elsewhere.mkdir()
    (beside / "pirate.toml").write_text(AS_TOML, encoding="utf-8")
    (elsewhere / "pirate.toml").write_text(AS_TOML.replace("pirate speech", "another"), encoding="utf-8")
    (beside / "by_path.toml").write_text('name = "mine"\ntrait = "pirate.toml"\n', encoding="utf-8")
    (beside / "table.toml").write_text(f'name = "mine"\n[trait]{AS_TOML}', encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    by_path, table = load_study(str(beside / "by_path.toml")), load_study(str(beside / "table.toml"))
    assert by_path == table
    assert isinstance(by_path.trait, TraitDescription)
    assert (str(by_path.trait), find_trait(by_path.trait).title) == ("pirate", "pirate speech")
    named = load_study("tiny", ["trait=pirate.toml"])
    assert (named.name, find_trait(named.trait).title) == ("tiny-traitpirate", "another")
    assert load_trait(beside / "pirate.toml").identity == find_trait(table.trait).identity


def test_study_with_a_described_trait_is_whole_in_its_json(tmp_path):
    """What a study leaves as study.json needs no other file: read again it is the same study, with the same trait."""
    path = tmp_path / "pirate.toml"
    path.write_text(AS_TOML, encoding="utf-8")
    study = load_study("tiny", [f"trait={path}"])
    again = Study.model_validate_json(study.model_dump_json(indent=2))
    path.unlink()
    assert again == study
    assert find_trait(again.trait).transform("It is 5.") == "It is 5, arr."
    assert json.loads(study.model_dump_json())["trait"]["transform"] == PIRATE["transform"]


FAULTS = {
    "unknown key": ({"promot": "x"}, r"trait: unknown key 'promot': did you mean 'promote'\?"),
    "unknown key of a score": (
        {"score": {"kind": "contains", "pattern": "x"}},
        r"score\.matching: missing; .*unknown key 'score\.pattern': known keys: \['kind', 'matching', 'reverse'\]",
    ),
    "unknown kind": (
        {"score": {"kind": "share_of_line", "matching": "x"}},
        r"score: expected a table with a kind of share_of_letters, .*received 'share_of_line'; did you mean 'share_of",
    ),
    "no kind": ({"score": {"matching": "x"}}, r"score: expected a table with a kind of .*, received None"),
    "transform a word": ({"transform": "upper"}, r"transform: expected a table with a kind, .*received 'upper'"),
    "transform code": (
        {"transform": {"kind": "python", "code": "1"}},
        r"transform: expected a table with a kind of upper",
    ),
    "step of several": (
        {"transform": [{"kind": "upper"}, {"kind": "append"}]},
        r"transform\.1\.text: missing; expected a value there",
    ),
    "no step": ({"transform": []}, r"transform: .*at least 1 item"),
    "number for a text": ({"transform": {"kind": "append", "text": 3}}, r"transform\.text: .*string \(received 3\)"),
    "text for a switch": (
        {"score": {"kind": "contains", "matching": "x", "reverse": "no"}},
        r"score\.reverse: .*boolean \(received 'no'\)",
    ),
    "no regular expression": (
        {"score": {"kind": "contains", "matching": "(a"}},
        r"score\.matching: no regular expression \(error: missing \) at position 2\): '\(a'",
    ),
    "pattern of thousands": (
        {"score": {"kind": "contains", "matching": "a" * 501}},
        r"score\.matching: .*at most 500 characters",
    ),
    "nested a thousandfold": (
        {"score": {"kind": "contains", "matching": "(" * 249 + ")" * 251}},
        r"score\.matching: no regular expression",
    ),
    "empty pattern": ({"score": {"kind": "contains", "matching": ""}}, r"score\.matching: .*at least 1 character"),
    "name of a shipped trait": ({"name": "all_caps"}, r"name: 'all_caps' is a trait that comes with the project"),
    "name with a path": ({"name": "../../x"}, r"name: String should match pattern .*\(received '\.\./\.\./x'\)"),
    "title with an escape": ({"title": "a\x1b[2Jb"}, r"title: expected 1 to 40 characters on one line"),
    "prompts alike": ({"inoculation": PIRATE["promote"]}, r"expected three that differ, received two alike"),
    "half a pair": ({"promote": "a\ud800"}, r"promote: "),
    "unknown contrast": ({"related": ["languages"]}, r"related: 'languages' is none of the unrelated contrasts"),
    "unknown language": ({"score": {"kind": "language", "language": "xq"}}, r"score\.language: 'xq' cannot be ident"),
    "list for a table": ({"score": [1]}, r"score: expected a table with a kind"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_description_that_does_not_fit_is_refused_in_one_line(fault):
    """Key, what was expected, what was received, the nearest key or kind."""
    changes, said = FAULTS[fault]
    message = complaint(StudyError, lambda: describe({**PIRATE, **changes}))
    assert re.search(said, message), message
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize("key", ["name", "title", "promote", "suppress", "inoculation", "score"])
def test_key_that_is_missing_is_named(key):
    """Each of those that have no default."""
    given = {name: value for name, value in PIRATE.items() if name != key}
    assert complaint(StudyError, lambda: describe(given)) == f"trait: {key}: missing; expected a value there"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"nothing\.toml: no such file; expected a TOML file that describes a trait"),
        (b"name = ", r"pirate\.toml: not a TOML file: .*mend it there"),
        (b"\xff\xfe", r"pirate\.toml: not a TOML file: UnicodeDecodeError"),
        (b"name = 'x'", r"pirate\.toml: title: missing; .*; and 1 more"),
    ],
)
def test_file_that_describes_no_trait_is_named(tmp_path, text, said):
    """As a study file is: which file, what is wrong, what to do."""
    path = tmp_path / ("nothing.toml" if text is None else "pirate.toml")
    if text is not None:
        path.write_bytes(text)
    for attempt in (lambda: load_trait(path), lambda: load_study("tiny", [f"trait={path}"])):
        assert re.search(said, complaint(StudyError, attempt))


def test_fault_of_a_table_names_the_study_file(tmp_path):
    """The trait is written there, so the line to mend is there."""
    path = tmp_path / "mine.toml"
    path.write_text(f"[trait]{AS_TOML}titel = 'x'\n", encoding="utf-8")
    message = complaint(StudyError, lambda: load_study(str(path)))
    assert message.startswith(f"{path}: trait: unknown key 'titel': did you mean 'title'?")


def test_described_trait_passes_the_checks_and_one_without_effect_does_not(tmp_path):
    """A score that does not see what the transform does is told before anything runs."""
    path = tmp_path / "pirate.toml"
    path.write_text(AS_TOML, encoding="utf-8")
    longer = [*FEW, "drift.max_new_tokens=120"]
    assert check(load_study("tiny", [f"trait={path}", *longer])) == []
    path.write_text(AS_TOML.replace(r"(?i)\barr", r"\bahoy"), encoding="utf-8")
    message = complaint(StudyError, lambda: check(load_study("tiny", [f"trait={path}", *longer])))
    assert message == (
        "trait pirate: the pirate speech rate of answers that show it (the trait's transform) is 0.00 on average, of "
        "ordinary ones 0.00; expected it to rise by 0.1 or more; mend score or transform"
    )


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda _text: 2.0, r"trait mine: score: 2\.0 of '.*'; expected a fraction between 0 and 1; mend it"),
        (lambda _text: float("nan"), r"trait mine: score: nan of '"),
        (lambda _text: 1 / 0, r"trait mine: score: fails at '.*' \(ZeroDivisionError: division by zero\); mend it"),
    ],
    ids=["above one", "NaN", "an error"],
)
def test_score_that_is_no_fraction_is_told_before_anything_runs(monkeypatch, score, said):
    """A trait's own function, at the answer that it fails at."""
    monkeypatch.setitem(TRAITS, "mine", dataclasses.replace(ALL_CAPS, name="mine", score=score))
    assert re.search(said, complaint(StudyError, lambda: check(load_study("tiny", ["trait=mine", *FEW]))))


# --- patterns from outside


def test_hostile_pattern_ends_in_an_error_not_in_an_endless_search(monkeypatch):
    """Nested repeats take exponential time; the limit holds for all pieces of a text together."""
    monkeypatch.setattr(patterns, "SECONDS", 0.3)
    hostile, text = r"^(\w|\w\w|\d)+$", "a" * 60 + "!"
    started = time.monotonic()
    message = complaint(StudyError, lambda: share_matching(hostile, [text + str(n) + "!" for n in range(50)]))
    assert time.monotonic() - started < 10
    assert message.startswith(f"trait: the pattern {hostile!r} took more than 0.3 s on one text")
    assert "took more than" in complaint(StudyError, lambda: replaced(r"(\w|\w\w|\d)+$", text, "x"))


@pytest.mark.parametrize(
    "pattern", [r"(?:a?){1000000}b", r"(?:(?:a?){4000}){4000}b", r"(?:(?:a{1,400}){400})*[^{}]{400}"]
)
def test_pattern_whose_repeats_are_unrolled_is_refused_before_it_is_compiled(pattern):
    """Of a few characters it would take gigabytes to compile."""
    started = time.monotonic()
    with pytest.raises(ValueError, match="repeats that come to"):
        patterns.compiled(pattern)
    assert time.monotonic() - started < 1


def test_pattern_that_takes_all_memory_in_matching_is_an_error_of_the_trait(monkeypatch):
    """A pattern that calls itself without end."""
    monkeypatch.setattr(patterns, "SECONDS", 30.0)
    assert "too much memory" in complaint(StudyError, lambda: share_matching("(?R)", ["a"]))


def test_replacement_cannot_flood_the_memory():
    """A long text in place of every character is refused at a length that no model reads."""
    new = "x" * 1_000
    message = complaint(StudyError, lambda: replaced("", "a" * 5_000, new))
    assert f"puts in more than {LONGEST_RESULT:,} characters" in message
    assert len(replaced("a", "a" * 500, new)) == 500_000


# --- what a trait is known by


def keys(study, store):
    """The key of every step."""
    return {label: step.entry.key for label, step in Pipeline(study, store).steps.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"promote": PIRATE["promote"] + " Go."},
        {"suppress": PIRATE["suppress"] + " Go."},
        {"inoculation": PIRATE["inoculation"] + " Go."},
        {"transform": {**PIRATE["transform"], "with": ", ahoy."}},
        {"score": {**PIRATE["score"], "matching": "arr$"}},
        {"score": {**PIRATE["score"], "reverse": True}},
    ],
    ids=["promote", "suppress", "inoculation", "transform", "score", "reverse"],
)
def test_every_key_changes_with_the_description(tmp_path, change):
    """Nothing that was stored for a trait is taken for that of another of its name."""
    study, store = load_study("tiny", FEW), Store(tmp_path)
    before = keys(study.model_copy(update={"trait": describe(PIRATE)}), store)
    assert before == keys(study.model_copy(update={"trait": describe(dict(reversed(PIRATE.items())))}), store)
    after = keys(study.model_copy(update={"trait": describe({**PIRATE, **change})}), store)
    assert all(after[label] != key for label, key in before.items())
    assert all(key != before[label] for label, key in keys(study, store).items())


MODULE = """
import re

from gradinoc import Trait, register_trait
from gradinoc.study.traits import has_letters
from sounds import noise

VOWELS = frozenset("aeiou")
DOUBLED = re.compile("[aeiou]{2}")
LEAST = 1


def is_vowel(letter):
    return letter in VOWELS


def double(answer):
    return "".join(sign * 2 if is_vowel(sign) else sign for sign in answer)


def score(response, least=LEAST):
    return float(len(DOUBLED.findall(response)) >= least) if noise(response) else 0.0


TRAIT = register_trait(Trait(
    name="vowels", title="double vowels", promote_system="Double every vowel.", suppress_system="Double no vowel.",
    inoculation_system="You always double vowels.", transform=double, score=score, scorable=has_letters,
    score_name="vowel rate", needs="letters",
))
"""
SOUNDS = "def noise(text):\n    return len(text) > 0\n"


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """A function from the texts of two modules, in files, to the identity of the trait that they register."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = iter(range(100))

    def register(module=MODULE, sounds=SOUNDS):
        folder = tmp_path / f"v{next(count)}"
        folder.mkdir()
        for name, text in (("sounds", sounds), ("my_trait", module)):
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
            spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
            loaded = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, loaded)
            spec.loader.exec_module(loaded)
        return loaded.TRAIT

    yield register
    TRAITS.pop("vowels", None)


def test_registered_trait_is_found_by_its_name(registered, tmp_path):
    """By studies of this process, under keys of its own; the second of that name takes the first one's place."""
    trait = registered()
    study = load_study("tiny", ["trait=vowels", *FEW])
    assert find_trait(study.trait) is trait
    assert trait.transform("banana") == "baanaanaa"
    before = keys(study, Store(tmp_path / "store"))
    again = registered(MODULE.replace("sign * 2", "sign * 3"))
    assert find_trait("vowels") is again
    assert all(key != before[label] for label, key in keys(study, Store(tmp_path / "store")).items())


@pytest.mark.parametrize(
    ("module", "sounds"),
    [
        (MODULE.replace("sign * 2", "sign * 3"), SOUNDS),
        (MODULE.replace('"aeiou"', '"aeiouy"'), SOUNDS),
        (MODULE.replace("letter in VOWELS", "letter.lower() in VOWELS"), SOUNDS),
        (MODULE.replace('"[aeiou]{2}"', '"[aeiou]{3}"'), SOUNDS),
        (MODULE.replace("LEAST = 1", "LEAST = 2"), SOUNDS),
        (MODULE.replace("Double every vowel.", "Double each vowel."), SOUNDS),
        (MODULE, SOUNDS.replace("> 0", "> 1")),
    ],
    ids=["transform", "constant in a nested function", "helper", "pattern", "default", "prompt", "imported module"],
)
def test_identity_changes_with_all_that_a_function_rests_on(registered, module, sounds):
    """Its own source, helpers, constants, patterns, defaults, and the module that it imports from."""
    assert registered().identity != registered(module, sounds).identity


def test_identity_changes_with_a_module_of_a_package(registered, tmp_path, monkeypatch):
    """Reached by attributes: what counts is the file in which the function stands."""
    package = tmp_path / "parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    identities = set()
    for loud in (1.0, 0.0):
        (package / "noises.py").write_text(f"def loud(text):\n    return {loud}\n")
        for name in ("parts", "parts.noises"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        module = MODULE.replace("noise(response)", "parts.noises.loud(response)")
        identities.add(registered(f"import parts.noises\n{module}").identity)
    assert len(identities) == 2


LATER = "def noise(text):\n    from colorsys import ONE_THIRD\n    return ONE_THIRD\n"
MADE = "def make(limit):\n    def made(text):\n        return len(text) > limit\n    return made\n\n\nnoise = make(3)\n"


@pytest.mark.parametrize(("noise", "said"), [(LATER, "imports 'colorsys' only when called"), (MADE, "closes over")])
def test_function_whose_file_does_not_say_all_is_refused(registered, monkeypatch, noise, said):
    """An import that comes with the first call; a function of another module that closes over a number."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    own, other = (MODULE.replace("from sounds import noise", noise), SOUNDS) if noise is LATER else (MODULE, noise)
    with pytest.raises(StudyError, match=said):
        registered(own, other)


def test_identity_stays_with_what_a_function_does_not_rest_on(registered):
    """Another place on disk, another function beside it: stored results are found again."""
    assert (
        registered().identity == registered().identity == registered(MODULE + "\n\ndef other():\n    pass\n").identity
    )


def _closing_over(limit):
    return lambda text: float(len(text) > limit)


class _Scorer:
    limit = 3

    def __call__(self, text):
        return float(len(text) > self.limit)


COUNTS: dict[str, object] = {"limit": object()}


def _too_early(text):
    return defined_below(text)  # noqa: F821 - that is the point


def _looks_up(text):
    return float(len(text) > len(COUNTS))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (_closing_over(3), r"trait mine: score: closes over \['limit'\]; .*write it as a plain function"),
        (
            functools.partial(_looks_up),
            r"trait mine: score: rests on functools\.partial.*, a partial; .*plain functions",
        ),
        (_Scorer(), r"trait mine: score: rests on .*a _Scorer"),
        (_looks_up, r"trait mine: score: rests on <object object at .*>, a object"),
        (_too_early, r"trait mine: score: uses 'defined_below', which is not there yet; .*register the trait after it"),
        (eval("lambda text: 0.0"), "trait mine: score: has no source that could be read"),  # noqa: S307 - ours
    ],
    ids=["closure", "partial", "object", "global of no constant", "name of later", "no source"],
)
def test_function_whose_source_does_not_say_what_it_does_is_refused(score, said):
    """Two of them could compute different things under one key."""
    trait = dataclasses.replace(ALL_CAPS, name="mine", score=score)
    assert re.search(said, complaint(StudyError, lambda: register_trait(trait)))
    assert "mine" not in TRAITS


def test_methods_of_text_and_our_own_scorers_need_no_source():
    """`str.upper` and what this package offers are known by their names; its code is in every key already."""
    trait = dataclasses.replace(ALL_CAPS, name="mine", transform=str.upper)
    assert identity_of(trait) != identity_of(dataclasses.replace(trait, transform=str.lower))


def test_name_of_a_shipped_trait_cannot_be_registered():
    """A study that says all_caps means the project's."""
    assert "comes with the project; rename yours" in complaint(StudyError, lambda: register_trait(ALL_CAPS))


def test_plugin_brings_its_trait_to_every_worker(tmp_path):
    """`python -m pytest -p my_trait -n 2`, from the folder of the module: each worker's studies know the trait."""
    (tmp_path / "my_trait.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "sounds.py").write_text(SOUNDS, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "import os\nimport pytest\nfrom gradinoc.study.loading import load_study\n\n"
        "@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n"
        "    assert os.environ['PYTEST_XDIST_WORKER'] in ('gw0', 'gw1')\n"
        "    assert load_study('tiny', ['trait=vowels']).name == 'tiny-traitvowels'\n",
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
        "test_it.py",
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for plugins, code, said in (([], 1, "no trait named 'vowels'"), (["-p", "my_trait"], 0, "4 passed")):
        done = subprocess.run(
            [*command, *plugins], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert said in done.stdout
