"""A synthetic cohort with planted truth, in the formats of a GDC download.

Slides, STAR counts, sample sheet, clinical table and gene sets lie where a download would have them, and `truth/`
says what was planted: whose class shows in the image, in the genes or in both, which blocks of a slide carry large
nuclei, which genes and sets differ.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from mmmil import record, source_code
from mmmil.params import Params
from mmmil.processes import allocation
from mmmil.processes.pool import parallel
from mmmil.simulate import genes as synthetic_genes
from mmmil.simulate import slides as synthetic_slides
from mmmil.simulate.genes import Genome
from mmmil.simulate.patients import SITES, clinical, files, patients, sample_sheet
from mmmil.simulate.slides import BLOCK, Slide, rng
from mmmil.simulate.truth import SimulationError

MAKER = "mmmil.simulate"
MPP = 0.5  # µm per px at level 0: a scan at 20x
LITTLE_RADIUS = 80  # px of tissue on the slide that has too little: a tile or two, whatever the task asks for
TABLES = ["gdc_sample_sheet.tsv", "clinical.tsv", "mpp.csv", "go.gmt", "kegg.gmt"]
TRUTH = ["patients.csv", "genes.csv", "sets.csv", "regions.csv", "cohort.json"]


def inputs(p: Params) -> dict:
    """What the cohort depends on; its hash is in truth/cohort.json."""
    cohort_inputs = {
        "simulation": p.stage("simulation"),
        "task": p.task,
        "seed": p.seed,
        "label_rule": p.label_rule,
        "class_values": p.class_values,
        "versions": record.versions("tifffile", "imagecodecs"),
    }
    return record.with_code(cohort_inputs, __name__)


def slide(p: Params, i: int, patient: pd.Series) -> Slide:
    """The slide of patient number `i`."""
    share = {"both": patient.label, "image": patient.label, "genes": 0.5, "none": 0}[patient.shows_in]
    site = rng("site", p.task, p.seed, SITES.index(patient.site))
    return Slide(
        key=("slide", p.task, p.seed, i),
        side=p.sim_slide_px,
        # A slide that must not tell its class has half of a class-1 slide's planted blocks in both classes.
        planted_share=share * p.sim_image_share,
        radius=LITTLE_RADIUS if patient.little_tissue else None,
        pen=bool(patient.pen),
        mpp=MPP,
        states_mpp=bool(patient.has_mpp),
        site_tint=tuple(site.normal(0, [0.07, 0.07, 0.04, 0.04])),
    )


def genome(p: Params) -> Genome:
    """Genes and gene sets of the cohort."""
    return synthetic_genes.genome(p.task, p.seed, p.sim_genes, p.sim_sets, len(SITES), p.sim_effect, p.sim_null)


def _make_patient(folder: Path, p: Params, i: int, patient: pd.Series) -> None:
    """Slide and counts of one patient; what is there already stays."""
    image, counts = (folder / name for name in files(patient))
    if not image.is_file():
        record.write_atomically(image, lambda path: synthetic_slides.write_slide(path, slide(p, i, patient)))
    if not counts.is_file():
        key = ("patient", p.task, p.seed, i)
        shift = {"both": patient.label - 0.5, "genes": patient.label - 0.5}.get(patient.shows_in, 0.0)
        n = synthetic_genes.counts(genome(p), key, shift, SITES.index(patient.site))
        table = synthetic_genes.star_table(genome(p), n, key)
        record.write_atomically(counts, lambda path: synthetic_genes.write_star(path, table, key))


def regions(p: Params, table: pd.DataFrame) -> pd.DataFrame:
    """Planted blocks of all slides: slide_id, x, y, size in level-0 px."""
    parts = []
    for i, patient in enumerate(table.itertuples()):
        y, x = np.nonzero(slide(p, i, patient).planted())
        parts.append(pd.DataFrame({"slide_id": patient.slide_id, "x": x * BLOCK, "y": y * BLOCK, "size": BLOCK}))
    return pd.concat(parts, ignore_index=True)


def _write_tables(folder: Path, p: Params, table: pd.DataFrame, facts: dict) -> None:
    """All but slides and counts; truth/cohort.json last, because it says that the cohort is whole."""

    def csv(frame: pd.DataFrame, name: str, sep: str = ",") -> None:
        record.write_atomically(
            folder / name, lambda path: frame.to_csv(path, sep=sep, index=False, lineterminator="\n")
        )

    model = genome(p)
    csv(sample_sheet(p, table), "gdc_sample_sheet.tsv", "\t")
    csv(clinical(p, table), "clinical.tsv", "\t")
    silent = table.loc[~table["has_mpp"].astype(bool), "slide_id"]  # what `mpp_table` is for
    csv(pd.DataFrame({"wsi": silent + ".svs", "mpp": MPP}), "mpp.csv")
    for library in ("go", "kegg"):
        record.write_atomically(
            folder / f"{library}.gmt", lambda path, lib=library: synthetic_genes.write_gmt(path, model, lib)
        )
    csv(table.drop(columns="rna_id"), "truth/patients.csv")
    csv(model.genes.drop(columns="type"), "truth/genes.csv")
    csv(model.sets, "truth/sets.csv")
    csv(regions(p, table), "truth/regions.csv")
    text = json.dumps(facts, indent=1, sort_keys=True)
    record.write_atomically(folder / "truth/cohort.json", lambda path: path.write_text(text + "\n"))


def _hash(folder: Path) -> str | None:
    """Hash of the synthetic cohort in a folder; '' for one that is cut short, None where there are no files.

    Raises SimulationError where other files lie there. Hidden files (a file manager's, Snakemake's) do not count.
    """
    there = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")}
    if not there:
        return None
    ours = {*TABLES, *(f"truth/{name}" for name in TRUTH)}
    try:
        for name in pd.read_csv(folder / TABLES[0], sep="\t")["File Name"]:
            ours.add(f"{'slides' if name.endswith('.svs') else 'expression'}/{name}")
    except (OSError, ValueError, KeyError):
        pass
    foreign = sorted(there - ours)
    if foreign or not any(name.startswith("truth/") for name in there):
        some = ", ".join((foreign or sorted(there))[:3])
        raise SimulationError(
            f"{folder} holds files that mmmil.simulate did not make ({some}); nothing was changed. "
            "Set data_dir to another folder, or move these files away"
        )
    try:
        facts = json.loads((folder / "truth/cohort.json").read_text())
        return facts["hash"] if facts["made_by"] == MAKER else ""
    except (OSError, ValueError, KeyError):
        return ""


def _check(p: Params) -> None:
    if not p.synthetic:
        raise SimulationError(
            f"task '{p.task}' is not synthetic: {p.data} is for real files. Use the overlay demo, "
            "or set synthetic: true and a data_dir of its own"
        )
    if p.label_rule in ("table", "matrix"):
        raise SimulationError(
            f"label_rule '{p.label_rule}' of task '{p.task}' cannot be simulated; use grade, project, ihc or pam50"
        )
    if 0.4 * p.sim_slide_px**2 < p.n_tiles * p.tile_px**2:
        least = int(np.ceil(np.sqrt(p.n_tiles / 0.4) * p.tile_px / 256) * 256)
        raise SimulationError(
            f"sim_slide_px ({p.sim_slide_px}) is too small for n_tiles ({p.n_tiles}) tiles of tile_px "
            f"({p.tile_px}) px; take at least {least}"
        )


def is_made(p: Params) -> bool:
    """Whether the synthetic cohort that these parameters describe is there, with all its files."""
    names = _files(patients(p))
    return _hash(p.data) == record.digest(inputs(p)) and all((p.data / name).is_file() for name in names)


def _files(table: pd.DataFrame) -> list[str]:
    of_patients = [name for row in table.itertuples() for name in files(row)]
    return [*TABLES, *(f"truth/{name}" for name in TRUTH), *of_patients]


def make(p: Params, workers: int | None = None) -> Path:
    """Make the synthetic cohort of a task in `p.data` and return that folder.

    The cohort depends on the `sim_*` parameters, the task and the seed, never on the number of workers. One that
    is there for the same parameters is left as it is, another synthetic one is replaced, and one that was cut
    short is continued. Raises SimulationError for a folder with other files in it.
    """
    _check(p)
    cohort_inputs = inputs(p)
    key = record.digest(cohort_inputs)
    table = patients(p)
    if is_made(p):
        return p.data
    there = _hash(p.data)
    source_code.require_as_loaded(__name__)
    genome(p)  # fails now rather than in every worker

    # Finished files of this cohort wait in a folder of its hash; the cohort takes its place in one step.
    unfinished = p.data if there == key else p.data.with_name(f".{p.data.name}.{key}")
    for folder in p.data.parent.glob(f".{p.data.name}.*"):
        if re.fullmatch(r"[0-9a-f]{16}(\.old)?", folder.name.split(".", 2)[-1]) and folder != unfinished:
            shutil.rmtree(folder)
    for name in ("slides", "expression", "truth"):
        (unfinished / name).mkdir(parents=True, exist_ok=True)
    todo = [(i, r) for i, r in table.iterrows() if not all((unfinished / name).is_file() for name in files(r))]
    jobs = (delayed(_make_patient)(unfinished, p, i, patient) for i, patient in todo)
    done = parallel(workers or allocation.cores(), return_as="generator_unordered")(jobs)
    for _ in tqdm(done, total=len(todo), desc=f"synthetic cohort {p.task}", unit="patient", mininterval=2):
        pass
    for leftover in (f for name in ("slides", "expression") for f in (unfinished / name).glob(".*")):
        leftover.unlink()  # of a run that was killed
    source_code.require_as_loaded(__name__)
    _write_tables(unfinished, p, table, {"made_by": MAKER, "hash": key, "inputs": cohort_inputs})
    if unfinished != p.data:
        old = p.data.with_name(f".{p.data.name}.{key}.old")
        if p.data.exists():
            p.data.rename(old)
        unfinished.rename(p.data)
        shutil.rmtree(old, ignore_errors=True)
    return p.data
