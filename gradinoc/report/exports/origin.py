"""What an export calls the model that a study is about: a name for others, and never a path of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from gradinoc.models.sources.locate import is_gguf
from gradinoc.models.sources.packaged import BUNDLED, PACKAGED
from gradinoc.study.description import Study

# On the hub, the models whose weights ship in packages; the packages' own are quantised.
ORIGINS = {
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "qwen2.5-coder-0.5b-instruct": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_local(study: Study) -> bool:
    """Whether the model is a folder or file of this machine, which others have under another name or not at all."""
    name = study.model.id
    here = is_gguf(name) or Path(name).expanduser().is_dir()
    return name not in BUNDLED and (here or not HUB_ID.fullmatch(name))


def base_name(study: Study) -> str:
    """The bundled name or hub id of a study's model; of a folder or file its own name alone."""
    return Path(study.model.id).expanduser().name if is_local(study) else study.model.id


def hub_id(study: Study) -> str | None:
    """The repository on the hub that a study's model is, or comes from; None where there is none."""
    if study.model.id in BUNDLED:
        return ORIGINS.get(study.model.id)
    return None if is_local(study) else study.model.id


def described_model(study: Study, fingerprint: str) -> str:
    """The model in a sentence, for a card."""
    name = study.model.id
    if name in PACKAGED:
        packaged = PACKAGED[name]
        packages = [f"{package} {packaged.version}" for package, _ in packaged.parts]
        having = f"package {packages[0]} has it" if len(packages) == 1 else f"packages {', '.join(packages)} have it"
        files = ", ".join(file for _, file in packaged.parts)
        return (
            f"{ORIGINS[name]} as the Python {having} ({files}, unpacked to bfloat16); gradinoc calls it {name}. "
            f"SHA-256 of the file: {fingerprint}."
        )
    if name in BUNDLED:
        return f"The tiny model {name} that comes with gradinoc (fixtures/organisms). Fingerprint: {fingerprint}."
    if is_gguf(name):
        return f"The model in a GGUF file called {base_name(study)}. SHA-256 of the file: {fingerprint}."
    if is_local(study):
        return f"A model in a folder called {base_name(study)}. Fingerprint of its files: {fingerprint}."
    return f"{name} on the Hugging Face hub, commit {fingerprint}."
