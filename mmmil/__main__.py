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
def features(task: Task, encoder: Annotated[str, typer.Option(help="resnet50d or ctranspath")], overlay: Overlay = ""):
    """Compute a frozen encoder's features of every bag, which its trainings then find."""
    from mmmil import study, training

    s = study.load(params.load(task, overlay))
    for fold in s.fold_numbers:
        training.frozen_features(s, encoder, fold)


@app.command()
def train(
    task: Task,
    training: Annotated[list[str], typer.Option(help="<variant>/<fold>, or <variant>/final; may be given repeatedly")],
    overlay: Overlay = "",
    killed: Annotated[str, typer.Option(help="how this call was killed, at the first without a receipt")] = "",
):
    """Train variants on single folds, or on the development set (final): trainings/<variant>/<fold>.json.

    A training that fails gets a receipt that says so, and the others go on.
    """
    from mmmil import batch, study

    p = params.load(task, overlay)
    for name in training:
        batch.parse(name)
    s = study.load(p)
    if killed:
        training = batch.give_up(s, training, killed)
    failed = batch.run(s, training)
    print(f"{len(training) - failed} of {len(training)} trainings are there, {failed} failed")


@app.command(name="record")
def collect(task: Task, overlay: Overlay = ""):
    """Gather the trainings' predictions (predictions.parquet); compute metrics.csv and comparisons.csv from them."""
    from mmmil import batch, evaluation, statistics

    p = params.load(task, overlay)
    table, failures = batch.read(p)
    record.write_atomically(p.results / "predictions.parquet", lambda t: table.to_parquet(t, index=False))
    summary = evaluation.summarise(table, p, experiments.variants(p))
    made = {"metrics": summary, "comparisons": statistics.compare(table, p)}
    for name, content in (made | {"failures": failures}).items():
        record.write_atomically(p.results / f"{name}.csv", lambda t, c=content: c.to_csv(t, index=False))


@app.command()
def attention(task: Task, overlay: Overlay = ""):
    """Heatmaps, and attention over gene sets beside the nulls and the paper's terms: heatmaps/, attention*.csv."""
    from mmmil import attention_nulls, attribution, gene_attention, heatmaps, paper_terms, stability, study

    p = params.load(task, overlay)
    s = study.load(p)
    heatmaps.write_all(s)
    for name in attribution.variants(s)[:1]:
        stability.across_seeds(s, name, p.further_seeds)  # trains, and the notebook finds it
    tables = {
        "attention_nulls": attention_nulls.summary(s),
        "attention_terms": paper_terms.of_study(s),
        "attention_sets": gene_attention.every_set(s),
        "attention": gene_attention.counts(s),  # last: the workflow takes it as the sign that all are there
    }
    for name, table in tables.items():
        record.write_atomically(p.results / f"{name}.csv", lambda t, table=table: table.to_csv(t, index=False))


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
