"""The model trained anew where one thing is changed that should not matter, or should leave nothing to find.

- labels: shuffled before anything is fitted, gene sets, autoencoder and model included, a shuffle of its own per fold
  (`leakage.shuffled`): a fair road ends at a ROC-AUC of 0.5.
- folds: dealt so that no site is divided, or where the task's already are so, by patient.
- tiles: another number of tiles, and for slides other ways of choosing them (the paper's open question).
- stain: with stain normalisation, or where the task has it, without.

Each change is a few trainings of one model, on every fold; of a synthetic cohort, which is there to be made in minutes,
those of tiles and stain on two. Of real slides, where a training takes long, the whole list of tiles is for tasks that
ask for page 08 by its name (`notebooks`). All else is the task's. Trainings are found in the
record or made now (`runs.run_all`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmmil import paper, variants
from mmmil.cohort import build as cohorts
from mmmil.evaluation import bootstrap, intervals
from mmmil.evaluation.leakage import shuffled
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.params import Params
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

AS_IT_IS = "as it is"
PAGE = "08_audits"
CHOICES = {"random": "at random", "spread": "spread over the tissue", "tissue": "by most tissue"}
STAIN = "macenko"
COLUMNS = ["audit", "changed", "variant", "roc_auc", "low", "high"]
COLUMNS += ["over_unchanged", "over_low", "over_high", "patients", "note"]


@dataclass(frozen=True)
class Change:
    """One change: the study of each fold, and the models that are trained on it.

    paired: whether folds and labels stay as they are, so that a patient's two predictions can be compared; note: why
    there is nothing to train, or ''.
    """

    audit: str
    changed: str
    variants: tuple[str, ...]
    studies: dict[int, Study]
    paired: bool
    note: str = ""


def models(study: Study) -> tuple[str, str]:
    """The proposed model of a task, and the one whose tiles are changed, '' without slides; a model of which a training
    failed is none, and the next of the proposed ones is in its place.

    Raises ValueError where none stands.
    """
    standing = runs.standing(study, variants.all_proposed(study.p))
    if not standing:
        raise ValueError(f"task '{study.p.task}': of each proposed model a training failed; the status page says why")
    of_tiles = next((name for name in standing if name in paper.PROPOSED["slides"]), "")
    return standing[0], of_tiles


def changes(study: Study) -> Iterator[Change]:
    """The changes of a task, in the order of this module's docstring."""
    name, of_tiles = models(study)
    yield _labels(study, name)
    yield _folds(study, name)
    if of_tiles:
        yield from _tiles(study, of_tiles)
        if study.p.has_pixels:
            yield _stain(study, of_tiles)


def folds(study: Study) -> list[int]:
    """Those of the first cross-validation."""
    return [fold for fold in study.once if fold >= 0]


def some_folds(study: Study) -> list[int]:
    """Those on which tiles and stain are changed."""
    return folds(study)[: 2 if study.p.synthetic else None]


def _labels(study: Study, name: str) -> Change:
    studies = {}
    for fold in folds(study):
        labels = shuffled(study.labels, study.folds, [study.p.seed, 0, fold])
        cohort = replace(study.cohort, patients=study.cohort.patients.assign(label=labels))
        studies[fold] = _alike(study, cohort=cohort)
    return Change("labels", "shuffled", (name,), studies, paired=False)


def _folds(study: Study, name: str) -> Change:
    by_site = study.p.fold_groups == "none"
    changed = "no site divided" if by_site else "by patient, sites divided"
    p = study.p.override(fold_groups="site" if by_site else "none")
    linear = runs.standing(study, [n for n in variants.BASELINES if n in variants.variants(study.p)])
    try:
        dealt = _alike(study, p=p, folds=cohorts.folds_of(study.cohort.patients, p))
    except ValueError as error:  # too few sites, scikit-learn's error or ours: told, for the task's folds need none
        return Change("folds", changed, (name,), {}, paired=False, note=str(error))
    return Change("folds", changed, (name, *linear), dict.fromkeys(folds(study), dealt), paired=False)


def _alike(study: Study, **changed: Any) -> Study:
    """The study with labels or folds changed, which does not read its expression and features again."""
    other = replace(study, **changed)
    if study.p.has_genes:
        other.expression = study.expression
    other._features = study._features
    return other


def grid(p: Params) -> tuple[list[int], list[str]]:
    """Numbers of tiles that are tried, 0 for all of a patient's (features made beforehand alone), and ways of choosing
    them.
    """
    if p.synthetic:
        return [4], []  # few patients, and minutes for all of the demo
    if not p.has_pixels:
        return [8, 16, 32, 64, 0], []
    return ([8, 16, 32, 64, 128], list(CHOICES)) if PAGE in p.notebooks else ([16], ["random", "spread"])


def _tiles(study: Study, name: str) -> Iterator[Change]:
    p = study.p
    unit = "tiles" if p.has_pixels else "features"
    numbers, choices = grid(p)
    if not (p.n_tiles and p.has_pixels and study.has_coords):
        choices = []
    pairs = [(n, p.tile_choice) for n in numbers] + [(p.n_tiles, how) for how in choices]
    for n, how in dict.fromkeys(pairs):
        if (n, how) == (p.n_tiles, p.tile_choice):
            continue
        said = f"{n or 'all'} {unit}" + (f", {CHOICES[how]}" if p.has_pixels else "")
        changed = _with_tiles(study, p.override(n_tiles=n, tile_choice=how))
        yield Change("tiles", said, (name,), dict.fromkeys(some_folds(study), changed), paired=True)


def _with_tiles(study: Study, p: Params) -> Study:
    """The same patients and folds with other tiles; who has fewer than are asked for has all, and padding."""
    tiles = None
    if study.p.has_pixels:
        from mmmil.slides import bags

        p = p.override(few_tiles="pad")
        fewer = p.tile_choice == study.p.tile_choice == "random" and 0 < p.n_tiles < study.p.n_tiles
        tiles = bags.tile_cohort(study.cohort.patients, p, examined_for=study.p if fewer else None)
    return type(study)(p, study.cohort, study.folds, tiles, study.train)


def _stain(study: Study, name: str) -> Change:
    stain = STAIN if study.p.stain == "none" else "none"
    changed = replace(study, p=study.p.override(stain=stain))
    said = f"normalised ({stain})" if stain != "none" else f"not normalised ({study.p.stain} is)"
    return Change("stain", said, (name,), dict.fromkeys(some_folds(study), changed), paired=True)


def predictions(change: Change, name: str) -> pd.DataFrame:
    """Of a change's trainings of one model: every patient that a fold holds out, columns label, prob, fold, index
    patient_id.
    """
    folders = []
    for study in {id(study): study for study in change.studies.values()}.values():  # those of one study at once
        of_study = [runs.Training(name, fold) for fold, other in change.studies.items() if other is study]
        folders += runs.run_all(study, of_study)
    table = runs.gather(map(runs.read, folders))
    return table.set_index("patient_id")[["label", "prob", "fold"]]


def table(study: Study, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """A row per change and model, after one of the model as it is for every audit: columns COLUMNS.

    ROC-AUC is the mean over folds with its interval (`intervals.of_model`). over_unchanged: less that of the model as
    it is, on the same patients and folds, by a paired bootstrap; NaN where folds or labels are others.
    """
    rows = []
    unchanged: dict[str, pd.DataFrame] = {}
    said: set[tuple[str, str]] = set()
    for change in changes(study):
        for name in change.variants:
            if name not in unchanged:
                as_it_is = Change("", AS_IT_IS, (name,), dict.fromkeys(folds(study), study), True)
                unchanged[name] = predictions(as_it_is, name)
            if (change.audit, name) not in said:
                same = unchanged[name]["fold"].isin(list(change.studies)) if change.paired else slice(None)
                rows.append(_row(change.audit, AS_IT_IS, name, unchanged[name][same], None, confidence))
                said.add((change.audit, name))
            if change.note:
                nothing = (np.nan,) * 6
                rows.append((change.audit, change.changed, name, *nothing, 0, change.note))
                continue
            beside = unchanged[name] if change.paired else None
            rows.append(_row(change.audit, change.changed, name, predictions(change, name), beside, confidence))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(
    audit: str, changed: str, name: str, found: pd.DataFrame, beside: pd.DataFrame | None, confidence: float
) -> tuple:
    label, prob, fold = (found[column].to_numpy() for column in ("label", "prob", "fold"))
    auc = intervals.of_model(label, prob, fold, confidence=confidence).loc["roc_auc", ["mean", "low", "high"]]
    over = (np.nan,) * 3
    if beside is not None:
        before = beside.loc[found.index]
        if not (before["fold"].to_numpy() == fold).all():
            raise ValueError(f"{audit}, {changed}: evaluates other patients, so the two cannot be compared")
        over = bootstrap.paired_bootstrap(label, prob, before["prob"].to_numpy(), fold, confidence=confidence)[:3]
    return audit, changed, name, *auc, *over, len(found), ""
