"""The split: held-out test patients and stratified cross-validation folds of the rest, always by patient."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmmil.sources.tables import CohortError


def split(
    labels: pd.Series,
    test_fraction: float = 0.2,
    n_folds: int = 5,
    seed: int = 0,
    groups: pd.Series | None = None,
) -> pd.Series:
    """Stratified split by patient: held-out test patients, and folds of the rest (Experimental Setup).

    labels: index patient_id, values 0 and 1; groups: patient_id -> group, here the site; a group is then never
    divided, and the shares of classes and the size of the test set are as near to what is asked as its groups allow.
    Returns the same index with fold 0..n_folds-1, -1 for the test set; the order of the patients does not matter.
    Raises CohortError where a part would lack a class, and for a patient without a group.
    """
    if labels.index.has_duplicates or not labels.isin([0, 1]).all():
        raise CohortError("a split needs one label, 0 or 1, per patient; slides without labels can only be tiled")
    ordered = labels.sort_index()
    remedy = ""
    if groups is not None:
        remedy = ", or set fold_groups: none"
        groups = groups.reindex(ordered.index)
        if (groups.isna() | (groups == "")).any():
            patient = groups.index[groups.isna() | (groups == "")][0]
            raise CohortError(f"patient {patient}: site: is not known; fill the column site, or set fold_groups: none")
    try:
        dev = _without_test(ordered, test_fraction, seed, groups)
    except ValueError as error:
        raise CohortError(f"{len(labels)} patients cannot be split ({error}); change test_fraction{remedy}") from None
    test = ordered.index.difference(dev)
    sizes = ordered[dev].value_counts()
    if sizes.min() < n_folds or ordered[test].nunique() < 2:
        raise CohortError(
            f"after holding out {len(test)} test patients the classes have {sizes.get(0, 0)} and {sizes.get(1, 0)}: "
            f"too few for {n_folds} folds and a test set with both; lower n_folds, or change test_fraction"
            f"{remedy}"
        )
    folds = pd.Series(-1, index=ordered.index, name="fold")
    folds[dev] = _dealt(ordered[dev], n_folds, seed, None if groups is None else groups[dev])
    return folds.reindex(labels.index)


def again(
    folds: pd.Series, labels: pd.Series, repeat: int, n_folds: int, seed: int, groups: pd.Series | None = None
) -> pd.Series:
    """The development patients of a split dealt anew: folds repeat * n_folds, ...; the test set, -1, stays.

    folds: of `split`, whose other arguments are these; repeat: from 1, for each deals otherwise. Raises CohortError
    where a fold would lack a class.
    """
    dev = folds.index[folds >= 0].sort_values()
    dealt = folds.copy()
    of_dev = None if groups is None else groups[dev]
    dealt[dev] = _dealt(labels[dev], n_folds, (seed + repeat) % 2**32, of_dev) + repeat * n_folds
    return dealt


def _dealt(labels: pd.Series, n_folds: int, seed: int, groups: pd.Series | None) -> np.ndarray:
    """Fold of each development patient, 0..n_folds-1, in the order of the labels, which is that of the names."""
    # Imported here: a split that is found again (`build.folds_of`) does not need scikit-learn's seconds.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    _require_sites(groups, n_folds, f"{n_folds} folds; lower n_folds")
    folds = np.full(len(labels), -1)
    folder = (StratifiedKFold if groups is None else StratifiedGroupKFold)(n_folds, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(folder.split(labels.index.to_numpy(), labels, groups)):
        if labels.iloc[held].nunique() < 2:
            assert groups is not None  # dealt by patient, every fold has both classes
            raise CohortError(
                f"fold {fold} would hold one class only: {groups.nunique()} sites cannot be dealt into {n_folds} "
                "folds of both classes; lower n_folds, change the seed, or set fold_groups: none"
            )
        folds[held] = fold
    return folds


def _without_test(labels: pd.Series, test_fraction: float, seed: int, groups: pd.Series | None) -> np.ndarray:
    """Sorted patients that stay when the test set is held out; with groups, the test set is whole groups."""
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    if groups is None:
        dev, _ = train_test_split(labels.index.to_numpy(), test_size=test_fraction, stratify=labels, random_state=seed)
        return np.sort(dev)
    parts = max(2, round(1 / test_fraction))
    _require_sites(groups, parts, f"a test set of {test_fraction:g} of the patients; raise test_fraction")
    folder = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    dev, _ = next(folder.split(labels, labels, groups))
    return labels.index.to_numpy()[np.sort(dev)]


def _require_sites(groups: pd.Series | None, parts: int, asked: str) -> None:
    """Raise CohortError where fewer sites than parts are to be dealt."""
    if groups is not None and groups.nunique() < parts:
        raise CohortError(f"{groups.nunique()} sites are too few for {asked}, or set fold_groups: none")


def fold_patients(folds: pd.Series, fold: int) -> tuple[list[str], list[str]]:
    """Training and evaluated patients of a fold, in the order of `folds`.

    Fold k trains on the development patients without k and evaluates k; fold -1, the final model, trains on all
    development patients and evaluates the test set. Raises CohortError for a fold that does not exist.
    """
    if not (folds == fold).any():
        raise CohortError(f"there is no fold {fold}; the folds are {sorted(folds.unique().tolist())}")
    train = (folds >= 0) & (folds != fold)
    return folds.index[train].tolist(), folds.index[folds == fold].tolist()
