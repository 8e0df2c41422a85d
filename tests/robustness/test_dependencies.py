"""What is installed is pinned file by file, and looked up among known vulnerabilities."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fixtures.servers import serving

ROOT = Path(__file__).parents[2]
HASH = r"\n    --hash=sha256:[0-9a-f]{64}(?: \\)?"
PIN = re.compile(rf"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.!]+) \\(?:{HASH})+$", re.MULTILINE)


def pins() -> dict[str, str]:
    """Package -> version, of constraints.txt; every line of it is accounted for."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    rest = PIN.sub("", text)
    assert all(line.startswith("#") for line in rest.splitlines() if line), rest
    return {normal(found["name"]): found["version"] for found in PIN.finditer(text)}


def normal(name: str) -> str:
    """A package's name as registries write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(*roots: str) -> set[str]:
    """Every package that those need on this platform, however indirectly, by what is installed."""
    found, waiting = set(), [Requirement(root) for root in roots]
    while waiting:
        requirement = waiting.pop()
        extras = requirement.extras or {""}
        if (place := (normal(requirement.name), tuple(sorted(extras)))) in found:
            continue
        found.add(place)
        further = [Requirement(text) for text in importlib.metadata.requires(requirement.name) or []]
        waiting += [
            each
            for each in further
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {name for name, _ in found}


def test_every_package_is_pinned_by_hash():
    """All that the project, its development and its build need, at the version that is installed here."""
    known = pins()
    project = needed("gradinoc[dev]", "hatchling", "editables") - {"gradinoc", "pip"}
    assert project - set(known) == set()
    assert len(project) > 80
    for name, version in known.items():  # torch's build (`+cpu`) is not part of its version
        assert importlib.metadata.version(name).partition("+")[0] == version, name


def test_pins_name_no_place_to_install_from():
    """Where packages come from is the business of whoever installs them."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|(?m:^-)|/", text.replace("+cpu", ""))


# --- what is known of it


@contextmanager
def advisories(vulnerable: str):
    """Address of a service of known vulnerabilities on loopback, as OSV's, and the packages it was asked for."""
    asked = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            asked.add(normal(name))
            affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}]
            fault = {"id": "PYSEC-1", "summary": "bad", "affected": affected, "published": "2026-01-01T00:00:00Z"}
            body = json.dumps({"vulns": [fault]} if name == vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as address:
        yield address, asked


def audit(address: str) -> tuple[int, str]:
    """Exit code and output of `make audit`."""
    command = [sys.executable, ROOT / ".ci" / "audit.py", "--vulnerability-service", "osv", "--osv-url", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("vulnerable", ["", "jinja2"])
def test_audit_fails_for_a_known_vulnerability_alone(vulnerable):
    """Every pinned package is looked up; one that is vulnerable is named."""
    with advisories(vulnerable) as (address, asked):
        code, said = audit(address)
    assert asked == set(pins())
    assert code == bool(vulnerable), said
    assert ("jinja2 3" in said) == bool(vulnerable)


def test_audit_that_was_not_done_says_so():
    """A service out of reach is no failure, and no success either."""
    code, said = audit("http://127.0.0.1:9")
    assert (code, "NOT DONE" in said) == (0, True), said
