"""The house: modules import in one direction, and nothing reads pickles or runs foreign code."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gradinoc

PACKAGE = Path(gradinoc.__file__).parent
# Top to bottom: a module imports only from those above it.
ORDER = [
    "quoting", "formats", "errors", "disk", "interruption", "panel", "screen", "progress", "board", "watching",
    "prompts", "chat_template", "traits", "study", "statistics", "clustering",
    "correlation", "adjustment", "evidence", "simulation", "design", "examples", "data", "chat", "rendered", "inert",
    "checkpoint", "gguf", "converted", "bundled", "sources", "isolation",
    "devices", "blocks", "adapters", "quantised", "kernels", "fused", "memory", "generation",
    "hooks", "finite", "directions", "gradients", "selftests",
    "models", "tracking", "trainer", "train_lora", "drift", "contrasts", "gates", "claims", "specificity",
    "mediation", "prediction", "verdict", "counterfactuals", "analysis", "calibration", "variances", "prospects",
    "planning", "provenance", "manifest", "report", "store", "stages", "trait_checks", "preflight", "pipeline",
    "exports", "running", "estimates", "cli",
]  # fmt: skip


def _top(module: str) -> str:
    return module.split(".")[1]


def _imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradinoc."):
            found.add(_top(str(node.module)))
        if isinstance(node, ast.Import):
            found |= {_top(alias.name) for alias in node.names if alias.name.startswith("gradinoc.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_those_above_it(path):
    """The order of the modules is the order in which the README tells them."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    assert own in ORDER, f"{own} has no place in the order of modules: give it one"
    above = {*ORDER[: ORDER.index(own)], own}
    assert _imported(path) <= above, f"{own} imports {sorted(_imported(path) - above)}, which stand below it"


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
