"""Traits by name: those that come with the project, and those that a module of the user's adds."""

from __future__ import annotations

import dataclasses

from gradinoc.errors import StudyError, shown
from gradinoc.study.traits.described import TraitDescription, trait_of
from gradinoc.study.traits.identity import identity_of
from gradinoc.study.traits.shipped import SHIPPED
from gradinoc.study.traits.trait import Trait

TRAITS = {trait.name: trait for trait in SHIPPED}


def register_trait(trait: Trait) -> Trait:
    """`trait` as studies of this process find it by its name from now on.

    A study file never runs code; this is the way for a trait that only code can transform or score. Put it into a
    module and give that to pytest (`python -m pytest -p my_trait`), which imports it in every worker.
    A trait of that name which was registered before gives way; those that come with the project do not. What its
    functions use must stay as it is now: a global that is bound anew afterwards is not noticed.

    Raises:
        StudyError: the name is one of the project's own, or what the trait's functions compute cannot be told from
            their source.
    """
    if trait.name in {shipped.name for shipped in SHIPPED}:
        raise StudyError(f"trait {shown(trait.name)}: a trait of that name comes with the project; rename yours")
    known = dataclasses.replace(trait, identity=identity_of(trait))
    TRAITS[trait.name] = known
    return known


def find_trait(trait: str | TraitDescription) -> Trait:
    """The trait called `trait`, or the one that is described.

    Raises:
        KeyError: no such trait; the message lists those there are.
    """
    if isinstance(trait, TraitDescription):
        return trait_of(trait)
    if trait not in TRAITS:
        raise KeyError(f"No trait named {trait!r}; there are {sorted(TRAITS)}")
    return TRAITS[trait]
