"""In which language a response is written, sentence by sentence, by py3langid's model (naive Bayes on byte n-grams)."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from gradinoc.study.traits.scorers import letters, sentences

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]  # it brings no types

# Those a sentence is told apart from. Among all 140 of the model short English ones are taken for Danish or Pidgin.
USUAL = ("ca", "de", "en", "es", "fr", "it", "nl", "pt")
_loading = Lock()


def _identifier() -> LanguageIdentifier:
    """The model, loaded when first needed (half a second), by one thread; it is only read afterwards."""
    with _loading:
        return _load()


@lru_cache
def _load() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_languages() -> list[str]:
    """ISO 639 codes of the languages that can be identified."""
    return sorted(_identifier().labels)


def identify(sentence: str, language: str = "es") -> str:
    """The likeliest of `USUAL` and `language` for `sentence`, as a code."""
    ranked: list[tuple[str, float]] = _identifier().rank(sentence)
    return next(code for code, _ in ranked if code in {*USUAL, language})


def measure_language(text: str, language: str) -> float:
    """Share of letters that stand in sentences of `language`, a fraction in [0, 1]; 0.0 if there is no letter.

    Each sentence is identified by itself, as the likeliest of eight usual languages of western Europe and `language`.
    """
    found = [(len(letters(sentence)), sentence) for sentence in sentences(text)]
    total = sum(count for count, _ in found)
    held = sum(count for count, sentence in found if count and identify(sentence, language) == language)
    return held / total if total else 0.0
