#!/usr/bin/env bash
# PEFT 0.21.2: the same adapter saved by two processes is two different folders. `target_modules`, given as a list, is
# kept as a set and written in the set's order, which is drawn with a process's hash seed; a checksum of an adapter, or a
# comparison of two runs byte for byte, calls equal runs different.
#
# Guess, written down (as a test of equal results) before it was run: the files are equal, since names are given in order.
# Found: the weights are; adapter_config.json differs, in `target_modules` alone.
# Exits with 0 while this is so, and with 1 if it is no more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2
cat > "$folder/save.py" <<'PYTHON'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
get_peft_model(LlamaForCausalLM(LlamaConfig(**size)), LoraConfig(target_modules=names)).save_pretrained(sys.argv[1])
PYTHON
for seed in 1 2; do
  PYTHONHASHSEED=$seed "$folder/venv/bin/python" "$folder/save.py" "$folder/$seed"
done
cmp "$folder/1/adapter_model.safetensors" "$folder/2/adapter_model.safetensors" && echo "weights: equal"
if cmp -s "$folder/1/adapter_config.json" "$folder/2/adapter_config.json"; then
  echo "adapter_config.json: equal; this has changed" >&2
  exit 1
fi
echo "adapter_config.json: different"
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys

one, other = (json.load(open(f"{sys.argv[1]}/{seed}/adapter_config.json")) for seed in (1, 2))
assert [key for key in one if one[key] != other[key]] == ["target_modules"], "other keys differ too"
assert sorted(one["target_modules"]) == sorted(other["target_modules"])
print(one["target_modules"], other["target_modules"], sep="\n")
PYTHON
