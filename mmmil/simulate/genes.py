"""Synthetic genes, gene sets and STAR counts with planted differences between two classes.

Genes of a set share a latent factor, planted sets differ between the classes, a few genes differ between sites.
Counts are negative binomial around each patient's profile, and the files have the columns, `N_*` rows and units of
the GDC's `augmented_star_gene_counts.tsv` (GENCODE v36); gene ids start with ENSG9, which no real one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil.simulate.slides import rng

HEADER = [
    "gene_id", "gene_name", "gene_type", "unstranded", "stranded_first", "stranded_second",
    "tpm_unstranded", "fpkm_unstranded", "fpkm_uq_unstranded",
]  # fmt: skip
COUNTS_PER_GENE = 830  # 50 million counted fragments over the 60,660 genes of GENCODE v36
PLANTED_SETS = 0.15
SET_SIZES = (12, 60)
SITE_GENES = 0.05


@dataclass(frozen=True)
class Genome:
    """Everything that all patients of a cohort share; arrays hold one value per gene."""

    genes: pd.DataFrame  # gene_id, symbol, log2fc, type, length (bp)
    sets: pd.DataFrame  # library, name, planted, direction
    members: list[np.ndarray]  # gene indices of each row of sets
    level: np.ndarray  # mean log2 expression
    dispersion: np.ndarray
    factor: np.ndarray  # index of the latent factor a gene follows, -1 for none
    site_shift: np.ndarray  # (sites, genes) log2


def planted_sets(n_sets: int) -> int:
    """How many of `n_sets` sets of one library differ between the classes."""
    return max(2, round(PLANTED_SETS * n_sets))


@lru_cache(maxsize=2)
def genome(task: str, seed: int, n_genes: int, n_sets: int, n_sites: int, effect: float, null: bool) -> Genome:
    """Genes and sets of a cohort; the same for the same arguments, whatever process asks.

    Raises ValueError where there are too few genes for planted sets that share none and are the minority.
    """
    random = rng("genome", task, seed)
    n_par = max(2, round(n_genes * 44 / 60_660))
    coding = np.arange(n_genes) < 0.75 * n_genes
    par = np.zeros(n_genes, bool)
    par[-n_par:] = True  # PAR genes of chromosome Y: id and symbol of their X copy, and never a count
    symbols = np.array([f"SYN{i}" if coding[i] else f"SYNLNC{i}" for i in range(n_genes)], dtype=object)
    free = np.flatnonzero(~coding & ~par)
    repeated = random.choice(free, max(4, n_genes // 200), replace=False)
    symbols[repeated] = "SYN_RNA"  # one symbol of many genes, as Y_RNA is
    ids = np.array([f"ENSG9{i:010d}.{v}" for i, v in enumerate(random.integers(1, 20, n_genes))], dtype=object)
    copies = random.choice(np.flatnonzero(coding), n_par, replace=False)
    ids[par] = [f"{name}_PAR_Y" for name in ids[copies]]
    symbols[par] = symbols[copies]

    level = np.where(coding, random.normal(0, 2.2, n_genes), random.normal(-7, 3, n_genes))
    level[par] = -np.inf
    usable = coding.copy()
    usable[copies] = False
    # Sets are made of genes that are expressed, as curated pathways are.
    pool = np.flatnonzero(usable)
    pool = random.permutation(pool[np.argsort(-level[pool], kind="stable")][: int(0.8 * len(pool))])

    log2fc = np.zeros(n_genes)
    factor = np.full(n_genes, -1)
    rows, members, n_factors = [], [], 0
    n_go, low = planted_sets(n_sets), SET_SIZES[0]
    high = int(min(SET_SIZES[1], 0.4 * len(pool) / n_go))
    if high < low:
        raise ValueError(
            f"sim_genes ({n_genes}) is too small for sim_sets ({n_sets}), of which {n_go} are planted: "
            f"take at least {int(low * n_go / 0.4 / 0.6) + 10} genes, or fewer sets"
        )
    reserved: list[np.ndarray] = []
    used = 0
    for _ in range(n_go):
        size = int(random.integers(low, high + 1))
        reserved.append(pool[used : used + size])
        used += size
    rest = pool[used:]

    for library, n in (("go", n_sets), ("kegg", n_sets // 2)):
        n_planted = planted_sets(n)
        order = random.permutation(n)  # planted sets are not the first by name
        for number in range(n):
            k = int(order[number])
            direction = (1 if k % 2 else -1) if k < n_planted else 0
            if k < n_planted:  # a planted pathway has the biology of the planted term of the same number
                genes = reserved[k]
                if library == "kegg" and len(genes) > low:
                    genes = random.choice(genes, max(low, int(0.8 * len(genes))), replace=False)
                log2fc[genes] = direction * effect
            else:
                genes = random.choice(rest, int(random.integers(low, SET_SIZES[1])), replace=False)
                # Real sets overlap: one gene of a planted term is in this one too.
                genes = np.append(genes, random.choice(reserved[k % n_go]))
            new = genes[factor[genes] < 0]
            factor[new] = n_factors
            n_factors += 1
            name = (
                f"Synthetic term {number + 1} (GO:9{number + 1:06d})"
                if library == "go"
                else f"Synthetic pathway {number + 1} (hsa9{number + 1:04d})"
            )
            rows.append((library, name, direction != 0 and not null, direction if not null else 0))
            members.append(np.sort(genes))
    if null:
        log2fc[:] = 0
    site_shift = random.normal(0, 0.7, (n_sites, n_genes)) * (random.random((n_sites, n_genes)) < SITE_GENES)
    genes = pd.DataFrame(
        {
            "gene_id": ids,
            "symbol": symbols,
            "log2fc": log2fc,
            "type": np.where(coding | par, "protein_coding", "lncRNA"),
            "length": np.exp(random.normal(np.log(2500), 0.7, n_genes)).astype(int).clip(200, 60_000),
        }
    )
    return Genome(
        genes=genes,
        sets=pd.DataFrame(rows, columns=["library", "name", "planted", "direction"]),
        members=members,
        level=level,
        dispersion=np.exp(random.normal(np.log(0.15), 0.5, n_genes)),
        factor=factor,
        site_shift=site_shift,
    )


def counts(genome: Genome, key: tuple, class_shift: float, site: int) -> np.ndarray:
    """Integer counts of one patient (genes,).

    `class_shift` multiplies the planted log2 fold changes: -1/2 in class 0, 1/2 in class 1, 0 where the class does
    not show in the genes. `key` seeds the patient.
    """
    random = rng(*key, "expression")
    factors = random.normal(0, 0.4, genome.factor.max() + 2)
    factors[-1] = 0  # index -1: no set
    log2 = genome.level + class_shift * genome.genes["log2fc"].to_numpy() + genome.site_shift[site]
    log2 = log2 + factors[genome.factor]
    share = np.exp2(log2)
    depth = COUNTS_PER_GENE * len(share) * np.exp(random.normal(0, 0.3))
    mean = depth * share / share.sum()
    shape = 1 / (genome.dispersion + 0.3 / np.maximum(mean, 1))  # rare genes scatter more
    return random.poisson(mean * random.gamma(shape, 1 / shape))


def star_table(genome: Genome, counts: np.ndarray, key: tuple) -> pd.DataFrame:
    """The nine columns of a STAR-counts file: counts, and TPM, FPKM and FPKM-UQ as the GDC computes them."""
    random = rng(*key, "strands")
    first = random.binomial(counts, 0.5)
    coding = (genome.genes["type"] == "protein_coding").to_numpy()
    per_base = counts / genome.genes["length"].to_numpy()
    quartile = np.quantile(counts[coding & (counts > 0)], 0.75)
    columns = [
        genome.genes["gene_id"], genome.genes["symbol"], genome.genes["type"], counts, first, counts - first,
        per_base / per_base.sum() * 1e6, per_base / counts[coding].sum() * 1e9,
        per_base / (quartile * coding.sum()) * 1e9,
    ]  # fmt: skip
    return pd.DataFrame(dict(zip(HEADER, columns, strict=True)))


def write_star(path: Path, table: pd.DataFrame, key: tuple) -> None:
    """Write a STAR-counts file with the GDC's comment line, header and `N_*` rows."""
    random = rng(*key, "unassigned")
    total = int(table["unstranded"].sum())
    with path.open("w", newline="\n") as file:
        file.write("# gene-model: GENCODE v36\n" + "\t".join(HEADER) + "\n")
        for name, share in (("unmapped", 0.02), ("multimapping", 0.08), ("noFeature", 0.05), ("ambiguous", 0.06)):
            n = int(total * share * np.exp(random.normal(0, 0.3)))
            second = int(n * random.uniform(0.9, 1.1)) if name in ("noFeature", "ambiguous") else n
            file.write(f"N_{name}\t\t\t{n}\t{second}\t{second}\t\t\t\n")
        table.to_csv(file, sep="\t", header=False, index=False, float_format="%.4f", lineterminator="\n")


def write_gmt(path: Path, genome: Genome, library: str) -> None:
    """Write the sets of one library, genes by symbol."""
    symbols = genome.genes["symbol"].to_numpy()
    with path.open("w", newline="\n") as file:
        for row, members in zip(genome.sets.itertuples(), genome.members, strict=True):
            if row.library == library:
                file.write("\t".join([row.name, "synthetic", *sorted(symbols[members])]) + "\n")
