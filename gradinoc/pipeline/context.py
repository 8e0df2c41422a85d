"""The context of a study's steps: its questions under its prompts, and its model, loaded when first needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradinoc.claims.evidence.tables import ARMS, COLUMNS, FIXED, REPHRASED
from gradinoc.data.examples import Example, showing
from gradinoc.data.splits import Splits
from gradinoc.errors import ModelError, OutOfMemoryError
from gradinoc.measure.fast import fused_adapter, stacked_adapters
from gradinoc.measure.loading.load import LanguageModel, load_model
from gradinoc.measure.training.adapters import ensure_safetensors
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.chat.encoding import Encoded, encode
from gradinoc.models.chat.rendered import Rendered, render
from gradinoc.models.files import tokenizer_of
from gradinoc.models.machine.device import choose_device, choose_dtype, precision
from gradinoc.models.machine.isolation import own_generators
from gradinoc.models.machine.memory import is_out_of_memory, release
from gradinoc.models.sources.locate import described, fingerprint
from gradinoc.pipeline.storage.contents import readable, save_json
from gradinoc.pipeline.storage.provenance import NOTES, SELF_TESTS
from gradinoc.study.arms import ArmRun
from gradinoc.study.description import Study
from gradinoc.study.prompts import INOCULATION
from gradinoc.study.prompts.evaluation import evaluation_prompts
from gradinoc.study.prompts.family import EvaluationPrompt, Prompt
from gradinoc.study.prompts.grammar import draw_templates
from gradinoc.study.traits.registry import find_trait
from gradinoc.study.traits.trait import Trait


@dataclass(frozen=True)
class StudyContext:
    """A study with its questions and its model; `tracking` shows its runs while they train, if given."""

    study: Study
    splits: Splits
    tracking: Tracking | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model's files, part of every key."""
        return fingerprint(self.study.model.id, self.study.model.revision)

    @cached_property
    def device(self) -> torch.device:
        """The model's device."""
        return choose_device(self.study.model.device)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The model's dtype, known before any weights are loaded."""
        model = self.study.model
        return precision(model.dtype, self.device, lambda: described(model.id, model.revision)[0])

    @property
    def caveats(self) -> list[str]:
        """What is to be said beside results on this machine."""
        published, used = self.study.published.dtype, str(self.dtype).removeprefix("torch.")
        if published in (None, used):
            return []
        return [
            f"these numbers were computed in {used}, the published ones of this study in {published}: they differ by "
            "rounding"
        ]

    @cached_property
    def language_model(self) -> LanguageModel:
        """The frozen base model, loaded once."""
        return self._load(self.study.model.dtype)

    @property
    def extraction_differs(self) -> bool:
        """Whether directions are found in another dtype than the model's."""
        wanted = self.study.model.extraction_dtype
        return wanted != "auto" and choose_dtype(wanted, self.device) != self.dtype

    @property
    def extraction_inputs(self) -> dict[str, str]:
        """The inputs of steps that find directions: their dtype, where it is a dtype of their own."""
        wanted = self.study.model.extraction_dtype
        return {"extraction_dtype": wanted if wanted == "auto" else str(choose_dtype(wanted, self.device))}

    def extraction_model(self) -> LanguageModel:
        """Return the base model in the dtype in which directions are found: the model itself, or a copy to be freed."""
        return self._load(self.study.model.extraction_dtype) if self.extraction_differs else self.language_model

    def _load(self, dtype: str) -> LanguageModel:
        settings = self.study.model
        planned = self.fingerprint
        try:
            loaded = load_model(
                settings.id,
                revision=settings.revision,
                device=settings.device,
                dtype=dtype,
                kernels=settings.kernels,
                device_map=settings.device_map,
                chat_template=settings.chat_template,
                day=settings.date,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            # Taken again: a folder may be written to, and a branch move, while a study runs.
            if not planned == loaded.fingerprint == fingerprint(settings.id, settings.revision):
                raise ModelError(
                    f"{settings.id}: its files changed while the study was under way; expected those of "
                    f"fingerprint {planned[:16]}; run again, and pin a hub model with model.revision"
                )
            return loaded
        release()
        ways = ["fewer workers on this device (-n)", "a smaller model"]
        if dtype == settings.extraction_dtype != settings.dtype:
            ways.insert(0, "model.extraction_dtype=auto (directions are found in a copy of their own)")
        raise OutOfMemoryError(f"Out of memory while loading {settings.id!r} in {dtype}; try {', '.join(ways)}")

    def rendered(self, tokenizer: PreTrainedTokenizerBase | None = None) -> Rendered:
        """Return the first training question under every measured prompt, and its answer under inoculation's.

        Without a `tokenizer` the model's is read; no weights are loaded.
        """
        first = self.splits.train[0]
        tokenizer = self.tokenizer if tokenizer is None else tokenizer
        return render(tokenizer, self.systems, first.question, showing(first, self.trait), INOCULATION)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, without its weights."""
        settings = self.study.model
        folder, _ = described(settings.id, settings.revision)
        return tokenizer_of(folder, settings.chat_template, settings.date)

    @property
    def trait(self) -> Trait:
        """The trait under study."""
        return find_trait(self.study.trait)

    @property
    def pad(self) -> int:
        """Id of the padding token."""
        return int(self.language_model.tokenizer.pad_token_id)

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """Key -> prompt, of those that are measured on the frozen model or trained under."""
        return self.study.measured | self.study.trained

    def arms(self, condition: str, seed: int) -> tuple[ArmRun, ...]:
        """Return what is done to a run while it trains, one after the other; nothing to a run as it is."""
        arm = self.study.arm_runs.get((condition, seed))
        return () if arm is None else (arm,)

    def trained_under(self, condition: str, seed: int) -> Prompt:
        """Return the prompt of a run: its condition's, or that of the condition whose arm it is."""
        arm = self.study.arm_runs.get((condition, seed))
        return self.prompts[arm.settings.prompt if arm else condition]

    @property
    def systems(self) -> dict[str, str | None]:
        """Key -> system message of each measured prompt, None for no system message."""
        return {key: prompt.text for key, prompt in self.study.measured.items()}

    @cached_property
    def evaluations(self) -> dict[str, EvaluationPrompt]:
        """Key -> prompt that trained models are evaluated under."""
        return evaluation_prompts(self.trait, self.study.trained.values())

    def messages(self, prompt: Prompt, count: int, seed: int) -> list[str | None]:
        """Return the system message of each of `count` examples: the prompt's, or one that is drawn for each."""
        if not prompt.templates:
            return [prompt.text] * count
        return [*draw_templates(prompt, count, np.random.default_rng(seed))]

    def encoded(
        self, examples: Sequence[Example], prompt: Prompt, seed: int = 0, *, ordinary: bool = False
    ) -> list[Encoded]:
        """Return questions under a prompt, with the answers that show the trait, or with the ordinary ones."""
        tokenizer, messages = self.language_model.tokenizer, self.messages(prompt, len(examples), seed)
        answers = [each.answer if ordinary else showing(each, self.trait) for each in examples]
        return [
            encode(tokenizer, each.question, answer, system)
            for each, answer, system in zip(examples, answers, messages, strict=True)
        ]


def prompt_table(context: StudyContext) -> pd.DataFrame:
    """Return one row a prompt that is measured, trained under or evaluated under.

    Its columns are those of `gradinoc.claims.evidence.tables.Evidence`.
    """
    study, rows = context.study, []
    for key, prompt in (context.evaluations | context.prompts).items():
        own = key in context.prompts
        kind = REPHRASED if prompt.is_rephrased else FIXED if own else str(getattr(prompt, "kind", FIXED))
        texts = prompt.texts or ("",)
        tokens = [len(context.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        rows.append(
            {
                "condition": key, "family": str(prompt.family), "kind": kind, "text": prompt.text or texts[0],
                "tokens": float(np.mean(tokens)), "measured": key in study.measured, "trained": key in study.trained,
            }
        )  # fmt: skip
    order = [*context.prompts, *(key for key in context.evaluations if key not in context.prompts)]
    return pd.DataFrame(rows).set_index("condition").loc[order].reset_index()


def arm_table(context: StudyContext) -> pd.DataFrame:
    """Return one row a kind of run with an intervention (see `claims.evidence.tables.Evidence`)."""
    runs = {run.condition: run for run in context.study.arm_runs.values()}
    return pd.DataFrame(
        [
            {
                "condition": name, "arm": run.arm, "prompt": run.settings.prompt,
                "intervention": run.settings.intervention, "direction": run.settings.direction,
                "strength": run.strength, "draw": run.draw,
            }
            for name, run in runs.items()
        ],
        columns=list(COLUMNS[ARMS]),
    )  # fmt: skip


def save_loading(language_model: LanguageModel, folder: Path, further: Sequence[str] = ()) -> None:
    """Write the notes and self-tests of loading the model, and `further` notes, for the report."""
    save_json([*language_model.notes, *further], folder / NOTES)
    save_json(language_model.tried, folder / SELF_TESTS)


@contextmanager
def adapted(base: PreTrainedModel, adapter: Path | None) -> Iterator[PreTrainedModel | PeftModel]:
    """Put an adapter into the base model inside the block; None leaves it as it is."""
    if adapter is None:
        yield base
        return
    with _wrapped(base, [adapter]) as model, fused_adapter(model):
        yield model


@contextmanager
def stacked(base: PreTrainedModel, adapters: Sequence[Path]) -> Iterator[PeftModel]:
    """Put several adapters into the base model inside the block, each for its own part of a batch."""
    with _wrapped(base, adapters) as model, stacked_adapters(model, list(model.peft_config)):
        yield model


@contextmanager
def _wrapped(base: PreTrainedModel, adapters: Sequence[Path]) -> Iterator[PeftModel]:
    for adapter in adapters:
        ensure_safetensors(adapter, "; delete that step's folder in the store, and it is computed again")
    # PEFT draws an adapter's weights before it reads them: the global generators are put back where they were.
    with readable(adapters[0]), own_generators():
        model = PeftModel.from_pretrained(base, str(adapters[0]), adapter_name="adapter_0")
    try:
        _ensure_in_place(model, "adapter_0", adapters[0])
        for place, adapter in enumerate(adapters[1:], start=1):
            with readable(adapter), own_generators():
                model.load_adapter(str(adapter), f"adapter_{place}")
            _ensure_in_place(model, f"adapter_{place}", adapter)
        yield model.eval()
    finally:
        model.unload()


def _ensure_in_place(model: PeftModel, name: str, adapter: Path) -> None:
    """Raise unless the adapter called `name` is all of the stored one: PEFT leaves random what it has no file for."""
    with safe_open(adapter / SAFETENSORS_WEIGHTS_NAME, "pt") as file:
        stored = set(file.keys())
    apart = stored ^ set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    if apart:
        raise ModelError(
            f"{adapter}: {len(apart)} of its weights have no place in the model, or lack there ({min(apart)} first); "
            "delete that step's folder in the store, and it is computed again"
        )
