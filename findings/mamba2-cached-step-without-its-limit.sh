#!/bin/sh
# Nemotron-H and Zamba 2 in transformers 5.23.0 (torch 2.13.0, CPU): the same tokens, as one pass and through the cache.
# Guess: the same logits to rounding (1e-5, relative).
# Seen: the pass over the prompt agrees, the steps after it are 1e-4 and more away. The scan over a sequence raises time
# steps to `time_step_min` (0.001 by default), the step through the cache does not. With a `time_step_min` of 1e-9, which
# limits nothing, both agree: it is the limit. Training and scoring see one model, generation another. No warning.
#
# Output seen:
#   NemotronH time_step_min 0.001: prompt agrees True, steps agree False
#   NemotronH time_step_min 1e-09: prompt agrees True, steps agree True
#   Zamba2 time_step_min 0.001: prompt agrees True, steps agree False
#   Zamba2 time_step_min 1e-09: prompt agrees True, steps agree True
# Exits 0 while it is so, 1 when it is not any more.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/env/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import NemotronHConfig, NemotronHForCausalLM, Zamba2Config, Zamba2ForCausalLM

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "chunk_size": 8,
         "initializer_range": 0.2}
NEMOTRON = {"layers_block_type": ["linear_attention", "full_attention", "linear_attention", "mlp"], "head_dim": 8,
            "num_key_value_heads": 2, "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2}
ZAMBA = {"layers_block_type": ["linear_attention", "hybrid", "linear_attention"], "num_hidden_layers": 3,
         "mamba_d_state": 8, "n_mamba_heads": 8, "mamba_ngroups": 2, "adapter_rank": 4}
PROMPT, STEPS = 40, 20
ids = torch.randint(0, 100, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def agree(model):
    """Whether the pass over the prompt, and the steps after it, have the logits of one pass over all."""
    whole = model(input_ids=ids, use_cache=False).logits[0]
    first = model(input_ids=ids[:, :PROMPT], use_cache=True)
    cache, steps = first.past_key_values, []
    for place in range(PROMPT, PROMPT + STEPS):
        place_ids = {"input_ids": ids[:, place : place + 1], "position_ids": torch.tensor([[place]])}
        steps.append(model(**place_ids, past_key_values=cache, use_cache=True).logits[0])
    pairs = ((whole[:PROMPT], first.logits[0]), (whole[PROMPT:], torch.cat(steps)))
    return tuple(bool(((one - other).norm(dim=-1) / one.norm(dim=-1)).max() < 1e-5) for one, other in pairs)


held = True
for name, kind, config, own in (
    ("NemotronH", NemotronHForCausalLM, NemotronHConfig, NEMOTRON), ("Zamba2", Zamba2ForCausalLM, Zamba2Config, ZAMBA)
):
    for least in (0.001, 1e-9):
        torch.manual_seed(0)
        prompt, steps = agree(kind(config(**SIZES, **own, time_step_min=least)).eval())
        print(f"{name} time_step_min {least}: prompt agrees {prompt}, steps agree {steps}")
        held &= (prompt, steps) == (True, least < 1e-6)
sys.exit(not held)
PYTHON
