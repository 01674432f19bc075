"""The queries of the claim ledger: what each finds on a cohort."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import scipy  # its parts are loaded where they are first used

from mmmil import params, schema
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.genes.set_names import is_set
from mmmil.ledger.claims import Claim, Query
from mmmil.ledger.evidence import Answer, Difference, NotTestable, Results, shown_metric


def _setting(query: Query, results: Results) -> Answer:
    p, name = results.p, query.setting
    if name in schema.Tiles.model_fields:
        _require_pixels(p)
    if (name in schema.Genes.model_fields or name in schema.Attention.model_fields) and not p.has_genes:
        raise NotTestable("this cohort has no genes")
    return Answer(getattr(p, name))


def _require_pixels(p: params.Params) -> None:
    if not p.has_slides:
        raise NotTestable("this cohort has no slides")
    if not p.has_pixels:
        raise NotTestable("of this cohort's slides only features are here, no tiles")


def _metric(query: Query, results: Results) -> Answer:
    asked = query.metric
    return Answer(*results.cell(asked.variant, asked.metric, asked.split)[:3])


def _pairs(query: Query, results: Results) -> Answer:
    asked = query.ordering or query.equal
    return Answer(differences=[results.difference(a, b, m, asked.split) for a, b in asked.pairs for m in asked.metrics])


def _overlap(query: Query, results: Results) -> Answer:
    asked, apart = query.overlap, []
    for a, b in asked.pairs:
        for metric in asked.metrics:
            cell_a, cell_b = (results.cell(variant, metric, asked.split) for variant in (a, b))
            if cell_a.low > cell_b.high or cell_b.low > cell_a.high:
                apart.append(f"{a} and {b}, {shown_metric(metric)}")
    n = len(asked.pairs) * len(asked.metrics)
    return Answer(holds=not apart, shown=f"{n - len(apart)} of {n} overlap", note="; ".join(apart))


def _contrast(query: Query, results: Results) -> Answer:
    asked = query.contrast
    (by_fold,) = results.folds(asked.variant)
    contrast = f"{asked.variant}, {shown_metric(asked.higher)} − {shown_metric(asked.lower)}"
    return Answer(differences=[results.over_folds(by_fold[asked.higher], by_fold[asked.lower], contrast)])


def _balance(query: Query, results: Results) -> Answer:
    differences = []
    for better, worse in query.balance.pairs:
        gap_better, gap_worse = ((f["sensitivity"] - f["specificity"]).abs() for f in results.folds(better, worse))
        differences.append(
            results.over_folds(gap_worse, gap_better, f"|sensitivity − specificity|, {worse} − {better}")
        )
    return Answer(differences=differences)


def _spread(query: Query, results: Results) -> Answer:
    """log of the ratio of standard deviations, with the interval of the F-test, which knows nothing of the pairing."""
    asked, differences = query.spread, []
    for narrow, wide in asked.pairs:
        narrow_folds, wide_folds = results.folds(narrow, wide)
        for metric in asked.metrics:
            k, (s, t) = len(narrow_folds), (float(f[metric].std(ddof=1)) for f in (narrow_folds, wide_folds))
            contrast = f"log SD, {wide} − {narrow}, {shown_metric(metric)}"
            if s == 0 or t == 0:
                raise NotTestable(f"{shown_metric(metric)} of {narrow if s == 0 else wide} is the same in every fold")
            half = math.log(scipy.stats.f.ppf((1 + CONFIDENCE) / 2, k - 1, k - 1)) / 2
            ratio = math.log(t / s)
            differences.append(Difference(ratio, ratio - half, ratio + half, contrast))
    return Answer(differences=differences)


def _p_value(query: Query, results: Results) -> Answer:
    asked = query.p_value
    return Answer(results.p_value(asked.a, asked.b, asked.metric, asked.method))


def _significance(query: Query, results: Results) -> Answer:
    asked = query.significance
    ps = [results.p_value(a, b, m, asked.method) for a, b in asked.pairs for m in asked.metrics]
    below = sum(p < asked.alpha for p in ps)
    holds = below == len(ps) if asked.significant else below == 0
    return Answer(holds=holds, shown=f"{below} of {len(ps)} below {asked.alpha:g}; smallest p {min(ps):.3f}")


def _count(query: Query, results: Results) -> Answer:
    asked = query.count
    if asked.what == "patients":
        label = results.table("cohort", ["patient_id", "label"])["label"].astype(str)
        return Answer(int((label == str(asked.label)).sum()))
    if asked.what == "sets":
        genes = results.table("genes", ["library", "fold", "significant"])
        significant = genes.loc[(genes["library"] == asked.library) & (genes["fold"] == -1), "significant"].dropna()
        if significant.empty:
            raise NotTestable(f"no {asked.library.upper()} sets were tested here")
        return Answer(int(significant.iloc[0]), note="in the development patients")
    if asked.what == "tiles":
        _require_pixels(results.p)
        valid = results.table("tiles", ["valid"])["valid"].dropna()
        return Answer(int(valid.min()), note="fewest valid tiles of a slide, those left out included")
    return _genes(results)


def _genes(results: Results) -> Answer:
    from mmmil.sources import expression as expression_files

    if results.p.expression_kind != "star":
        raise NotTestable("its expression is not a STAR file per patient")
    cohort = results.table("cohort", ["patient_id"])
    path = Path(str(cohort["expression_path"].iloc[0])) if "expression_path" in cohort and len(cohort) else Path()
    if not path.is_file():
        raise NotTestable("the first patient's expression file is no longer there")
    return Answer(len(expression_files.read_star(path)), note=f"in {path.name}")


def _attention(query: Query, results: Results) -> Answer:
    asked = query.attention
    results.require(f"dual_{asked.library}", split="test")  # the attention is that of the final model
    if not asked.sets:
        table = results.table("attention", ["library", "source", "n_sets", "n_significant"])
        compared = table[(table["library"] == asked.library) & (table["source"] == asked.source)]
        if compared.empty:
            raise NotTestable(f"no attention over {asked.library.upper()} sets was compared here")
        n, n_sets = int(compared["n_significant"].iloc[0]), int(compared["n_sets"].iloc[0])
        return Answer(n, shown=f"{n} of {n_sets}")
    table = results.table("attention_sets", ["library", "source", "set", "significant"])
    compared = table[(table["library"] == asked.library) & (table["source"] == asked.source)]
    differing, absent = [], []
    for identifier, name in asked.sets.items():
        same = compared[[is_set(chosen, identifier, name) for chosen in compared["set"]]]
        if same.empty:
            absent.append(identifier)
        elif same["significant"].any():
            differing.append(identifier)
    text = f"{len(differing)} of {len(asked.sets)} differ" + (
        f"; not among the chosen: {', '.join(absent)}" if absent else ""
    )
    return Answer(holds=len(differing) == len(asked.sets), shown=text)


ANSWERS: dict[str, Callable[[Query, Results], Answer]] = {
    "setting": _setting,
    "count": _count,
    "metric": _metric,
    "ordering": _pairs,
    "equal": _pairs,
    "overlap": _overlap,
    "contrast": _contrast,
    "balance": _balance,
    "spread": _spread,
    "p_value": _p_value,
    "significance": _significance,
    "attention": _attention,
}


def answer(claim: Claim, results: Results) -> Answer:
    """What the claim's query finds on a cohort. Raises NotTestable with the reason where it finds nothing."""
    answered = ANSWERS[claim.query.name](claim.query, results)
    return replace(answered, tolerance=claim.tolerance, alike=claim.query.name == "equal")
