"""Check, before any weights are loaded, that a study's data, prompts, trait and model go together."""

from __future__ import annotations

from gradinoc.data.splits import split
from gradinoc.errors import StudyError
from gradinoc.measure.training.arguments import ensure_trainable
from gradinoc.models.adapters import targets
from gradinoc.models.files import config_of, look_at_weights, sizes_of, skeleton, template_notes, tokenizer_of
from gradinoc.models.machine.device import choose_device, choose_dtype
from gradinoc.models.sources.accepted import ensure_inert, ensure_unquantised
from gradinoc.models.sources.locate import described
from gradinoc.pipeline.check.answers import check_answers, check_response_length, check_scores
from gradinoc.pipeline.check.prompts import (
    Prompts,
    check_completions,
    check_context_length,
    check_prompts_differ,
    check_special_tokens,
    every_prompt,
)
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.description import Study


def check(study: Study) -> list[str]:
    """Return notes on a study that can be run (none, as a rule); raise what would stop it later.

    Of a hub model only configuration and tokenizer are fetched; whether its weights are there shows in loading.

    Raises:
        GradinocError: a study that cannot be run; the message names the line, setting or file, and what to do.
    """
    context = StudyContext(study, split(study.data))
    notes = [*context.splits.notes, *check_answers(context), *check_scores(context)]
    asked, there = study.drift.everyday, f"{study.data.everyday} has {len(context.splits.everyday)} different ones"
    if asked > len(context.splits.everyday):
        raise StudyError(f"drift.everyday: {asked} requests, but {there}; lower it or give more")
    place = choose_device(study.model.device)
    for dtype in (study.model.dtype, study.model.extraction_dtype):
        choose_dtype(dtype, place)
    ensure_trainable(place)
    folder, whole = described(study.model.id, study.model.revision)
    ensure_inert(folder)
    ensure_unquantised(folder)
    config, template, day = config_of(folder), study.model.chat_template, study.model.date
    tokenizer = tokenizer_of(folder, template, day)
    if whole:
        look_at_weights(folder)
    vocabulary, limit = sizes_of(config, folder)
    adapted = targets(skeleton(config))
    notes += [str(adapted)] if adapted.left else []
    check_special_tokens(context, tokenizer)
    prompts = Prompts(tokenizer, str(folder), vocabulary)
    check_prompts_differ(context, prompts)
    notes += template_notes(tokenizer, template, day, every_prompt(context).values())
    lengths, completion_notes = check_completions(context, prompts)
    notes += completion_notes + check_response_length(context, tokenizer)
    if limit is not None:
        check_context_length(context, prompts, lengths, limit)
    return notes
