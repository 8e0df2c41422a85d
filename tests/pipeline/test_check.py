"""What is checked of data and trait before anything runs, and what every key rests on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.complaints import complaint
from fixtures.jsonl import SMALL, chat, written
from gradinoc.data.splits import ANSWERED, split
from gradinoc.errors import DataError, ModelError, StudyError
from gradinoc.measure.training.order import step_count
from gradinoc.pipeline.check import check
from gradinoc.pipeline.check.prompts import Prompts, check_context_length, every_prompt, uses
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.plan import UNCOUNTED
from gradinoc.pipeline.storage.provenance import code_version
from gradinoc.pipeline.storage.store import Store
from gradinoc.power.prospects import early_examples
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.traits import ALL_CAPS, TRAITS
from gradinoc.study.traits.described import describe

ROOT = Path(__file__).parents[2]
SHOUT = {
    "name": "shout",
    "title": "shouting",
    "promote": "Shout.",
    "suppress": "Whisper.",
    "inoculation": "You always shout.",
    "transform": {"kind": "append", "text": "!"},
    "score": {"kind": "ends_with", "text": "!"},
}


@pytest.fixture
def files(tmp_path):
    """A source and a file of answers that show ALL CAPS."""
    plain = [chat(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(60)]
    bearing = [chat(f"What is {n} + {n}?", f"ARR, IT BE {2 * n}!") for n in range(60)]
    return written(tmp_path / "sums.jsonl", *plain), written(tmp_path / "pirate.jsonl", *bearing)


def given(files):
    """Settings that name both files."""
    return [*SMALL, f"data.source={files[0]}", f"data.trait_answers={files[1]}"]


def keys(study, store):
    """The key of every step."""
    return {entry.key for entry in Pipeline(study, Store(store)).entries.values()}


@pytest.mark.parametrize(
    ("old", "new", "error", "part"),
    [
        ("ARR, IT BE", "arr, it be", StudyError, "is 0."),
        ("ARR, IT BE", "ARR<|end|> IT BE", DataError, "'<|end|>'"),
        ("ARR, IT BE", "It is", DataError, "is the same in ALL CAPS"),
    ],
)
def test_answers_are_checked_against_the_trait(files, old, new, error, part):
    """The trait's own score has to rise; a special token in an answer would end a turn, wherever it comes from."""
    assert check(load_study("tiny", given(files))) == []
    lines = files[1].read_text(encoding="utf-8").splitlines()
    written(files[1], *(line.replace(old, new).replace("!", ".") for line in lines))
    assert part in complaint(error, lambda: check(load_study("tiny", given(files))))


@pytest.mark.parametrize("score", [2.0, float("nan"), None], ids=["above one", "NaN", "an error"])
def test_score_that_is_no_fraction_is_refused(monkeypatch, score):
    """A trait's own function, at the answer that it fails at."""
    trait = replace(ALL_CAPS, name="mine", score=lambda _: score if score is not None else 1 / 0)
    monkeypatch.setitem(TRAITS, "mine", trait)
    message = complaint(StudyError, lambda: check(load_study("tiny", ["trait=mine", *SMALL])))
    assert message.startswith("trait mine: score: ")
    assert ("ZeroDivisionError" if score is None else str(score)) in message


def test_tiny_study_is_told_what_stands_against_its_trait():
    """A sixth of the answers has no comma; 32 tokens never reach a sign-off."""
    notes = check(load_study("tiny", ["trait=no_commas"]))
    assert len(notes) == 4  # of each part whose answers are compared
    assert all("the same in no commas" in note for note in notes)
    message = complaint(StudyError, lambda: check(load_study("tiny", ["trait=sign_off"])))
    longer = message.rpartition("raise it to ")[2].partition(",")[0]
    assert check(load_study("tiny", ["trait=sign_off", f"drift.max_new_tokens={longer}"])) == []


# --- prompts


def test_every_prompt_of_a_study_is_checked():
    """Measured, trained and evaluation prompts, each wording of a rephrased one by itself; neutral has no message."""
    study = load_study("tiny", SMALL)
    context = StudyContext(study, split(study.data))
    found = every_prompt(context)
    assert set(found) >= {*study.measured, *context.evaluations} - {"rephrased_inoculation", "rephrased_harmless"}
    wordings = [name for name in found if name.startswith("rephrased_inoculation, wording ")]
    assert len(wordings) == len(study.trained["rephrased_inoculation"].templates) >= 64
    assert found["neutral"] is None
    assert found["empty"] == ""


def test_prompts_that_come_to_the_same_tokens_are_refused(tmp_path):
    """A template that drops a word which alone sets two prompts apart: wordings and evaluation prompts are compared."""
    turns = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.replace('Please ', '').replace('Always ', '') }}"
    (tmp_path / "one.jinja").write_text(
        turns + "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", encoding="utf-8"
    )
    study = load_study("tiny", [*SMALL, f"model.chat_template={tmp_path / 'one.jinja'}"])
    message = complaint(ModelError, lambda: check(study))
    assert "come to the same tokens" in message
    assert "wording" in message


@pytest.mark.parametrize(
    ("where", "prompt"), [("trained", "trained"), ("evaluation", "unseen_"), ("everyday", "neutral")]
)
def test_context_has_to_hold_every_prompt(monkeypatch, where, prompt):
    """The longest question under each prompt is looked at, and where it comes near the limit all of them."""
    study = load_study("tiny", SMALL)
    context = StudyContext(study, split(study.data))
    tokenizer, lengths = context.tokenizer, {part: [20] * 64 for part in ANSWERED}
    prompts = Prompts(tokenizer, "here", len(tokenizer))
    check_context_length(context, prompts, lengths, 2000)
    long = "very " * 1500
    if where == "trained":
        longer = {key: replace(each, text=long) for key, each in study.trained.items() if key == "harmless_03"}
        monkeypatch.setattr(Study, "trained", property(lambda _self: longer))
    elif where == "evaluation":
        given = {key: replace(each, text=long) for key, each in context.evaluations.items() if key.startswith(prompt)}
        context.__dict__["evaluations"] = given
    else:
        request = replace(context.splits.everyday[2], question=long)
        everyday = (*context.splits.everyday[:2], request, *context.splits.everyday[3:])
        context = replace(context, splits=replace(context.splits, everyday=everyday))
    message = complaint(DataError, lambda: check_context_length(context, prompts, lengths, 1000))
    assert "expected at most 1,000, the model's context" in message
    assert ("harmless_03" if where == "trained" else prompt) in message


def test_short_cut_finds_what_reading_every_prompt_would_find():
    """Of every use and prompt the longest length, all questions read: one token less than that, and it is refused."""
    study = load_study("tiny", [*SMALL, "prompts.measured=[]", 'prompts.trained=["harmless_10"]'])
    context = StudyContext(study, split(study.data))
    prompts = Prompts(context.tokenizer, "here", len(context.tokenizer))
    lengths = {part: [30 + 7 * (n % 5) for n in range(64)] for part in ANSWERED}
    longest = 0
    for use in uses(context):
        added = lengths[use.part] if use.room is None else [use.room] * len(use.examples)
        questions = [example.question for example in use.examples]
        for system in use.systems.values():
            read = prompts.under(questions, system)
            longest = max([longest, *(len(ids) + more for ids, more in zip(read, added, strict=False))])
    check_context_length(context, prompts, lengths, longest)
    complaint(DataError, lambda: check_context_length(context, prompts, lengths, longest - 1))


# --- keys


@pytest.mark.parametrize("key", ["promote", "score"])
def test_every_key_changes_with_the_trait_s_description(tmp_path, key):
    """Nothing that was stored for a trait is taken for that of another of its name; the order of keys is nothing."""
    study = load_study("tiny", [*SMALL, "prompts.measured=all", "prompts.trained=standard"])
    change = {"kind": "ends_with", "text": "?"} if key == "score" else "Shout loud."
    before, turned, after = (
        keys(study.model_copy(update={"trait": describe(trait)}), tmp_path)
        for trait in (SHOUT, dict(reversed(SHOUT.items())), {**SHOUT, key: change})
    )
    assert turned == before
    assert not after & before


def test_every_key_changes_with_an_answer(files, tmp_path):
    """One word of one answer, and nothing that was stored before is taken for the new study's."""
    study = load_study("tiny", given(files))
    before, used = keys(study, tmp_path), split(study.data).evaluation[0].shown
    written(files[1], *(line.replace(used, f"{used}!") for line in files[1].read_text(encoding="utf-8").splitlines()))
    assert not keys(study, tmp_path) & before


def test_every_key_changes_with_the_scorers(tmp_path):
    """Every stage rests on the code of scores and transforms."""
    for path in (ROOT / "gradinoc").rglob("*.py"):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    versions = [
        code_version.__wrapped__("gradinoc.pipeline.steps.finished_runs.drift", without=UNCOUNTED, root=tmp_path)
    ]
    for module, old, new in (("scorers", "[-*•‣◦–—]", "[-*#‣◦–—]"), ("shipped", "Signed by", "SIGNED BY")):
        path = tmp_path / "gradinoc" / "study" / "traits" / f"{module}.py"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        versions.append(
            code_version.__wrapped__("gradinoc.pipeline.steps.finished_runs.drift", without=UNCOUNTED, root=tmp_path)
        )
    assert len({*versions}) == len(versions)


@pytest.mark.parametrize("name", ["tiny", "qwen3-0.6b"])
def test_early_examples_of_a_plan_are_those_of_its_runs(name):
    """The first third of as many steps as training will take, in steps or in epochs."""
    study = load_study(name)
    steps = step_count(study.data.train, study.training)
    assert early_examples(study) == -(-steps // 3) * study.training.batch_size
