"""The queries of the claim ledger: what each finds on a cohort."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used

from mmmil import params
from mmmil.evaluation import power
from mmmil.genes.set_names import is_set
from mmmil.ledger import rules
from mmmil.ledger.claims import Claim
from mmmil.ledger.evidence import Answer, Difference, NotTestable, Results, shown_metric
from mmmil.ledger.rules import NOT, REPRODUCED, UNDECIDED
from mmmil.ledger.standing import moot, no_pixels


def _setting(claim: Claim, results: Results) -> Answer:
    name = claim.query.setting
    if why_not := moot(results.p, name):
        raise NotTestable(why_not)
    return Answer(getattr(results.p, name))


def _require_pixels(p: params.Params) -> None:
    if why_not := no_pixels(p):
        raise NotTestable(why_not)


def _metric(claim: Claim, results: Results) -> Answer:
    asked = claim.query.metric
    return Answer(*results.cell(asked.variant, asked.metric, asked.split)[:3])


def _pairs(claim: Claim, results: Results) -> Answer:
    asked, level = claim.query.ordering or claim.query.equal, rules.confidence(claim)
    pairs = [(a, b, metric) for a, b in asked.pairs for metric in asked.metrics]
    return Answer(differences=[results.difference(*pair, asked.split, level) for pair in pairs])


def _contrast(claim: Claim, results: Results) -> Answer:
    asked = claim.query.contrast
    return Answer(differences=[results.contrast(asked.variant, asked.higher, asked.lower, rules.confidence(claim))])


def _balance(claim: Claim, results: Results) -> Answer:
    differences = []
    for better, worse in claim.query.balance.pairs:
        gap_better, gap_worse = ((f["sensitivity"] - f["specificity"]).abs() for f in results.folds(better, worse))
        contrast = f"|sensitivity − specificity|, {worse} − {better}"
        differences.append(results.over_folds(gap_worse, gap_better, contrast, rules.confidence(claim)))
    return Answer(differences=differences)


def _spread(claim: Claim, results: Results) -> Answer:
    """log of the ratio of standard deviations over the folds of a repeat, mean over the repeats.

    Its interval is that of the F-test for one repeat: it knows nothing of the pairing, and of repeats on the same
    patients it claims nothing more.
    """
    asked, k, differences = claim.query.spread, results.p.n_folds, []
    half = math.log(scipy.stats.f.ppf((1 + rules.confidence(claim)) / 2, k - 1, k - 1)) / 2
    for narrow, wide in asked.pairs:
        deviations = [f.groupby(f.index // k).std(ddof=1) for f in results.folds(narrow, wide)]
        for metric in asked.metrics:
            contrast = f"log SD, {wide} − {narrow}, {shown_metric(metric)}"
            s, t = (deviation[metric] for deviation in deviations)
            if not s.all() or not t.all():
                same = narrow if not s.all() else wide
                raise NotTestable(f"{shown_metric(metric)} of {same} is the same in every fold")
            ratio = float(np.log(t / s).mean())
            differences.append(Difference(ratio, ratio - half, ratio + half, contrast))
    return Answer(differences=differences)


def _count(claim: Claim, results: Results) -> Answer:
    asked = claim.query.count
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
        return _tiles(results)
    return _genes(results)


def _tiles(results: Results) -> Answer:
    tiles = results.table("tiles", ["candidates", "tested", "valid"]).dropna(subset=["valid"])
    fewest = tiles["valid"].min()
    if not (tiles["tested"] == tiles["candidates"])[tiles["valid"] == fewest].any():
        raise NotTestable(
            f"every slide has at least {fewest:.0f} valid tiles, and positions were tested no further: n_tiles 0, or "
            "another tile_choice than random, tests all"
        )
    return Answer(int(fewest), note="fewest valid tiles of a slide, those left out included")


def _genes(results: Results) -> Answer:
    from mmmil.sources import expression as expression_files

    if results.p.expression_kind != "star":
        raise NotTestable("its expression is not a STAR file per patient")
    cohort = results.table("cohort", ["patient_id"])
    path = Path(str(cohort["expression_path"].iloc[0])) if "expression_path" in cohort and len(cohort) else Path()
    if not path.is_file():
        raise NotTestable("the first patient's expression file is no longer there")
    return Answer(len(expression_files.read_star(path)), note=f"in {path.name}")


def _attention(claim: Claim, results: Results) -> Answer:
    """Whether attention differs between the classes, by the tests of the record and by the size of the effect.

    A set that is significant does; one whose rank-biserial effect lies within the claim's margin, interval and all,
    does not. Anything else leaves it open, a set that is not among the chosen too.
    """
    asked = claim.query.attention
    results.require(f"dual_{asked.library}", split="test")  # the attention is that of the final model
    table = results.table("attention_sets", ["library", "source", "set", "significant", "effect"])
    compared = table[(table["library"] == asked.library) & (table["source"] == asked.source)]
    if compared.empty:
        raise NotTestable(f"no attention over {asked.library.upper()} sets was compared here")
    differs, alike = compared["significant"].astype(bool), _alike(compared["effect"], claim, results)
    if not asked.sets:
        of_any = REPRODUCED if differs.any() else NOT if alike.all() else UNDECIDED
        return Answer(parts=[of_any], shown=f"{int(differs.sum())} of {len(compared)}")
    parts, absent = [], []
    for identifier, name in asked.sets.items():
        same = np.array([is_set(chosen, identifier, name) for chosen in compared["set"]])
        if not same.any():
            absent.append(identifier)
        parts.append(REPRODUCED if differs[same].any() else NOT if same.any() and alike[same].all() else UNDECIDED)
    text = f"{parts.count(REPRODUCED)} of {len(parts)} differ, {parts.count(NOT)} do not"
    return Answer(parts=parts, shown=text + (f"; not among the chosen: {', '.join(absent)}" if absent else ""))


def _alike(effect: pd.Series, claim: Claim, results: Results) -> pd.Series:
    """Of each effect whether its interval, by the patients whom the final model was tested on, is within the margin."""
    negatives, positives = results.test_patients()
    auc = (1 + effect.abs()) / 2
    half = scipy.stats.norm.ppf((1 + rules.confidence(claim)) / 2)
    return effect.abs() + 2 * half * np.sqrt(power.hanley_mcneil(auc, positives, negatives)) < claim.tolerance


ANSWERS: dict[str, Callable[[Claim, Results], Answer]] = {
    "setting": _setting,
    "count": _count,
    "metric": _metric,
    "ordering": _pairs,
    "equal": _pairs,
    "contrast": _contrast,
    "balance": _balance,
    "spread": _spread,
    "attention": _attention,
}


def answer(claim: Claim, results: Results) -> Answer:
    """What the claim's query finds on a cohort. Raises NotTestable with the reason where it finds nothing."""
    return ANSWERS[claim.query.name](claim, results)
