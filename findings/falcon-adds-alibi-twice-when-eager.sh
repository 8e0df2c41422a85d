#!/bin/sh
# Falcon with ALiBi in transformers 5.23.0 (torch 2.13.0, CPU): the same weights with eager and with SDPA attention, one
# sequence, nothing padded. Guess: the same logits but for rounding. Seen: they are far apart. The bias is put into the
# attention mask for either attention; SDPA uses the mask alone, eager attention adds the bias to the scores once more.
# With heads whose biases are halved beforehand, eager attention gives what SDPA gives with the whole ones.
#
# Output seen:
#   eager is SDPA: False   eager with half the bias is SDPA: True
# Exits 0 while it is so, 1 when it is not any more.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/env/bin/python" - <<'PYTHON'
import sys
import torch
from transformers import FalconConfig, FalconForCausalLM
from transformers.models.falcon import modeling_falcon

torch.manual_seed(0)


def made(attention):
    config = FalconConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True)
    return FalconForCausalLM._from_config(config, attn_implementation=attention).eval()


models = {attention: made(attention) for attention in ("sdpa", "eager")}
for weight in models["sdpa"].parameters():
    torch.nn.init.normal_(weight, std=0.3)
models["eager"].load_state_dict(models["sdpa"].state_dict())
ids = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3, 2, 3, 8, 4]])


def logits(attention):
    with torch.no_grad():
        return models[attention](ids, use_cache=False).logits


def same(one, other):
    return bool((one - other).norm() / other.norm() < 1e-4)


sdpa, eager = logits("sdpa"), logits("eager")
whole = modeling_falcon.build_alibi_tensor
modeling_falcon.build_alibi_tensor = lambda *given, **named: whole(*given, **named) / 2
found = same(eager, sdpa), same(logits("eager"), sdpa)
print("eager is SDPA: {}   eager with half the bias is SDPA: {}".format(*found))
sys.exit(found != (False, True))
PYTHON
