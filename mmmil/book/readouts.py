"""The table of page 07 on which readout finds planted tiles and gene sets, as its benchmark measured them."""

from __future__ import annotations

from mmmil.book.text import markdown_table
from mmmil.results import benchmark, read_benchmark

NAME = "planted_attention"
COLUMNS = {
    "layer1": "layer 1",
    "self": "layer 2",
    "rollout": "rollout",
    "cross": "cross-attention",
    "gradient": "input × gradient",
}
OVER = {"image": "tiles", "genes": "gene sets"}


def readouts() -> str:
    """AUROC for what was planted of every readout, mean over the cohorts and the least; a sentence where nobody
    measured it. Raises ValueError for a table that lacks columns.
    """
    table = read_benchmark(NAME)
    command = f"`python benchmarks/{NAME}.py`"
    if table is None:
        return f"{command} has not been run here: there is no table of what each readout finds.\n"
    missing = {"model", "over", "read", "found"} - set(table.columns)
    if missing:
        raise ValueError(f"{benchmark(NAME)} lacks the columns {', '.join(sorted(missing))}; run {command} again")
    rows = []
    for (model, over), found in table.groupby(["model", "over"], sort=False):
        of = found.groupby("read")["found"].agg(["mean", "min"])
        cells = [f"{of.at[way, 'mean']:.2f} ({of.at[way, 'min']:.2f})" if way in of.index else "–" for way in COLUMNS]
        rows.append([model, OVER[over], *cells])
    caption = "AUROC for planted tiles and gene sets: mean over simulated cohorts of tokens (lowest); 0.5 is chance"
    text = markdown_table(caption, ["model", "over", *COLUMNS.values()], rows)
    return f"{text}\n`benchmarks/results/{NAME}.md` says how, and on which machine.\n"
