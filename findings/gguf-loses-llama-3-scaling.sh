#!/usr/bin/env bash
# transformers 5.23.0 reads a GGUF file of Llama 3.1 or later without its rotary scaling, and says nothing.
#
# llama.cpp's converter writes that scaling as a tensor, rope_freqs.weight: what each rotary frequency is divided by.
# from_pretrained(gguf_file=...) has no place for the tensor and leaves it out; rope.scaling.* of linear scaling and YaRN
# it leaves out too. The model loads, answers short prompts well, and has other logits, more so the longer the text is.
# Guess, written down before the first run: the configuration says rope_type "default", and logits are those of a model
# without scaling, to the last bit. Seen: so, and logits off by up to 7.06 after 2,000 tokens of a random model of two
# layers. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0
cat > "$folder/try.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def model(rope):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=131_072, initializer_range=0.2, rope_parameters=rope)).eval()


scaled, plain = model(LLAMA3), model({"rope_type": "default", "rope_theta": 500_000.0})
path = Path(sys.argv[1]) / "model.gguf"
writer = GGUFWriter(path, "llama")
writer.add_block_count(2)
writer.add_context_length(131_072)
writer.add_embedding_length(64)
writer.add_feed_forward_length(96)
writer.add_head_count(4)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(scaled.config.rms_norm_eps)
writer.add_rope_freq_base(500_000.0)
writer.add_rope_dimension_count(16)
writer.add_vocab_size(64)
writer.add_tokenizer_model("gpt2")
writer.add_token_list([chr(33 + place) for place in range(64)])
for name, weight in scaled.state_dict().items():
    stem, values = name.removesuffix(".weight"), weight.numpy()
    if stem.endswith(("q_proj", "k_proj")):  # llama.cpp rotates neighbours, transformers the two halves
        values = values.reshape(len(values) // 16, 2, 8, 64).swapaxes(1, 2).reshape(values.shape)
    where = WHOLE.get(stem) or f"blk.{stem.split('.')[2]}.{NAMES[stem.split('.', 3)[3]]}"
    writer.add_tensor(f"{where}.weight", np.ascontiguousarray(values))
unscaled = 500_000.0 ** -(np.arange(0, 16, 2) / 16)
divisors = unscaled / scaled.model.rotary_emb.inv_freq.numpy()
writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
ids = torch.arange(2_000)[None] * 7 % 64
with torch.no_grad():
    found, right, without = (each(ids).logits for each in (read, scaled, plain))
print("the file divides frequencies by", [round(float(each), 2) for each in divisors])
print("read as", read.config.rope_parameters)
print(f"logits differ from the model's by up to {float((found - right).abs().max()):.2f}")
print(f"logits differ from the model's without scaling by up to {float((found - without).abs().max()):.2f}")
held = read.config.rope_parameters["rope_type"] == "default" and torch.equal(found, without)
sys.exit(0 if held and not torch.allclose(found, right, atol=0.1) else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" "$folder"
