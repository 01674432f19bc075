"""The patients of a synthetic cohort, and the tables that a GDC download has of them.

Every id is visibly invented: tissue source sites 0G to 0N do not exist in TCGA, file ids start with 00000000.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmil.params import Params
from mmmil.simulate.slides import rng

SITES = ["0G", "0H", "0J", "0K", "0M", "0N"]
BREAST = ("ihc", "pam50", "pam50_or_ihc", "pam50_before_ihc", "ihc_before_pam50")  # label rules of breast cancer
CLASS1_SHARE = dict.fromkeys(BREAST, 0.3)  # triple-negative is the smaller class in the paper, too; else one half
PEN_SHARE = 0.15


def uuid(p: Params, kind: str, i: int) -> str:
    """An identifier as the GDC's; the leading zeros say that none of its is meant."""
    h = rng("uuid", kind, p.task, p.seed, i).bytes(12).hex()
    return f"00000000-{h[:4]}-4{h[5:8]}-8{h[9:12]}-{h[12:]}"


def patients(p: Params) -> pd.DataFrame:
    """One row per patient: label, site, what shows the class, what is wrong with the slide, and file names."""
    random = rng("patients", p.task, p.seed)
    n = p.sim_patients
    label = np.zeros(n, int)
    label[: round(n * CLASS1_SHARE.get(p.label_rule, 0.5))] = 1
    shows = np.full(n, "none" if p.sim_null else "both", dtype=object)
    if not p.sim_null:
        for of_class in (np.flatnonzero(label == c) for c in (0, 1)):
            few = int(p.sim_one_modality * len(of_class))
            shows[of_class[:few]] = "image"
            shows[of_class[few : 2 * few]] = "genes"
    order = random.permutation(n)  # so that a patient's number says nothing
    label, shows = label[order], shows[order]
    site = random.permutation(np.resize(SITES, n))
    odd = random.choice(np.flatnonzero((label == 0) & np.isin(shows, ["both", "none"])), 2, replace=False)
    pen = random.permutation(np.setdiff1d(np.arange(n), odd))[: max(2, round(PEN_SHARE * n))]

    patient_id = [f"TCGA-{s}-{i + 1:04d}" for i, s in enumerate(site)]
    index = np.arange(n)
    return pd.DataFrame(
        {
            "patient_id": patient_id,
            "label": label,
            "site": site,
            "shows_in": shows,
            "has_mpp": index != odd[0],
            "little_tissue": index == odd[1],
            "pen": np.isin(index, pen),
            "slide_id": [f"{name}-01Z-00-DX1.{uuid(p, 'slide', i).upper()}" for i, name in enumerate(patient_id)],
            "rna_id": [uuid(p, "rna", i) for i in index.tolist()],
        }
    )


def files(patient: pd.Series) -> tuple[str, str]:
    """Where a patient's slide and counts lie in the cohort's folder."""
    return (
        f"slides/{patient.slide_id}.svs",
        f"expression/{patient.rna_id}.rna_seq.augmented_star_gene_counts.tsv",
    )


def sample_sheet(p: Params, table: pd.DataFrame) -> pd.DataFrame:
    """GDC sample sheet: one row per slide and per counts file."""
    rows = []
    for patient in table.itertuples():
        case, of_class = patient.patient_id, project(p, patient.label)
        image, counts = (Path(name).name for name in files(patient))
        file_id = patient.slide_id[-36:].lower()
        file_id = file_id[:-1] + ("0" if file_id[-1] != "0" else "1")  # the GDC's file id is not the name's
        rows += [
            (file_id, image, "Biospecimen", "Slide Image", of_class, case, f"{case}-01Z", "Primary Tumor"),
            (patient.rna_id, counts, "Transcriptome Profiling", "Gene Expression Quantification", of_class, case,
             f"{case}-01A", "Primary Tumor"),
        ]  # fmt: skip
    rows += [row for i, patient in enumerate(table.itertuples()) for row in _unused(p, i, patient)]
    for i, (case, label) in enumerate(strangers(p)):
        name, of_class = f"{case}-01Z-00-DX1.{uuid(p, 'stranger', i).upper()}.svs", project(p, label)
        file_id = uuid(p, "stranger file", i)
        rows.append((file_id, name, "Biospecimen", "Slide Image", of_class, case, f"{case}-01Z", "Primary Tumor"))
    columns = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID"]
    return pd.DataFrame(rows, columns=[*columns, "Sample Type"])


def strangers(p: Params) -> list[tuple[str, int]]:
    """(patient, class) of those who are in the tables with a slide alone, which no cohort uses; they have no files."""
    return [(f"TCGA-{SITES[i]}-ZZ{i:02d}", i % 2) for i in range(3)]


def _unused(p: Params, i: int, patient: Any) -> list[tuple]:
    """What a GDC sheet lists beside the files of a cohort: frozen sections, normal tissue, second slides and vials.

    These files are not made, since nothing may open them.
    """
    case, of_class = patient.patient_id, project(p, patient.label)
    slide, counts = ("Biospecimen", "Slide Image"), ("Transcriptome Profiling", "Gene Expression Quantification")

    def row(kind: tuple[str, str], which: str, sample: str, name: str) -> tuple:
        return (uuid(p, name, i), name.format(id=uuid(p, f"{name} name", i)), *kind, of_class, case, sample, which)

    star = "{id}.rna_seq.augmented_star_gene_counts.tsv"
    rows = []
    if i % 4 == 0:
        rows.append(row(slide, "Primary Tumor", f"{case}-01A", f"{case}-01A-01-TS1.{{id}}.svs"))
    if i % 6 == 0:
        rows.append(row(slide, "Solid Tissue Normal", f"{case}-11A", f"{case}-11A-01-BS1.{{id}}.svs"))
        rows.append(row(counts, "Solid Tissue Normal", f"{case}-11A", star))
    if i % 10 == 0:
        rows.append(row(slide, "Primary Tumor", f"{case}-01Z", f"{case}-01Z-00-DX2.{{id}}.svs"))
    if i % 12 == 5:
        rows.append(row(counts, "Primary Tumor", f"{case}-01B", star))
    return rows


def clinical(p: Params, table: pd.DataFrame) -> pd.DataFrame:
    """GDC-like clinical table; the column that the label rule reads gives the class, '--' is the GDC's missing."""
    random = rng("clinical", p.task, p.seed)
    n, label = len(table), table["label"].to_numpy()
    out = pd.DataFrame(
        {
            "case_submitter_id": table["patient_id"],
            "project_id": [project(p, c) for c in label],
            "age_at_index": random.normal(58, 11, n).round().clip(20, 89).astype(int),
            "gender": np.where(p.label_rule in BREAST, "female", random.choice(["female", "male"], n)),
            "tumor_grade": [p.class_values[c][0] for c in label] if p.label_rule == "grade" else "--",
        }
    )
    receptors = ["er_status", "pr_status", "her2_status"]
    if p.label_rule in BREAST:
        luminal = [("Positive", "Positive"), ("Positive", "Negative"), ("Negative", "Positive")]
        kind = random.choice(3, n, p=[0.8, 0.17, 0.03])
        values = [("Negative", "Negative") if c else luminal[k] for c, k in zip(label, kind, strict=True)]
        out[receptors] = [(*v, "Negative") for v in values]
    else:
        out[receptors] = "--"
    if p.label_rule in BREAST[1:]:
        calls = [p.class_values[c][0] for c in (0, 1)] if p.label_rule == "pam50" else ["LumA", "Basal"]
        out["PAM50Call_RNAseq"] = [calls[c] for c in label]
    # The first of the strangers has nothing that a label rule reads, the others are as the first patient of a class.
    more = [out[label == c].head(1).assign(case_submitter_id=case) for case, c in strangers(p)]
    more[0] = more[0].assign(**dict.fromkeys([c for c in out if c not in ("case_submitter_id", "project_id")], "--"))
    return pd.concat([out, *more], ignore_index=True)


def project(p: Params, label: int) -> str:
    """Project id of a class."""
    return p.class_values[label][0] if p.label_rule == "project" else f"TCGA-{p.task.upper()}"
