"""Command line: the stages that Snakemake runs, each also a call of the package. `python -m mmmil --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmmil import experiments, params, record

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Task = Annotated[str, typer.Option(help="a file of params/")]
Overlay = Annotated[str, typer.Option(help="a second file of params/ laid over it; none: the paper's scale")]
Workers = Annotated[int, typer.Option(help="processes")]


@app.command()
def simulate(task: Task, overlay: Overlay = "", workers: Workers = 1):
    """Make the task's synthetic cohort, if its parameters say that it is synthetic."""
    from mmmil import simulate as simulation

    p = params.load(task, overlay)
    if not p.synthetic:
        raise params.ParameterError(f"task '{task}' with overlay '{overlay}' is not synthetic; nothing to make")
    print(simulation.make(p, workers))


@app.command()
def tiles(task: Task, overlay: Overlay = "", workers: Workers = 1):
    """Build the cohort, tile its slides and split the patients: cohort.csv, tiles.csv, splits/."""
    from mmmil import study

    s = study.load(params.load(task, overlay), workers)
    study.write(s)
    print(f"{task}: {len(s.cohort)} patients, {len(s.cohort.excluded)} excluded")


@app.command()
def quality(task: Task, overlay: Overlay = "", workers: Workers = 1):
    """Examine every slide (pen, blur, little tissue, another stain, frozen section, scale): quality.csv."""
    from mmmil import quality as findings
    from mmmil import study

    p = params.load(task, overlay)
    s = study.load(p)
    table = findings.table(s.slides, s.tiles, p, workers)
    record.write_atomically(p.results / "quality.csv", lambda t: table.to_csv(t, index=False))


@app.command()
def genes(task: Task, overlay: Overlay = "", workers: Workers = 1):
    """Differential expression, enrichment, autoencoder and tokens of every fold: genes.csv."""
    from mmmil import genesets, study

    p = params.load(task, overlay)
    s = study.load(p, workers)
    libraries = sorted({experiments.variant(n).genes for n in experiments.variants(p)} - {"", "all"})
    if not p.has_slides:  # nobody else writes down who is in the cohort
        study.write(s)
    table = genesets.all_folds(p, s.expression, s.labels, s.folds, libraries, workers)
    record.write_atomically(p.results / "genes.csv", lambda t: table.to_csv(t, index=False))


@app.command()
def leakage(task: Task, overlay: Overlay = "", workers: Workers = 1):
    """Walk the gene road on shuffled labels, nested and with the choice made on all patients: leakage.csv."""
    from mmmil import leakage as null
    from mmmil import study

    p = params.load(task, overlay)
    s = study.load(p, workers)
    runs = 2 * p.null_repeats * p.n_folds
    test = "DESeq2" if s.expression.kind == "counts" else "Welch's test"
    print(f"{task}: null audit, {runs} x {test}, GSEA and autoencoder on up to {len(s.cohort)} patients", flush=True)
    table = null.audit(p, s.expression, s.labels, s.folds, workers=workers)
    record.write_atomically(p.results / "leakage.csv", lambda t: table.to_csv(t, index=False))


@app.command()
def train(
    task: Task,
    variant: Annotated[list[str], typer.Option(help="a row of the variant table; may be given several times")],
    overlay: Overlay = "",
):
    """Train variants on every fold and finally on the development set: predictions/<variant>.parquet."""
    from mmmil import study

    p = params.load(task, overlay)
    s = study.load(p)
    for name in variant:
        table = experiments.predictions(s, [name])
        path = p.results / "predictions" / f"{name}.parquet"
        record.write_atomically(path, lambda t, table=table: table.to_parquet(t, index=False))


@app.command(name="record")
def collect(task: Task, overlay: Overlay = ""):
    """Join the variants' predictions into predictions.parquet and compute metrics.csv from it."""
    import pandas as pd

    from mmmil import evaluation

    p = params.load(task, overlay)
    table = pd.concat(
        [record.read_parquet(p.results / "predictions" / f"{n}.parquet") for n in experiments.variants(p)]
    )
    record.write_atomically(p.results / "predictions.parquet", lambda t: table.to_parquet(t, index=False))
    summary = evaluation.summarise(table, p)
    record.write_atomically(p.results / "metrics.csv", lambda t: summary.to_csv(t, index=False))


@app.command()
def attention(task: Task, overlay: Overlay = ""):
    """Count the gene sets that the proposed models attend to differently in the two classes, and name them."""
    from mmmil import interpretation, study

    p = params.load(task, overlay)
    s = study.load(p)
    counts, sets = interpretation.counts(s), interpretation.compared_sets(s)
    record.write_atomically(p.results / "attention_sets.csv", lambda t: sets.to_csv(t, index=False))
    record.write_atomically(p.results / "attention.csv", lambda t: counts.to_csv(t, index=False))


@app.command()
def publish(draft: Annotated[Path, typer.Argument()], page: Annotated[Path, typer.Argument()]):
    """Move an executed notebook to its page of the book, if it is whole and nothing in it failed."""
    from mmmil import pages

    pages.publish(draft, page)


@app.command()
def sections():
    """Write what the section pages include, from the results that are there: book/generated/."""
    from mmmil import sections as parts

    parts.write()


@app.command()
def toc(tasks: Annotated[list[str], typer.Argument(help="tasks whose pages must all be there")]):
    """Write _build/toc.yml: _toc.yml without the pages that no run has made."""
    from mmmil import pages

    pages.write_toc(tasks)


def main() -> None:
    """Run a command; a wrong input or setting ends it with its message, which says what to do, and no traceback."""
    try:
        app()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
