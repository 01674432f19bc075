"""The gene sets that the paper reports, beside what was found here: a list of facts (GO Term-Based Analysis)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mmmil import params, variants
from mmmil.genes import enrichment
from mmmil.genes.choice import gmt
from mmmil.genes.set_names import is_set
from mmmil.interpretation import gene_sets
from mmmil.settings import yaml_files

if TYPE_CHECKING:
    from mmmil.study import Study

STATES = {
    "significant": "found and significant",
    "not significant": "found, not significant",
    "not tested": "among the sets, but the model has no such attention",
    "not selected": "in the GMT file, not among the model's sets",
    "absent": "not in the GMT file",
}
COLUMNS = ["library", "source", "id", "term", "state", "set", "effect", "fdr"]


def reported(class_names: list[str], library: str, path: Path | None = None) -> pd.DataFrame:
    """What the paper reports for the task with these two classes: columns source, id and term; empty for other tasks.

    path: book/paper_terms.yml if not given.
    """
    path = path or params.root() / "book" / "paper_terms.yml"
    rows = [
        (entry["source"], number, term)
        for entry in yaml_files.read(path)
        if entry["classes"] == list(class_names) and entry["library"] == library
        for number, term in entry["terms"].items()
    ]
    return pd.DataFrame(rows, columns=["source", "id", "term"])


def find(number: str, term: str, names: list[str]) -> str | None:
    """The set of this id or name among `names`."""
    return next((name for name in names if is_set(name, number, term)), None)


def states_of(
    class_names: list[str],
    library: str,
    tables: dict[str, pd.DataFrame],
    chosen: list[str],
    in_file: list[str],
    path: Path | None = None,
) -> pd.DataFrame:
    """Every reported term with what was found: one row each, columns COLUMNS; `state` is a key of STATES.

    tables: source -> as `gene_sets.analyse` gives it; chosen: the model's sets; in_file: all sets of the GMT file.
    """
    rows = []
    for source, number, term in reported(class_names, library, path).itertuples(index=False):
        row = {"library": library, "source": source, "id": number, "term": term}
        name = find(number, term, chosen)
        if name is None:
            row |= {"set": find(number, term, in_file) or ""}
            row |= {"state": "not selected" if row["set"] else "absent"}
        elif source not in tables:
            row |= {"set": name, "state": "not tested"}
        else:
            tested = tables[source].loc[name]
            row |= {"set": name, "effect": tested["effect"], "fdr": tested["fdr"]}
            row |= {"state": "significant" if tested["significant"] else "not significant"}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def of_study(study: Study) -> pd.DataFrame:
    """`states_of` of every analysed model of a task: attention_terms.csv."""
    p, states = study.p, []
    for library, name in gene_sets.models(study).items():
        _, tables = gene_sets.analyse(study, name)
        chosen = study.gene_tokens(-1, variants.variant(name).genes).names
        states.append(states_of(p.class_names, library, tables, chosen, list(enrichment.read_gmt(gmt(p, library)))))
    return pd.concat(states, ignore_index=True) if states else pd.DataFrame(columns=COLUMNS)
