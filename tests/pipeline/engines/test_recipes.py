"""The recipes of `docs/scale`, run where SLURM, Ray and gradinoc only say what they are given."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from gradinoc.cli.commands import app
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "docs" / "scale"
# Of `ray.io/v1` as KubeRay 1.3 has it, what the manifest uses: a field's name and what it may hold.
JOB = {
    "entrypoint": str, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int, "backoffLimit": int,
    "rayClusterSpec": dict,
}  # fmt: skip
CLUSTER = {"rayVersion": str, "headGroupSpec": dict, "workerGroupSpecs": list}
GROUP = {"rayStartParams": dict, "template": dict}
WORKERS = {**GROUP, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
# Each says its words; those that run a command run what is left of them after their options.
PROGRAMS = {
    "gradinoc": "",
    "scontrol": 'printf "node-%s\\n" 1 2 3 4',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": 'if [[ $1 == symmetric-run ]]; then while [[ $1 != -- ]]; do shift; done; shift; exec "$@"; fi',
}


@pytest.fixture
def play(tmp_path):
    """Runs a recipe as SLURM would; gives the words of each program that it ran, in order."""
    said, programs = tmp_path / "said", tmp_path / "bin"
    programs.mkdir()
    for name, does in PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/bash\nprintf "%q " {name} "$@" >> {shlex.quote(str(said))}\n')
        with program.open("a") as file:
            file.write(f"echo >> {shlex.quote(str(said))}\n{does}\n")
        program.chmod(0o755)

    def played(recipe: str, *words: str, **variables: str) -> list[list[str]]:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        run = subprocess.run(
            ["bash", RECIPES / recipe, *words], env={"PATH": path, **variables}, cwd=tmp_path, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        return [shlex.split(line) for line in said.read_text().splitlines()]

    return played


def check_command(words: list[str]) -> Any:
    """A command of gradinoc's can be given so; gives what its options are."""
    program, command, *rest = words
    assert program == "gradinoc"
    commands = typer.main.get_command(app).commands
    return commands[command].make_context(command, rest).params


@pytest.mark.parametrize(("words", "variables", "shard"), [
    (("smollm2",), {"SLURM_ARRAY_TASK_COUNT": "16"}, "3/16"),
    (("smollm2", "16"), {"SLURM_ARRAY_TASK_COUNT": "1"}, "3/16"),  # a share of sixteen, begun again alone
])  # fmt: skip
def test_share_of_a_job_array(play, words, variables, shard):
    """Each job computes its own share, into a store that nobody else writes."""
    (command,) = play("shards.sbatch", *words, SLURM_ARRAY_TASK_ID="3", **variables)
    options = check_command(command)
    assert command[:5] == ["gradinoc", "steps", "smollm2", "--shard", shard]
    assert (str(options["store"]), str(options["artifacts"])) == ("shares/3", "shares/artifacts-3")


def test_cluster_on_whole_nodes(play):
    """Ray begins on every node, with the first one's address; the study is run there by that cluster."""
    listed, token, srun, ray, command = play(
        "symmetric.sbatch", "smollm2", SLURM_JOB_NODELIST="node-[1-4]", SLURM_JOB_NUM_NODES="4"
    )
    assert listed == ["scontrol", "show", "hostnames", "node-[1-4]"]
    assert token[:2] == ["ray", "get-auth-token"]
    assert srun[:3] == ["srun", "--nodes=4", "--ntasks=4"]
    assert ray[:6] == ["ray", "symmetric-run", "--address", "node-1:6379", "--min-nodes", "4"]
    assert check_command(command)["engine"] == "ray"


@pytest.mark.parametrize("recipe", ["shards.sbatch", "symmetric.sbatch"])
def test_recipe_without_a_study_says_so(play, recipe):
    """And runs nothing."""
    with pytest.raises(AssertionError, match="which study"):
        play(recipe)


def test_manifest_of_a_kuberay_job():
    """Its fields are KubeRay's, of the types that it takes; its command and what that changes are gradinoc's."""
    manifest = yaml.safe_load((RECIPES / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    job = manifest["spec"]
    cluster = job["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    for found, fields in ((job, JOB), (cluster, CLUSTER), (cluster["headGroupSpec"], GROUP), (workers, WORKERS)):
        assert {name: type(value) for name, value in found.items()} == fields
    for group in (cluster["headGroupSpec"], workers):
        assert all(type(value) is str for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]  # KubeRay reads the limits
    options = check_command(shlex.split(job["entrypoint"]))
    assert load_study("smollm2", list(options["settings"])).engine.gpus_per_worker == 1.0
    (mount,) = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert Path(options["store"]).is_relative_to(mount["mountPath"])  # what a driver that is begun again finds


def test_manifest_asks_for_the_ray_that_is_pinned():
    """Head and submitter would be of another release than the driver otherwise."""
    manifest = yaml.safe_load((RECIPES / "rayjob.yaml").read_text(encoding="utf-8"))
    assert f"\nray=={manifest['spec']['rayClusterSpec']['rayVersion']} " in (ROOT / "constraints.txt").read_text()
