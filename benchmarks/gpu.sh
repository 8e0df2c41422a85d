#!/bin/sh
# What only a GPU can show, in parts of at most 90 s, eight minutes in all; each result is a line of JSON as it comes.
#
#   sh benchmarks/gpu.sh [PART ...]        parts: environment exact waits memory small large together
#
# Nothing is installed beside a Python with torch, transformers, peft, accelerate, pandas and scipy (PYTHON=python3). What
# this project needs besides (pydantic, gguf, greenlet) can be brought as wheels in a folder: WHEELS=folder. Nothing is
# downloaded: models have the plan's shapes and random weights. DEVICE=cpu rehearses every part on a small shape.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r "$root/gradinoc" "$root/benchmarks" "$scratch"  # without datasets/, which is no package of that name
if [ -n "${WHEELS:-}" ]; then
    "${PYTHON:-python3}" -m pip install -q --no-index --no-deps --target "$scratch" "$WHEELS"/*.whl || exit 1
fi
cd "$scratch" || exit 1
failed=0
end=$(($(date +%s) + 480))
for part in ${*:-environment exact waits memory small large together}; do
    left=$((end - $(date +%s)))
    [ $left -lt 90 ] || left=90
    [ $left -gt 0 ] || left=1
    PYTHONPATH="$scratch:$scratch/benchmarks/shared:$scratch/benchmarks/sides" \
        timeout $left "${PYTHON:-python3}" -m benchmarks.gpu "$part" "${DEVICE:-cuda}" 2>"$scratch/errors"
    code=$?
    if [ $code != 0 ]; then
        failed=1
        printf '{"part": "%s", "name": "stopped", "value": %s}\n' "$part" $code
        tail -5 "$scratch/errors" >&2
    fi
done
exit $failed
