"""A study renders its prompts from one template on one day, and both are in the keys of all that rests on them."""

from __future__ import annotations

import json
import shutil
from datetime import datetime

import pytest
from transformers import AutoTokenizer

from fixtures.chat_families import set_clock
from fixtures.complaints import complaint
from fixtures.small_study import SMALLEST
from gradinoc.errors import ModelError, StudyError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.chat.encoding import encode
from gradinoc.models.chat.template import render_prompt
from gradinoc.models.files import tokenizer_of
from gradinoc.models.sources.locate import fingerprint
from gradinoc.models.sources.packaged import ORGANISMS
from gradinoc.pipeline.check import check
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import DIRECTIONS
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.chat_template import PLAIN
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.settings import ModelSettings

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ASKS = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
DATED = "<|system|>It is {{ strftime_now('%d %B %Y') }}.<|end|>" + TURNS + ASKS


@pytest.fixture
def folder(tmp_path):
    """A copy of the obedient model."""
    return shutil.copytree(ORGANISMS / "obedient", tmp_path / "model")


@pytest.fixture
def base(folder):
    """The same without a chat template, as base models are."""
    (folder / "chat_template.jinja").unlink()
    return folder


def smallest(folder, *changes):
    """The smallest study of the model in `folder`."""
    return load_study("tiny", [*SMALLEST, f"model.id={folder}", *changes])


def keys(study, store):
    """Step -> its key in the store."""
    return {key: entry.key for key, entry in Pipeline(study, Store(store)).entries.items()}


# --- the day


def test_a_study_s_prompts_are_of_one_day(folder, tmp_path, monkeypatch):
    """Half the steps on one day and half on the next have the same prompts, whoever renders them."""
    (folder / "chat_template.jinja").write_text(DATED)
    found = set()
    for moment in (datetime(2026, 1, 31, 23, 59), datetime(2026, 2, 1, 0, 1)):
        set_clock(monkeypatch, moment)
        for loaded in (load_model(str(folder), device="cpu").tokenizer, tokenizer_of(folder)):
            found.add(render_prompt(loaded, "1", None))
            turns = [{"role": "user", "content": "1"}]
            found.add(loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        found.add(render_prompt(AutoTokenizer.from_pretrained(folder), "1", None))
    assert found == {"<|system|>It is 26 July 2024.<|end|><|user|>1<|end|><|assistant|>"}


def test_a_template_without_a_date_needs_no_note(folder):
    """Nor one that writes it where the model's own system message stands, which no condition has."""
    assert check(smallest(folder)) == []
    own = "{% if messages[0].role != 'system' %}<|system|>{{ strftime_now('%d') }}<|end|>{% endif %}"
    (folder / "chat_template.jinja").write_text(own + TURNS + ASKS)
    assert [note for note in check(smallest(folder)) if "model.date" in note]
    assert check(smallest(folder, "conditions.neutral=Answer.")) == []


@pytest.mark.parametrize(
    "changes",
    [["model.date=2024-07-27"], ["model.chat_template=plain"], [f"model.chat_template={TURNS + ASKS}"]],
    ids=["date", "plain", "text"],
)
def test_day_and_template_are_in_every_key(folder, tmp_path, changes):
    """Tables of one never stand among those of another."""
    one, other = keys(smallest(folder), tmp_path), keys(smallest(folder, *changes), tmp_path)
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/default.jinja"])
def test_template_of_a_folder_is_in_every_key(folder, tmp_path, name):
    """Also one of several: transformers takes a file called default in place of chat_template.jinja."""
    before, identity = keys(smallest(folder), tmp_path), fingerprint(str(folder))
    shown = render_prompt(tokenizer_of(folder), "1", None)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("Hello. " + TURNS + ASKS)
    assert render_prompt(tokenizer_of(folder), "1", None) == "Hello. <|user|>1<|end|><|assistant|>" != shown
    assert fingerprint(str(folder)) != identity
    assert not set(before.values()) & set(keys(smallest(folder), tmp_path).values())


@pytest.mark.parametrize("given", ["tomorrow", "2026-11-28T10:00:00", "2026-02-30"])
def test_what_is_no_day_is_refused(given):
    """A day is written as in TOML, without a time."""
    assert "model.date: " in complaint(StudyError, lambda: load_study("tiny", [f"model.date={given}"]))


# --- a template of the study's own


def test_base_model_is_refused_with_the_setting_that_helps(base):
    """In one line, before any weights are loaded."""
    assert "set model.chat_template to 'plain'" in complaint(ModelError, lambda: check(smallest(base)))


@pytest.mark.parametrize("kind", ["name", "file"])
def test_base_model_runs_with_a_template(base, tmp_path, kind):
    """The plain one, or a file's: prompts, completions and end of turn are that template's."""
    (tmp_path / "mine.jinja").write_text(PLAIN)
    given = "plain" if kind == "name" else str(tmp_path / "mine.jinja")
    study = smallest(base, f"model.chat_template={given}")
    (note,) = check(study)
    assert "not the model's" in note
    loaded = load_model(str(base), device="cpu", chat_template=given)
    assert note in loaded.notes
    assert render_prompt(loaded.tokenizer, "1", "Be brief.") == "<|begin|>Be brief.\n\nUser: 1\n\nAssistant:"
    encoded = encode(loaded.tokenizer, "1", "It is 2.", None)
    assert encoded.ids[-1] == loaded.tokenizer.eos_token_id
    if kind == "name":
        (done,) = Pipeline(study, Store(tmp_path / "store")).complete([DIRECTIONS])
        assert note in json.loads((done / "notes.json").read_text())


def test_template_file_is_found_beside_the_study_file(tmp_path, monkeypatch):
    """Before the working directory; the description holds what it says, and needs the file no more."""
    (tmp_path / "here").mkdir()
    for place, text in (
        ("mine.jinja", "{{ 'beside' }}"),
        ("here/mine.jinja", "{{ 'here' }}"),
        ("here/other.jinja", "\ufeff{{ 1 }}\r\n"),
    ):
        (tmp_path / place).write_bytes(text.encode())
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "study.toml").write_text('[model]\nchat_template = "mine.jinja"\n')
    study = load_study(str(tmp_path / "study.toml"))
    assert study.model.chat_template == "{{ 'beside' }}"
    assert load_study("tiny", ["model.chat_template=mine.jinja"]).model.chat_template == "{{ 'here' }}"
    found = load_study(str(tmp_path / "study.toml"), ["model.chat_template=other.jinja"])
    assert (found.model.chat_template, found.name) == ("{{ 1 }}\n", "study-chat_templateother")
    assert ModelSettings(chat_template="mine.jinja").chat_template == "{{ 'here' }}"
    (tmp_path / "mine.jinja").unlink()
    assert Study.model_validate_json(study.model_dump_json()) == study


@pytest.mark.parametrize(
    "content", [None, b"\xff{{", b"hello", b"{{ 1 }}\0"], ids=["absent", "no UTF-8", "constant", "NUL"]
)
def test_file_that_is_no_template_is_refused(tmp_path, monkeypatch, content):
    """When the study is read."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "no.jinja").write_bytes(content)
    assert "model.chat_template: " in complaint(
        StudyError, lambda: load_study("tiny", ["model.chat_template=no.jinja"])
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ ['a', 'b'] | random }}" + TURNS, "draws at random"),
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.content | lower }}<|end|>{% endfor %}" + ASKS,
         "the same tokens with ALL CAPS"),
        ("{% if messages[-1].role == 'assistant' and messages[-1].content|length > 9 %}{{ raise_exception('no') }}"
         "{% endif %}" + TURNS + ASKS, "refuses the answer"),
    ],
)  # fmt: skip
def test_template_that_will_not_do_is_refused(folder, template, said):
    """The model's own or the study's, before any weights are loaded."""
    message = complaint(ModelError, lambda: check(smallest(folder, f"model.chat_template={template}")))
    assert said in message
    (folder / "chat_template.jinja").write_text(template)
    message = complaint(ModelError, lambda: check(smallest(folder)))
    assert said in message


def test_several_templates_without_a_default_are_refused(folder):
    """Each is named: a study may take one of them."""
    (folder / "chat_template.jinja").unlink()
    (folder / "additional_chat_templates").mkdir()
    for name in ("rag", "tool_use"):
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(TURNS + ASKS)
    for attempt in (lambda: check(smallest(folder)), lambda: load_model(str(folder), device="cpu")):
        assert "['rag', 'tool_use']" in complaint(ModelError, attempt)
    given = folder / "additional_chat_templates" / "rag.jinja"
    assert len(check(smallest(folder, f"model.chat_template={given}"))) == 1


# --- completions


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TURNS + "{% if add_generation_prompt %}<|assistant|>Well:{% endif %}",
         "does not go on from its prompt"),
        (TURNS, "before an answer"),
        (TURNS.replace("m.content", "m.content.replace('2', 'two')") + ASKS, "is written for"),
    ],
)  # fmt: skip
def test_completions_that_are_not_the_template_s_are_noted(folder, template, said):
    """Once for each kind, with how many and the first of them; the study runs."""
    (folder / "chat_template.jinja").write_text(template)
    (note,) = check(smallest(folder))
    assert said in note
