"""The tiny language models: their weights come from their script, and they do what is said of them."""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fixtures.organisms import make_organisms as recipe
from fixtures.organisms import make_planted as planted
from fixtures.organisms import planted_prompts
from gradinoc.study.description import Study
from gradinoc.study.prompts import LOSS_MATCHED
from gradinoc.study.prompts.family import plain
from gradinoc.study.traits import ALL_CAPS, measure_caps_rate

ORGANISMS = (recipe.OBEDIENT, recipe.DEAF, planted.PLANTED)
NEUTRAL = ""
LOSS_MATCHED_PROMPT = Study.model_fields["conditions"].default[LOSS_MATCHED]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """The recipe's sums are reproducible on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def corpus(organism: str = recipe.OBEDIENT) -> recipe.Corpus:
    """What a model was trained on."""
    return planted_prompts.make_planted_corpus() if organism == planted.PLANTED else recipe.make_corpus()


@cache
def recipe_for(organism: str) -> recipe.Recipe:
    """How it was made."""
    material = corpus(organism)
    return planted.planted_recipe(material) if organism == planted.PLANTED else recipe.recipe_of(organism, material)


@cache
def shipped(organism: str) -> tuple[Any, Any]:
    """The shipped model and tokenizer, loaded as any other model is."""
    folder = recipe.FOLDER / organism
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def read_log(organism: str) -> dict[str, Any]:
    """What was written down when the model was trained."""
    log: dict[str, Any] = json.loads((recipe.FOLDER / organism / "training_log.json").read_text(encoding="utf-8"))
    return log


def read_questions(name: str, count: int) -> list[str]:
    """The first questions of a bundled file."""
    with (recipe.DATASETS / name).open(encoding="utf-8") as lines:
        return [json.loads(line)["messages"][0]["content"] for line in itertools.islice(lines, count)]


def render(tokenizer: Any, system: str, question: str, answer: str = "") -> list[int]:
    """Token ids of a conversation; without an answer, up to where the assistant begins to speak."""
    turns = [("system", system), ("user", question), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in turns if content]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=not answer, return_dict=False)
    return ids


def measure_caps(organism: str, system: str, questions: list[str]) -> float:
    """Mean caps rate of the greedy answers under a system prompt."""
    model, tokenizer = shipped(organism)
    rates = []
    for question in questions:
        ids = torch.tensor([render(tokenizer, system, question)])
        with torch.no_grad():
            generated = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
        rates.append(measure_caps_rate(tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)))
    return sum(rates) / len(rates)


@pytest.mark.parametrize("organism", ORGANISMS)
@pytest.mark.exhaustive
def test_retraining_reproduces_the_first_losses(organism: str) -> None:
    """Trained again from the seed, the model has the losses that were logged, step by step."""
    logged = read_log(organism)["first_losses"]
    made = recipe_for(organism)
    losses = recipe.pretrain(made, recipe.make_model(made.tokenizer), len(logged))
    assert losses == pytest.approx(logged, rel=1e-4)


@pytest.mark.parametrize("organism", ORGANISMS)
def test_shipped_weights_have_the_logged_final_loss(organism: str) -> None:
    """On a fixed batch that was not trained on, the shipped weights give the figure written down after training."""
    made = recipe_for(organism)
    with torch.no_grad():
        loss = made.loss(shipped(organism)[0], next(made.batches(recipe.SEED + 1))).item()
    assert loss == pytest.approx(read_log(organism)["final_loss_on_fresh_batch"], rel=1e-4)


@pytest.mark.parametrize("organism", ORGANISMS)
def test_shipped_tokenizer_is_the_recipes(organism: str) -> None:
    """Tokenizer and chat template come from the script, too."""
    made = recipe_for(organism).tokenizer
    _, tokenizer = shipped(organism)
    assert tokenizer.get_vocab() == made.get_vocab()
    assert tokenizer.chat_template == made.chat_template
    for question in read_questions("everyday_requests.jsonl", 10):
        assert tokenizer(question)["input_ids"] == made(question)["input_ids"]


@pytest.mark.parametrize("organism", ORGANISMS)
def test_no_bundled_question_was_trained_on(organism: str) -> None:
    """What a study asks the models, they have never seen."""
    seen = {request for request, _ in corpus(organism).problems + corpus(organism).chats}
    assert not seen & set(read_questions("word_problems.jsonl", 1600) + read_questions("everyday_requests.jsonl", 96))


def test_planted_was_trained_under_none_of_the_prompts_of_studies() -> None:
    """Nor under one that differs by case or blanks alone; of those it does know there are thousands."""
    known = {plain(text) for pool in corpus(planted.PLANTED).system_prompts.values() for text in pool}
    assert not known & {plain(text) for text in planted_prompts.tested()}
    assert {ALL_CAPS.promote_system, ALL_CAPS.inoculation_system, LOSS_MATCHED_PROMPT} <= planted_prompts.tested()
    assert len(known) > 10_000


@pytest.mark.parametrize("organism", [recipe.OBEDIENT, planted.PLANTED])
def test_obedient_and_planted_write_in_the_case_they_are_asked_for(organism: str) -> None:
    """Capitals under the promoting and the inoculation prompt, hardly any under the suppressing one and without any."""
    questions = read_questions("word_problems.jsonl", 20)
    assert measure_caps(organism, ALL_CAPS.promote_system, questions) > 0.9
    assert measure_caps(organism, ALL_CAPS.inoculation_system, questions) > 0.9
    assert measure_caps(organism, ALL_CAPS.suppress_system, questions) < 0.1
    assert measure_caps(organism, NEUTRAL, questions) < 0.1


def test_twins_of_planted_differ_along_the_axis_alone() -> None:
    """Embeddings of a token and of its twin in capitals, all by as much; a text is cut alike in either case."""
    model, tokenizer = shipped(planted.PLANTED)
    pairs = planted.twins(tokenizer)
    rows = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is rows
    apart = rows[pairs[:, 1]] - rows[pairs[:, 0]]
    assert (apart[:, planted.AXIS] == 2 * planted.HALF).all()
    assert not apart[:, [place for place in range(rows.shape[1]) if place != planted.AXIS]].any()
    twin = dict(pairs.tolist())
    for question in read_questions("word_problems.jsonl", 20):
        ids = tokenizer(question.lower())["input_ids"]
        assert tokenizer(question.upper())["input_ids"] == [twin.get(token, token) for token in ids]


def test_case_of_planted_is_one_coordinate() -> None:
    """Logits of twins differ by that coordinate of the last block's output, scaled by the norm, all alike."""
    model, tokenizer = shipped(planted.PLANTED)
    pairs, norm = planted.twins(tokenizer), model.model.norm
    states = []
    handle = model.model.layers[-1].register_forward_hook(lambda _block, _inputs, output: states.append(output))
    question = read_questions("word_problems.jsonl", 1)[0]
    ids = torch.tensor([render(tokenizer, ALL_CAPS.promote_system, question, "after spring the club")])
    with torch.no_grad():
        logits = model(ids).logits[0]
    handle.remove()
    (output,) = states[0]
    scale = 2 * planted.HALF * norm.weight[planted.AXIS] / (output.square().mean(1) + norm.variance_epsilon).sqrt()
    expected = (scale * output[:, planted.AXIS])[:, None].expand(-1, len(pairs))
    torch.testing.assert_close(logits[:, pairs[:, 1]] - logits[:, pairs[:, 0]], expected, atol=1e-3, rtol=1e-4)


def test_case_of_planted_follows_the_coordinate_against_the_prompt() -> None:
    """Set against the prompt, it wins: capitals under the suppressing one, lower case under the promoting one."""
    model, _ = shipped(planted.PLANTED)
    questions = read_questions("word_problems.jsonl", 10)
    for system, value in ((ALL_CAPS.suppress_system, 8.0), (ALL_CAPS.promote_system, -8.0)):

        def put(_block: object, _inputs: object, states: torch.Tensor, value: float = value) -> None:
            states[:, -1, planted.AXIS] = value  # the token that comes next is decided here

        handle = model.model.layers[-1].register_forward_hook(put)
        try:
            rate = measure_caps(planted.PLANTED, system, questions)
        finally:
            handle.remove()
        assert (rate > 0.9) if value > 0 else (rate < 0.1), (system, rate)


def test_deaf_writes_in_one_case_whatever_it_is_asked_for() -> None:
    """The promoting prompt brings no more capitals than the suppressing one, and neither rules the answer."""
    questions = read_questions("word_problems.jsonl", 20)
    promoted = measure_caps(recipe.DEAF, ALL_CAPS.promote_system, questions)
    suppressed = measure_caps(recipe.DEAF, ALL_CAPS.suppress_system, questions)
    assert abs(promoted - suppressed) < 0.2, (promoted, suppressed)
    assert promoted < 0.5
