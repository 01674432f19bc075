"""Gene set enrichment: preranked GSEA by fgsea's multilevel method, BH over all sets tested (Preprocessing, Table 1).

"Adjusted p < 0.01" selects features here; it is no evidence for a set. The test permutes genes, so correlated
genes pass it at random labels too: what a selected set is worth shows on held-out patients only.
"""

from __future__ import annotations

import gzip
import logging
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil.sources.gene_names import ENSEMBL_VERSION, clean, gap

COLUMNS = ["es", "nes", "pval", "fdr", "size", "leading_edge"]
# gseapy keeps a running sum per set and gene: 500 sets at a time need 0.6 GB where all of GO needs 5.
CHUNK = 500
WEIGHT = re.compile(r"\s*,\s*-?\d+(\.\d*)?(e-?\d+)?$", re.IGNORECASE)
SEPARATOR = re.compile(r"[\s,;]")  # no gene is called so; a file that separates its genes by it is no GMT file


class EnrichmentError(ValueError):
    """A GMT file, a ranking or a choice of sets that cannot be used; says which and what to do."""


def read_gmt(path: Path | str) -> dict[str, list[str]]:
    """Gene sets of a GMT file (`name <tab> description <tab> gene <tab> gene ...`, also gzipped).

    Returns {set name: its genes in the file's order, each once}. Blank fields and lines are dropped, and of a gene
    its weight (`GENE,1.0`, as Enrichr writes it), Entrez id (`symbol|entrez`) and Ensembl version.
    Raises EnrichmentError for a file that is missing, empty, cut (gzipped) or no text, a set that is listed twice,
    a set without genes, genes that are not separated by tabs, and a file without descriptions, of which every set
    would lose its first gene.
    """
    path = Path(path)
    if not path.is_file():
        raise EnrichmentError(f"{path}: the gene set file is not there; correct go_gmt or kegg_gmt")
    raw = path.read_bytes()
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EnrichmentError(f"{path}: no text in UTF-8 ({error}); save it as UTF-8, or name a GMT file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise EnrichmentError(f"{path}: the file is truncated or damaged ({error}); download it again") from None
    sets: dict[str, list[str]] = {}
    descriptions = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if not line.strip():
            continue
        name, *fields = map(clean, line.split("\t"))
        genes = list(dict.fromkeys(filter(None, map(_gene, fields[1:]))))
        if not name or not genes:
            raise EnrichmentError(
                f"{path}, line {number}: no set name or no genes; a line is name, description, genes, tab-separated"
            )
        if name in sets:
            raise EnrichmentError(f"{path}, line {number}: the set '{name}' is listed twice; keep one of them")
        if several := [gene for gene in genes if SEPARATOR.search(gene)]:
            raise EnrichmentError(
                f"{path}, line {number}: '{several[0][:40]}' in the set '{name}' is more than one gene; separate genes "
                "by tabs"
            )
        sets[name] = genes
        descriptions.append(fields[0])
    if not sets:
        raise EnrichmentError(f"{path}: no gene set in it; download it again")
    known = {gene for genes in sets.values() for gene in genes}
    if len(sets) > 1 and sum(text in known for text in descriptions) > len(sets) / 2:
        raise EnrichmentError(
            f"{path}: its second column holds genes (first: {descriptions[0]}), but a line is name, description, "
            "genes; put a column of descriptions, which may be empty, after the names"
        )
    return sets


def _gene(field: str) -> str:
    """The gene as the expression data name it: without weight, Entrez id (`symbol|entrez`) or version."""
    return ENSEMBL_VERSION.sub(r"\1", WEIGHT.sub("", field).partition("|")[0])


def rank(ranking: pd.Series) -> pd.Series:
    """The ranking as GSEA walks it: highest first, ties by symbol, genes without a statistic dropped.

    ranking: symbol -> statistic, positive where higher in class 1. Raises EnrichmentError for infinite values
    and for a symbol that occurs twice.
    """
    ranking = ranking[ranking.notna() & ranking.index.notna()].astype(float)
    ranking = ranking[ranking.index.astype(str).str.strip() != ""]
    repeated = ranking.index[ranking.index.duplicated()].unique()
    if len(repeated):
        raise EnrichmentError(
            f"ranking: {len(repeated)} symbols occur twice ({', '.join(map(str, repeated[:3]))}); keep one gene of each"
        )
    if not np.isfinite(ranking).all():
        raise EnrichmentError("ranking: infinite statistics; check the differential expression")
    order = np.lexsort((ranking.index.astype(str), -ranking.to_numpy()))
    return ranking.iloc[order]


def within(
    sets: Mapping[str, list[str]], symbols: Iterable[str], size_min: int = 10, size_max: int = 500
) -> dict[str, list[str]]:
    """Sets reduced to `symbols`, where between size_min and size_max genes of them remain; set order by name.

    Raises EnrichmentError where no gene of any set is among the symbols (it names the type of id on both sides),
    or where no set has the right size.
    """
    known = dict.fromkeys(symbols)
    reduced = {name: [gene for gene in dict.fromkeys(sets[name]) if gene in known] for name in sorted(sets)}
    if not any(reduced.values()):
        genes = [gene for genes in list(sets.values())[:50] for gene in genes]
        raise EnrichmentError(
            f"no gene of the gene sets is in the expression data: {gap(genes, known, 'the sets', 'the data')}; "
            "give a GMT file with the data's kind of id and species"
        )
    fitting = {name: genes for name, genes in reduced.items() if size_min <= len(genes) <= size_max}
    if not fitting:
        largest = max(map(len, reduced.values()))
        raise EnrichmentError(
            f"none of {len(reduced)} gene sets has {size_min} to {size_max} genes among the {len(known)} tested "
            f"(largest: {largest}); change set_sizes, or check the kind of id"
        )
    return fitting


def leading_first(genes: list[str], ranked: pd.Series, nes: float) -> list[str]:
    """A set's genes in the order in which its enrichment meets them: the leading edge first.

    The first input of the autoencoder is then every set's most changed gene, the second the next one: its weights,
    shared by all sets, see like beside like. ranked: symbol -> statistic, as from `rank`; nes: the set's score.
    """
    return ranked.index[ranked.index.isin(genes)].tolist()[:: 1 if nes >= 0 else -1]


def enrich(
    ranking: pd.Series,
    sets: Mapping[str, list[str]],
    size_min: int = 10,
    size_max: int = 500,
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Preranked GSEA of every set, on the statistic of all tested genes.

    ranking: symbol -> statistic; sets: name -> symbols. Sizes count the genes found in the ranking. Returns a table
    indexed by set, most significant first: es, nes, pval (fgsea multilevel), fdr (Benjamini-Hochberg over all sets
    tested), size, leading_edge (symbols joined by ';'). nes > 0 means higher in class 1. Where nearly all random sets
    score on the other side of 0, as they may in a one-sided ranking, fgsea gives no p: nes, pval and fdr are NaN then,
    such a set comes last and is never selected. Sets are tested by name in chunks of 500; p-values are sampled, so a
    set's last digits depend on the sets beside it, but the same sets and seed give the same table, in any order and
    with any number of threads.

    Raises EnrichmentError as `rank` and `within` do.
    """
    from scipy.stats import false_discovery_control  # slow to import; results that are found again need none of it

    ranking = rank(ranking)
    tested = within(sets, ranking.index, size_min, min(size_max, len(ranking) - 1))
    # Ranks in place of symbols: gseapy may upper-case symbols, and then loses those like C1orf112.
    place = {symbol: f"G{i:06d}" for i, symbol in enumerate(ranking.index)}
    values = ranking.set_axis(list(place.values()))
    names = list(tested)
    parts = []
    for start in range(0, len(names), CHUNK):
        chunk = {f"S{i:06d}": sorted(place[g] for g in tested[names[i]]) for i in range(start, len(names))[:CHUNK]}
        parts.append(_prerank(values, chunk, size_min, seed, threads))
    results = pd.concat(parts)
    symbol = dict(zip(place.values(), place, strict=True))
    index = [names[int(term[1:])] for term in results["Term"]]
    table = pd.DataFrame(
        {
            "es": results["ES"].astype(float).to_numpy(),
            "nes": results["NES"].astype(float).to_numpy(),
            "pval": results["NOM p-val"].astype(float).to_numpy(),
            "size": [len(tested[name]) for name in index],
            "leading_edge": [
                ";".join(symbol[gene] for gene in genes.split(";") if gene) for genes in results["Lead_genes"]
            ],
        },
        index=pd.Index(index, name="set"),
    )
    has_p = table["pval"].notna()
    if len(table) != len(names) or not table.loc[has_p, "pval"].between(0, 1).all():
        raise EnrichmentError(f"gseapy gave {len(table)} p-values for {len(names)} sets, or some out of [0, 1]")
    table["fdr"] = np.nan
    if has_p.any():
        table.loc[has_p, "fdr"] = false_discovery_control(table.loc[has_p, "pval"])
    # The strongest score first among sets at the same (smallest reportable) p-value, then the name.
    order = np.lexsort((table.index, -table["nes"].abs(), table["pval"]))
    return table.iloc[order][COLUMNS]


def _prerank(values: pd.Series, sets: dict[str, list[str]], size_min: int, seed: int, threads: int) -> pd.DataFrame:
    import gseapy

    logging.getLogger("gseapy").setLevel(logging.ERROR)
    return gseapy.prerank(
        rnk=values,
        gene_sets=sets,
        method="multilevel",
        min_size=size_min,
        max_size=len(values),
        ascending=None,  # sorted by `rank`, which decides ties
        seed=seed,
        threads=threads,
        outdir=None,
        no_plot=True,
    ).res2d


def select(table: pd.DataFrame, fdr: float = 0.01, fallback: int = 20, max_sets: int = 0) -> tuple[list[str], bool]:
    """The sets that become tokens, best first: those below `fdr`, or the best `fallback` where fewer than two pass.

    table: as `enrich` returns it. Returns (names, passed); passed is False for the choice by rank, which every page
    has to say. max_sets > 0 keeps the best of either choice. Raises EnrichmentError for a table with fewer than two.
    """
    table = table[table["fdr"].notna()]
    if len(table) < 2:
        raise EnrichmentError(f"{len(table)} gene sets were tested; a model of gene sets needs two: see set_sizes")
    names = table.index[table["fdr"] < fdr].tolist()
    passed = len(names) >= 2
    if not passed:
        names = table.index[:fallback].tolist()
    return names[: max_sets or None], passed


def overlap(a: Mapping[str, Iterable[str]], b: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Jaccard index of the genes of every set of `a` and every set of `b`, in [0, 1]: (sets of a, sets of b).

    a, b: set name -> genes, of one kind of id; a gene listed twice counts once. Two sets without genes have 0.
    """
    from scipy.sparse import csr_array

    column = {gene: i for i, gene in enumerate(dict.fromkeys(g for sets in (a, b) for s in sets.values() for g in s))}

    def members(sets: Mapping[str, Iterable[str]]) -> csr_array:
        columns = [sorted({column[gene] for gene in genes}) for genes in sets.values()]
        flat = np.array([i for row in columns for i in row], dtype=np.int32)
        starts = np.cumsum([0, *map(len, columns)])
        return csr_array((np.ones(len(flat), np.int32), flat, starts), shape=(len(sets), len(column)))

    members_a, members_b = members(a), members(b)
    shared = (members_a @ members_b.T).toarray()
    union = members_a.sum(axis=1)[:, None] + members_b.sum(axis=1)[None] - shared
    return pd.DataFrame(shared / np.maximum(union, 1), index=pd.Index(a, name="set"), columns=pd.Index(b))


def recovered(table: pd.DataFrame, planted: Iterable[str], fdr: float = 0.01) -> dict[str, int | float]:
    """How much of a planted truth the enrichment finds.

    table: as `enrich` returns it; planted: names of the sets that do differ. Returns planted (how many there are, those
    that were not tested included), found (of them, below `fdr`), false (other sets below it), power = found / planted
    (NaN where none is planted) and false_share = false / (found + false) (0 where nothing is below it).
    """
    planted, below = set(planted), set(table.index[table["fdr"] < fdr])
    true_hits, false_hits = len(below & planted), len(below - planted)
    power = true_hits / len(planted) if planted else float("nan")
    share = false_hits / max(true_hits + false_hits, 1)
    return {"planted": len(planted), "found": true_hits, "false": false_hits, "power": power, "false_share": share}
