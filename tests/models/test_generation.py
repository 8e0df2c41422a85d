"""Generation pads with what is spare, stops where a turn ends, and leaves the model as it was."""

from __future__ import annotations

import logging

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from fixtures.oracles import answer_loss
from fixtures.small_models import ARCHITECTURES, END, VOCABULARY, letter_tokenizer
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.measure.loading.load import separate_pad_token
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import end_tokens, generate


@pytest.fixture
def llama():
    """A small Llama."""
    return ARCHITECTURES["llama"]()


@pytest.mark.parametrize("pad", [None, "<end>"])
def test_unused_special_token_serves_as_padding(llama, pad):
    """Neither a missing pad token nor one that ends turns is left; the vocabulary stays as it is."""
    tokenizer = letter_tokenizer()
    tokenizer.pad_token = pad
    separate_pad_token(llama, tokenizer)
    assert tokenizer.pad_token == "<pad>"  # noqa: S105 - a token of text
    assert llama.get_input_embeddings().num_embeddings == VOCABULARY == len(tokenizer)


def test_no_row_is_added_where_no_token_is_spare(llama):
    """It would have a share in every probability: the end of the turn pads, is masked, and logits stay as they are."""
    words = {"<end>": 0, **{str(number): number for number in range(1, VOCABULARY)}}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words)), eos_token=next(iter(words)))
    with torch.no_grad():
        before = llama(torch.tensor([[7, 8, 9]])).logits
        separate_pad_token(llama, tokenizer)
        after = llama(torch.tensor([[7, 8, 9]])).logits
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert torch.equal(after, before)
    prompts, short = [[7, 8, 9, 10, 11], [20, 21]], Encoded((7, 8, 9, 0), 2)
    alone = [generate(llama, tokenizer, [prompt], 6, 1)[0] for prompt in prompts]
    assert generate(llama, tokenizer, prompts, 6, 2) == alone
    examples = [short, Encoded((20, 21, 22, 23, 24, 0), 3)]
    expected = [float(answer_loss(llama, each).detach()) for each in examples]
    assert answer_losses(llama, examples, int(tokenizer.pad_token_id), 2).tolist() == pytest.approx(expected, rel=1e-5)


PROMPTS = [[20, 21, 22], [30, 31, 32, 33, 34], [40]]


def test_models_own_settings_do_not_leak_into_generation(llama, caplog):
    """Temperature, sampling and repetition penalty change nothing, warn of nothing, and are still there afterwards."""
    tokenizer = letter_tokenizer()
    plain = generate(llama, tokenizer, PROMPTS, 12, 2)
    own = llama.generation_config
    own.update(do_sample=True, temperature=9.0, top_k=3, repetition_penalty=4.0, max_length=7)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert generate(llama, tokenizer, PROMPTS, 12, 2) == plain
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []
    assert llama.generation_config is own


def test_generation_stops_at_whatever_ends_a_turn(llama):
    """Each token that the model's settings name ends a response, and is not part of it."""
    tokenizer = letter_tokenizer()
    (whole,) = generate(llama, tokenizer, PROMPTS[:1], 12, 1)
    stop = tokenizer.convert_tokens_to_ids(whole[4])
    llama.generation_config.eos_token_id = [END, stop]
    assert end_tokens(llama, tokenizer) == {END, stop}
    assert generate(llama, tokenizer, PROMPTS[:1], 12, 1) == [whole[: whole.index(whole[4])]]


def test_generation_leaves_the_mode_of_the_model(llama):
    """Dropout is off while generating, and a model in training goes on training."""
    llama.train()
    llama.model.layers[0].register_forward_hook(
        lambda block, *_: pytest.fail("dropout would be on") if block.training else None
    )
    generate(llama, letter_tokenizer(), PROMPTS, 2, 2)
    assert llama.training
