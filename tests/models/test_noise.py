"""Noise by which responses are sampled is Gumbel's, the hash it is said to be, and each response's own."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from gradinoc.models.sampling import ROUNDS, SPREAD, GumbelNoise, gumbel_noise, noise_keys

TOKENS = 49_152  # SmolLM2's
LIKELY = 1e-4  # each test draws the same numbers each time: it fails for good or never


def keys_of(rows, seed=0):
    """Keys `[rows, 2]`, as `noise_keys` draws them."""
    return torch.from_numpy(noise_keys(seed, "", [1, 2], 0, rows))


def ids(tokens):
    """Token ids as noise takes them."""
    return torch.tensor(list(tokens), dtype=torch.int32)


def test_noise_is_the_hash_it_is_said_to_be():
    """Computed again from its formula, with NumPy's unsigned numbers and in float64."""
    keys, tokens = keys_of(5), 1000
    for row, (first, second) in zip(
        gumbel_noise(keys, ids(range(tokens))).double().numpy(), keys.numpy().view(np.uint32), strict=True
    ):
        numbers = np.arange(tokens, dtype=np.uint32) * np.uint32(SPREAD) ^ first
        for place, (factor, shift) in enumerate(ROUNDS):
            numbers *= np.uint32(factor)
            numbers ^= numbers >> np.uint32(shift) if place < 2 else (numbers.view(np.int32) >> shift).view(np.uint32)
            numbers ^= second if place == 0 else np.uint32(0)
        assert (numbers < 2**31).all()
        due = -np.log(-np.log1p(-(numbers + 0.5) / 2**31))
        np.testing.assert_allclose(row, due, atol=1e-2)  # `u` is float32: near 1 it is coarse, and the noise least
        np.testing.assert_allclose(row[due > 0], due[due > 0], rtol=1e-5, atol=1e-6)


def test_noise_is_gumbel_distributed_in_every_row_and_in_its_tail():
    """Kolmogorov-Smirnov: all of it, and the largest of 49,152, which is what decides among unlikely tokens."""
    noise = gumbel_noise(keys_of(400), ids(range(TOKENS)))
    assert noise.dtype == torch.float32
    assert bool(noise.isfinite().all())
    assert stats.kstest(noise[:20].flatten().numpy(), stats.gumbel_r.cdf).pvalue > LIKELY
    rows = [stats.kstest(row, stats.gumbel_r.cdf).pvalue for row in noise[:50].numpy()]
    assert stats.kstest(rows, stats.uniform.cdf).pvalue > LIKELY
    largest = noise.amax(-1).double().numpy() - np.log(TOKENS)
    assert stats.kstest(largest, stats.gumbel_r.cdf).pvalue > LIKELY
    places = noise.argmax(-1).numpy() / TOKENS
    assert stats.kstest(places, stats.uniform.cdf).pvalue > LIKELY


def pairs_that_begin_alike(count):
    """Tokens whose hashes begin with numbers that differ in the fewest bits."""
    starts = np.arange(TOKENS, dtype=np.uint32) * np.uint32(SPREAD)
    apart = np.bitwise_count(starts[:300, None] ^ starts)
    apart[:, :300] = 32
    fewest = np.argsort(apart, axis=None, kind="stable")[:count]
    assert apart.ravel()[fewest].max() <= 5
    return [(int(row), int(column)) for row, column in zip(*np.unravel_index(fewest, apart.shape), strict=True)]


def test_noise_of_tokens_is_independent():
    """Of neighbours, and of those whose hashes begin alike: over many keys, their ranks fill a square evenly."""
    pairs = [(0, 1), (7, 8), (1000, 1001), (0, TOKENS - 1), *pairs_that_begin_alike(20)]
    columns = sorted({token for pair in pairs for token in pair})
    uniform = stats.gumbel_r.cdf(gumbel_noise(keys_of(20_000), ids(columns)).double().numpy())
    values = []
    for pair in pairs:
        one, other = (np.minimum((8 * uniform[:, columns.index(token)]).astype(int), 7) for token in pair)
        values.append(stats.chisquare(np.bincount(8 * one + other, minlength=64)).pvalue)
    assert min(values) > LIKELY, dict(zip(pairs, values, strict=True))
    assert stats.kstest(values, stats.uniform.cdf).pvalue > LIKELY


def test_each_response_has_its_own_noise():
    """Another seed, label, prompt, sample or step: no correlation; the same once more: the same, however long it is."""
    given = [(0, "", (5, 6), 0), (1, "", (5, 6), 0), (0, "a", (5, 6), 0), (0, "", (5, 7), 0), (0, "", (5, 6), 1)]
    given += [(0, "", (56,), 0), (0, "1", (5, 6), 0)]
    keys = [noise_keys(*each, 4) for each in given]
    noise = gumbel_noise(torch.from_numpy(np.concatenate(keys)), ids(range(TOKENS))).double()
    apart = torch.corrcoef(noise) - torch.eye(len(noise))
    assert float(apart.abs().max()) < 4.5 / np.sqrt(TOKENS)
    np.testing.assert_array_equal(noise_keys(*given[2], 9)[:4], keys[2])


def test_noise_is_added_whatever_the_size_of_a_part(monkeypatch):
    """Rows are taken a few at a time where a vocabulary is large."""
    keys, logits = noise_keys(0, "", [1], 0, 7)[:, None], torch.zeros(7, 50)
    whole = GumbelNoise(keys, torch.device("cpu"))(torch.zeros(7, 1), logits)
    monkeypatch.setattr("gradinoc.models.sampling.CACHED", 120)
    assert torch.equal(GumbelNoise(keys, torch.device("cpu"))(torch.zeros(7, 1), logits), whole)
    assert torch.equal(whole, gumbel_noise(torch.from_numpy(keys[:, 0]), ids(range(50))))
