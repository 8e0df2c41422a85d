"""A model's files, looked at without loading its weights: configuration, tokenizer, chat template, headers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gradinoc.errors import ModelError, reason, shown
from gradinoc.models.chat.template import end_of_turn, tells_the_time
from gradinoc.study.chat_template import DAY, FILE, SHIPPED, dated, read_template

INDEX = "model.safetensors.index.json"  # which file holds which tensor, where there are several files


def config_of(folder: Path) -> PreTrainedConfig:
    """The configuration of the causal language model in `folder`.

    Raises:
        ModelError: it cannot be read, or is that of another kind of model.
    """
    place = folder / "config.json"
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.get_text_config()
    except Exception as error:  # whatever a damaged file makes the library stumble over
        raise ModelError(
            f"{place}: no configuration of a model that this version of transformers knows ({reason(error)}); "
            "code of a repository is never run; give another model.id"
        ) from error
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    own = config.architectures
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    # What also sees images (Llama 4, Qwen3.5) is published under another name; its language model is loaded alone.
    wraps = causal and config.get_text_config() is not config
    names = own if isinstance(own, list) else [own]
    named = not own or any(
        isinstance(each, str) and (each in known or (wraps and each.endswith("ForConditionalGeneration")))
        for each in names
    )
    if not (named and causal):
        raise ModelError(
            f"{place}: architectures: expected a causal (decoder-only) language model with its head, received "
            f"{shown(own or config.model_type)}; give another model.id"
        )
    return config


def skeleton(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The causal language model that `config` describes: modules and shapes, and no numbers.

    Raises:
        ModelError: the library cannot make one of it.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # whatever settings of its own make the library stumble over
        place = Path(config.name_or_path or "", "config.json")
        raise ModelError(
            f"{place}: no {shown(config.model_type)} can be made of it ({reason(error)}); mend it, or give another "
            "model.id"
        ) from error
    return model


UNBOUNDED = -1  # as XLNet writes a context without an end
# Rotations that beyond a length depend on the longest row of a batch: one row there would change all the others.
OF_THE_LONGEST = ("longrope", "dynamic")


def sizes_of(config: PreTrainedConfig, folder: Path) -> tuple[int, int | None]:
    """Tokens in the vocabulary, and in the context if it has an end.

    Of models whose rotary embedding changes with the longest row of a batch (Phi-3 and Phi-4-mini beyond 4,096 tokens),
    the context as far as it does not.

    Raises:
        ModelError: one of the two is no number of tokens.
    """
    text = config.get_text_config()
    vocabulary, context = getattr(text, "vocab_size", None), getattr(text, "max_position_embeddings", None)
    for field, size in (("vocab_size", vocabulary), ("max_position_embeddings", context)):
        given = size not in (None, UNBOUNDED) or field == "vocab_size"
        if given and (type(size) is not int or size < 1):
            place = folder / "config.json"
            raise ModelError(f"{place}: {field}: expected a whole number above 0, received {shown(size)}; mend it")
    bounds = (None if context == UNBOUNDED else context, _independent(text))
    return int(vocabulary or 0), min((bound for bound in bounds if bound is not None), default=None)


def _independent(text: PreTrainedConfig) -> int | None:
    """Up to how many tokens numbers are a sequence's own, where that ends before the context does.

    Beyond it rotations are another sequence's too, or (Doge) tokens that are seen are chosen among equals by chance.
    """
    rope = getattr(text, "rope_parameters", None)
    kinds = [rope, *rope.values()] if isinstance(rope, dict) else []  # one for each kind of layer, where they differ
    ends = [
        kind.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None)
        for kind in kinds
        if isinstance(kind, dict) and kind.get("rope_type") in OF_THE_LONGEST
    ] + [getattr(text, "keep_window_size", None)]
    return min((end for end in ends if type(end) is int and end > 0), default=None)


def look_at_weights(folder: Path) -> None:
    """Ensure that the weights in `folder` are complete, as far as the files' headers show.

    Raises:
        ModelError: no safetensors, or a file that is missing or damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    try:
        listed = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: cannot be read ({reason(error)}); fetch the model again") from error
    missing = sorted(listed - {file.name for file in files}, key=str)
    if missing or not files:
        lack = f"{shown(missing)} missing" if missing else "found none"
        raise ModelError(
            f"{folder}: expected weights as safetensors, {lack}; fetch the model again, or save it with save_pretrained"
        )
    for file in files:
        try:
            with safe_open(str(file), "pt") as tensors:
                tensors.keys()
        except Exception as error:
            raise ModelError(f"{file}: damaged ({reason(error)}); fetch the model again") from error


def read_tokenizer(folder: Path, chat_template: str | None = None, day: date = DAY) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`; its template, if it has one, renders every date as `day`.

    `chat_template` takes the place of the template; see `gradinoc.study.chat_template.read_template`.

    Raises:
        ModelError: a template that draws at random, or several of which none is the default.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if chat_template is not None:
        given = read_template(chat_template, Path())
        tokenizer.chat_template = SHIPPED.get(given, given)
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise ModelError(
            f"chat_template: the tokenizer has {shown(sorted(tokenizer.chat_template))}, and none is called 'default'; "
            "give one of them as model.chat_template"
        )
    if tokenizer.chat_template is not None:
        tokenizer.chat_template = dated(tokenizer.get_chat_template(), day)
    return tokenizer


def tokenizer_of(folder: Path, chat_template: str | None = None, day: date = DAY) -> PreTrainedTokenizerBase:
    """As `read_tokenizer`, with a chat template that closes an assistant's turn.

    Raises:
        ModelError: it cannot be read, or has no such template.
    """
    place = folder
    try:
        tokenizer = read_tokenizer(folder, chat_template, day)
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from error
    except Exception as error:
        raise ModelError(
            f"{place}: no tokenizer that can be read ({reason(error)}); expected tokenizer.json, or give another "
            "model.id"
        ) from error
    if getattr(tokenizer, "split_special_tokens", False):
        raise ModelError(
            f"{place}: tokenizer_config.json: split_special_tokens: expected false, since a template's marks would be "
            "read as ordinary text; delete the key"
        )
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{place}: chat_template: the tokenizer has none; expected an instruction-tuned model; for a base model "
            f"set model.chat_template to {' or '.join(map(repr, SHIPPED))}, or to the path of a {FILE} file"
        )
    try:
        end_of_turn(tokenizer)
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from error
    except Exception as error:  # the template is a program of the model's author
        raise ModelError(
            f"{place}: chat_template: cannot close an assistant's turn ({reason(error)}); expected an end of turn "
            "after the answer, or an eos token; give another model.id or model.chat_template"
        ) from error
    return tokenizer


def template_notes(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    day: date,
    systems: Iterable[str | None] = (None, "1"),
) -> list[str]:
    """Notes on a template that is not the model's own, and on one that writes the date in a prompt under `systems`."""
    notes = []
    if chat_template is not None:
        digest = hashlib.sha256(chat_template.encode()).hexdigest()[:16]
        which = repr(chat_template) if chat_template in SHIPPED else f"the study's own (sha256 {digest})"
        notes.append(f"chat_template: {which}, not the model's (model.chat_template)")
    if tokenizer.chat_template is not None and tells_the_time(tokenizer, systems):
        notes.append(f"chat_template: writes the date; every prompt is as on {day.isoformat()} (model.date)")
    return notes
