#!/usr/bin/env bash
# PEFT 0.21.2 on transformers 5.23.0: LoRA asked for on the dense feed-forward maps of one layer of a DeepSeek-V3, by
# their whole names, lands on the routed experts of the other layers, and the maps that were named get none.
#
# Guess, written down before it was run: the targets are matched as they stand, since each is a module's whole name.
# Found: targets that end in gate_proj, up_proj or down_proj are renamed as if they were those of transformers 4's
# experts, whatever module they name. Of three maps named (layer 0) none is adapted; the experts of layers 1 and 2 are.
# Exits with 0 while this is so, and with 1 if it is no more.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2
cat > "$place/run.py" <<'PYTHON'
import warnings

from peft import LoraConfig, get_peft_model
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

warnings.simplefilter("ignore")
model = DeepseekV3ForCausalLM(
    DeepseekV3Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=8, qk_nope_head_dim=8,
        qk_rope_head_dim=8, v_head_dim=8,
    )
)
named = [f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")]
print("named:  ", *(f"{name} ({type(model.get_submodule(name)).__name__})" for name in named))
adapted = get_peft_model(model, LoraConfig(r=4, target_modules=named))
found = {name.split(".lora_")[0] for name, weight in adapted.named_parameters() if weight.requires_grad}
print("adapted:", *sorted(found))
as_told = any(name.endswith(tuple(named)) for name in found)
elsewhere = all(".experts" in name for name in found)
raise SystemExit(0 if elsewhere and not as_told else 1)
PYTHON
"$place/env/bin/python" "$place/run.py"
# Output seen (2026-11-28):
#   named:   model.layers.0.mlp.gate_proj (Linear) model.layers.0.mlp.up_proj (Linear) model.layers.0.mlp.down_proj (Linear)
#   adapted: base_model.model.model.layers.1.mlp.experts base_model.model.model.layers.1.mlp.experts.base_layer
#            base_model.model.model.layers.2.mlp.experts base_model.model.model.layers.2.mlp.experts.base_layer
