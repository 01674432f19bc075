"""What the section on the method includes: how large the tasks' tiles, gene sets and tokens are."""

from __future__ import annotations

from collections.abc import Mapping

from mmmil import params
from mmmil.book.text import markdown_table, nothing, title
from mmmil.results import read_results


def sizes(tasks: Mapping[str, params.Params]) -> str:
    """N tiles and M gene sets of a patient, and the lengths of their tokens, a row for each task."""
    rows = []
    for p in tasks.values():
        genes = read_results(p, "genes", ["library", "fold", "tokens"]) if p.has_genes else None
        if genes is None:
            continue
        sets = genes.loc[genes["library"] == "go", "tokens"].astype(int).tolist()
        of_folds = "–".join(str(n) for n in dict.fromkeys((min(sets), max(sets)))) if sets else "–"
        number = f"up to {p.n_tiles}" if p.n_tiles else "all"
        tiles = f"{p.n_tiles} of {p.tile_px} px" if p.has_pixels else f"features of {number}"
        image = str(p.kept_channels) if p.has_pixels else "as brought"
        rows.append([title(p), tiles, image, of_folds, p.latent_dim, p.width])
    if not rows:
        return nothing("table of gene tokens (results/<run>/genes.csv)")
    head = ["cohort", "tiles $N$", "image token", "GO sets $M$", "gene token", "each vector"]
    return markdown_table("Sizes of the model: tokens of a patient and their lengths; sets differ by fold", head, rows)
