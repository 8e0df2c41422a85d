"""Look every pinned package up among known vulnerabilities, with pip-audit; its options may follow.

Ends with 1 if one is found, with 0 if none is or nobody could be asked (a line says which), with 2 if pip-audit broke.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
FORMAT = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
OUT_OF_REACH = ("requests.exceptions.", "ServiceError", "ConnectionError")


def main(options: list[str]) -> int:
    """Ask, and say what came back."""
    command = [sys.executable, "-m", "pip_audit", *FORMAT, "--requirement", str(PINS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = next(reversed(done.stderr.splitlines()), "pip-audit said nothing")
        if not any(word in done.stderr for word in OUT_OF_REACH):
            sys.stderr.write(f"{done.stderr}audit: pip-audit broke\n")
            return 2
        sys.stdout.write(f"audit: NOT DONE, the service could not be reached: {last}\n")
        return 0
    return report(packages)


def report(packages: list[dict]) -> int:
    """Say what is known of the packages; 1 if any is vulnerable."""
    found = [(package, fault) for package in packages for fault in package.get("vulns", [])]
    for package, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "no version yet"
        sys.stdout.write(f"audit: {package['name']} {package['version']}: {fault['id']}, mended in {fixed}\n")
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        sys.stdout.write(f"audit: NOT DONE for {len(unknown)} of {len(packages)}: the service knows no {unknown[0]}\n")
    else:
        sys.stdout.write(f"audit: {len(packages)} packages looked up, {len(found)} known vulnerabilities\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
