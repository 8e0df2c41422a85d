"""In which precision a processor computes: the one in which it multiplies faster, measured once for all processes."""

from __future__ import annotations

import json
import time

import pytest
import torch
from transformers import LlamaConfig

from gradinoc.models.machine import device as devices
from gradinoc.models.machine.device import BFLOAT16_ERROR, bfloat16_pays, precision, product_speeds

CPU = torch.device("cpu")
INSTRUCTED = devices._has_bfloat16(CPU)  # of this processor, before tests pretend otherwise


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A processor with instructions for bfloat16, of which nothing was measured yet."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "cache"))
    bfloat16_pays.cache_clear()
    yield
    bfloat16_pays.cache_clear()


def measured(monkeypatch, ratio, error=0.0):
    """The sizes of the products that were measured, to be in bfloat16 `ratio` times as fast as in float32."""
    sizes = []

    def speeds(*size):
        sizes.append(size)
        return {torch.float32: 1.0, torch.bfloat16: ratio}, error

    monkeypatch.setattr(devices, "product_speeds", speeds)
    return sizes


@pytest.mark.parametrize(
    ("ratio", "error", "expected"),
    [
        (6.0, 0.0, torch.bfloat16),
        (1.1, 0.0, torch.float32),
        (0.7, 0.0, torch.float32),
        (6.0, 2 * BFLOAT16_ERROR, torch.float32),
    ],
    ids=["fast", "hardly faster", "slower", "wrong"],
)
def test_faster_precision_that_is_right_is_chosen(monkeypatch, tmp_path, ratio, error, expected):
    """By the sizes of the costliest product, here of the first linear map of an MLP; no other dtype is touched."""
    sizes = measured(monkeypatch, ratio, error)
    LlamaConfig(
        hidden_size=512, intermediate_size=3072, num_hidden_layers=4, num_attention_heads=4, vocab_size=64,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)  # fmt: skip
    assert precision("auto", CPU, lambda: tmp_path) == expected
    assert precision("bfloat16", CPU, lambda: tmp_path) == torch.bfloat16
    assert sizes == [(512, 3072)]


@pytest.mark.parametrize("damaged", [None, "{", '{"x": 1}'], ids=["whole", "broken", "of another form"])
def test_choice_is_kept_for_other_processes(monkeypatch, tmp_path, damaged):
    """What was measured first holds from then on, whatever a busy processor would show later; a broken record goes."""
    sizes = measured(monkeypatch, 6.0)
    assert bfloat16_pays(576, 1536)
    record = tmp_path / "cache" / "products.json"
    assert list(json.loads(record.read_text(encoding="utf-8")).values()) == [True]
    if damaged:
        record.write_text(damaged, encoding="utf-8")
    bfloat16_pays.cache_clear()  # as another process
    later = measured(monkeypatch, 0.5)
    assert bfloat16_pays(576, 1536) is (damaged is None)
    assert (len(sizes), len(later)) == (1, int(damaged is not None))


def test_choice_under_other_instructions_is_another(monkeypatch):
    """OneDNN can be forbidden what the processor has: what was measured without that limit does not hold."""
    measured(monkeypatch, 6.0)
    assert bfloat16_pays(576, 1536)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    bfloat16_pays.cache_clear()
    measured(monkeypatch, 0.3)
    assert not bfloat16_pays(576, 1536)


def test_cache_that_cannot_be_written_to_costs_no_study(monkeypatch, tmp_path):
    """The choice is measured then by each process."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADINOC_CACHE", str(tmp_path / "file"))
    measured(monkeypatch, 6.0)
    assert bfloat16_pays(576, 1536)


@pytest.mark.skipif(not INSTRUCTED, reason="bfloat16 is emulated here: studies compute in float32, and time nothing")
@pytest.mark.parametrize("sizes", [(576, 1536), (3584, 18944)], ids=["SmolLM2", "Qwen2.5-7B"])
def test_real_products_are_timed_quickly_and_compared(sizes):
    """In less than 0.3 s of this processor's time on one thread; torch's bfloat16 is right to its last place."""
    torch.set_num_threads(1)
    began = time.process_time()
    speeds, error = product_speeds(*sizes)
    assert time.process_time() - began < 0.6  # twice the goal: other processes share the cache
    assert min(speeds.values()) > 0
    assert 0 < error <= BFLOAT16_ERROR


def test_busy_beginning_does_not_decide(monkeypatch):
    """Products are timed for a quarter of a second: what else ran during the first of them decides nothing."""
    clock, multiply, calls = [0.0], torch.Tensor.__matmul__, []

    def timed(left, right):
        calls.append(left.dtype)
        busy = len(calls) <= 20
        clock[0] += (0.02 if busy else 0.001) if left.dtype == torch.bfloat16 else 0.004
        return multiply(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", timed)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: clock[0])
    speeds, _ = product_speeds(64, 64)
    assert speeds[torch.bfloat16] / speeds[torch.float32] == pytest.approx(4)
