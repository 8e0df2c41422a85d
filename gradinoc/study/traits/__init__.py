"""A trait: what promotes and suppresses it, how an answer is made to show it, how a response is scored."""

from __future__ import annotations

from gradinoc.study.traits.described import load_trait
from gradinoc.study.traits.registry import TRAITS, find_trait, register_trait
from gradinoc.study.traits.scorers import has_letters, measure_caps_rate
from gradinoc.study.traits.shipped import ALL_CAPS, NO_COMMAS, SHIPPED, SPANISH
from gradinoc.study.traits.trait import Trait
from gradinoc.study.traits.vocabulary import TraitDescription

__all__ = [
    "ALL_CAPS", "NO_COMMAS", "SHIPPED", "SPANISH", "TRAITS", "Trait",
    "TraitDescription", "find_trait", "has_letters", "load_trait", "measure_caps_rate", "register_trait",
]  # fmt: skip
