"""Gene processing on simulated counts: seconds and peak memory of every step, against plain ways of doing the same.

    python benchmarks/genes.py                                           100, 467 and 941 patients: about an hour
    python benchmarks/genes.py --patients 40 --genes 3000 --repeats 1    some minutes

Every measurement is a process of its own on one thread, so that its peak memory is its own, and the ways take turns.
Counts are negative binomial, of 27,000 genes that pass the filter; the gene sets are those of MMMIL_REAL_DATA/gmt
where they are there, else drawn with GO's and KEGG's sizes. `plain` is pydeseq2 with its defaults on the same genes;
`padded` the autoencoder's training with every pair padded to the longest set, on the same batches. The six selections
of the largest cohort are made by `python -m mmmil genes`, which is then run again. Writes benchmarks/results/genes.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
STAR_ROWS = 60_660
LONG = 30  # s, above which a step is not repeated
SETS = 300  # tokens of a patient at most, max_sets below
TASK = """task: bench
class_names: ["A", "B"]
inputs: genes
data_dir: "data"
cohort_table: cohort.csv
expression_matrix: ["counts.tsv"]
expression_kind: counts
counts_level: cpm
go_gmt: go.gmt
kegg_gmt: kegg.gmt
max_sets: 300
"""


# -- the cohort ------------------------------------------------------------------------------------------------------
def libraries() -> dict[str, dict[str, list[str]]]:
    """GO biological processes and KEGG pathways: the real ones if they are there, else sets of their sizes."""
    from mmmil import params
    from mmmil.genes import enrichment

    files = {"go": "GO_Biological_Process_2023.gmt", "kegg": "KEGG_2021_Human.gmt"}
    paths = {key: params.real_data() / "gmt" / name for key, name in files.items()}
    if all(path.is_file() for path in paths.values()):
        return {key: enrichment.read_gmt(path) for key, path in paths.items()}
    draw = np.random.default_rng(0)
    known = 1 / np.arange(1, 15_001) ** 0.6  # some genes are in many sets
    drawn = {}
    for key, n, size, spread in (("go", 5400, 20, 1.0), ("kegg", 320, 70, 0.7)):
        sizes = np.clip(draw.lognormal(np.log(size), spread, n), 5, 600).astype(int)
        members = [draw.choice(len(known), k, replace=False, p=known / known.sum()) for k in sizes]
        drawn[key] = {f"{key} {i}": [f"SYN{gene}" for gene in row] for i, row in enumerate(members)}
    return drawn


def make(folder: Path, n: int, n_genes: int) -> None:
    """A project folder with one task of `n` patients: counts, cohort table, gene sets; STAR files for up to 100."""
    draw = np.random.default_rng(1)
    sets = libraries()
    union = draw.permutation(
        sorted({gene for library in sets.values() for genes in library.values() for gene in genes})
    )
    symbols = np.array([*draw.permutation(sorted(union)), *(f"LNC{i}" for i in range(n_genes))][:n_genes], dtype=object)
    place = {symbol: i for i, symbol in enumerate(symbols)}
    effect = np.zeros(n_genes)
    large = [genes for genes in sets["go"].values() if 20 <= len(genes) <= 200]
    for number in draw.choice(len(large), len(large) // 40, replace=False):
        effect[[place[gene] for gene in large[number] if gene in place]] = draw.choice([-0.5, 0.5])
    level = np.exp2(draw.normal(8.5, 2, n_genes).clip(4.7, 16))
    dispersion = (0.15 + 3 / level) * draw.lognormal(0, 0.4, n_genes)
    labels = draw.permutation(np.arange(n) % 2)
    counts = np.empty((n, n_genes), np.int32)
    for row, label in zip(counts, labels, strict=True):
        mean = level * np.exp2(effect * (label - 0.5) + draw.normal(0, 0.4))
        row[:] = draw.poisson(mean * draw.gamma(1 / dispersion, dispersion))
    strange = np.flatnonzero(
        draw.random(n_genes) < 0.1
    )  # one outlier each, as real counts have: DESeq2 fits them again
    counts[draw.integers(0, n, len(strange)), strange] *= 30

    data = folder / "data"
    for needed in (data, folder / "params"):
        needed.mkdir(parents=True)
    (folder / "params" / "bench.yaml").write_text(TASK)
    (folder / "_toc.yml").touch()
    for key, library in sets.items():
        lines = ["\t".join([name, "", *genes]) for name, genes in library.items()]
        (data / f"{key}.gmt").write_text("\n".join(lines) + "\n")
    patients = [f"P{i:04d}" for i in range(n)]
    pd.DataFrame({"patient_id": patients, "label": labels}).to_csv(data / "cohort.csv", index=False)
    pd.DataFrame(counts.T, index=symbols, columns=patients).to_csv(data / "counts.tsv", sep="\t")
    np.savez(folder / "counts.npz", counts=counts, labels=labels, symbols=symbols.astype(str))
    for patient, row in zip(patients, counts, strict=True) if n <= 100 else ():
        write_star(data / f"{patient}.tsv", symbols, row)
    (folder / "whole").touch()


def write_star(path: Path, symbols: np.ndarray, counts: np.ndarray) -> None:
    """A STAR-counts file of the usual 60,660 rows; those that are none of our genes hold next to nothing."""
    from types import SimpleNamespace

    from mmmil.simulate import genes as synthetic_genes

    rest = STAR_ROWS - len(counts)
    ids = [f"ENSG9{i:010d}.1" for i in range(STAR_ROWS)]
    names = [*symbols, *(f"REST{i}" for i in range(rest))]
    genes = pd.DataFrame({"gene_id": ids, "symbol": names, "type": "protein_coding", "length": 2500})
    counts = np.concatenate([counts, np.arange(rest) % 2])
    table = synthetic_genes.star_table(SimpleNamespace(genes=genes), counts, ("benchmark", path.name))
    synthetic_genes.write_star(path, table, ("benchmark", path.name))


# -- one measurement, in a process of its own ------------------------------------------------------------------------
def peak() -> int:
    """Peak resident memory of this process, MiB."""
    return high_water(os.getpid())


def high_water(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def measure(way: str, folder: Path) -> dict:
    """Seconds, those of the CPU and peak memory of one way; run in a process of its own."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    if way in ("epoch", "padded", "padded fused"):
        return epoch(way)
    ways = {"matrix": reading, "star": reading, "deg": ours, "plain": plain, "autoencoder": autoencoder}
    work = ways.get(way, of_library)(way, folder)
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu_start, "peak": peak()}


def reading(way: str, folder: Path):
    """The package's Expression from a counts matrix or STAR files; found again if it has been read before."""
    from mmmil import params
    from mmmil.genes import expression

    p = params.load("bench", results_dir=way)
    if way == "star":
        p = p.override(expression_kind="star", expression_matrix=[])
    ids = pd.read_csv(folder / "data" / "cohort.csv")["patient_id"]
    names = [str(folder / "data" / (f"{i}.tsv" if way == "star" else "counts.tsv")) for i in ids]
    patients = pd.DataFrame({"expression_path": names}, index=pd.Index(ids))
    return lambda: expression.load(patients, p)


def arrays(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(folder / "counts.npz") as saved:
        return saved["counts"], saved["labels"], saved["symbols"]


def ours(way: str, folder: Path):
    """Differential expression by the package."""
    from mmmil.genes import differential

    data = arrays(folder)
    return lambda: differential.differential_expression(*data).to_csv(folder / "deg.csv")


def plain(way: str, folder: Path):
    """pydeseq2 as its documentation shows it, on the genes that ours tests and on one BLAS thread."""
    from threadpoolctl import threadpool_limits

    from mmmil.genes import differential

    counts, labels, symbols = arrays(folder)
    is_tested = differential.expressed(counts, labels)
    names = [f"P{i}" for i in range(len(labels))]
    counts = pd.DataFrame(counts[:, is_tested], index=names, columns=symbols[is_tested])
    metadata = pd.DataFrame({"condition": np.where(labels == 1, "B", "A")}, index=names)

    def work() -> None:
        from pydeseq2.dds import DeseqDataSet  # inside, since the package imports them there, too
        from pydeseq2.ds import DeseqStats

        with threadpool_limits(1):
            fitted = DeseqDataSet(counts=counts, metadata=metadata, design="~condition", n_cpus=1, quiet=True)
            fitted.deseq2()
            test = DeseqStats(fitted, contrast=["condition", "B", "A"], n_cpus=1, quiet=True)
            test.summary()
        test.results_df.to_csv(folder / "plain.csv")

    return work


def of_library(way: str, folder: Path):
    """Enrichment of a library, 'go' or 'kegg'."""
    from mmmil.genes import enrichment

    ranking = pd.read_csv(folder / "deg.csv", index_col=0)["stat"]
    sets = enrichment.read_gmt(folder / "data" / f"{way}.gmt")
    return lambda: enrichment.enrich(ranking, sets).to_csv(folder / f"{way}.csv")


def autoencoder(way: str, folder: Path):
    """Training on every patient and the best sets of GO, and the latents."""
    from mmmil.genes import enrichment, expression, scaling
    from mmmil.genes.autoencoder import GeneSetAutoencoder

    tested = pd.read_csv(folder / "deg.csv", index_col=0).index
    sets = enrichment.within(enrichment.read_gmt(folder / "data" / "go.gmt"), tested)
    used = {name: sets[name] for name in pd.read_csv(folder / "go.csv", index_col=0).index[:SETS]}
    genes = sorted({gene for members in used.values() for gene in members})
    counts, _, symbols = arrays(folder)
    level = expression.log2_cpm(counts)[:, pd.Index(symbols).get_indexer(genes)]
    rows = np.arange(len(level))

    def work() -> None:
        scaled = scaling.scale_genes(level, rows)
        scaling.encode_sets(scaled, genes, used, rows, rows, GeneSetAutoencoder())

    return work


def epoch(way: str) -> dict:
    """Seconds of an epoch in float32, the best of three, of 300 patients and 300 sets; losses in float64, of 30."""
    import torch

    from mmmil.genes.autoencoder import GeneSetAutoencoder

    draw = np.random.default_rng(0)
    sizes = np.clip(draw.lognormal(np.log(42), 0.85, SETS), 10, 500).astype(int)
    sizes[0] = 500
    index = np.full((SETS, 500), -1)
    for row, size in zip(index, sizes, strict=True):
        row[:size] = draw.choice(6000, size, replace=False)
    level = draw.normal(size=(300, 20)) @ draw.normal(size=(20, 6000)) / 4 + draw.normal(0, 0.5, (300, 6000))
    model = GeneSetAutoencoder(epochs=1)

    def train(patients: int) -> tuple[tuple[float, float], list[float]]:
        if way == "epoch":
            return (time.perf_counter(), time.process_time()), model.fit(level[:patients], index)
        return padded_training(model, level[:patients], index, way == "padded fused")

    train(3)  # imports and first calls
    spent = []
    for _ in range(3):
        begun, _ = train(300)
        spent.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    seconds, cpu = min(spent)
    highest = peak()
    torch.set_default_dtype(torch.float64)
    model.epochs = 3
    loss, mean = train(30)[1], float(sizes.mean())
    return {"seconds": seconds, "cpu": cpu, "peak": highest, "loss": loss, "mean": mean}


def padded_training(
    model, level: np.ndarray, index: np.ndarray, fused: bool
) -> tuple[tuple[float, float], list[float]]:
    """All pairs padded to the longest set, trained on the same batches: (clocks after the padding, losses)."""
    import torch

    from mmmil.genes.autoencoder import MaskedMLP, _Pairs

    dtype = torch.get_default_dtype()
    mask = torch.as_tensor(np.tile(index >= 0, (len(level), 1))).to(dtype)
    x = torch.as_tensor(level, dtype=dtype)[:, torch.as_tensor(index).clamp(min=0)].flatten(0, 1) * mask
    pairs = _Pairs(level, index)
    torch.manual_seed(model.seed)
    network = MaskedMLP(index.shape[1], model.hidden, model.latent)
    begun = time.perf_counter(), time.process_time()
    optimizer = torch.optim.Adam(network.parameters(), lr=model.lr, fused=fused)
    draw = torch.Generator().manual_seed(model.seed)
    per_pair, losses = float(mask.sum()) / len(mask), []
    for _ in range(model.epochs):
        squared = genes = 0.0
        for batch in model._batches(pairs, draw):
            target, real = x[batch], mask[batch]
            error = ((network.decode(network.encode(target), index.shape[1]) - target) * real).square().sum()
            optimizer.zero_grad(set_to_none=True)
            (error / (len(batch) * per_pair)).backward()
            optimizer.step()
            squared += error.item()
            genes += real.sum().item()
        losses.append(squared / genes)
    return begun, losses


# -- all measurements ------------------------------------------------------------------------------------------------
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def measured(way: str, folder: Path) -> dict:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", way, str(folder.resolve())]
    here = folder if (folder / "_toc.yml").is_file() else ROOT
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=here)
    if done.returncode:
        sys.exit(f"{way} failed in {folder}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def descendants(pid: int) -> list[int]:
    """A process and all below it that are alive."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    pids = [pid]
    for ancestor in pids:
        pids += [child for child, parent in parents.items() if parent == ancestor]
    return pids


def run_stage(folder: Path, workers: int) -> tuple[float, dict[int, int]]:
    """`python -m mmmil genes` in a project folder: seconds, and peak memory of each of its processes, MiB."""
    command = [sys.executable, "-m", "mmmil", "genes", "--task", "bench", "--workers", str(workers)]
    start, peaks = time.perf_counter(), {}
    with tempfile.TemporaryFile("w+") as log:
        stage = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
        while stage.poll() is None:
            for pid in descendants(stage.pid):  # the record resets a process's peak, so it is read again and again
                with contextlib.suppress(OSError):
                    peaks[pid] = max(high_water(pid), peaks.get(pid, 0))
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        if stage.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed in {folder}:\n{log.read()}")
    return seconds, peaks


def steps_of(n: int, repeats: int, folder: Path, bar: tqdm) -> dict[str, list[dict]]:
    """Every step of one size; the ways take turns, and what has been read is found again right after."""
    readings = ["matrix", "star"] if n <= 100 else ["matrix"]
    runs: dict[str, list[dict]] = {}
    for turn in range(repeats):
        order = ["deg", "plain"] if turn % 2 == 0 else ["plain", "deg"]
        for way in [*readings, *order, "go", "kegg", "autoencoder"]:
            bar.set_postfix_str(f"{n} patients, {way}")
            bar.update()
            if turn and runs[way][0]["seconds"] > LONG:
                continue
            if way in readings:
                shutil.rmtree(folder / way, ignore_errors=True)
            runs.setdefault(way, []).append(measured(way, folder))
            if way in readings:
                runs.setdefault(f"{way} again", []).append(measured(way, folder))
    ours_stats, plain_stats = (pd.read_csv(folder / f"{name}.csv", index_col=0) for name in ("deg", "plain"))
    same = ours_stats.index.equals(plain_stats.index) and ours_stats.isna().equals(plain_stats.isna())
    largest = float((ours_stats - plain_stats).abs().max(axis=None)) if same else np.inf
    runs["difference"] = [{"genes": len(ours_stats), "max": largest}]
    return runs


# -- the results page ------------------------------------------------------------------------------------------------
STEPS = {
    "matrix": "read a counts matrix", "matrix again": "the same, found again",
    "star": "read a STAR file each", "star again": "the same, found again",
    "deg": "differential expression, ours", "plain": "differential expression, plain pydeseq2",
    "go": "enrichment, GO", "kegg": "enrichment, KEGG", "autoencoder": "autoencoder, 30 epochs, and latents",
}  # fmt: skip


def median(runs: list[dict], quantity: str) -> float:
    return float(np.median([run[quantity] for run in runs]))


def rows(lines: list[list]) -> list[str]:
    head, *body = [" | ".join(map(str, line)) for line in lines]
    return [f"| {line} |" for line in [head, " | ".join(["---"] * len(lines[0])), *body]]


def page(sizes: dict[int, dict], epochs: dict, stage: dict, given: argparse.Namespace) -> str:
    """The results as Markdown."""
    from mmmil import params, record

    names = ("pydeseq2", "anndata", "gseapy", "torch", "numpy", "scipy", "pandas")
    text = [
        "# Gene processing", "",
        f"Simulated counts of {given.genes:,} genes in two classes. See `benchmarks/genes.py`.", "",
        f"- {record.made_on(*names)}",
        f"- one thread per process, load average at the end {os.getloadavg()[2]:.1f}",
        f"- medians of {given.repeats} turns, one where it takes over {LONG} s; every measurement is a process of its "
        "own, and its peak holds the interpreter, the packages and the input",
        f"- gene sets: {'GO and KEGG' if (params.real_data() / 'gmt').is_dir() else 'drawn with their sizes'}",
        "", "## Every step", "",
    ]  # fmt: skip
    table = [["step", *(f"{n} patients, s | {n}, peak MiB" for n in sizes)]]
    for way, name in STEPS.items():
        cells = [
            f"{median(runs[way], 'seconds'):.1f} | {max(r['peak'] for r in runs[way])}" if way in runs else " | "
            for runs in sizes.values()
        ]
        if any(way in runs for runs in sizes.values()):
            table.append([name, *cells])
    table[0] = " | ".join(table[0]).split(" | ")
    text += [*rows(table), "", "## Against plain pydeseq2", ""]
    head = ["ours / plain, s", "ours / plain, CPU s", "ours / plain, peak", "largest difference of a statistic"]
    table = [["patients", "genes tested", *head]]
    for n, runs in sizes.items():
        ratio = [median(runs["deg"], w) / median(runs["plain"], w) for w in ("seconds", "cpu", "peak")]
        difference = runs["difference"][0]
        table.append([n, difference["genes"], *(f"{r:.2f}" for r in ratio), f"{difference['max']:.3g}"])
    text += [*rows(table), "", "## An epoch of the autoencoder", ""]
    table = [["way", "s", "CPU s", "times ours", "peak MiB", "loss by epoch in float64", "largest difference"]]
    for way, runs in epochs.items():
        loss, our_loss = runs[0]["loss"], epochs["ours"][0]["loss"]
        apart = max(abs(a - b) for a, b in zip(loss, our_loss, strict=True))
        ratio = median(runs, "seconds") / median(epochs["ours"], "seconds")
        cells = [
            f"{median(runs, 'seconds'):.2f}",
            f"{median(runs, 'cpu'):.2f}",
            f"{ratio:.2f}",
            max(r["peak"] for r in runs),
        ]
        table.append([way, *cells, ", ".join(f"{value:.6f}" for value in loss), f"{apart:.1g}"])
    mean = epochs["ours"][0]["mean"]
    text += [f"300 patients, 300 sets of 10 to 500 genes ({mean:.0f} on average), batches of 256.", "", *rows(table)]
    text += ["", f"## The six selections of {stage['patients']} patients", ""]
    lines = [
        f"`python -m mmmil genes --workers {stage['workers']}`: GO, KEGG and single genes of five folds and the final "
        f"model in {stage['first'] / 60:.1f} minutes.",
        f"- peak memory of each process: {', '.join(f'{peak:,}' for peak in stage['peaks'])} MiB",
        *(f"- run again with {workers}: {seconds:.1f} s" for workers, seconds in stage["again"].items()),
    ]
    return "\n".join([*text, lines[0], "", *lines[1:], ""])


def main() -> None:
    """Make the cohorts, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 467, 941])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--genes", type=int, default=27_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of the six selections")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "mmmil_benchmark_genes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "genes.md")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], Path(given.measure[1]))))
        return
    from mmmil import record

    ways = {"ours": "epoch", "padded": "padded", "padded, fused Adam": "padded fused"}
    total = sum(7 + (n <= 100) for n in given.patients) * given.repeats + 3 * given.repeats + 2
    sizes, epochs = {}, {name: [] for name in ways}
    with tqdm(total=total, desc="benchmark", unit="step") as bar:
        for _ in range(given.repeats):
            for name, way in ways.items():
                epochs[name].append(measured(way, given.data))
                bar.update()
        for n in sorted(given.patients):
            folder = given.data / f"{n}x{given.genes}"
            if not (folder / "whole").is_file():
                bar.set_postfix_str(f"{n} patients are made")
                shutil.rmtree(folder, ignore_errors=True)
                make(folder, n, given.genes)
            sizes[n] = steps_of(n, given.repeats, folder, bar)
        bar.set_postfix_str("six selections")
        shutil.rmtree(folder / "results", ignore_errors=True)
        first, peaks = run_stage(folder, given.workers)
        bar.update()
        again = {}
        for name, workers in (("one process", 1), (f"{given.workers} processes", given.workers)):
            again[name] = float(np.median([run_stage(folder, workers)[0] for _ in range(3)]))
        start = time.perf_counter()
        imports = "import mmmil.__main__, mmmil.study, mmmil.genes.tokens"
        subprocess.run([sys.executable, "-c", imports], env=environment())
        again["nothing to do but import the packages"] = time.perf_counter() - start
        bar.update()
    most = sorted((high for high in peaks.values() if high > 100), reverse=True)  # not joblib's tracker of resources
    stage = {"patients": n, "workers": given.workers, "first": first, "peaks": most, "again": again}
    text = page(sizes, epochs, stage, given)
    record.write_atomically(given.out, lambda t: t.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
