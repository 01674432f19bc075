"""What a run is to the paper: of its cohort at its settings, of its cohort at others, of its patients with other
features, of another real cohort, or of a synthetic one.

All of it follows from the parameters and from the names of the patients in the cohort's table. Which settings the paper
states is said by its claims (`claims.stated`); a setting of what a cohort does not have is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmmil import paper as paper_map
from mmmil import params, schema
from mmmil.ledger import claims
from mmmil.results import read_results
from mmmil.sources import barcodes

PAPER, SETTINGS, OTHER, REAL, SYNTHETIC = (
    "the paper's cohort",
    "the paper's cohort, other settings",
    "the paper's patients, other features",
    "real, not the paper's",
    "synthetic",
)
OWN = {SETTINGS, OTHER}  # judged by the same rules, and none of their verdicts is one on the paper's
BY_SITE = "folds by site, where the paper's are random"
# Expression that is no counts: what it is called, and so what orders the genes in place of DESeq2.
NO_COUNTS = {"zscore": "z-scores", "log2tpm": "log2(TPM + 1)"}


@dataclass(frozen=True)
class Standing:
    """kind: one of the five above; why_not: why the run decides no claim of the paper, '' for the paper's own;
    settings: those that are not what the paper states, in words, '' for none.
    """

    kind: str
    why_not: str
    settings: str = ""


def stands_for(p: params.Params) -> str:
    """The paper's task whose two classes this cohort has, or ''."""
    for task in paper_map.TASKS:
        file = params.root() / "params" / f"{task}.yaml"  # a copy may have given up a task
        if file.is_file() and params.read_yaml(task)["class_names"] == list(p.class_names):
            return task
    return ""


def other_inputs(p: params.Params) -> list[str]:
    """What stands in place of the paper's inputs, in words: frozen features, levels that are no counts; [] for none."""
    found = []
    if p.has_slides and not p.has_pixels:
        found.append(f"frozen features (`{p.features_dir}`) in place of the slides' pixels")
    if p.has_genes and p.expression_kind in NO_COUNTS:
        found.append(f"{NO_COUNTS[p.expression_kind]} in place of counts")
    return found


def no_pixels(p: params.Params) -> str:
    """Why a cohort has no tiles, or ''."""
    if not p.has_slides:
        return "this cohort has no slides"
    return "" if p.has_pixels else "of this cohort's slides only features are here, no tiles"


def moot(p: params.Params, name: str) -> str:
    """Why a setting is about nothing that this cohort has, or ''."""
    if name in schema.Tiles.model_fields and (why_not := no_pixels(p)):
        return why_not
    of_genes = name in schema.Genes.model_fields or name in schema.Attention.model_fields
    return "this cohort has no genes" if of_genes and not p.has_genes else ""


def other_settings(p: params.Params) -> str:
    """The settings that are not what the paper states: 'attention exact (the paper: nystrom)'; '' for none."""
    task = stands_for(p)
    stated = claims.stated(task) if task else {}
    differ = [name for name, value in stated.items() if getattr(p, name) != value and not moot(p, name)]
    return ", ".join(f"{name} {getattr(p, name)} (the paper: {stated[name]})" for name in differ)


def of(p: params.Params) -> Standing:
    """What a cohort is to the paper, by its parameters and its patients' names (cohort.csv of its results)."""
    if p.synthetic:
        return Standing(SYNTHETIC, "synthetic cohort")
    cohort = read_results(p, "cohort", ["patient_id"])
    foreign = 0 if cohort is None else sum(not barcodes.site_of(patient) for patient in cohort["patient_id"])
    inputs, overlay = other_inputs(p), f"not at the paper's scale (overlay {p.overlay})" if p.overlay else ""
    if p.task not in paper_map.TASKS:
        why_not = f"not the paper's cohort but {p.title or p.task}"
    elif p.cohort_table or not p.sample_sheets:
        why_not = "an own table of patients, not TCGA's sample sheets"
    elif cohort is not None and foreign:
        why_not = f"not TCGA's patients: {foreign} of {len(cohort)} names are no barcodes"
    elif inputs:
        why_not = f"not the paper's inputs: {', '.join(inputs)}"
    else:
        why_not = overlay or BY_SITE * (p.fold_groups != "none")
    if not why_not:
        settings = other_settings(p)
        return Standing(SETTINGS if settings else PAPER, f"with other settings: {settings}" * bool(settings), settings)
    of_tcga = cohort is not None and not foreign and not p.cohort_table
    if inputs and of_tcga and stands_for(p) and not overlay:
        return Standing(OTHER, why_not, other_settings(p))
    return Standing(REAL, why_not)
