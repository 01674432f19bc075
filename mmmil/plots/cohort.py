"""Figures: who is in the study."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

from mmmil.plots.style import CLASSES, finish


def labels_by_site(patients: pd.DataFrame, class_names: list[str]):
    """Patients per tissue source site and class, the largest twenty sites."""
    counts = patients.groupby(["site", "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False).index[:20]]
    figure, axes = plt.subplots(figsize=(8, 3.2))
    counts.set_axis(class_names, axis=1).plot.bar(stacked=True, color=CLASSES, ax=axes, width=0.8)
    axes.set(xlabel="tissue source site", ylabel="patients")
    axes.legend(title=None, frameon=False)
    return finish(figure)


def split(patients: pd.DataFrame, folds: pd.Series, class_names: list[str]):
    """Patients per class in each cross-validation fold and the held-out test set."""
    counts = patients.groupby([folds, "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    counts.index = ["test" if fold < 0 else f"fold {fold}" for fold in counts.index]
    figure, axes = plt.subplots(figsize=(7, 3))
    counts.set_axis(class_names, axis=1).plot.bar(color=CLASSES, ax=axes, rot=0, width=0.75)
    axes.set(xlabel="", ylabel="patients")
    axes.legend(title=None, frameon=False)
    return finish(figure)
