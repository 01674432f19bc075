"""What sections 01, 02 and 06 include: patients, how they were counted down, slides, gene sets, the null audit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmmil import paper, params
from mmmil.book.text import markdown_table, nothing, title
from mmmil.evaluation.summary import estimate
from mmmil.results import read_results

STEPS = {
    "file": "files of the sample sheets", "table": "rows of the own table", "slide": "a diagnostic slide per patient",
    "features": "files of diagnostic slides, or of patients",
    "expression": "an RNA aliquot per patient", "label": "a patient of a class", "incomplete": "with all modalities",
    "tiles": "with enough tiles",
}  # fmt: skip
BY_RANK = ", so the best by rank"


def dataset(tasks: Mapping[str, params.Params]) -> str:
    """Patients per class, with sites and held-out share, and how files and patients were counted down."""
    rows, steps = [], []
    for p in tasks.values():
        cohort = read_results(p, "cohort", ["patient_id", "label", "site"])
        for label, group in [] if cohort is None else cohort.groupby("label"):
            name = p.class_names[int(label)] if str(label) in ("0", "1") else label
            test = f"{(group['fold'] == -1).sum()}" if "fold" in group else "–"
            rows.append([title(p), name, len(group), group["site"].nunique(), test])
        flow = read_results(p, "flow", ["step", "unit", "entered", "excluded", "left"])
        for row in [] if flow is None else flow.itertuples():
            if row.entered:
                steps.append([title(p), STEPS.get(row.step, row.step), row.unit, row.entered, row.excluded, row.left])
    if not rows:
        return nothing("cohort table (results/<run>/cohort.csv)")
    head = ["cohort", "class", "patients", "sites", "held out for the test"]
    text = markdown_table("Patients per class", head, rows)
    head = ["cohort", "step", "counted in", "came in", "left out", "stayed"]
    caption = "From files to patients; each cohort's page gives the reasons"
    return text + "\n" + (markdown_table(caption, head, steps) if steps else nothing("count of who was left out"))


def preprocessing(tasks: Mapping[str, params.Params]) -> str:
    """Tiles per slide, what was found on the slides, and gene sets per library."""
    rows, found_on, sets = [], [], []
    for p in tasks.values():
        columns = ["slide_id", "mpp", "candidates", "tested", "valid", "valid_estimate", "used", "bag"]
        tiles = read_results(p, "tiles", columns) if p.has_pixels else None
        if tiles is not None:
            valid, enough = tiles["valid_estimate"].fillna(0), int(tiles["bag"].notna().sum())
            used = f"{tiles['used'].max():.0f}" if enough else "–"
            about = "about " * bool((tiles["tested"] < tiles["candidates"]).any())
            spread = f"{about}{valid.median():.0f} ({valid.min():.0f}–{valid.max():.0f})"
            mpp = "–".join(dict.fromkeys(f"{v:.3g}" for v in (tiles["mpp"].min(), tiles["mpp"].max())))
            positions = [f"{tiles[column].sum():.0f}" for column in ("candidates", "tested")]
            rows.append([title(p), len(tiles), mpp, *positions, spread, used, enough])
        quality = read_results(p, "quality", ["slide_id", "check", "flagged"]) if p.has_pixels else None
        if quality is not None:
            counts = quality[quality["flagged"]].groupby("check")["slide_id"].nunique()
            listed = ", ".join(f"{check}: {n}" for check, n in counts.items()) or "nothing"
            found_on.append([title(p), quality["slide_id"].nunique(), listed])
        genes = read_results(p, "genes", ["library", "fold", "tested", "significant"]) if p.has_genes else None
        if genes is not None:  # the single-gene vector tests no sets
            genes = genes.dropna(subset=["tested"])
        for library, group in [] if genes is None else genes.groupby("library", sort=False):
            is_final = group["fold"] == -1
            of_final, of_folds = group.loc[is_final, "significant"], group.loc[~is_final, "significant"]
            final = "–" if of_final.empty else f"{of_final.iloc[0]:.0f}{BY_RANK if of_final.iloc[0] < 2 else ''}"
            span = f"{of_folds.median():.0f} ({of_folds.min():.0f}–{of_folds.max():.0f})" if len(of_folds) else "–"
            rank = f"{(group['significant'] < 2).sum()} of {len(group)}"
            sets.append([title(p), str(library).upper(), f"{group['tested'].median():.0f}", final, span, rank])
    head = [
        "cohort",
        "slides",
        "µm per px",
        "tiles on the grid",
        "tested",
        "valid per slide: median (range)",
        "used",
        "slides used",
    ]
    text = markdown_table("Tiles with enough tissue", head, rows) if rows else ""
    if not rows and any(p.has_pixels for p in tasks.values()):
        text = nothing("table of tiles")
    brought = [f"{title(p)} (`{p.features_dir}`)" for p in tasks.values() if p.has_slides and not p.has_pixels]
    if brought:
        text += f"\nFeatures made beforehand stand in the place of tiles; the page counts them: {'; '.join(brought)}.\n"
    if found_on:
        caption = "What was found on the slides (slides with it); nothing is left out because of it"
        text += "\n" + markdown_table(caption, ["cohort", "slides", "found"], found_on)
    head = [
        "cohort",
        "library",
        "sets tested",
        "significant, final model",
        "significant, folds: median (range)",
        "fits that took the best by rank",
    ]
    text += "\n" + (markdown_table(paper.TABLES["1"].caption, head, sets) if sets else nothing("table of gene sets"))
    return text


def gene_representation(tasks: Mapping[str, params.Params]) -> str:
    """The null audit of every cohort, and of synthetic ones how much of the planted truth was found."""
    from mmmil.evaluation import leakage

    nulls, truths = [], []
    for p in tasks.values():
        audit = read_results(p, "leakage", leakage.COLUMNS)
        if audit is not None:
            means = leakage.summary(audit).set_index(["library", "selection"])
            for library in means.index.unique("library"):
                both = [means.loc[(library, selection)] for selection in leakage.SELECTIONS]
                cells = [estimate(row["mean"], row["ci_low"], row["ci_high"]) for row in both]
                name = "single genes" if library == "genes" else f"{str(library).upper()} sets"
                nulls.append([title(p), name, *cells, f"{both[0]['n']:.0f}"])
        truths += [[title(p), *row] for row in _planted(p)] if p.synthetic else []
    head = ["cohort", "tokens", "chosen within the folds", "chosen on all patients", "values"]
    caption = "Labels shuffled: ROC-AUC of a logistic regression on the gene tokens; 0.5 is nothing found"
    text = markdown_table(caption, head, nulls) if nulls else nothing("null audit (results/<run>/leakage.csv)")
    if truths:
        head = ["cohort", "library", "planted", "found", "other sets found"]
        text += "\n" + markdown_table("Planted sets found in the development patients (synthetic)", head, truths)
    return f"{text}\n"


def _planted(p: params.Params) -> list[list]:
    """Rows library, planted, found, false of the final model's enrichment, where it and the truth are still there."""
    from mmmil.genes import choice, enrichment
    from mmmil.simulate import truth

    genes = read_results(p, "genes", ["library", "fold"])
    rows: list[list] = []
    if genes is None or "folder" not in genes or not truth.sets_file(p).is_file():
        return rows
    for row in genes[(genes["fold"] == -1) & (genes["library"] != "genes")].itertuples():
        table = Path(row.folder) / "enrichment.csv"
        if table.is_file():
            planted = truth.planted_sets(p, row.library)
            counts = enrichment.recovered(choice.read_table(table), planted.index[planted], p.gene_set_fdr)
            rows.append([str(row.library).upper(), counts["planted"], counts["found"], counts["false"]])
    return rows
