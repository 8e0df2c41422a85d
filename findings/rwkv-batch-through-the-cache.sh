#!/bin/sh
# RWKV in transformers 5.23.0 (torch 2.13.0, CPU): two prompts of equal length, nothing padded, are continued through the
# cache in one batch, and each by itself. Guess: the same logits, since rows of a batch have nothing to do with each other.
# Seen: the pass over the prompts agrees (to 1e-4, relative), the first step through the cache does not, nor
# does anything after it. The state of the token before, [batch, hidden], is set against the new one, [batch, 1, hidden],
# which gives [batch, batch, hidden]; with one row nobody can tell. No warning. A batch of one is right.
#
# Output seen:
#   prompt: True   first step in a batch of two: False   first step in a batch of one: True
# Exits 0 while it is so, 1 when it is not any more.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$folder/env/bin/python" - <<'PYTHON'
import sys
import torch
from transformers import RwkvConfig, RwkvForCausalLM

torch.manual_seed(0)
config = RwkvConfig(vocab_size=50, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, context_length=64,
                    bos_token_id=0, eos_token_id=0)
model = RwkvForCausalLM(config).eval()
for weight in model.parameters():
    torch.nn.init.normal_(weight, std=0.3)
prompts, following = torch.tensor([[3, 14, 15, 9], [26, 5, 35, 8]]), torch.tensor([[7], [31]])


def steps(rows):
    """Logits after the prompts, and after one more token through the cache."""
    with torch.no_grad():
        first = model(prompts[rows], use_cache=True)
        second = model(following[rows], state=first.state, use_cache=True)
    return first.logits[:, -1], second.logits[:, -1]


def whole(rows):
    """Logits after the one more token, of all tokens at once."""
    with torch.no_grad():
        return model(torch.cat([prompts[rows], following[rows]], 1), use_cache=False).logits[:, -1]


def same(one, other):
    return bool((one - other).norm() / other.norm() < 1e-4)


alone = [steps([row]) for row in (0, 1)]
first, second = steps([0, 1])
found = (
    same(first, torch.cat([each[0] for each in alone])),
    same(second, whole([0, 1])),
    same(torch.cat([each[1] for each in alone]), whole([0, 1])),
)
print("prompt: {}   first step in a batch of two: {}   first step in a batch of one: {}".format(*found))
sys.exit(found != (True, False, True))
PYTHON
