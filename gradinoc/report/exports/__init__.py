"""What a study leaves for other tools: adapters with cards, directions, Parquet tables, another project's CSV form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Finding
from gradinoc.pipeline.run import Pipeline
from gradinoc.report.exports.adapters import write_adapters
from gradinoc.report.exports.directions import load_directions, write_directions
from gradinoc.report.exports.inoculation_prompting import write_results
from gradinoc.report.exports.tables import write_tables
from gradinoc.study.description import Study

__all__ = ["load_directions", "write_exports"]


def write_exports(
    study: Study, evidence: Evidence, pipeline: Pipeline, folder: Path, findings: Sequence[Finding] = ()
) -> list[Path]:
    """What was written into a study's artifacts `folder`, each file whole whenever it is there.

    `findings` are the gates and claims for the table of claims.

    | path | what it is for |
    |---|---|
    | `adapters/<condition>-<seed>/` | `PeftModel.from_pretrained`; with a model card |
    | `directions/directions.safetensors` | `load_directions`, steering-vectors |
    | `directions/directions.gguf` | repeng, llama.cpp |
    | `tables/*.parquet`, `tables/responses.jsonl` | pandas, polars, DuckDB, R |
    | `inoculation_prompting/<trait>.csv`, `<trait>_ci.csv` | the plots of the inoculation-prompting repository |

    Which versions of other tools take them, and what these make of them, is in
    `gradinoc.report.exports.directions`.

    Raises:
        StoreError: the disk refuses, or a stored file cannot be read.
    """
    return [
        *write_adapters(study, evidence, pipeline, folder / "adapters"),
        *write_directions(study, evidence, pipeline, folder / "directions"),
        *write_tables(evidence, findings, folder / "tables"),
        *write_results(evidence, folder / "inoculation_prompting"),
    ]
