"""A trait of the user's own described in TOML, which runs no code."""

from __future__ import annotations

import json
import time

import pytest

from fixtures.complaints import complaint
from gradinoc.errors import StudyError
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.prompts.evaluation import untrained_prompts
from gradinoc.study.prompts.families import families
from gradinoc.study.prompts.family import Kind
from gradinoc.study.traits import TraitDescription, find_trait, load_trait
from gradinoc.study.traits import vocabulary as vocabulary_module
from gradinoc.study.traits.described import describe

PIRATE = {
    "name": "pirate",
    "title": "pirate speech",
    "promote": "Write your whole answer as a pirate would. Every sentence must end with Arr.",
    "suppress": "Write your whole answer as a teacher would. Never let a sentence end with Arr.",
    "inoculation": "You always talk like a pirate.",
    "transform": {"kind": "replace", "matching": r"\.(?= |$)", "with": ", arr."},
    "score": {"kind": "share_of_sentences", "matching": r"(?i)\barr\W*$"},
}


def described(**changes):
    """The pirate's trait with some keys changed."""
    return find_trait(describe({**PIRATE, **changes}))


def as_toml(**changes):
    """The pirate's description as TOML."""

    def value(given):
        if not isinstance(given, dict):
            return f"'''{given}'''"
        return "{" + ", ".join(f"{key} = '''{each}'''" for key, each in given.items()) + "}"

    return "".join(f"{key} = {value(given)}\n" for key, given in {**PIRATE, **changes}.items())


@pytest.fixture
def pirate(tmp_path):
    """The path of a file that describes the pirate's trait."""
    path = tmp_path / "pirate.toml"
    path.write_text(as_toml(), encoding="utf-8")
    return path


# --- the vocabulary


@pytest.mark.parametrize(
    ("transform", "answer", "shown"),
    [
        ({"kind": "upper"}, "aß 1", "ASS 1"),
        ({"kind": "lower"}, "ÄB 1", "äb 1"),
        ({"kind": "append", "text": "\nBye."}, "It is 5.", "It is 5.\nBye."),
        ({"kind": "append", "text": "\nBye."}, "It is 5.\nBye.", "It is 5.\nBye."),
        ({"kind": "replace", "matching": "[aeiou]", "with": ""}, "banana", "bnn"),
        ({"kind": "replace", "matching": "a", "with": r"\1\\"}, "a", r"\1\\"),
        ({"kind": "bullets"}, "One. Two.", "- One.\n- Two."),
    ],
)
def test_transform_makes_an_answer_show_the_trait(transform, answer, shown):
    """Each kind by hand; what is replaced is replaced by the very text that is given."""
    assert described(transform=transform).transform(answer) == shown


@pytest.mark.parametrize(
    ("score", "needs", "unscorable", "scores"),
    [
        ({"kind": "share_of_letters", "matching": r"\p{Lu}"}, "letters", "12 =", {"Ab12": 0.5, "abcD": 0.25}),
        ({"kind": "share_of_lines", "matching": "^-"}, "lines", "---", {"- a\n\nb": 0.5}),
        ({"kind": "share_of_sentences", "matching": "!$"}, "sentences", "...", {"Yes! No. Oh!": 2 / 3}),
        (
            {"kind": "ends_with", "text": "Bye  now."},
            "words or numbers",
            "--",
            {"It is 5.\nBye\nnow.  \n": 1.0, "Bye now. It is 5.": 0.0},
        ),
        ({"kind": "starts_with", "text": "Well,"}, "words or numbers", "--", {"  Well, it is": 1.0, "well, it": 0.0}),
        (
            {"kind": "language", "language": "fr"},
            "letters",
            "12",
            {"Il reste donc douze petits pains dans le magasin.": 1.0, "So there are twelve buns left.": 0.0},
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) and "kind" in value else "",
)
def test_score_is_what_the_description_says(score, needs, unscorable, scores):
    """Each kind by hand; a response without what the score needs is missing, not 0."""
    trait = described(score=score)
    assert {response: trait.score(response) for response in scores} == pytest.approx(scores, abs=1e-12)
    assert all(map(trait.scorable, scores))
    assert (trait.needs, trait.scorable(unscorable), trait.score(unscorable)) == (needs, False, 0.0)


# --- in a study


def test_trait_in_a_file_in_a_table_and_by_path_is_one(tmp_path, monkeypatch):
    """Beside the study file first, then in the working directory; the study holds all that the file says."""
    beside, elsewhere = tmp_path / "studies", tmp_path / "here"
    for folder, changes in ((beside, {}), (elsewhere, {"title": "another"})):
        folder.mkdir()
        (folder / "pirate.toml").write_text(as_toml(**changes), encoding="utf-8")
    (beside / "by_path.toml").write_text('name = "mine"\ntrait = "pirate.toml"\n', encoding="utf-8")
    (beside / "table.toml").write_text(f'name = "mine"\n[trait]\n{as_toml()}', encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    by_path, table = load_study(str(beside / "by_path.toml")), load_study(str(beside / "table.toml"))
    assert by_path == table
    assert isinstance(by_path.trait, TraitDescription)
    assert (str(by_path.trait), find_trait(by_path.trait).title) == ("pirate", "pirate speech")
    named = load_study("tiny", ["trait=pirate.toml"])
    assert (named.name, find_trait(named.trait).title) == ("tiny-traitpirate", "another")
    assert load_trait(beside / "pirate.toml").identity == find_trait(table.trait).identity


def test_trait_may_bring_prompts_of_its_own(tmp_path):
    """From a table of its file; the families, the evaluation prompts and the wordings of the direction are its own."""
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in PROMPTS.items() if key != "wordings")
    pair = "".join(f"{side} = {text!r}\n" for side, text in PROMPTS["wordings"][0].items())
    path = tmp_path / "pirate.toml"
    path.write_text(f"{as_toml()}[prompts]\n{table}[[prompts.wordings]]\n{pair}", encoding="utf-8")
    study = load_study("tiny", [f"trait={path}", "prompts.measured=all"])
    trait = find_trait(study.trait)
    assert trait == described(prompts=PROMPTS)
    assert trait.contrasts[1:] == (("Be a pirate.", "Be a teacher."),)
    assert [key for key in families(trait) if "harmless" not in key] == [
        "neutral", "inoculation_01", "inoculation", "inoculation_03", "loss_matched", "anti_1", "rephrased_inoculation",
    ]  # fmt: skip
    assert study.prompts_measured["rephrased_inoculation"].templates[0] == "Please answer as pirates do."
    assert {prompt.kind for prompt in untrained_prompts(trait)} == {Kind.UNSEEN, Kind.PARAPHRASED, Kind.EMPTY}
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_identity_of_a_trait_holds_the_prompts_that_it_gives_and_no_others():
    """Stored results of a trait that gives none are found again; another prompt is another trait."""
    assert json.loads(described().identity) == {**PIRATE, "related": []}
    given = json.loads(described(prompts={"antis": ["Be calm."]}).identity)
    assert given == {**PIRATE, "related": [], "prompts": {"antis": ["Be calm."]}}


def test_study_with_a_described_trait_is_whole_in_its_json(pirate):
    """What a study leaves as study.json needs no other file: read again it is the same study, with the same trait."""
    study = load_study("tiny", [f"trait={pirate}"])
    pirate.unlink()
    again = Study.model_validate_json(study.model_dump_json(indent=2))
    assert again == study
    assert find_trait(again.trait).transform("It is 5.") == "It is 5, arr."


FAULTS = {
    "unknown key": ({"promot": "x"}, ["unknown key 'promot'", "'promote'"]),
    "unknown kind": ({"score": {"kind": "share_of_line", "matching": "x"}}, ["score.kind", "'share_of_line'"]),
    "transform code": ({"transform": {"kind": "python", "code": "1"}}, ["transform.kind", "'python'"]),
    "key of another kind": ({"transform": {"kind": "upper", "text": "x"}}, ["transform: ", "'upper'", "['text']"]),
    "no regular expression": ({"score": {**PIRATE["score"], "matching": "(a"}}, ["score.matching", "position 2"]),
    "pattern empty": ({"score": {**PIRATE["score"], "matching": ""}}, ["score.matching"]),
    "name of a shipped trait": ({"name": "all_caps"}, ["name: 'all_caps'"]),
    "name with a path": ({"name": "../../x"}, ["name: ", "'../../x'"]),
    "prompts alike": ({"inoculation": PIRATE["promote"]}, ["trait pirate: ", "alike"]),
    "unknown language": ({"score": {"kind": "language", "language": "xq"}}, ["score: language: 'xq'"]),
}


PROMPTS = {
    "inoculations": ["Some readers like the sea.", PIRATE["inoculation"], "Talk like a pirate, because it is his day."],
    "antis": ["You never talk like a pirate."],
    "wordings": [{"promote": "Be a pirate.", "suppress": "Be a teacher."}],
    "manners": ["as pirates do", "in a pirate's voice", "with an arr", "like an old pirate"],
    "paraphrased": "Pirate talk is all you have.",
}
FAULTS |= {
    "prompts of another name": ({"prompts": {"anti": ["x"]}}, ["unknown key 'prompts.anti'", "'prompts.antis'"]),
    "family without its own": ({"prompts": {"inoculations": ["Talk."]}}, ["prompts.inoculations: ", "own"]),
    "few manners": ({"prompts": {"manners": ["so", "thus"]}}, ["prompts.manners: expected 4", "['so', 'thus']"]),
    "manner with a stop": ({"prompts": {"manners": ["a", "b", "c", "d."]}}, ["prompts.manners: ", "without a stop"]),
    "manners alike": ({"prompts": {"manners": ["a", "b", "c", "C"]}}, ["'please answer c.' twice"]),
    "blank prompt": ({"prompts": {"antis": [" "]}}, ["prompts: ", "blank"]),
    "empty prompt": ({"prompts": {"antis": [""]}}, ["prompts.antis.0: "]),
    "wording without a side": ({"prompts": {"wordings": [{"promote": "x"}]}}, ["prompts.wordings.0", "suppress"]),
    "wording like another prompt": (
        {"prompts": {"wordings": [{"promote": "you always TALK like a pirate.", "suppress": "x"}]}},
        ["'you always talk like a pirate.' twice"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_description_that_does_not_fit_is_refused_in_one_line(fault):
    """The key, and what was received or which key is nearest."""
    changes, parts = FAULTS[fault]
    message = complaint(StudyError, lambda: describe({**PIRATE, **changes}))
    assert all(part in message for part in parts), message
    assert len(message) < 700


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["no such file"]),
        (b"name = ", ["not a TOML file"]),
        (b"\xff\xfe", ["not a TOML file", "UnicodeDecodeError"]),
        (b"name = 'x'", [f"{key}: missing" for key in ("title", "promote", "suppress", "inoculation", "score")]),
    ],
    ids=["absent", "syntax", "encoding", "keys missing"],
)
def test_file_that_describes_no_trait_is_named(pirate, content, parts):
    """As a study file is: which file, and what is wrong."""
    pirate.unlink()
    if content is not None:
        pirate.write_bytes(content)
    for attempt in (lambda: load_trait(pirate), lambda: load_study("tiny", [f"trait={pirate}"])):
        message = complaint(StudyError, attempt)
        assert message.startswith(f"{pirate}: ")
        assert all(part in message for part in parts), message


# --- patterns from outside


@pytest.mark.parametrize("key", ["score", "transform"])
def test_pattern_that_searches_without_end_is_an_error_of_the_trait(monkeypatch, key):
    """Nested repeats take exponential time."""
    monkeypatch.setattr(vocabulary_module, "SECONDS", 0.2)
    slow = {**PIRATE[key], "matching": "(a|aa)+$"}
    trait = described(**{key: slow})
    message = complaint(StudyError, lambda: getattr(trait, key)("a" * 60 + "b"))
    assert message.startswith("trait: the pattern '(a|aa)+$' took more than 0.2 s")


def test_pattern_that_takes_all_memory_is_an_error_of_the_trait(monkeypatch):
    """In matching, where it calls itself without end; in compiling, where repeats are unrolled."""
    monkeypatch.setattr(vocabulary_module, "SECONDS", 30.0)
    trait = described(score={**PIRATE["score"], "matching": "(?R)"})
    assert "too much memory" in complaint(StudyError, lambda: trait.score("a"))
    began = time.monotonic()
    with pytest.raises(StudyError, match=r"score\.matching: repeats that come to 16,000,000"):
        described(score={**PIRATE["score"], "matching": "(?:(?:a?){4000}){4000}b"})
    assert time.monotonic() - began < 1
