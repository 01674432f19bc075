"""Figures of the book: each function draws one and returns it; captions and sentences stand in the notebooks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Rectangle
from sklearn import metrics as skm

from mmmil import experiments, tiling

CLASSES = ["#3b6fb6", "#c8553d"]  # class 0, class 1: told apart in grey and by colour-blind readers
NEUTRAL = "#7a7a7a"

sns.set_theme(
    context="notebook",
    style="ticks",
    rc={"figure.dpi": 110, "axes.spines.right": False, "axes.spines.top": False},
)


def _finish(figure):
    figure.tight_layout()
    plt.close(figure)  # the notebook shows the returned figure once
    return figure


# -- cohort ------------------------------------------------------------------------------------------------------
def labels_by_site(patients: pd.DataFrame, class_names: list[str]):
    """Patients per tissue source site and class, the largest twenty sites."""
    counts = patients.groupby(["site", "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False).index[:20]]
    figure, axes = plt.subplots(figsize=(8, 3.2))
    counts.set_axis(class_names, axis=1).plot.bar(stacked=True, color=CLASSES, ax=axes, width=0.8)
    axes.set(xlabel="tissue source site", ylabel="patients")
    axes.legend(title=None, frameon=False)
    return _finish(figure)


def split(patients: pd.DataFrame, folds: pd.Series, class_names: list[str]):
    """Patients per class in each cross-validation fold and the held-out test set."""
    counts = patients.groupby([folds, "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    counts.index = ["test" if fold < 0 else f"fold {fold}" for fold in counts.index]
    figure, axes = plt.subplots(figsize=(7, 3))
    counts.set_axis(class_names, axis=1).plot.bar(color=CLASSES, ax=axes, rot=0, width=0.75)
    axes.set(xlabel="", ylabel="patients")
    axes.legend(title=None, frameon=False)
    return _finish(figure)


# -- tiles -------------------------------------------------------------------------------------------------------
def tissue_filter(slide_path: str, candidates: tiling.Candidates, shown: int = 6):
    """Fig. 2: kept tiles above, rejected ones below, each with its share of tissue."""
    figure, grid = plt.subplots(2, shown, figsize=(1.5 * shown, 3.9), squeeze=False)
    a = candidates.attributes
    for row, (which, title) in enumerate([(candidates.valid, "kept"), (~candidates.valid, "rejected")]):
        index = np.flatnonzero(which)
        index = index[np.linspace(0, len(index) - 1, min(shown, len(index))).astype(int)] if len(index) else index
        tiles = tiling.read_tiles(slide_path, candidates.coords[index], int(a["patch_size"]), int(a["level"]))
        for axes in grid[row]:
            axes.axis("off")
        for axes, tile, i in zip(grid[row], tiles, index, strict=False):
            axes.imshow(tile)
            axes.set_title(f"{title}\n{100 * candidates.tissue[i]:.0f} % tissue", fontsize=9)
    return _finish(figure)


def valid_tiles(tiles: pd.DataFrame, n_tiles: int):
    """Valid tiles per patient, sorted, with the line at the number that every patient must give."""
    counts = np.sort(pd.to_numeric(tiles["valid"], errors="coerce").fillna(0))[::-1]
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.bar(np.arange(len(counts)), counts, width=1.0, color=np.where(counts < n_tiles, CLASSES[1], CLASSES[0]))
    axes.axhline(n_tiles, color="black", lw=1, ls="--")
    axes.annotate(f"{n_tiles} per patient", (len(counts), n_tiles), ha="right", va="bottom", fontsize=10)
    axes.set(xlabel="patients, sorted", ylabel="valid tiles")
    return _finish(figure)


def thumbnail(slide_path: str, longest: int = 700) -> tuple[np.ndarray, float]:
    """A slide's thumbnail (h, w, 3) and the factor from level-0 px to its px."""
    with tiling.open_slide(slide_path) as slide:
        image = slide.get_thumbnail((longest, longest)).convert("RGB")
        return np.asarray(image), image.width / slide.dimensions[0]


def _scale_bar(axes, mpp: float, scale: float, width: int, height: int) -> None:
    length = next(um for um in (5000, 2000, 1000, 500, 200, 100, 50) if um / mpp * scale < width / 3 or um == 50)
    axes.plot([0.04 * width, 0.04 * width + length / mpp * scale], [0.96 * height] * 2, color="black", lw=3)
    axes.text(0.04 * width, 0.93 * height, f"{length} µm", fontsize=9)


def chosen_tiles(slide_paths: list[str], bag_paths: list[str], titles: list[str]):
    """Thumbnails with the chosen tiles outlined, at most four slides."""
    n = min(4, len(slide_paths))
    figure, grid = plt.subplots(1, n, figsize=(3.3 * n, 3.6), squeeze=False)
    for axes, slide, bag, title in zip(grid[0], slide_paths, bag_paths, titles, strict=False):
        image, scale = thumbnail(slide)
        coords, a = tiling.load_coords(bag)
        side = a["patch_size_level0"] * scale
        axes.imshow(image)
        for x, y in coords * scale:
            axes.add_patch(Rectangle((x, y), side, side, fill=False, ec="black", lw=1))
        _scale_bar(axes, a["mpp"] * a["patch_size"] / a["patch_size_level0"], scale, image.shape[1], image.shape[0])
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return _finish(figure)


# -- genes -------------------------------------------------------------------------------------------------------
def volcano_and_ma(deg: pd.DataFrame, symbols: pd.Series, fdr: float = 0.01, named: int = 8):
    """Volcano and MA plots of a differential expression table; genes below the adjusted p are coloured by direction."""
    table = deg.dropna(subset=["padj"])
    colours = np.where(table["padj"] >= fdr, "#c9c9c9", np.where(table["log2FoldChange"] > 0, *CLASSES[::-1]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    height = -np.log10(table["padj"].clip(lower=1e-300))
    left.scatter(table["log2FoldChange"], height, c=colours, s=6, lw=0, rasterized=True)
    left.set(xlabel="log$_2$ fold change", ylabel="-log$_{10}$ adjusted p")
    for gene in table["padj"].nsmallest(named).index:
        left.annotate(symbols[gene], (table.loc[gene, "log2FoldChange"], height[gene]), fontsize=7)
    right.scatter(table["baseMean"], table["log2FoldChange"], c=colours, s=6, lw=0, rasterized=True)
    right.axhline(0, color="black", lw=0.8)
    if (table["baseMean"] > 0).all():
        right.set_xscale("log")
    right.set(xlabel="mean expression", ylabel="log$_2$ fold change")
    return _finish(figure)


def leading_sets(table: pd.DataFrame, n: int = 15):
    """The sets with the smallest p: normalised enrichment score, size and adjusted p."""
    top = table.nsmallest(n, "pval").sort_values("nes")
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(top) + 1.2))
    dots = axes.scatter(
        top["nes"],
        np.arange(len(top)),
        s=2 * top["size"] + 15,
        c=-np.log10(top["fdr"].clip(lower=1e-50)),
        cmap="viridis",
    )
    axes.set_yticks(
        np.arange(len(top)), [name if len(name) < 62 else name[:59] + "…" for name in top.index], fontsize=8
    )
    axes.axvline(0, color="black", lw=0.8)
    axes.set(xlabel="normalised enrichment score (positive: higher in class 1)", ylim=(-0.7, len(top) - 0.3))
    figure.colorbar(dots, label="-log$_{10}$ adjusted p")
    return _finish(figure)


def running_score(ranking: pd.Series, genes: list[str], title: str):
    """Running enrichment score of one set over the ranking (Figs 3-5); ranking: symbol -> statistic, descending."""
    ranking = ranking.sort_values(ascending=False, kind="stable")
    hit = ranking.index.isin(genes)
    weight = np.where(hit, np.abs(ranking.to_numpy()), 0.0)
    score = np.cumsum(weight / weight.sum() - (~hit) / (~hit).sum())
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(6, 3.4), sharex=True, height_ratios=[4, 1], gridspec_kw={"hspace": 0.05}
    )
    top.plot(score, color="#2c7a4b", lw=1.8)
    top.axhline(0, color="black", lw=0.8)
    top.set(ylabel="running score")
    top.set_title(title, fontsize=10)
    bottom.vlines(np.flatnonzero(hit), 0, 1, color="black", lw=0.7)
    bottom.set(xlabel="genes by statistic, class 1 on the left", yticks=[], xlim=(0, len(ranking)))
    plt.close(figure)
    return figure


def losses(histories: dict[str, pd.Series], ylabel: str):
    """Loss over epochs, one line per entry."""
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, history in histories.items():
        axes.plot(np.arange(1, len(history) + 1), history, label=name, lw=1.6)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.legend(frameon=False, fontsize=8)
    return _finish(figure)


def errors_by_set(errors: dict[str, pd.DataFrame]):
    """Fig. 6: reconstruction error of each set against its size, on unseen patients; 1 is predicting the mean."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    for (name, table), colour in zip(errors.items(), sns.color_palette("colorblind"), strict=False):
        share = table["mse_eval"] / table["mse_eval_of_mean"]
        axes.scatter(table["size"], share, s=14, alpha=0.6, color=colour, label=name)
    axes.axhline(1, color="black", lw=0.8, ls=":")
    axes.set(xlabel="genes in the set", ylabel="error / error of the mean", xscale="log")
    axes.legend(frameon=False, fontsize=8)
    return _finish(figure)


def matrix(table: pd.DataFrame, label: str):
    """Square matrix of shares in [0, 1] with its numbers, as the overlap of selected sets between folds."""
    figure, axes = plt.subplots(figsize=(0.65 * len(table) + 2.2, 0.55 * len(table) + 1.2))
    sns.heatmap(
        table,
        vmin=0,
        vmax=1,
        cmap="crest",
        annot=True,
        fmt=".2f",
        annot_kws={"size": 9},
        ax=axes,
        cbar_kws={"label": label},
    )
    return _finish(figure)


# -- models ------------------------------------------------------------------------------------------------------
def apoz(table: pd.DataFrame):
    """APoZ of every channel of the last convolution, kept and pruned."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    bins = np.linspace(0, 1, 41)
    for kept, colour, name in ((False, "#c9c9c9", "pruned"), (True, CLASSES[0], "kept")):
        axes.hist(table.loc[table["kept"] == kept, "apoz"], bins, color=colour, label=name, alpha=0.85)
    axes.set(xlabel="average percentage of zeros, share of activations", ylabel="channels")
    axes.legend(frameon=False)
    return _finish(figure)


def balance(folds: pd.DataFrame, names: list[str]):
    """Sensitivity against specificity of each validation fold: the paper's prediction balance."""
    figure, axes = plt.subplots(figsize=(5.6, 4))
    for name, colour in zip(names, sns.color_palette("colorblind"), strict=False):
        own = folds.loc[(name, "val")]
        axes.scatter(own["specificity"], own["sensitivity"], color=colour, alpha=0.5, s=28)
        axes.scatter(
            own["specificity"].mean(),
            own["sensitivity"].mean(),
            color=colour,
            s=110,
            marker="X",
            label=experiments.variant(name).shown_as,
        )
    axes.plot([0, 1], [0, 1], color="#c9c9c9", lw=1, zorder=0)
    axes.set(xlabel="specificity", ylabel="sensitivity", xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return _finish(figure)


def intervals(summary: pd.DataFrame, names: list[str], metrics: tuple[str, ...] = ("pr_auc", "roc_auc")):
    """Mean and interval of each variant over the validation folds, one panel per metric; baselines in grey."""
    own = summary[summary["split"] == "val"].drop_duplicates(["variant", "metric"]).set_index(["variant", "metric"])
    figure, grid = plt.subplots(
        1, len(metrics), figsize=(4.9 * len(metrics), 0.42 * len(names) + 1.2), sharey=True, squeeze=False
    )
    for axes, metric in zip(grid[0], metrics, strict=True):
        for y, name in enumerate(reversed(names)):
            row = own.loc[(name, metric)]
            colour = NEUTRAL if name in experiments.BASELINES else CLASSES[0]
            axes.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=2)
            axes.plot(row["mean"], y, "o", color=colour, ms=7)
        axes.axvline(0.5 if metric == "roc_auc" else np.nan, color="black", lw=0.8, ls=":")
        axes.set(
            xlabel={"pr_auc": "PR-AUC", "roc_auc": "ROC-AUC"}.get(metric, metric),
            ylim=(-0.6, len(names) - 0.4),
        )
        axes.set_yticks(range(len(names)), [experiments.variant(n).shown_as for n in reversed(names)], fontsize=9)
    return _finish(figure)


def curves(predictions: pd.DataFrame, names: list[str]):
    """Fig. 7: PR and ROC curves, mean over validation folds with a band of one standard deviation."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    grid = np.linspace(0, 1, 101)
    for name, colour in zip(names, sns.color_palette("colorblind"), strict=False):
        own = predictions[(predictions["variant"] == name) & (predictions["split"] == "val")]
        pr, roc = [], []
        for _, fold in own.groupby(["seed", "fold"]):
            precision, recall, _ = skm.precision_recall_curve(fold["label"], fold["prob"])
            pr.append(np.interp(grid, recall[::-1], precision[::-1]))
            fpr, tpr, _ = skm.roc_curve(fold["label"], fold["prob"])
            roc.append(np.interp(grid, fpr, tpr))
        for axes, lines in ((left, pr), (right, roc)):
            mean, sd = np.mean(lines, 0), np.std(lines, 0)
            axes.plot(grid, mean, color=colour, lw=1.8, label=experiments.variant(name).shown_as)
            axes.fill_between(grid, np.clip(mean - sd, 0, 1), np.clip(mean + sd, 0, 1), color=colour, alpha=0.12, lw=0)
    left.set(xlabel="recall", ylabel="precision", ylim=(-0.02, 1.04))
    right.plot([0, 1], [0, 1], color="#c9c9c9", lw=1, zorder=0)
    right.set(xlabel="1 - specificity", ylabel="sensitivity", ylim=(-0.02, 1.04))
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return _finish(figure)


def confusion(predictions: pd.DataFrame, name: str, class_names: list[str], threshold: float = 0.5):
    """Fig. 8: confusion matrix over all validation folds, each development patient once; rows are true classes."""
    own = predictions[(predictions["variant"] == name) & (predictions["split"] == "val")]
    counts = skm.confusion_matrix(own["label"], own["prob"] >= threshold, labels=[0, 1])
    figure, axes = plt.subplots(figsize=(4.2, 3.5))
    sns.heatmap(
        counts / counts.sum(1, keepdims=True),
        annot=counts,
        fmt="d",
        cmap="Blues",
        vmin=0,
        vmax=1,
        ax=axes,
        xticklabels=class_names,
        yticklabels=class_names,
        cbar_kws={"label": "share of the true class"},
    )
    axes.set(xlabel="called", ylabel="true", title=experiments.variant(name).shown_as)
    return _finish(figure)


# -- attention ---------------------------------------------------------------------------------------------------
def attended_sets(table: pd.DataFrame, class_names: list[str], n: int = 15):
    """Gene sets whose attention differs most between the classes: rank-biserial effect, filled where significant."""
    top = table.head(n).iloc[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(top) + 1.3))
    colours = np.where(top["effect"] > 0, CLASSES[1], CLASSES[0])
    axes.hlines(np.arange(len(top)), 0, top["effect"], color=colours, lw=1.5)
    axes.scatter(
        top["effect"],
        np.arange(len(top)),
        s=45,
        edgecolor=colours,
        zorder=3,
        facecolor=np.where(top["significant"], colours, "white"),
    )
    axes.set_yticks(np.arange(len(top)), [s if len(s) < 62 else s[:59] + "…" for s in top.index], fontsize=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set(
        xlim=(-1.05, 1.05),
        xlabel=f"rank-biserial effect ({class_names[0]} ← attended more → {class_names[1]})",
    )
    return _finish(figure)


def attention_on_slide(slide_path: str, bag_path: str, maps: dict[str, np.ndarray], title: str, top: int = 8):
    """Figs 9-11: attention over the chosen tiles of one slide, one panel per source, with its most attended tiles."""
    image, scale = thumbnail(slide_path)
    coords, a = tiling.load_coords(bag_path)
    side = a["patch_size_level0"] * scale
    bag = tiling.load_bags([bag_path])[0]
    figure = plt.figure(figsize=(3.7 * len(maps), 5.4))
    panels = figure.subfigures(1, len(maps), squeeze=False)[0]
    for panel, (name, weights) in zip(panels, maps.items(), strict=True):
        spec = panel.add_gridspec(3, 4, height_ratios=[4.2, 1, 1], hspace=0.12, wspace=0.06)
        axes = panel.add_subplot(spec[0, :])
        axes.imshow(image, alpha=0.75)
        shade = plt.Normalize(weights.min(), weights.max())
        for (x, y), w in zip(coords * scale, weights, strict=True):
            axes.add_patch(Rectangle((x, y), side, side, color=plt.cm.inferno(shade(w)), alpha=0.75, lw=0))
        _scale_bar(axes, a["mpp"] * a["patch_size"] / a["patch_size_level0"], scale, image.shape[1], image.shape[0])
        axes.axis("off")
        axes.set_title(f"{title}\n{name}", fontsize=10)
        panel.colorbar(plt.cm.ScalarMappable(shade, "inferno"), ax=axes, shrink=0.75, label="attention")
        for k, i in enumerate(np.argsort(-weights)[: min(top, 8)]):
            small = panel.add_subplot(spec[1 + k // 4, k % 4])
            small.imshow(bag[i])
            small.axis("off")
    plt.close(figure)
    return figure
