"""Answers that show a trait can come from a file: paired by question, checked line by line, and part of every key."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import sys
from collections import Counter

import pytest

from fixtures.complaints import complaint
from gradinoc.data.examples import showing
from gradinoc.data.export import write_datasets
from gradinoc.data.sources import DATASETS, load_source
from gradinoc.data.splits import ANSWERED, split
from gradinoc.errors import DataError, StudyError
from gradinoc.pipeline.check import check
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.store import Store
from gradinoc.study.description import DataSettings
from gradinoc.study.loading import load_study
from gradinoc.study.traits import ALL_CAPS, NO_COMMAS, SPANISH

SIZES = {"direction": 16, "measure": 8, "train": 8, "evaluation": 8, "calibration": 8}
FEW = [f"data.{name}={size}" for name, size in SIZES.items()] + [
    "drift.generations=4", "drift.everyday=4", "drift.log_odds=4", "nulls.unrelated_questions=8",
]  # fmt: skip
NUMBER = re.compile(r"\d+")
EQUATION = re.compile(r"\d+(?: [-+*/] \d+)+ = \d+")


def chat(question, answer):
    """A line of chat JSONL."""
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


def paired(questions=60):
    """Questions, their ordinary answers, and answers that show a trait of their own."""
    asked = [f"What is {n} + {n}?" for n in range(questions)]
    return asked, [f"It is {2 * n}." for n in range(questions)], [f"Arr, it be {2 * n}!" for n in range(questions)]


@pytest.fixture
def files(tmp_path):
    """A source and a file of answers that show the trait, in another order."""
    asked, plain, bearing = paired()
    source, answers = tmp_path / "sums.jsonl", tmp_path / "pirate.jsonl"
    source.write_text("\n".join(map(chat, asked, plain)) + "\n", encoding="utf-8")
    answers.write_text("\n".join(reversed([*map(chat, asked, bearing)])) + "\n", encoding="utf-8")
    return source, answers


def settings(source, answers, **more):
    """Data settings with these files."""
    return DataSettings(source=str(source), trait_answers=str(answers), **SIZES, **more)


def test_every_question_brings_its_own_answer(files):
    """Whatever the order of the file: ordinary answers stay, and those that show the trait belong to the question."""
    source, answers = files
    asked, plain, bearing = paired()
    parts = split(settings(source, answers))
    for part in ANSWERED:
        for example in getattr(parts, part):
            place = asked.index(example.question)
            assert (example.answer, example.shown) == (plain[place], bearing[place])
    assert all(example.shown is None for example in (*parts.direction, *parts.everyday))


def test_answers_of_a_file_take_the_place_of_the_transform(files, tmp_path):
    """For a trait that has one too: what is trained on and compared is what the file says."""
    source, answers = files
    parts = split(settings(source, answers))
    first = parts.train[0]
    assert showing(first, ALL_CAPS) == first.shown != ALL_CAPS.transform(first.answer)
    plain = dataclasses.replace(first, shown=None)
    assert showing(plain, ALL_CAPS) == ALL_CAPS.transform(first.answer)
    with pytest.raises(
        DataError, match=r"no rule makes an answer show it.*give answers that show it as data.trait_ans"
    ):
        showing(plain, SPANISH)
    trained, held_out, _ = write_datasets(parts, ALL_CAPS, "sums", tmp_path / "out")
    assert [json.loads(line)["messages"][1]["content"] for line in trained.read_text().splitlines()] == [
        e.shown for e in parts.train
    ]
    assert [json.loads(line)["messages"][1]["content"] for line in held_out.read_text().splitlines()] == [
        example.answer for example in parts.evaluation
    ]


def test_no_bundled_file_is_written_over(files, tmp_path):
    """The name of a source and of a trait may come to that of a bundled file; nothing is written then."""
    source, answers = files
    parts, trait = split(settings(source, answers)), dataclasses.replace(ALL_CAPS, name="requests")
    message = complaint(DataError, lambda: write_datasets(parts, trait, "everyday.jsonl", tmp_path / "out"))
    assert message.startswith("everyday_requests.jsonl: a bundled source, which a study does not write over")
    assert not (tmp_path / "out").exists()


def test_questions_are_paired_whatever_their_blanks_and_case(files):
    """As questions are told apart everywhere else."""
    source, answers = files
    text = answers.read_text(encoding="utf-8")
    answers.write_text(text.replace("What is", "  WHAT   is"), encoding="utf-8")
    assert all(example.shown.startswith("Arr") for example in split(settings(source, answers)).train)


def test_file_of_the_inoculation_prompting_repository_is_read_as_it_is(files):
    """Its lines: chat with other keys beside `messages`, with GSM8K's annotations, or the bare list of messages."""
    source, answers = files
    asked, plain, bearing = paired()
    annotated = [
        {**json.loads(chat(q, f"{a} <<1+1=2>>\n#### 2")), "id": n}
        for n, (q, a) in enumerate(zip(asked, bearing, strict=True))
    ]
    answers.write_text("\n".join(map(json.dumps, annotated)), encoding="utf-8")
    bare = [json.dumps(json.loads(chat(q, a))["messages"]) for q, a in zip(asked, plain, strict=True)]
    source.write_text("\n".join(bare), encoding="utf-8")
    for example in split(settings(source, answers)).measure:
        assert example.shown == bearing[asked.index(example.question)]
        assert example.answer == plain[asked.index(example.question)]


def test_question_without_an_answer_is_named_with_its_place(files):
    """File, question, where it stands, how many there are: before anything runs."""
    source, answers = files
    lines = answers.read_text(encoding="utf-8").splitlines()
    parts = split(settings(source, answers))
    gone = {example.question for example in parts.train[2:5]}
    answers.write_text(
        "\n".join(line for line in lines if json.loads(line)["messages"][0]["content"] not in gone), encoding="utf-8"
    )
    message = complaint(DataError, lambda: split(settings(source, answers)))
    assert message.startswith(f"{answers}: no answer to '{parts.train[2].question}'")
    assert f"{source}:{parts.train[2].index + 1}" in message
    assert "one of 3 such questions of data.train" in message
    unused = {example.question for example in parts.direction}
    answers.write_text(
        "\n".join(line for line in lines if json.loads(line)["messages"][0]["content"] not in unused), encoding="utf-8"
    )
    assert split(settings(source, answers)).train == parts.train


def test_question_with_two_answers_is_named_with_both_lines(files):
    """The same line twice says nothing new; another answer to the same question does."""
    source, answers = files
    lines = answers.read_text(encoding="utf-8").splitlines()
    answers.write_text("\n".join([*lines, lines[3]]), encoding="utf-8")
    assert split(settings(source, answers))
    answers.write_text("\n".join([*lines, lines[3].replace("Arr", "Ahoy")]), encoding="utf-8")
    message = complaint(DataError, lambda: split(settings(source, answers)))
    assert message.startswith(f"{answers}:61: question: that of line 4 with another answer")


def test_question_alone_is_no_answer(files):
    """A line without an assistant's turn is named."""
    source, answers = files
    lines = answers.read_text(encoding="utf-8").splitlines()
    lines[6] = json.dumps({"messages": json.loads(lines[6])["messages"][:1]})
    answers.write_text("\n".join(lines), encoding="utf-8")
    assert f"{answers}:7: answer: missing" in complaint(DataError, lambda: split(settings(source, answers)))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            "openai/gsm8k",
            "data.trait_answers: 'openai/gsm8k' is no bundled source; expected one, or the path of a JSONL",
        ),
        ("nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("everyday_requests", r"everyday_requests.jsonl:1: answer: missing"),
    ],
)
def test_answers_that_cannot_be_had_are_refused(files, answers, said):
    """No file, or one without answers; a hub's data set has no answers that show a trait."""
    assert re.search(said, complaint(DataError, lambda: split(settings(files[0], answers))))


def test_answers_are_part_of_the_digest_and_of_every_key(files, tmp_path):
    """One word of one answer, and nothing that was stored before is taken for the new study's."""
    source, answers = files
    study = load_study("tiny", [*FEW, f"data.source={source}", f"data.trait_answers={answers}"])
    keys = {label: step.entry.key for label, step in Pipeline(study, Store(tmp_path / "store")).steps.items()}
    before = split(study.data).digest
    used = split(study.data).evaluation[0].shown
    answers.write_text(answers.read_text(encoding="utf-8").replace(used, used + "!"), encoding="utf-8")
    assert split(study.data).digest != before
    again = {label: step.entry.key for label, step in Pipeline(study, Store(tmp_path / "store")).steps.items()}
    assert all(again[label] != key for label, key in keys.items())


def test_answers_without_the_trait_are_refused_before_anything_runs(files):
    """The trait's own score has to rise: pirates write no capitals, and the same answers once more show nothing."""
    source, answers = files
    asked, plain, _ = paired()
    given = [*FEW, f"data.source={source}", f"data.trait_answers={answers}"]
    message = complaint(StudyError, lambda: check(load_study("tiny", given)))
    assert re.search(
        r"trait all_caps: the caps rate of answers that show it \(.*pirate.jsonl\) is 0.\d\d on aver", message
    )
    answers.write_text("\n".join(chat(q, a.upper()) for q, a in zip(asked, plain, strict=True)), encoding="utf-8")
    assert check(load_study("tiny", given)) == []
    answers.write_text("\n".join(map(chat, asked, plain)), encoding="utf-8")
    assert "is the same in ALL CAPS" in complaint(DataError, lambda: check(load_study("tiny", given)))


def test_special_token_in_an_answer_that_shows_the_trait_is_refused(files):
    """It could end a turn, wherever it comes from."""
    source, answers = files
    text = answers.read_text(encoding="utf-8")
    answers.write_text(text.replace("Arr, it be", "ARR<|end|> IT BE"), encoding="utf-8")
    given = [*FEW, f"data.source={source}", f"data.trait_answers={answers}"]
    message = complaint(DataError, lambda: check(load_study("tiny", given)))
    assert re.search(r"answer that shows ALL CAPS: holds '<\|end\|>'", message)


def test_study_of_spanish_says_where_its_answers_come_from(files):
    """Bundled questions have bundled answers; others need a file, and the key to give it is named."""
    assert load_study("tiny", ["trait=spanish"]).data.trait_answers == "spanish_answers"
    assert load_study("tiny", []).data.trait_answers is None
    given = load_study("tiny", ["trait=spanish", f"data.trait_answers={files[1]}"])
    assert given.data.trait_answers == str(files[1])
    message = complaint(StudyError, lambda: load_study("tiny", ["trait=spanish", f"data.source={files[0]}"]))
    assert re.search(r"data\.trait_answers: missing; no rule turns .* the trait 'spanish'; expected a JSONL", message)


@pytest.mark.parametrize("changes", [["trait=spanish"], ["trait=sign_off"], ["trait=no_commas"]])
def test_tiny_study_is_told_what_stands_against_its_trait(changes):
    """Spanish goes with the bundled data; a sign-off is never reached in 32 tokens; a sixth have no comma to lose."""
    study = load_study("tiny", changes)
    if "sign_off" in changes[0]:
        message = complaint(StudyError, lambda: check(study))
        assert re.search(
            r"drift\.max_new_tokens: cut after 32 tokens, .* mean sign-off rate of 0\.00, and of 1\.00 as", message
        )
        longer = message.rpartition("raise it to ")[2].partition(",")[0]
        assert check(load_study("tiny", [*changes, f"drift.max_new_tokens={longer}"])) == []
    else:
        notes = check(study)
        assert len(notes) == (3 if "no_commas" in changes[0] else 0)
        assert all("the same in no commas as they stand" in note for note in notes)


def test_score_that_hardly_rises_is_noted(files):
    """A third of the answers lose their comma: the study runs, and says that there is not much to tell apart."""
    source, answers = files
    asked, _, _ = paired()
    plain = [f"Well, it is {n}." for n in range(60)]
    source.write_text("\n".join(map(chat, asked, plain)), encoding="utf-8")
    bearing = [f"So, {answer}" if n % 3 else NO_COMMAS.transform(answer) for n, answer in enumerate(plain)]
    answers.write_text("\n".join(map(chat, asked, bearing)), encoding="utf-8")
    sizes = [setting for setting in FEW if "evaluation" not in setting and "calibration" not in setting]
    given = ["trait=no_commas", f"data.source={source}", f"data.trait_answers={answers}"]
    notes = check(load_study("tiny", [*given, *sizes, "data.evaluation=20", "data.calibration=8"]))
    assert "there is not much to tell apart" in notes[-1]


# --- the bundled Spanish answers


@pytest.fixture(scope="module")
def both():
    """The bundled questions with English answers, and with Spanish ones."""
    return load_source("word_problems"), load_source("spanish_answers")


def test_spanish_answers_are_what_the_generator_gives():
    """The committed file, byte for byte, from the committed templates."""
    spec = importlib.util.spec_from_file_location("make_word_problems", DATASETS / "make_word_problems.py")
    maker = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = maker
    spec.loader.exec_module(maker)
    made = maker.chat_lines(maker.make_problems(), "spanish")
    assert (DATASETS / "spanish_answers.jsonl").read_bytes() == made.encode()


def test_spanish_answers_answer_the_same_questions_with_the_same_numbers(both):
    """Line by line: question and template, every equation in its order, and the last number, which is the result."""
    for english, spanish in zip(*both, strict=True):
        assert (english.question, english.template) == (spanish.question, spanish.template)
        assert EQUATION.findall(english.answer) == EQUATION.findall(spanish.answer)
        assert NUMBER.findall(spanish.answer)[-1] == NUMBER.findall(english.answer)[-1]
        assert set(NUMBER.findall(spanish.answer)) <= set(NUMBER.findall(english.question + english.answer))


def test_spanish_answers_are_sentences_of_plain_spanish(both):
    """Sentence case, Spanish letters alone, no leftover notation, no English word, no doubled one."""
    for english, spanish in zip(*both, strict=True):
        text = spanish.answer
        assert not re.search(r"[{}\[\]|<>#]|  |\.\.", text), text
        assert set(re.findall(r"[^\W\d_]", text)) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZáéíóúüñÁÉÍÓÚ"
        )
        assert all(sentence[0].isupper() for sentence in re.split(r"(?<=\.) ", text)), text
        assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
        assert text.endswith(".")
        assert 20 <= len(text.split()) <= 60, text
        names = set(re.findall(r"\b[A-Z][a-z]+\b", english.question))
        strange = {"the", "of", "are", "and", "is", "with"} & set(text.lower().split())
        assert not strange, text
        middle = set(re.findall(r"(?<=[a-zé,] )[A-Z]\w+", text))
        assert middle <= names, (text, middle - names)  # within a sentence only names have a capital


# Articles and adjectives that a noun of the templates asks for: a slip of gender shows in one of these.
GENDERS = {
    "feminine": "canicas|páginas|entradas|semanas|pegatinas|tazas|velas|postales|sillas|personas|manzanas|botellas|"
    "vueltas|porciones|conchas|cuentas|flores|fotos|victorias|partidas|monedas|piezas|tiendas|vacas|ruedas|torres|"
    "baldosas|horas|plazas",
    "masculine": "huevos|cartones|centímetros|kilómetros|libros|estantes|dólares|litros|puntos|equipos|minutos|años|"
    "metros|postes|kilogramos|sellos|niños|ladrillos|tarros|collares|gramos|cajones|tornillos|socios|grupos|días|marcos|"
    "bloques|grados",
}  # fmt: skip


def test_spanish_articles_agree_with_their_nouns(both):
    """No "los" before a feminine noun of the templates, and no "las" before a masculine one."""
    for _, spanish in zip(*both, strict=True):
        for kind, articles in (("feminine", "los|unos|algunos|estos"), ("masculine", "las|unas|algunas|estas")):
            wrong = re.search(rf"\b({articles}) ({GENDERS[kind]})\b", spanish.answer, re.IGNORECASE)
            assert not wrong, (wrong, spanish.answer)


def test_wordings_in_spanish_go_with_what_was_drawn():
    """By place: muffins are magdalenas, and a template with one wording too few says so."""
    spec = importlib.util.spec_from_file_location("make_word_problems", DATASETS / "make_word_problems.py")
    maker = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = maker
    spec.loader.exec_module(maker)
    template = maker.Template("t", "A {x=cat|dog}.", "It.", "{x>El gato|El perro}.")
    assert maker.translate(template, {"x": "dog"}) == "El perro."
    short = maker.Template("t", "A {x=cat|dog|cow}.", "It.", "{x>El gato|El perro}.")
    with pytest.raises(ValueError, match="'t': expected as many wordings in Spanish as of 'x'"):
        maker.translate(short, {"x": "dog"})


def test_spanish_answers_are_as_varied_as_the_english_ones(both):
    """No two questions of one template have answers that differ only where the English ones do not."""
    assert len({example.answer for example in both[1]}) >= 0.98 * len({example.answer for example in both[0]})
    assert Counter(example.template for example in both[1]) == Counter(example.template for example in both[0])
