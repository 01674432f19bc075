"""What the section page of the backbone says beside its cohorts' tables: what a backbone costs (Table 2).

The figures of a training step's memory and seconds are drawn from what the benchmarks measured on some machine: they
belong to no task, so they stand here and not in a notebook.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from mmmil import paper as paper_map
from mmmil import record
from mmmil.book.text import markdown_table
from mmmil.results import read_benchmark

# A benchmark's table in benchmarks/results, which its command makes, and the caption of its figure.
FIGURES = {
    "memory": "Memory of a training step in GiB. Left: over bags per step, with the paper's 14.9 GiB as a line. Right: "
    "over the tiles of one bag; the grey area is the pixels themselves. All axes are logarithmic",
    "scaling": "A training step of the aggregator, exact attention against Nyström's: seconds (above; the band runs "
    "from the fastest to the slowest) and memory (below), over tiles per bag (left) and gene sets (right). All axes "
    "are logarithmic",
}


@lru_cache(maxsize=1)
def table_2() -> str:
    """Table 2 at the paper's settings, counted now on the real modules, and the paper's beside it."""
    from mmmil.models import costs  # seconds of imports that the other parts do not need

    counted = costs.backbones()
    table, compared = costs.table(counted), costs.beside_paper(counted)
    caption = f"{paper_map.TABLES['2'].caption}: heads left out, float32 safetensors, 1 MAC = 2 FLOPs"
    text = markdown_table(caption, ["backbone", *table.columns], [[name, *row] for name, *row in table.itertuples()])
    rows = [
        [name, f"{paper:,}", f"{here:,}", "yes" if equal else "**no**"]
        for name, paper, here, equal in compared.itertuples()
    ]
    return text + "\n" + markdown_table("Parameters, beside the paper's", ["backbone", "paper", "here", "equal"], rows)


def benchmarks(folder: Path) -> str:
    """The figures of the benchmarks, drawn into `folder` (the book's generated parts), each with its caption.

    A benchmark that was not run has no figure, and a sentence says how to make it. Raises ValueError for a table that
    lacks columns.
    """
    from mmmil import plots

    text = ""
    for name, caption in FIGURES.items():
        table = read_benchmark(name)
        if table is None:
            text += f"`python benchmarks/{name}.py` has not been run here: there is no figure of {name}.\n\n"
            continue
        figure = getattr(plots, name)(table)
        picture = record.write_atomically(
            folder / f"03_{name}.png",
            lambda path, figure=figure: figure.savefig(path, format="png", dpi=110, bbox_inches="tight"),
        )
        provenance = f"`benchmarks/results/{name}.md` says on which machine and how."
        text += f"```{{figure}} generated/{picture.name}\n:alt: {caption}\n\n{caption}. {provenance}\n```\n\n"
    return text
