"""Figures: differential expression, gene sets, the autoencoder and the null audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from mmmil.plots.style import CLASSES, NEUTRAL, finish

PALE = "#c9c9c9"


def volcano_and_ma(
    deg: pd.DataFrame,
    symbols: pd.Series,
    class_names: Sequence[str],
    unit: str = "counts",
    fdr: float = 0.01,
    named: int = 8,
) -> plt.Figure:
    """Volcano and MA plots of a differential expression table; genes below the adjusted p are coloured by direction.

    symbols: gene_id -> symbol; unit: of the expression ('counts', or what the level is in), for the axes; named: how
    many leading genes of each direction are named beside the volcano. Points far out stand at the edge.
    """
    table = deg.dropna(subset=["padj"])
    table = table.assign(log2FoldChange=_near(table["log2FoldChange"]))
    if (table["baseMean"] <= 0).any():  # no logarithmic axis, on which nothing is far out
        table = table.assign(baseMean=_near(table["baseMean"]))
    directions = (table["padj"] < fdr).to_numpy() * np.sign(table["log2FoldChange"]).astype(int)
    effect = "difference of mean z-scores" if unit == "z-score" else "log$_2$ fold change"
    effect += f", {class_names[1]} over {class_names[0]}"
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    height = -np.log10(table["padj"].clip(lower=1e-300))
    for direction, colour in ((0, PALE), (-1, CLASSES[0]), (1, CLASSES[1])):
        genes = table[directions == direction]
        where = f"adjusted p ≥ {fdr:g}" if direction == 0 else f"higher in {class_names[max(direction, 0)]}"
        style = {"color": colour, "s": 7, "lw": 0, "rasterized": True}
        left.scatter(genes["log2FoldChange"], height[genes.index], label=f"{where}: {len(genes):,} genes", **style)
        right.scatter(genes["baseMean"], genes["log2FoldChange"], **style)
    reach = 1.05 * table["log2FoldChange"].abs().max()
    left.set(xlim=(-1.75 * reach, 1.75 * reach), ylim=(-0.02 * height.max(), 1.06 * height.max()))
    left.set_xlabel(effect, fontsize=10)
    left.set_ylabel("-log$_{10}$ adjusted p", fontsize=10)
    for direction in (-1, 1):
        leading = table[directions == direction].nsmallest(named, "padj").index
        _name_beside(left, table.loc[leading, "log2FoldChange"], height[leading], symbols, direction * 1.15 * reach)
    right.axhline(0, color="black", lw=0.8)
    if (table["baseMean"] > 0).all():
        right.set_xscale("log")
    right.set_xlabel("mean of normalised counts" if unit == "counts" else f"mean {unit}", fontsize=10)
    right.set_ylabel(effect, fontsize=10)
    figure.legend(
        *left.get_legend_handles_labels(), ncol=3, loc="upper center", frameon=False, fontsize=9, markerscale=3
    )
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return finish(figure, tight=False)


def _near(values: pd.Series) -> pd.Series:
    """Values cut at the 0.2 and 99.8 % quantiles and half their distance more, so that one gene squeezes no figure."""
    low, high = values.quantile([0.002, 0.998])
    return values.clip(low - (high - low) / 2, high + (high - low) / 2)


def _name_beside(axes: plt.Axes, x: pd.Series, y: pd.Series, symbols: pd.Series, column: float) -> None:
    """Names of points in a column at x = `column`, in the points' order by height and never over one another."""
    low, high = axes.get_ylim()
    step, order = 0.062 * (high - low), y.sort_values(ascending=False, kind="stable").index
    room = high - 0.03 * (high - low)
    for place, gene in enumerate(order):
        room = max(min(room, y[gene]), low + step * (len(order) - place))
        line = {"arrowstyle": "-", "color": NEUTRAL, "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
        side = "left" if column > 0 else "right"
        axes.annotate(
            symbols[gene], (x[gene], y[gene]), (column, room), fontsize=8, ha=side, va="center", arrowprops=line
        )
        room -= step


def leading_sets(table: pd.DataFrame, class_names: Sequence[str], title: str = "", n: int = 15) -> plt.Figure:
    """Dot plot of the sets with the smallest p: normalised enrichment score, size and adjusted p."""
    top = table.nsmallest(n, "pval").sort_values("nes")
    figure, axes = plt.subplots(figsize=(9.5, 0.3 * len(top) + 1.7))
    dots = axes.scatter(
        top["nes"],
        np.arange(len(top)),
        s=2 * top["size"].clip(upper=200) + 12,
        c=-np.log10(top["fdr"].clip(lower=1e-50)),
        cmap="viridis",
        vmin=0,
    )
    axes.set_yticks(np.arange(len(top)), [_short(name) for name in top.index], fontsize=8)
    axes.axvline(0, color="black", lw=0.8)
    axes.set(ylim=(-0.7, len(top) - 0.3))
    axes.set_xlabel(
        f"normalised enrichment score (left: higher in {class_names[0]}, right: in {class_names[1]})", fontsize=9
    )
    axes.set_title(title, fontsize=10, loc="left")
    figure.colorbar(dots, label="-log$_{10}$ adjusted p", pad=0.02)
    handles, labels = dots.legend_elements("sizes", num=3, func=lambda s: (np.asarray(s) - 12) / 2)
    axes.legend(handles, labels, title="genes", fontsize=8, title_fontsize=8, frameon=False, loc="lower right")
    return finish(figure)


def _short(name: str, length: int = 56) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def running_scores(ranking: pd.Series, sets: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> plt.Figure:
    """Running enrichment scores over the ranking, side by side (Figs 3-5).

    ranking: symbol -> statistic; sets: title -> genes. Ticks below are the set's genes.
    """
    ranking = ranking.sort_values(ascending=False, kind="stable")
    figure, grid = plt.subplots(
        *(2, len(sets)),
        figsize=(5.3 * len(sets), 3.7),
        sharex=True,
        squeeze=False,
        height_ratios=[4, 1],
    )
    for (title, genes), top, bottom in zip(sets.items(), *grid, strict=True):
        hit = ranking.index.isin(genes)
        weight = np.where(hit, np.abs(ranking.to_numpy()), 0.0)
        score = np.cumsum(weight / weight.sum() - (~hit) / (~hit).sum())
        peak = int(np.abs(score).argmax())
        top.plot(score, color=CLASSES[int(score[peak] > 0)], lw=1.8)
        top.plot([peak, peak], [0, score[peak]], color=NEUTRAL, lw=0.8, ls=":")
        top.axhline(0, color="black", lw=0.8)
        top.set(ylabel="running score")
        top.set_title(title, fontsize=9)
        bottom.vlines(np.flatnonzero(hit), 0, 1, color="black", lw=0.7)
        bottom.set(yticks=[], xlim=(0, len(ranking)))
        bottom.set_xlabel(f"genes by statistic: {class_names[1]} left, {class_names[0]} right", fontsize=9)
    return finish(figure)


def losses(histories: dict[str, pd.Series], ylabel: str) -> plt.Figure:
    """Loss over epochs, one line per entry."""
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, history in histories.items():
        axes.plot(np.arange(1, len(history) + 1), history, label=name, lw=1.6)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.legend(frameon=False, fontsize=8)
    return finish(figure)


def reconstruction(histories: Mapping[str, pd.DataFrame]) -> plt.Figure:
    """Masked MSE over epochs, a panel per library; columns mse_train and, where patients are unseen, mse_unseen."""
    figure, grid = plt.subplots(1, len(histories), figsize=(4.6 * len(histories) + 0.6, 3.3), squeeze=False)
    for axes, (name, history) in zip(grid[0], histories.items(), strict=True):
        lines = (("mse_train", "fitted patients", "-", "black"), ("mse_unseen", "unseen patients", "--", CLASSES[1]))
        for column, label, style, colour in lines:
            if column in history:
                axes.plot(np.arange(1, len(history) + 1), history[column], style, color=colour, label=label, lw=1.6)
        axes.set(xlabel="epoch", ylim=(0, None))
        axes.set_title(name.upper(), fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    grid[0, 0].set_ylabel("masked mean squared error", fontsize=10)
    return finish(figure)


def errors_by_set(errors: dict[str, pd.DataFrame]) -> plt.Figure:
    """Fig. 6: reconstruction error of each set against its size, on unseen patients; 1 is predicting the mean."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    for (name, table), colour in zip(errors.items(), sns.color_palette("colorblind"), strict=False):
        share = table["mse_eval"] / table["mse_eval_of_mean"]
        axes.scatter(table["size"], share, s=14, alpha=0.6, color=colour, label=name.upper())
    axes.axhline(1, color="black", lw=0.8, ls=":")
    axes.set(xlabel="genes in the set", ylabel="error / error of the mean", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(figure)


def overlap(table: pd.DataFrame, xlabel: str, ylabel: str) -> plt.Figure:
    """Jaccard index of the genes of two libraries' sets, (sets, sets) in [0, 1], rows from above."""
    figure, axes = plt.subplots(figsize=(0.34 * table.shape[1] + 6.4, 0.27 * table.shape[0] + 3.4))
    rows, columns = ([_short(str(name), 44) for name in names] for names in (table.index, table.columns))
    abbreviated = table.set_axis(rows).set_axis(columns, axis=1)
    bar = {"label": "Jaccard index of the genes", "shrink": 0.8}
    sns.heatmap(abbreviated, vmin=0, vmax=1, cmap="Blues", ax=axes, cbar_kws=bar, linewidths=0.5, linecolor=PALE)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0, fontsize=8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return finish(figure)


def matrices(tables: Mapping[str, pd.DataFrame], label: str) -> plt.Figure:
    """Square matrices of shares in [0, 1] with their numbers, side by side: overlap of what folds have chosen."""
    n = len(next(iter(tables.values())))
    figure, grid = plt.subplots(
        1, len(tables), figsize=((0.52 * n + 0.5) * len(tables) + 1, 0.5 * n + 1.2), squeeze=False, layout="constrained"
    )
    for axes, (title, table) in zip(grid[0], tables.items(), strict=True):
        style = {"annot": True, "fmt": ".2f", "annot_kws": {"size": 8}, "cbar": False, "square": True}
        sns.heatmap(table.rename(_fold).rename(_fold, axis=1), vmin=0, vmax=1, cmap="crest", ax=axes, **style)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="fold", ylabel="fold")
    figure.colorbar(grid[0, -1].collections[0], ax=list(grid[0]), label=label, shrink=0.8)
    return finish(figure, tight=False)


def chosen_by_fold(names: Mapping[str, Mapping[int, Sequence[str]]], n: int = 20) -> plt.Figure:
    """Which folds have chosen the `n` most often chosen sets, a panel per entry; names: title -> fold -> sets."""
    tables = {}
    for title, by_fold in names.items():
        every = list(dict.fromkeys(name for chosen in by_fold.values() for name in chosen))
        tables[title] = pd.DataFrame({_fold(f): [m in set(sets) for m in every] for f, sets in by_fold.items()}, every)
    rows = min(n, max(map(len, tables.values())))
    figure, grid = plt.subplots(1, len(tables), figsize=(6.2 * len(tables), 0.25 * rows + 1.3), squeeze=False)
    for axes, (title, table) in zip(grid[0], tables.items(), strict=True):
        top = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index[:n]]
        style = {"cbar": False, "linewidths": 0.5, "linecolor": PALE}
        sns.heatmap(top, cmap=["white", CLASSES[0]], vmin=0, vmax=1, ax=axes, **style)
        axes.set_yticks(np.arange(len(top)) + 0.5, [_short(name, 44) for name in top.index], rotation=0, fontsize=8)
        axes.set(xlabel="fold", ylabel="", ylim=(rows, 0))
        axes.set_title(f"{title}: {len(top)} of {len(table)} ever chosen", fontsize=10)
    return finish(figure)


def _fold(number: int) -> str:
    return "final" if number < 0 else str(number)


def null_audit(table: pd.DataFrame, summary: pd.DataFrame) -> plt.Figure:
    """ROC-AUC with shuffled labels, nested against all patients: every value, and mean and interval beside them."""
    figure, axes = plt.subplots(figsize=(7.2, 0.62 * len(summary) + 1.3))
    colours = {"nested": CLASSES[0], "all_patients": CLASSES[1]}
    rows = summary.sort_values(["library", "selection"], ascending=[True, True], ignore_index=True)
    for y, row in rows.iterrows():
        aucs = table.query("selection == @row.selection and library == @row.library")["roc_auc"]
        colour = colours[row["selection"]]
        axes.scatter(aucs, y + np.linspace(-0.22, 0.22, len(aucs)), s=22, color=colour, alpha=0.5, lw=0)
        axes.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=2)
        axes.plot(row["mean"], y, "D", color=colour, ms=7, mec="white")
    axes.axvline(0.5, color="black", lw=0.8, ls=":")
    words = {
        "nested": "nested",
        "all_patients": "all patients",
        "genes": "single genes",
        "go": "GO sets",
        "kegg": "KEGG sets",
    }
    labels = [f"{words[r.library]}, {words[r.selection]}: {r.n} values" for r in rows.itertuples()]
    axes.set_yticks(np.arange(len(rows)), labels, fontsize=9)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(rows) - 0.4), xlabel="ROC-AUC, labels shuffled (0.5: nothing found)")
    return finish(figure, scores=True)
