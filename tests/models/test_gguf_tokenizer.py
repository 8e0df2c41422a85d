"""GGUF files: text is cut into the tokens that the file states, or the file is refused in one line."""

from __future__ import annotations

import itertools
import json
import unicodedata

import pytest
import regex
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, TokenizersBackend

from fixtures.gguf_files import (
    SPECIAL,
    TEMPLATE,
    byte_level,
    metadata_of,
    plain,
    sentencepiece,
    tensors_of,
    write_gguf,
    written,
)
from fixtures.gguf_models import build
from gradinoc.errors import ModelError
from gradinoc.models.generate import end_tokens
from gradinoc.models.sources.gguf.header import read_header
from gradinoc.models.sources.gguf.tokenizer import build_tokenizer

pytestmark = pytest.mark.usefixtures("cache")

WORDS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# tokenizer.ggml.pre -> llama.cpp's patterns, one after the other, and whether a piece that is a token stays whole.
PATTERNS = {
    "gpt-2": ([GPT2], False),
    "smollm": ([r"\p{N}", GPT2], False),
    "qwen2": ([rf"{WORDS}|\p{{N}}|{REST}"], False),
    "deepseek-r1-qwen": ([rf"{WORDS}|\p{{N}}|{REST}"], False),
    "llama3": ([rf"{WORDS}|\p{{N}}{{1,3}}|{REST}"], True),
    "tekken": (
        [
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ],
        True,
    ),
    "deepseek-coder": (["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"], False),
}
TEXTS = [
    "", " ", "   x", "\t\tif x:\n\t\t\treturn  1", "We've WON'T they'LL 12345 67 8.5 1,234",
    "a\n\n12  3\n\n\n  4\r\n\r\n5",
    "def f(x):\n    return x**2  # square\n\n\nclass A:\n        pass\n", "naïve ÉCOLE Straße",
    "日本語、漢字。ひらがな 한국어",
    "Привет, МИР!", "👍🏽 👨‍👩‍👧!!", "x" * 9 + " " * 40 + "y", "ⅷ ½ ²³ ٣٤", "http://a.b/c?d=e&f=%20#g",
    "\u00a0x\u2003y\u200bz", "a\x00b",
    "mixedCASEWords snake_case", " both ends ", "!!!??...--", "<think>1<|end|> <|user|>x", "water in each of them",
]  # fmt: skip


def bytes_as_letters(text: str) -> str:
    """A text's bytes, each as the letter that GPT-2 writes it with."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    return "".join(letters[byte] for byte in text.encode())


def pieces(text: str, patterns: list[str]) -> list[str]:
    """A text cut by each pattern in turn: what matches, and what lies between."""
    found = [text]
    for pattern in patterns:
        found = [part for each in found for part in regex.split(f"({pattern})", each) if part]
    return found


def tokens_by_merging(word: list[str], ranks: dict) -> list[str]:
    """The pair of the lowest rank is merged, the leftmost first, until there is none."""
    while pairs := [pair for pair in itertools.pairwise(word) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        at = next(place for place, pair in enumerate(itertools.pairwise(word)) if pair == best)
        word = [*word[:at], "".join(best), *word[at + 2 :]]
    return word


def around(text: str, whole: list[str]) -> list[str]:
    """A text cut at tokens that are never cut themselves, the longest first."""
    longest = "|".join(map(regex.escape, sorted(whole, key=len, reverse=True)))
    return [part for part in regex.split(f"({longest})", text) if part]


def ids_by_bytes(text: str, metadata: dict, patterns: list[str], whole: bool) -> list[int]:
    """Token ids by the definition: cut, then merge bytes."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    found = []
    for part in around(text, list(SPECIAL)):
        for piece in [part] if part in SPECIAL else map(bytes_as_letters, pieces(part, patterns)):
            known = piece in SPECIAL or (whole and piece in tokens)
            found += [piece] if known else tokens_by_merging(list(piece), ranks)
    return [tokens.index(token) for token in found]


def ids_by_scores(text: str, metadata: dict, prefix: bool) -> list[int]:
    """Token ids by SentencePiece's definition: merge what makes the token of the highest score, else bytes."""
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=True))
    own = [token for token, kind in zip(tokens, kinds, strict=True) if kind in (3, 4)]
    found = []
    for part in around(text, [each for each in own if each.strip(" ")]):
        if part in own and part.strip(" "):
            found.append(tokens.index(part))
            continue
        word = list(f" {part}" if prefix else part)
        runs = around("".join(word), ["   ", "  "])  # tokens of the user's own, the longest first
        word = [each for run in runs for each in ([run] if run in own else run.replace(" ", "▁"))]
        while pairs := [at for at in range(len(word) - 1) if scores.get(word[at] + word[at + 1], -1000.0) > -1000.0]:
            at = max(pairs, key=lambda at: scores[word[at] + word[at + 1]])
            word = [*word[:at], word[at] + word[at + 1], *word[at + 2 :]]
        for piece in word:
            known = [piece] if piece in tokens else [f"<0x{byte:02X}>" for byte in piece.replace("▁", " ").encode()]
            found += [tokens.index(each) for each in known]
    return found


@pytest.mark.parametrize("pre", PATTERNS)
def test_text_is_cut_as_the_named_pre_tokenizer_cuts_it(tmp_path, pre):
    """Token ids by llama.cpp's patterns and a merge at a time, and by the tokenizer that is built."""
    patterns, whole = PATTERNS[pre]
    path = written(tmp_path / "model.gguf", tokenizer__ggml__pre=pre)
    built = build_tokenizer(read_header(path))
    for text in TEXTS:
        assert built.encode(text, add_special_tokens=False) == ids_by_bytes(text, byte_level(), patterns, whole), text


@pytest.mark.parametrize("prefix", [True, False, None])
def test_text_is_cut_as_sentencepiece_cuts_it(tmp_path, prefix):
    """By scores, a merge at a time; a space before each text as the file says, and where it says nothing."""
    metadata = sentencepiece(prefix)
    path = write_gguf(tmp_path / "model.gguf", {**metadata_of(build("llama")), **metadata}, tensors_of(build("llama")))
    built = build_tokenizer(read_header(path))
    for text in TEXTS:
        expected = ids_by_scores(text, metadata, prefix is not False)
        assert built.encode(text, add_special_tokens=False) == expected, text
        assert prefix is not False or built.decode(expected) == text


def test_marks_are_composed_where_the_original_composes_them(tmp_path):
    """Qwen's tokenizers do; llama.cpp does not, and GPT-2's and Llama's have no such rule."""
    apart = unicodedata.normalize("NFD", "école")
    for pre, composed in {"qwen2": True, "llama-bpe": False}.items():
        built = build_tokenizer(read_header(written(tmp_path / f"{pre}.gguf", tokenizer__ggml__pre=pre)))
        assert (built.encode(apart) == built.encode("école")) is composed


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3"])
def test_loaded_tokenizer_has_what_the_file_states(tmp_path, name):
    """Every token at its id, special ones, the chat template; generation stops where the file says."""
    path = written(tmp_path / "model.gguf", name, tokenizer__ggml__eot_token_id=7)
    stated, loaded = read_header(path).metadata, plain(path)
    tokenizer, tokens = loaded.tokenizer, stated["tokenizer.ggml.tokens"]
    spelled = [token if token.strip(" ") else token.replace(" ", "▁") for token in tokens]
    assert tokenizer.convert_ids_to_tokens(range(len(tokens))) == spelled
    assert tokenizer.bos_token_id == stated["tokenizer.ggml.bos_token_id"]
    assert tokenizer.eos_token_id == stated["tokenizer.ggml.eos_token_id"]
    assert end_tokens(loaded.model, tokenizer) == {tokenizer.eos_token_id, 7}
    assert tokenizer.chat_template == stated["tokenizer.chat_template"]
    assert [tokenizer.encode(token, add_special_tokens=False) for token in SPECIAL] == [
        [tokens.index(t)] for t in SPECIAL
    ]
    assert tokenizer.decode([tokens.index(token) for token in SPECIAL], skip_special_tokens=True) == "<think>"


@pytest.mark.parametrize(
    ("pre", "stated", "begins"),
    [("smollm", None, False), ("llama-bpe", None, True), ("llama-bpe", False, False), ("qwen2", True, True)],
)
def test_text_begins_with_a_token_where_the_file_or_its_kind_says(tmp_path, pre, stated, begins):
    """As llama.cpp has it; prompts are rendered by the template, and take none."""
    path = written(tmp_path / "model.gguf", tokenizer__ggml__pre=pre, tokenizer__ggml__add_bos_token=stated)
    tokenizer = plain(path).tokenizer
    first = tokenizer.bos_token_id
    assert (tokenizer("water").input_ids[0] == first) is begins
    assert tokenizer("water", add_special_tokens=False).input_ids[0] != first


def other_vocabulary(tokenizer):
    """Two tokens have changed places."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = model["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    return TokenizersBackend(tokenizer_object=Tokenizer.from_str(json.dumps(model)), chat_template=TEMPLATE)


def other_rule(tokenizer):
    """Text is normalised."""
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


def other_end(tokenizer):
    """Another token ends a turn."""
    tokenizer.eos_token = "<|user|>"  # noqa: S105 - a token of text
    return tokenizer


def one_more(tokenizer):
    """A token that the file does not have."""
    tokenizer.add_tokens(["<more>"])
    return tokenizer


CHANGES = {
    "token 1": other_vocabulary,
    "normalizer": other_rule,
    "eos_token": other_end,
    "number of tokens": one_more,
}


@pytest.mark.parametrize("change", CHANGES)
def test_tokenizer_that_is_read_differently_is_refused(tmp_path, monkeypatch, change):
    """Whatever transformers makes of it: it is what the file states, or no model."""
    read = AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *given, **named: CHANGES[change](read(*given, **named))
    )
    with pytest.raises(ModelError, match=rf"{change}.* of the tokenizer: expected"):
        plain(written(tmp_path / "model.gguf"))


def test_special_tokens_of_any_letters_are_never_cut(tmp_path):
    """DeepSeek writes its own with letters that GPT-2's alphabet of bytes has not."""
    own = "<｜User▁says｜>"
    metadata = byte_level("deepseek-r1-qwen")
    tokens = [own if each == "<|user|>" else each for each in metadata["tokenizer.ggml.tokens"]]
    path = written(tmp_path / "model.gguf", "qwen2", **{**metadata, "tokenizer.ggml.tokens": tokens})
    tokenizer = plain(path).tokenizer
    assert tokenizer.encode(f"a{own}b", add_special_tokens=False)[1] == tokens.index(own)


def test_ordinary_token_is_nothing_to_pad_with(tmp_path):
    """Some files pad with the first token, an exclamation mark: a text would be cut at each."""
    first = byte_level()["tokenizer.ggml.tokens"][0]
    tokenizer = plain(written(tmp_path / "model.gguf", tokenizer__ggml__padding_token_id=0)).tokenizer
    assert tokenizer.pad_token_id != 0
    assert first not in tokenizer.all_special_tokens
