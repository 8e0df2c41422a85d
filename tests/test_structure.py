"""Nothing reads pickles or runs foreign code; public names keep their arguments; packages and modules stay small."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gradinoc

PACKAGE = Path(gradinoc.__file__).parent
ROOT = PACKAGE.parent
# Folders with code of the project's own.
OURS = ("gradinoc", "tests", "claims", "fixtures", "benchmarks", "docs", "datasets")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_reads_a_pickle_or_trusts_remote_code(path):
    """No pickle, no torch.load, no trust_remote_code=True, anywhere in the library."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}, ast.unparse(node)
        if isinstance(node, ast.Call):
            text = ast.unparse(node)
            assert not text.startswith(("torch.load(", "pd.read_pickle(", "np.load(")), text
            assert "trust_remote_code=True" not in text, text


@pytest.mark.parametrize(
    "init", sorted(PACKAGE.glob("*/**/__init__.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_package_has_at_most_ten_modules(init):
    """Whoever looks for something reads a folder at a glance; figures are a list."""
    rooms = [path.name for path in init.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert len(rooms) - 1 <= 10 or "figures" in init.parts, sorted(rooms)


def test_module_has_at_most_300_lines():
    """Library, tests, fixtures and benchmarks are read a page at a time; files of data are no modules."""
    found = (path for room in OURS for path in (ROOT / room).rglob("*.py"))
    ours = [path.relative_to(ROOT) for path in found]
    modules = [path for path in ours if not any(part.startswith(".") for part in path.parts)]
    assert len(modules) > 500
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules}
    assert not {path for path, count in lines.items() if count > 300}


PUBLIC = {
    "ActivationCollector": ["model", "layer_indices"],
    "GradientCollector": ["model", "layer_indices"],
    "extract_trait_direction": [
        "model", "tokenizer", "prompts", "promote_system", "suppress_system", "layers", "position",
    ],
    "compute_gradient_alignment": ["gradient", "direction"],
    "train_with_gradient_logging": [
        "model_name", "dataset_path", "system_prompt", "trait_directions", "output_dir",
        "lora_rank", "epochs", "batch_size", "lr",
    ],
    "measure_caps_rate": ["text"],
    "run_study": ["study", "settings", "store", "artifacts", "on_progress", "report_to"],
    "load_directions": ["path"],
    "steered": ["model", "directions", "strength", "positions"],
    "ablate": ["model", "directions", "positions", "strength"],
    "project_gradient": ["model", "directions", "strength", "positions"],
    "shrink_gradient": ["model", "layers", "share", "directions", "strength", "positions"],
    "add_gradient": ["model", "directions", "components", "strength", "positions"],
    "gradient_components": ["model", "examples", "directions", "pad", "weight"],
    "leak": ["adapter", "directions", "modules", "name"],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_keeps_its_arguments(name):
    """Public names come from the package itself, and take the arguments that its readers use, in their order."""
    parameters = list(inspect.signature(getattr(gradinoc, name)).parameters)
    assert parameters[: len(PUBLIC[name])] == PUBLIC[name]


def test_importing_the_package_loads_no_torch():
    """No work at import: torch takes seconds, and a name that does not need it should not wait."""
    code = "import sys, gradinoc; gradinoc.measure_caps_rate('A'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
