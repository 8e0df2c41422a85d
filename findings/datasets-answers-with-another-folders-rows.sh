#!/bin/sh
# datasets 5.2.0: `load_dataset(FOLDER, NAME)` of a local folder whose card names its tables (`configs` in the front
# matter of README.md). Two folders of the same last name, in other places, with the same card and other rows. Guess: the
# cache goes by the file's path or its time, so that each folder gives its own rows. Seen: the second gives the rows of
# the first, without a word; so does the first after its file was written anew. The cache goes by the folder's last name
# and the front matter. Without a card, or with another `description` in the card, each gives its own.
#
# Output seen:
#   with a card: 1, elsewhere 1 (holds 2), written anew 1 (holds 3)   no card: 2   other description: 3
# Exits 0 while it is so, 1 when it is not any more.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
cd "$folder"
HF_DATASETS_CACHE="$folder/cache" HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$folder/env/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import pandas as pd
from datasets import load_dataset

CARD = "---\nconfigs:\n- config_name: runs\n  data_files: runs.parquet\n  description: {}\n---\n"


def write(place, number, card=CARD.format("all runs")):
    folder = Path(place) / "release"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"seed": [number]}).to_parquet(folder / "runs.parquet")
    (folder / "README.md").write_text(card)
    return str(folder)


def read(folder, name="runs"):
    return load_dataset(folder, name, split="train")["seed"][0]


first = read(write("one", 1))
elsewhere = read(write("two", 2))
anew = read(write("one", 3))
no_card = read(write("three", 2, "rows"), None)
described = read(write("one", 3, CARD.format("all runs, third edition")))
print("with a card: {}, elsewhere {} (holds 2), written anew {} (holds 3)   no card: {}   other description: {}".format(
    first, elsewhere, anew, no_card, described))
sys.exit((first, elsewhere, anew, no_card, described) != (1, 1, 1, 2, 3))
PYTHON
