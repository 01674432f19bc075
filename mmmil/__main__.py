"""Command line: the stages that Snakemake runs, each also a call of the package. `python -m mmmil --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmmil import params, record, results, variants
from mmmil.processes import allocation, wall_time
from mmmil.processes.shards import Shard

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Task = Annotated[str, typer.Option(help="a file of params/")]
Overlay = Annotated[str, typer.Option(help="a second file of params/ laid over it; none: the paper's scale")]
RUNS = "runs that the book shows their tasks by, as demo/lgg, or lgg without an overlay"
Workers = Annotated[int, typer.Option(help="processes, no more than the cores that are allotted; 0: as many")]
Part = Annotated[str, typer.Option("--shard", help="i/n: of the i-th of n parts of the slides alone, for all to find")]


@app.command()
def simulate(task: Task, overlay: Overlay = "", workers: Workers = 1) -> None:
    """Make the task's synthetic cohort, if its parameters say that it is synthetic."""
    from mmmil.simulate import cohort as synthetic

    p = params.load(task, overlay)
    if not p.synthetic:
        raise params.ParameterError(f"task '{task}' with overlay '{overlay}' is not synthetic; nothing to make")
    print(synthetic.make(p, allocation.workers(workers)))


@app.command(name="check")
def look_at_data(task: Task, overlay: Overlay = "", workers: Workers = 1) -> None:
    """Look at a task's files before anything is fitted: counts, findings and errors, each with file, row and remedy.

    Ends with status 1 where something would stop a run.
    """
    from mmmil import check, variants
    from mmmil.book import pages

    p = params.load(task, overlay)
    seen = check.look(p, allocation.workers(workers))
    # Names of models and of notebooks, of which the data know nothing.
    known = seen.attempt(lambda: variants.variants(p))
    seen.attempt(lambda: pages.sections_of(p) if known is None else pages.require_possible(p))
    print(seen)
    if seen.errors:
        raise typer.Exit(1)


@app.command()
def tiles(task: Task, overlay: Overlay = "", workers: Workers = 1, shard: Part = "") -> None:
    """Build the cohort, tile its slides, pack the bags and split the patients: cohort.csv, tiles.csv, splits/."""
    from mmmil import study

    p, part = params.load(task, overlay), Shard.parse(shard)
    if not part.is_whole:
        for line in study.tile_shard(p, part, allocation.workers(workers)):
            print(line)
        return
    s = study.load(p, allocation.workers(workers))
    study.write(s)
    if s.tiles is not None:
        print(f"{task}: bags in {s.packed_bags}")
    print(f"{task}: {len(s.cohort)} patients, {len(s.cohort.excluded)} excluded")


@app.command()
def quality(task: Task, overlay: Overlay = "", workers: Workers = 1, shard: Part = "") -> None:
    """Examine every slide (pen, blur, little tissue, another stain, frozen section, scale): quality.csv."""
    from mmmil import study
    from mmmil.slides import quality as slide_quality

    p, part = params.load(task, overlay), Shard.parse(shard)
    s = study.load(p)
    table = slide_quality.table(part.of(s.slides), s.tiles, p, allocation.workers(workers))
    if part.is_whole:
        results.write(p, "quality", table)


@app.command()
def genes(task: Task, overlay: Overlay = "", workers: Workers = 1) -> None:
    """Differential expression, enrichment, autoencoder and tokens of every fold: genes.csv."""
    import pandas as pd

    from mmmil import study
    from mmmil.genes import tokens as gene_tokens

    p, workers = params.load(task, overlay), allocation.workers(workers)
    s = study.load(p, workers)
    libraries: list = sorted({variants.variant(n).genes for n in variants.variants(p)} - {"", "all"})
    if not p.has_pixels:  # nobody else writes down who is in the cohort
        study.write(s)
    tables = [gene_tokens.all_folds(p, s.expression, s.labels, f, libraries, workers) for f in s.repeated_folds()]
    table = pd.concat(tables).drop_duplicates(["library", "fold"]).sort_values(["library", "fold"])  # one final model
    results.write(p, "genes", table)


@app.command()
def leakage(task: Task, overlay: Overlay = "", workers: Workers = 1) -> None:
    """Walk the gene road on shuffled labels, nested and with the choice made on all patients: leakage.csv."""
    from mmmil import study
    from mmmil.evaluation import leakage as evaluation_leakage

    p, workers = params.load(task, overlay), allocation.workers(workers)
    s = study.load(p, workers)
    runs = 2 * p.null_repeats * p.n_folds
    test = "DESeq2" if s.expression.kind == "counts" else "Welch's test"
    print(f"{task}: null audit, {runs} x {test}, GSEA and autoencoder on up to {len(s.cohort)} patients", flush=True)
    table = evaluation_leakage.audit(p, s.expression, s.labels, s.folds, workers=workers)
    results.write(p, "leakage", table)


@app.command()
def weights(task: Task, overlay: Overlay = "") -> None:
    """Fetch the published weights that the task's trainings start from, on a machine with a network.

    What is not to be had is told here and once more by each training that needs it; the others stand.
    """
    from mmmil.models import weights as model_weights

    for name, problem in model_weights.fetch(params.load(task, overlay)).items():
        print(f"{name}: {problem or 'here'}")


@app.command()
def features(
    task: Task,
    encoder: Annotated[str, typer.Option(help="resnet50d, ctranspath, or a name of `encoders`")],
    overlay: Overlay = "",
    to: Annotated[str, typer.Option(help="folder for the features as TRIDENT writes them, <slide_id>.h5 a slide")] = "",
    shard: Part = "",
) -> None:
    """Compute a frozen encoder's features of every bag, which its trainings then find; or write them out."""
    from mmmil import study
    from mmmil.training.features import compute, export, frozen_features

    part = Shard.parse(shard)
    s = study.load(params.load(task, overlay))
    if to:
        print(f"{to}: {len(export(s, encoder, Path(to)))} files of features")
        return
    for fold in s.fold_numbers:
        frozen_features(s, encoder, fold) if part.is_whole else compute(s, encoder, fold, part)


@app.command()
def train(
    task: Task,
    training: Annotated[
        list[str],
        typer.Option(help="<variant>/<fold>, or <variant>/final; -seed<seed> after it; may be given repeatedly"),
    ],
    overlay: Overlay = "",
) -> None:
    """Train variants on single folds, or on the development set (final): trainings/<variant>/<fold>.json.

    A training that fails gets a receipt that says so, and the others go on.
    """
    from mmmil import study
    from mmmil.training import receipts

    p = params.load(task, overlay)
    for name in training:
        variants.require(receipts.parse(name)[0], p)
        receipts.require(p, name)
    s = study.load(p)
    failed = receipts.make(s, training)
    print(f"{len(training) - failed} of {len(training)} trainings are there, {failed} failed")


@app.command(name="record")
def collect(task: Task, overlay: Overlay = "") -> None:
    """Gather the trainings' predictions (predictions.parquet); compute metrics.csv and comparisons.csv from them,
    and note beside them what else tells the classes apart (confounded.csv).

    A training of other settings, code or files than today's ends it.
    """
    from mmmil import check, study
    from mmmil.evaluation import comparisons
    from mmmil.evaluation import summary as summaries
    from mmmil.training import receipts

    p = params.load(task, overlay)
    s = study.load(p)
    if not p.has_pixels and not p.has_genes:  # nobody else writes down who is in the cohort
        study.write(s)
    with record.only_found():  # it gathers what is there, and a training of other patients is not
        table, failures = receipts.read(s)
    results.write(p, results.PREDICTIONS, table)
    summary = summaries.summarise(table, p, variants.variants(p))
    tables = {"confounded": check.confounded(s.cohort.patients, p, s.tiles)}
    tables |= {"metrics": summary, "comparisons": comparisons.compare(table, p)}
    for name, content in (tables | {"failures": failures}).items():
        results.write(p, name, content)


@app.command()
def attention(task: Task, overlay: Overlay = "") -> None:
    """Heatmaps, and attention over gene sets beside the nulls and the paper's terms: heatmaps/, attention*.csv."""
    from mmmil import study
    from mmmil.interpretation import attribution, gene_sets, heatmaps, nulls, reported_terms, seeds

    p = params.load(task, overlay)
    s = study.load(p)
    heatmaps.write_all(s)
    for name in attribution.variants(s)[:1]:
        seeds.across_seeds(s, name)  # trains, and the notebook finds it
    tables = {
        "attention_nulls": nulls.summary(s),
        "attention_terms": reported_terms.of_study(s),
        "attention_sets": gene_sets.every_set(s),
        "attention": gene_sets.counts(s),  # last: the workflow takes it as the sign that all are there
    }
    for name, table in tables.items():
        results.write(p, name, table)


@app.command()
def audits(task: Task, overlay: Overlay = "") -> None:
    """Put the proposed model to what would refute it: trivial models on its tokens, trainings with one change."""
    from mmmil import study
    from mmmil.evaluation import audits as evaluation_audits

    p = params.load(task, overlay)
    results.write(p, "audits", evaluation_audits.every(study.load(p)))


@app.command()
def keep(
    task: Task,
    variant: Annotated[str, typer.Option(help="a row of the variant table, trained before")],
    overlay: Overlay = "",
    to: Annotated[Path | None, typer.Option(help="folder; results/<run>/kept/<variant> if not given")] = None,
    licence: Annotated[str, typer.Option(help="of the data it was trained on, for the model card")] = "",
) -> None:
    """Gather a trained variant, with all that was fitted for it, in one folder that can be copied and given away."""
    from mmmil import study
    from mmmil.apply import keep as keeping

    print(keeping.keep(study.load(params.load(task, overlay), train=False), variant, to, licence))


@app.command(name="apply")
def apply_model(
    model: Annotated[Path, typer.Option(help="a folder that `keep` made")],
    out: Annotated[Path, typer.Option(help="folder of the predictions and reports")],
    cohort: Annotated[Path | None, typer.Option(help="table of patients: patient_id, slide_path, ...")] = None,
    task: Annotated[str, typer.Option(help="or a file of params/ that describes the cohort")] = "",
    overlay: Overlay = "",
    place: Annotated[list[str] | None, typer.Option(help="setting=path, where a table cannot say it")] = None,
) -> None:
    """Predict new patients with a kept model: predictions.csv, a page per patient, validation where there are labels.

    Ends with status 1 where a patient could not be predicted; the others are.
    """
    from mmmil.apply import cohort as new_cohort
    from mmmil.apply import run

    if (cohort is None) == (not task):
        raise params.ParameterError("give the patients: either --cohort, a table, or --task, a file of params/")
    whom = cohort or params.load(task, overlay)
    table = run.run(model, whom, out, places=new_cohort.places(place or []))
    refused = table[table["problem"] != ""]
    print(f"{len(table) - len(refused)} of {len(table)} patients predicted: {out / run.PREDICTIONS}")
    for row in refused.itertuples():
        print(f"  {row.patient_id}: {row.problem}", file=sys.stderr)
    if len(refused):
        raise typer.Exit(1)


@app.command()
def publish(draft: Annotated[Path, typer.Argument()], page: Annotated[Path, typer.Argument()]) -> None:
    """Move an executed notebook to its page of the book, if it is whole and nothing in it failed."""
    from mmmil.book import pages

    pages.publish(draft, page)


@app.command()
def sections(runs: Annotated[list[str] | None, typer.Argument(help=RUNS)] = None) -> None:
    """Write what the section pages include, from the results that are there: book/generated/."""
    from mmmil.book import sections as book_sections

    book_sections.write(runs or [])


@app.command()
def toc(runs: Annotated[list[str], typer.Argument(help=f"{RUNS}; all their pages must be there")]) -> None:
    """Write _build/toc.yml: _toc.yml without the pages that no run has made."""
    from mmmil.book import pages

    pages.write_toc(runs)


def main() -> None:
    """Run a command; a wrong input or setting ends it with its message, which says what to do, and no traceback."""
    try:
        wall_time.left()  # what is no time is told before any work
        app()
    except wall_time.OutOfTimeError as error:
        print(error, file=sys.stderr)
        sys.exit(wall_time.AGAIN)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
