"""How much of a gene set file the expression data cover: before any fitting, and why where it is little."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmmil.genes.enrichment import EnrichmentError
from mmmil.sources.gene_names import gap, is_date

ENOUGH_SETS = 2  # a model of gene sets needs two
# Data of all genes hold nine tenths of GO's and KEGG's and of the sets of usable size; a filter for expression leaves
# two thirds. Below half, the sets are other ones than their names say.
ENOUGH = 0.5


@dataclass(frozen=True)
class Coverage:
    """genes: different ones in the sets; found: of them, in the data; sets: in the file, with as many
    genes as set_sizes says; usable: of that size in the data; names: how the two sides name genes that only one has;
    dates: the sets' genes that a spreadsheet has turned into dates or numbers.
    """

    genes: int
    found: int
    sets: int
    usable: int
    names: str
    dates: tuple[str, ...] = ()

    @property
    def shares(self) -> tuple[float, float]:
        """Of the genes, those that are found; of the sets, those that are usable."""
        return self.found / max(self.genes, 1), self.usable / max(self.sets, 1)


def coverage(sets: Mapping[str, list[str]], symbols: Collection[str], size_min: int, size_max: int) -> Coverage:
    """What the data, whose genes are `symbols`, hold of the sets (name -> symbols)."""
    known = set(symbols)
    genes = dict.fromkeys(gene for members in sets.values() for gene in members)
    found = sum(gene in known for gene in genes)
    dates = is_date(pd.Series(list(genes), dtype=object))
    sizes = [(len(members), sum(gene in known for gene in members)) for members in sets.values()]
    return Coverage(
        genes=len(genes),
        found=found,
        sets=sum(size_min <= n <= size_max for n, _ in sizes),
        usable=sum(size_min <= n <= size_max for _, n in sizes),
        names=gap(genes, symbols, "the sets", "the data") if found < len(genes) else "",
        dates=tuple(itertools.compress(genes, dates)),
    )


def require(covered: Coverage, path: Path, data: str, size_min: int, size_max: int) -> None:
    """Raise EnrichmentError where fewer than two sets can be used; path: of the GMT file; data: of the expression."""
    if covered.usable < ENOUGH_SETS:
        why = f": {covered.names}" if covered.names else ""
        raise EnrichmentError(
            f"{path}, {data}: {covered.usable} of the gene sets have {size_min} to {size_max} genes in the data, and a "
            f"model of gene sets needs {ENOUGH_SETS}; {covered.found} of the file's {covered.genes} genes are in the "
            f"data{why}; name a GMT file with the data's kind of id and species, a gene_table that gives the data its "
            "symbols, or change set_sizes"
        )
