"""Figures: differential expression, gene sets and the autoencoder."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from mmmil.plots.style import CLASSES, finish


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
    return finish(figure)


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
    return finish(figure)


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
    return finish(figure)


def errors_by_set(errors: dict[str, pd.DataFrame]):
    """Fig. 6: reconstruction error of each set against its size, on unseen patients; 1 is predicting the mean."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    for (name, table), colour in zip(errors.items(), sns.color_palette("colorblind"), strict=False):
        share = table["mse_eval"] / table["mse_eval_of_mean"]
        axes.scatter(table["size"], share, s=14, alpha=0.6, color=colour, label=name)
    axes.axhline(1, color="black", lw=0.8, ls=":")
    axes.set(xlabel="genes in the set", ylabel="error / error of the mean", xscale="log")
    axes.legend(frameon=False, fontsize=8)
    return finish(figure)


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
    return finish(figure)
