"""Determinism: a study's seeds decide all that is random in it; nothing else does, and every one of them matters."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gradinoc
from fixtures.small_models import ARCHITECTURES, PAD
from fixtures.small_study import SMALLEST, as_options, assert_same
from fixtures.smallest import quick_collection, smallest, tables
from gradinoc.data.splits import split
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.pipeline.provenance import environment
from gradinoc.pipeline.steps.gradients import frozen_directions
from gradinoc.pipeline.steps.training import training_directions
from gradinoc.pipeline.store import Store, load_tensors, save_tensors
from gradinoc.report.tables import write_json
from gradinoc.study.description import DataSettings, NullSettings, TrainingSettings
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[2]
PACKAGE = Path(gradinoc.__file__).parent


# --- no generator but those that are seeded

# Names of torch that draw from a generator, beside everything that begins with `rand`.
DRAWING = {
    "bernoulli", "multinomial", "normal", "poisson", "dropout", "normal_", "uniform_", "random_", "bernoulli_",
    "exponential_", "geometric_", "cauchy_", "log_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_",
    "xavier_normal_", "orthogonal_", "trunc_normal_", "sparse_",
}  # fmt: skip
# The global generators: only to be put back as they were, or seeded while they are.
KEEPING = {
    "random.getstate", "random.setstate", "np.random.get_state", "np.random.set_state", "torch.random.fork_rng",
    "torch.manual_seed",
}  # fmt: skip
GLOBAL = re.compile(r"(np|numpy|torch)\.random\.\w+|torch\.cuda\.\w*(seed|rng)\w*")
SEEDED_KINDS = {"np.random.default_rng", "np.random.SeedSequence", "random.Random", "torch.Generator"}
KEEPERS = {("measure/training/run.py", "train_run"), ("models/isolation.py", "own_generators")}


def calls(path: Path):
    """Every call in a module: the name called, the call, and the function that it stands in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    function: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            function.update(dict.fromkeys(ast.walk(node), node.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if not name.startswith("random.") or "random" in imports:  # elsewhere it is a variable
                yield name, node, function.get(node, "")


def is_free(name: str, call: ast.Call) -> bool:
    """Whether a call draws at random, or makes or moves a generator, without a seed or generator of its own."""
    own = any(keyword.arg in ("generator", "rng", "seed", "random_state") for keyword in call.keywords)
    first, last = name.split(".")[0], name.rpartition(".")[2]
    if name in KEEPING or name.endswith(".manual_seed"):
        return not name.startswith("torch.Generator(")
    if name in SEEDED_KINDS:
        return not call.args and not own and name != "torch.Generator"  # which `manual_seed` follows: see below
    if first == "random" or GLOBAL.fullmatch(name):
        return True
    drawing = last in DRAWING or (first == "torch" and last.startswith(("rand", "seed", "initial_seed")))
    return (drawing and not own and not _is_of_generator(name)) or last in ("urandom", "uuid4", "SystemRandom")


def _is_of_generator(name: str) -> bool:
    """Whether `name` is a method of a NumPy generator, which is seeded where it is made."""
    return name.split(".")[0] in ("rng", "generator", "draw", "self") and "torch" not in name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_random_draw_has_a_seed(path):
    """No call of a random generator in the library goes without one that is seeded; global ones are only kept."""
    own = str(path.relative_to(PACKAGE))
    found = list(calls(path))
    free = [
        f"{own}:{call.lineno}: {ast.unparse(call)}"
        for name, call, function in found
        if is_free(name, call) and (own, function) not in KEEPERS
    ]
    assert not free, "give it a generator or a seed: " + "; ".join(free)
    made = [call for name, call, _ in found if name == "torch.Generator"]
    seeded = [call for name, call, _ in found if name.startswith("torch.Generator(") and name.endswith(".manual_seed")]
    assert len(made) == len(seeded), f"{own}: torch.Generator() without .manual_seed(seed)"


FREE_CALLS = [
    "torch.randn(3)", "torch.rand_like(x)", "torch.randperm(9)", "np.random.default_rng()", "np.random.rand(3)",
    "random.random()", "random.shuffle(x)", "torch.nn.init.normal_(w)", "w.uniform_()", "torch.manual_seed(0)",
    "np.random.seed(0)", "torch.multinomial(p, 1)", "uuid.uuid4()", "random.Random()", "torch.seed()",
    "torch.random.manual_seed(1)", "torch.cuda.manual_seed_all(0)",
]  # fmt: skip
SEEDED_CALLS = [
    "torch.randn(3, generator=g)", "np.random.default_rng(seed)", "rng.normal(size=3)", "random.Random(3)",
    "rng.permutation(4)", "torch.bernoulli(p, generator=g)", "torch.Generator().manual_seed(3)",
    "np.random.default_rng(3).permutation(4)",
]  # fmt: skip


@pytest.mark.parametrize("text", [*FREE_CALLS, *SEEDED_CALLS])
def test_rule_tells_free_draws_from_seeded_ones(text, tmp_path):
    """The rule above would notice a new draw."""
    (tmp_path / "new.py").write_text(f"import random\n{text}")
    assert any(is_free(name, call) for name, call, _ in calls(tmp_path / "new.py")) == (text in FREE_CALLS)


# --- what each seed decides


def test_data_seed_draws_other_splits():
    """Every part is another one, and the digest that is an input of every step says so; one seed gives one split."""
    sizes = {"direction": 40, "measure": 40, "train": 40, "evaluation": 40, "calibration": 40}
    one, same, other = (split(DataSettings(seed=seed, **sizes)) for seed in (0, 0, 1))
    assert one == same
    assert one.digest != other.digest
    for part in sizes:
        assert {example.index for example in getattr(one, part)} != {example.index for example in getattr(other, part)}
    assert one.everyday == other.everyday, "these are the first of a list, and not drawn"


def test_null_seed_draws_every_random_direction_and_nothing_else(tmp_path):
    """Isotropic, covariance-matched, sign-flipped and those of training; the traits' own directions stay."""
    generator = torch.Generator().manual_seed(7)
    layers, hidden = 2, 16
    trait = torch.nn.functional.normalize(torch.randn(layers, hidden, generator=generator), dim=-1)
    sides = {side: torch.randn(layers, 12, hidden, generator=generator) for side in ("promote", "suppress")}
    for name, tensors in (
        ("directions", {"trait": trait}), ("contrasts", sides), ("unrelated", {"brevity": trait, "warmth": -trait}),
    ):  # fmt: skip
        save_tensors(tensors, tmp_path / f"{name}.safetensors")
    settings = {seed: NullSettings(isotropic=100, covariance=100, sign_flipped=100, seed=seed) for seed in (0, 1)}
    one, same, other = (frozen_directions(tmp_path, tmp_path, settings[seed]) for seed in (0, 0, 1))
    for layer in range(layers):
        assert torch.equal(one.rows[layer], same.rows[layer])
        assert torch.equal(one.rows[layer][:3], other.rows[layer][:3]), "the trait and two unrelated ones"
        start = 3
        for null, count in one.draws.items():
            rows = slice(start, start + count)
            apart = (one.rows[layer][rows] - other.rows[layer][rows]).abs().amax(1)
            assert (apart > 0).float().mean() > 0.95, f"{null}: a seed that does not reach it"
            start += count
        assert start == len(one.rows[layer])
    one, same, other = (training_directions(tmp_path, 100, seed) for seed in (0, 0, 1))
    for layer in range(layers):
        assert torch.equal(one[layer], same[layer])
        assert torch.equal(one[layer][0], other[layer][0])
        assert (one[layer][1:] != other[layer][1:]).any(1).all()


def disturb(number: int) -> None:
    """Put the global generators somewhere else."""
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the global generator is what is disturbed
    torch.manual_seed(number)


def states():
    """Where the global generators are."""
    _, keys, place, *_ = np.random.get_state()  # noqa: NPY002
    return random.getstate(), keys.tobytes(), place, torch.get_rng_state().numpy().tobytes()


def run(examples, folder: Path, seed: int, dropout: float = 0.1):
    """A run of four steps on a GPT-2 whose own modules drop states at random; its log and its weights."""
    model = ARCHITECTURES["gpt2"]().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    layers = len(model.transformer.h)
    generator = torch.Generator().manual_seed(5)
    directions = {layer: torch.randn(2, model.config.n_embd, generator=generator) for layer in range(layers)}
    settings = TrainingSettings(steps=4, batch_size=2, lr=1e-2, lora_rank=2, lora_alpha=4)
    first = folder / "first"
    log = train_run(model, examples, Recipe(settings, directions, PAD), seed, folder / "last", checkpoints={1: first})
    return log, load_tensors(folder / "last" / "adapter_model.safetensors")


@pytest.mark.fault("Determinism", "global random generators disturbed before a run")
def test_run_with_dropout_depends_on_its_seed_alone(examples, tmp_path, faults_tried):
    """Initial weights, the order of examples and what dropout drops: the same whatever was drawn before."""
    runs = []
    for number in range(3):
        disturb(number)
        before = states()
        runs.append(run(examples, tmp_path / str(number), seed=3))
        assert states() == before
    (log, weights), *others = runs
    for other, found in others:
        pd.testing.assert_frame_equal(other.table, log.table, check_exact=True)
        assert (other.losses, other.initial_loss, other.final_loss) == (log.losses, log.initial_loss, log.final_loss)
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    faults_tried(3)
    without, _ = run(examples, tmp_path / "without", seed=3, dropout=0.0)
    assert without.losses[0] != log.losses[0], "nothing was dropped: the test shows nothing"


def test_seed_of_a_run_reaches_weights_order_and_dropout(examples, tmp_path):
    """Another seed: other initial weights (A of LoRA, which four steps hardly move), another order of examples."""
    (one, first), (other, second) = (run(examples, tmp_path / str(seed), seed) for seed in (0, 1))
    matrices = [name for name in first if "lora_A" in name]
    assert matrices
    for name in matrices:
        alike = torch.corrcoef(torch.stack([first[name].flatten(), second[name].flatten()]))[0, 1]
        assert abs(alike) < 0.7, f"{name}: initial weights are alike"
    orders = [log.table.drop_duplicates(["step", "example"])["example"].tolist() for log in (one, other)]
    assert orders[0] != orders[1]
    # One example many times, and adapters that begin with no effect: the first losses differ by what is dropped alone.
    alike = [examples[0]] * len(examples)
    dropped = [run(alike, tmp_path / f"alike {seed}", seed)[0].losses[0] for seed in (0, 1)]
    assert dropped[0] != dropped[1], "a seed that does not reach dropout"


# --- the whole study

ALONE = """
import random, sys
from pathlib import Path
import numpy as np, torch
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.gradients import frozen_directions
from gradinoc.pipeline.steps.training import training_directions
from gradinoc.pipeline.store import Store
from gradinoc.study.loading import load_study
number = int(sys.argv[1])
random.seed(number); np.random.seed(number); torch.manual_seed(number)
def disturb(progress):
    if progress.detail == "starting":
        random.random(); np.random.rand(number); torch.rand(number)
Pipeline(load_study("tiny", sys.argv[3:]), Store(Path(sys.argv[2])), disturb).evidence()
print(sum(map(hash, ("a", "b", "c"))))
"""


@pytest.mark.exhaustive
@pytest.mark.fault("Determinism", "another process, order of hashing and state of the global generators")
def test_two_processes_come_to_the_same_tables(tmp_path):
    """From nothing, twice: bit for bit the same, but for how long runs took."""
    said, found = [], []
    for number, hashing in ((1, "1"), (23, "4711")):
        store = tmp_path / str(number)
        command = [sys.executable, "-W", "ignore", "-c", ALONE, str(number), str(store), *SMALLEST]
        surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hashing}
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split()[-1])
        pipeline = smallest(store)
        assert all(entry.complete() for entry in pipeline.entries.values())
        found.append((tables(pipeline), weights(store)))
    assert said[0] != said[1], "both hashed alike: the test shows nothing"
    assert_same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def weights(store: Path) -> dict[str, bytes]:
    """Every tensor that a study leaves: directions, adapters, checkpoints."""
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*.safetensors")}


OF_NULLS = {"nulls", "training_nulls"}


@pytest.mark.exhaustive
def test_seed_of_nulls_changes_their_tables_alone(tmp_path):
    """Every other table of the study, to the last bit, and every adapter's weights, are the same."""
    with quick_collection():
        one, other = (tables(smallest(tmp_path / str(seed), f"nulls.seed={seed}")) for seed in (0, 1))
    for name, table in one.items():
        if name not in OF_NULLS:
            pd.testing.assert_frame_equal(table, other[name], check_exact=True)
            continue
        assert len(table)
        kinds = table.groupby("null").groups if name == "nulls" else {name: table.index}
        for kind, rows in kinds.items():
            own, drawn = table.loc[rows, "alignment"], other[name].loc[rows, "alignment"]
            assert (own != drawn).mean() > 0.9, f"{kind}: a seed that does not reach it"


@pytest.mark.exhaustive
def test_study_leaves_the_global_generators_where_they_were(tmp_path):
    """Whoever calls the library in a program of their own draws what they would have drawn."""
    disturb(3)
    before, moved = states(), []
    with quick_collection():
        pipeline = smallest(tmp_path)
        for label in pipeline.steps:
            pipeline.complete([label])
            if states() != before:
                moved.append(label)
                disturb(3)
    assert moved == []


# --- what says how a study was made


def test_environment_says_what_a_study_was_computed_with(tmp_path):
    """Versions, hardware, revision; data and weights by checksum; every way in which some result was computed."""
    study = load_study("tiny", SMALLEST)
    inputs = {"model": "f" * 64, "data": "d" * 64, "device": "cpu", "dtype": "torch.float32", "kernels": "fused"}
    store, manifests = Store(tmp_path), []
    for number in range(3):
        entry = store.entry("stage", {**inputs, "number": number})
        with entry.write() as folder:
            (folder / "file").touch()
        manifests.append(entry.manifest())
    manifests[1]["provenance"] = {**manifests[1]["provenance"], "accelerator": "H100", "host": "elsewhere"}
    manifests[2]["provenance"] = {**manifests[2]["provenance"], "host": "yet.another", "created": "2030-01-01"}
    found = environment(study, manifests)
    path = write_json(found, tmp_path / "environment.json")
    text = path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")) == found
    assert "elsewhere" not in text
    assert "yet.another" not in text
    assert all(found["packages"][name] for name in ("torch", "safetensors", "pyarrow", "huggingface_hub", "pydantic"))
    for known in ("python", "platform", "processor", "cores", "memory_gb", "cpu_capability", "threads", "created"):
        assert found[known], known
    assert {"revision", "dirty", "accelerator", "accelerator_memory_gb", "cuda", "driver"} <= set(found)
    bundled = ROOT / "datasets" / "word_problems.jsonl"
    digest = subprocess.run(["sha256sum", bundled], capture_output=True, text=True, check=True).stdout.split()[0]
    assert found["data"]["sha256"] == digest
    assert found["data"]["splits"] == "d" * 64
    assert found["weights"] == {"model": "obedient", "revision": None, "fingerprint": "f" * 64}
    assert found["computed_by"]["results"] == 3
    assert found["computed_by"]["last"] == "2030-01-01"
    ways = found["computed_by"]["ways"]
    assert sorted((way["results"], way["accelerator"], way["device"]) for way in ways) == sorted(
        [(2, found["accelerator"], "cpu"), (1, "H100", "cpu")], key=str
    )


@pytest.mark.parametrize("dirty", [False, True])
def test_revision_and_changes_are_told_apart(tmp_path, monkeypatch, dirty):
    """A checkout of its own: the commit in full, and whether a tracked file differs from it."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    if dirty:
        (tmp_path / "file").write_text("two")
    from gradinoc.pipeline import provenance

    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    provenance._revision.cache_clear()
    try:
        found = environment()
    finally:
        provenance._revision.cache_clear()
    assert (found["revision"], found["dirty"]) == (head, dirty)


@pytest.mark.exhaustive
def test_report_rests_on_what_its_own_store_says(tmp_path):
    """`gradinoc report`: environment.json counts the results of the report, and names data and weights."""
    command = [sys.executable, "-W", "ignore", "-m", "gradinoc", "report", "tiny", *as_options(SMALLEST)]
    command += ["--store", str(tmp_path / "store"), "--artifacts", str(tmp_path / "artifacts")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "artifacts" / "small" / "environment.json").read_text(encoding="utf-8"))
    pipeline = smallest(tmp_path / "store")
    (way,) = found["computed_by"]["ways"]
    assert way["results"] == found["computed_by"]["results"] == len(pipeline.steps)
    assert (way["device"], way["kernels"]) == ("cpu", "fused")
    assert found["data"]["splits"] == pipeline.context.splits.digest
    assert found["weights"]["fingerprint"] == pipeline.entry("directions").inputs["model"]
