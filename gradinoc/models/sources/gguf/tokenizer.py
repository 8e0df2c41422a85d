"""The tokenizer that a GGUF file describes, built from what the file states and compared with that once more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from gradinoc.errors import ModelError, reason, shown
from gradinoc.models.sources.gguf.header import Header

BLANK = "▁"  # how SentencePiece writes a space
SPECIAL = (TokenType.CONTROL, TokenType.UNKNOWN)
ORDINARY = (TokenType.NORMAL, TokenType.BYTE)
# The tokenizer's name for a special token -> the file's.
IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


@dataclass(frozen=True)
class Cutting:
    """How text is cut into the pieces within which bytes are merged.

    Attributes:
        steps: pre-tokenizers, one after the other.
        gpt2: whether GPT-2's pattern cuts what they leave.
        whole: whether a piece that is a token is one, though merges may not lead to it.
        composed: whether letters and their marks are composed first (NFC).
        begins: whether a text begins with the token for that, where the file does not say.
    """

    steps: tuple[PreTokenizer, ...] = ()
    gpt2: bool = False
    whole: bool = False
    composed: bool = False
    begins: bool = False


def _split(*patterns: str) -> tuple[PreTokenizer, ...]:
    return tuple(Split(Regex(pattern), "isolated") for pattern in patterns)


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}|{REST}".replace(r"+[\r\n]*", r"+[\r\n/]*")
DIGITS = Cutting((Digits(individual_digits=True),), gpt2=True)
QWEN2 = _split(rf"{WORDS}|\p{{N}}|{REST}")
LLAMA3 = Cutting(_split(rf"{WORDS}|\p{{N}}{{1,3}}|{REST}"), whole=True, begins=True)
# tokenizer.ggml.pre -> the cutting that it stands for in llama.cpp; a file that names another is refused.
CUTTINGS = {
    "gpt-2": Cutting(gpt2=True),
    "smollm": DIGITS,
    "starcoder": DIGITS,
    "qwen2": Cutting(QWEN2, composed=True),
    "deepseek-r1-qwen": Cutting(QWEN2, composed=True),  # as transformers reads every tokenizer of a Qwen2 model
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "llama-bpe": LLAMA3,
    "tekken": Cutting(_split(TEKKEN), whole=True, begins=True),
    "deepseek-coder": Cutting(_split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
}


def build_tokenizer(header: Header) -> PreTrainedTokenizerBase:
    """The tokenizer that the file states.

    Raises:
        ModelError: it states none, one of a kind that is not known here, or one that contradicts itself.
    """
    kind, template = header.text("tokenizer.ggml.model"), header.text("tokenizer.chat_template")
    if kind not in KINDS:
        raise header.refuse(
            f"tokenizer.ggml.model: expected one of {sorted(KINDS)}, received {shown(kind)}; give the model as a "
            "folder of safetensors with its tokenizer"
        )
    vocabulary = _vocabulary(header)
    try:
        backend, begins = KINDS[kind](header, vocabulary)
    except ModelError:
        raise
    except Exception as error:  # the library's errors are plain ones
        raise header.refuse(
            f"its tokenizer cannot be built ({reason(error)}); fetch the file again or convert it again"
        ) from error
    backend.add_special_tokens(list(_added(vocabulary, special=True)))
    backend.add_tokens(list(_added(vocabulary, special=False)))
    begins = header.metadata.get("tokenizer.ggml.add_bos_token", begins)
    return TokenizersBackend(
        tokenizer_object=backend, is_local=True, local_files_only=False,  # as transformers notes of a file
        **{name: vocabulary[place][0] for name, place in _ids(header).items() if place is not None},
        **({"add_bos_token": True} if begins else {}),
        **({} if template is None else {"chat_template": template}),
    )  # fmt: skip


def ensure_tokenizer(header: Header, built: PreTrainedTokenizerBase, read: PreTrainedTokenizerBase) -> None:
    """Ensure that a tokenizer, as transformers reads it back, is the one that was built and that the file states.

    Every token and its id, those that are never cut, the special ones, the rules, the chat template.

    Raises:
        ModelError: the first thing that differs.
    """
    vocabulary = _vocabulary(header)
    _same(header, "number of tokens", len(vocabulary), len(read))
    for place, (token, kind) in enumerate(vocabulary):
        _same(header, f"token {place}", token, read.convert_ids_to_tokens(place))
        if _is_added(token, kind):
            _same(header, f"ids of {shown(token)}", [place], read.encode(token, add_special_tokens=False))
    for name in IDS:
        expected = getattr(built, name)
        if name != "unk_token" or expected is not None:  # no text comes to it where every byte is a token
            _same(header, name, expected, getattr(read, name))
    rules, found = (json.loads(each.backend_tokenizer.to_str()) for each in (built, read))
    for part in ("normalizer", "pre_tokenizer", "decoder", "model"):
        _same(header, part, rules[part], found[part])
    _same(header, "chat template", header.metadata.get("tokenizer.chat_template"), read.chat_template)


def _same(header: Header, what: str, expected: Any, received: Any) -> None:
    if expected != received:
        raise header.refuse(
            f"{what} of the tokenizer: expected {shown(expected)}, as the file states, received {shown(received)} from "
            "transformers; give the model as a folder of safetensors with its tokenizer"
        )


Vocabulary = list[tuple[str, int]]  # text and type of each token, by id


def _vocabulary(header: Header) -> Vocabulary:
    """Text and type of every token, a space as the tokenizer writes it.

    Raises:
        ModelError: none, one of another length than the types, more than embeddings, or one token twice.
    """
    tokens: Any = header.metadata.get("tokenizer.ggml.tokens")
    kinds: Any = header.metadata.get("tokenizer.ggml.token_type")
    whole = isinstance(tokens, list) and isinstance(kinds, list) and len(tokens) == len(kinds)
    if not whole or not all(isinstance(token, str) for token in tokens):
        raise header.refuse("states no tokenizer.ggml.tokens with a tokenizer.ggml.token_type each; convert it again")
    rows = header.shape("token_embd.weight")[0]
    if len(tokens) > rows:
        raise header.refuse(f"has {len(tokens)} tokens and {rows} embeddings; expected no more tokens than embeddings")
    if header.metadata["tokenizer.ggml.model"] == "llama":  # runs of spaces are tokens of the user's own there
        tokens = [each if each.strip(" ") else BLANK * len(each) for each in tokens]
    if len(set(tokens)) < len(tokens):
        twice = next(token for place, token in enumerate(tokens) if token in tokens[:place])
        raise header.refuse(f"has two tokens {shown(twice)}; expected each once")
    return list(zip(tokens, kinds, strict=True))


def _ids(header: Header) -> dict[str, int | None]:
    """The tokenizer's name for a special token -> its id, None where the file states none.

    transformers cuts a text wherever such a token stands in it: one of ordinary text cannot begin or end a text, and
    serves for nothing else.

    Raises:
        ModelError: an id that is none of the vocabulary's, or a text would begin or end with an ordinary token.
    """
    kinds, found = header.metadata["tokenizer.ggml.token_type"], {}
    for ours, theirs in IDS.items():
        place = header.metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if place is not None and not (type(place) is int and 0 <= place < len(kinds)):
            raise _no_special(header, theirs, "the id of a token", place)
        ordinary = place is not None and kinds[place] in ORDINARY
        if ordinary and ours in ("bos_token", "eos_token"):
            raise _no_special(header, theirs, "the id of a token that is no ordinary text", place)
        found[ours] = None if ordinary else place
    return found


def _no_special(header: Header, name: str, expected: str, received: Any) -> ModelError:
    return header.refuse(
        f"tokenizer.ggml.{name}_token_id: expected {expected}, received {shown(received)}; convert it again, or give "
        "another model"
    )


def _is_added(token: str, kind: int) -> bool:
    """Whether a token is taken out of a text before that is cut; runs of spaces are merged, as in the original."""
    return kind in SPECIAL or (kind == TokenType.USER_DEFINED and bool(token.strip(BLANK)))


def _added(vocabulary: Vocabulary, special: bool) -> Iterator[AddedToken]:
    for token, kind in vocabulary:
        if _is_added(token, kind) and (kind in SPECIAL) is special:
            yield AddedToken(token, normalized=False, special=special)


def _byte_level(header: Header, vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    """Merges of bytes, as GPT-2 has them, and whether a text begins with the token for that."""
    stated = header.text("tokenizer.ggml.pre")
    if stated not in CUTTINGS:
        raise header.refuse(
            f"tokenizer.ggml.pre: expected one of {sorted(CUTTINGS)}, received {shown(stated)}, and how that cuts text "
            "is not known here; give the model as a folder of safetensors with its tokenizer"
        )
    cutting = CUTTINGS[stated]
    merges = [tuple(merge.split(" ")) for merge in header.metadata.get("tokenizer.ggml.merges", [])]
    backend = Tokenizer(
        BPE(
            {token: place for place, (token, _) in enumerate(vocabulary)}, merges,
            continuing_subword_prefix="", end_of_word_suffix="", ignore_merges=cutting.whole,
        )
    )  # fmt: skip
    if cutting.composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*cutting.steps, ByteLevel(add_prefix_space=False, use_regex=cutting.gpt2)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend, cutting.begins


def _sentencepiece(header: Header, vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    """Merges of characters by the score of what they make, bytes where there is no token."""
    unknown = _ids(header)["unk_token"]
    backend = Tokenizer(
        BPE(
            {token: place for place, (token, _) in enumerate(vocabulary)}, _merges(header, vocabulary),
            unk_token=None if unknown is None else vocabulary[unknown][0], fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    spaces: list[Any] = [normalizers.Replace(" ", BLANK)]
    texts: list[Any] = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if header.metadata.get("tokenizer.ggml.add_space_prefix", True):  # also after a special token, as llama.cpp
        spaces.insert(0, normalizers.Prepend(BLANK))
        texts.append(decoders.Strip(" ", 1, 0))
    backend.normalizer = normalizers.Sequence(spaces)
    backend.decoder = decoders.Sequence(texts)
    return backend, True


def _merges(header: Header, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a third: runs of spaces first, the longest first, then by the third's score."""
    scores = header.metadata["tokenizer.ggml.scores"]
    places = {token: place for place, (token, _) in enumerate(vocabulary)}
    found = []
    for (token, kind), score in zip(vocabulary, scores, strict=True):
        run = kind == TokenType.USER_DEFINED and not token.strip(BLANK)
        if kind == TokenType.NORMAL or run:
            pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
            rank = (-len(token), 0.0) if run else (0, -score)
            found += [
                (rank, places[left], places[right], (left, right))
                for left, right in pairs
                if left in places and right in places
            ]
    return [pair for *_, pair in sorted(found)]


# tokenizer.ggml.model -> how its kind is built
KINDS: dict[str, Callable[[Header, Vocabulary], tuple[Tokenizer, bool]]] = {
    "gpt2": _byte_level, "llama": _sentencepiece,
}  # fmt: skip
