"""Prompts are shown as the model reads them, and an example with the very tokens that loss is taken on."""

from __future__ import annotations

import pytest

from fixtures.chat_families import FAMILIES, family_tokenizer
from fixtures.small_study import SMALLEST, as_options
from gradinoc.cli import main
from gradinoc.data.examples import showing
from gradinoc.data.splits import split
from gradinoc.measure.passes.batches import collate
from gradinoc.models.chat.encoding import encode
from gradinoc.models.chat.rendered import label_mask
from gradinoc.models.chat.template import render_prompt
from gradinoc.models.files import tokenizer_of
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import INOCULATION


@pytest.mark.parametrize("name", FAMILIES)
def test_mask_marks_the_tokens_that_loss_is_taken_on(name):
    """Those that a batch predicts, and no others; their text together is the rendered conversation's."""
    tokenizer = family_tokenizer(name)
    encoded = encode(tokenizer, "How many boats are left?", "She has\n  two.", "Be brief.")
    mask = label_mask(tokenizer, encoded)
    batch = collate([encoded], tokenizer.pad_token_id)
    assert [place for place, (_, carries) in enumerate(mask) if carries] == batch.completion.tolist()
    assert len(mask) == len(encoded.ids)
    text = "".join(text for text, _ in mask)
    assert text.strip() == tokenizer.decode(list(encoded.ids), clean_up_tokenization_spaces=False).strip()


def test_a_study_shows_its_first_training_question_under_every_condition():
    """Conditions and further prompts that are measured; the example is what inoculation trains on."""
    study = load_study("tiny", SMALLEST)
    bench, tokenizer = StudyContext(study, split(study.data)), tokenizer_of(bundled_folder("obedient"))
    first, open_ended = bench.splits.train[0], bench.rendered(tokenizer)
    assert open_ended == bench.rendered()
    assert list(open_ended.prompts) == list(study.measured)
    assert open_ended.prompts["neutral"] == render_prompt(tokenizer, first.question, None)
    further = study.measured["harmless_04"].text
    assert open_ended.prompts["harmless_04"] == render_prompt(tokenizer, first.question, further)
    encoded = encode(tokenizer, first.question, showing(first, bench.trait), bench.systems[INOCULATION])
    assert open_ended.tokens == label_mask(tokenizer, encoded)


def test_a_plan_shows_prompts_and_an_example(tmp_path, capsys, monkeypatch):
    """Special tokens seen, and no weights loaded for it."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr("gradinoc.pipeline.estimate.Stopwatch.seconds", lambda *_: 1.0)
    assert main(["plan", "tiny", "--no-power", f"--artifacts={tmp_path}", *as_options(SMALLEST)]) == 0
    said = capsys.readouterr().out
    for name, text in StudyContext(study := load_study("tiny", SMALLEST), split(study.data)).rendered().rows():
        assert f"\n{name}  " in said
        assert f" {text}\n" in said
