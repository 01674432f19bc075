"""Figures: who is in the study."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from mmmil.cohort.flow import reasons
from mmmil.plots.style import CLASSES, NEUTRAL, finish


def labels_by_site(patients: pd.DataFrame, class_names: list[str]) -> plt.Figure:
    """Patients per tissue source site and class, the largest twenty sites."""
    sites = patients["site"].replace("", "not known")
    counts = patients.groupby([sites, "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False).index[:20]]
    figure, axes = plt.subplots(figsize=(8, 3.2))
    counts.set_axis(class_names, axis=1).plot.bar(stacked=True, color=CLASSES, ax=axes, width=0.8)
    axes.set(xlabel="tissue source site", ylabel="patients")
    axes.legend(title=None, frameon=False)
    return finish(figure)


def split(patients: pd.DataFrame, folds: pd.Series, class_names: list[str]) -> plt.Figure:
    """Patients per class in each cross-validation fold and the held-out test set."""
    counts = patients.groupby([folds, "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    counts.index = ["test" if fold < 0 else f"fold {fold}" for fold in counts.index]
    figure, axes = plt.subplots(figsize=(7, 3))
    counts.set_axis(class_names, axis=1).plot.bar(color=CLASSES, ax=axes, rot=0, width=0.75)
    axes.set(xlabel="", ylabel="patients")
    axes.legend(title=None, frameon=False)
    return finish(figure)


# -- the flow diagram --------------------------------------------------------------------------------------------
WIDTH = 8.2  # inches: 900 px in the book
COLUMNS = {"left": (0.1, 1.85), "right": (2.1, 1.85), "both": (0.1, 3.85), "out": (4.3, 3.8)}  # left side, width
LINE, PAD, GAP = 0.165, 0.08, 0.22  # height of a line of text, margin in a box, least distance of two boxes
NUMBERS = 0.5  # width of the numbers in an exclusion box
SIZE = 8.5  # pt
SHOWN = 8  # reasons spelled out in one box; the rest is counted
# What enters a step, what leaves it, and who is left out there.
WORDS = {
    "file": ("files in the sample sheets", "", "files left out"),
    "slide": ("slide files", "patients with a diagnostic slide", "slide files left out"),
    "expression": ("expression files", "patients with a tumour aliquot", "expression files left out"),
    "features": ("files of features", "files of diagnostic slides, or of patients", "files of features left out"),
    "columns": ("columns of the expression matrices", "patients with a tumour aliquot", "columns left out"),
    "label": (
        "patients with a slide or an aliquot",
        "patients of the two classes",
        "patients of neither class left out",
    ),
    "table": ("patients in the own table", "patients, joined with the matrices", ""),
    "incomplete": ("", "patients with all modalities", "patients left out: a modality is missing"),
    "tiles": ("", "patients with enough tiles", "patients left out: too few tiles"),
}


@dataclass
class _Box:
    column: str
    top: float
    lines: list[tuple[str, str, bool]]  # number (in an exclusion box, in a column of its own), text, bold
    color: str = NEUTRAL

    @property
    def bottom(self) -> float:
        return self.top + len(self.lines) * LINE + 2 * PAD

    @property
    def middle(self) -> float:
        return COLUMNS[self.column][0] + COLUMNS[self.column][1] / 2


def flow(
    flow: pd.DataFrame, excluded: pd.DataFrame, patients: pd.DataFrame, folds: pd.Series, class_names: list[str]
) -> plt.Figure:
    """Flow diagram (CONSORT): files, then patients, what was left out at the right, down to the classes and the split.

    flow, excluded, patients: a Cohort's tables; folds: patient -> 0..n-1, -1 for the test set.
    """
    steps = flow.set_index("step")
    boxes: list[_Box] = []
    arrows: list[tuple[float, float, float, float]] = []  # from x, y to x, y

    def add(column: str, top: float, number: int, text: str, **more: Any) -> _Box:
        lines = [("", line, True) for line in _wrapped(_counted(number, text), COLUMNS[column][1] - 2 * PAD)]
        boxes.append(_Box(column, top, lines, **more))
        return boxes[-1]

    def down(above: _Box, below: _Box) -> None:
        x = (above if below.column == "both" else below).middle
        arrows.append((x, above.bottom, x, below.top))

    def leave(box: _Box, step: str, words: str = "", x: float | None = None) -> float:
        """The exclusion box of a step beside the line under `box`; where the next box may begin."""
        if not steps["excluded"].get(step, 0):
            return box.bottom + GAP
        head = ("", _counted(steps["excluded"][step], WORDS[words or step][2]), True)
        boxes.append(_Box("out", box.bottom + GAP / 2, [head, *_told(reasons(excluded, step))]))
        y = (boxes[-1].top + boxes[-1].bottom) / 2
        arrows.append((x or box.middle, y, COLUMNS["out"][0], y))
        return boxes[-1].bottom + GAP / 2

    branches = [step for step in ("table", "slide", "features", "expression") if step in steps.index]
    column = dict(zip(branches, ("left", "right") if len(branches) == 2 else ("both",), strict=False))
    y, source, ends = 0.05, None, []
    if steps["excluded"].get("file", 0):
        source = add("both", y, steps["entered"]["file"], WORDS["file"][0])
        y = leave(source, "file", x=_Box(column[branches[0]], 0, []).middle)
    for step in branches:  # the second one begins below what the first one leaves out, so that no line is crossed
        words = "columns" if steps["unit"][step] == "columns" else step
        start = end = add(column[step], y, steps["entered"][step], WORDS[words][0])
        if source:
            down(source, start)
        if step != "table":
            y = leave(start, step, words)
            end = add(column[step], y, steps["left"][step], WORDS[step][1])
            down(start, end)
        y = y if steps["excluded"][step] else start.top
        ends.append(end)
    if len(ends) == 1:
        last = ends[0]
    else:
        first = "table" if "table" in steps.index else "label"
        y = max((box.bottom + GAP for box in boxes), default=y)
        last = add("both", y, steps["entered"].get(first, len(patients)), WORDS[first][1 if first == "table" else 0])
        for end in ends:
            down(end, last)
    y = last.bottom + GAP
    after = [step for step in ("label", "incomplete", "tiles") if steps["excluded"].get(step, 0)]
    for i, step in enumerate(after, start=1):
        y = leave(last, step)
        if i < len(after):
            above, last = last, add("both", y, steps["left"][step], WORDS[step][1])
            down(above, last)
    used = add("both", y, len(patients), "patients used")
    down(last, used)
    for label, side in ((0, "left"), (1, "right")):
        of_class = folds[patients.index[patients["label"] == label]]
        if len(of_class):
            box = add(side, used.bottom + GAP, len(of_class), class_names[label], color=CLASSES[label])
            parts = {"development": (of_class >= 0).sum(), "held-out test": (of_class < 0).sum()}
            box.lines += [("", f"{number:,} {part}", False) for part, number in parts.items()]
            down(used, box)
    return _drawn(boxes, arrows)


def _counted(number: int, text: str) -> str:
    """'1 slide file' or '1,600 slide files'."""
    text = re.sub("(file|patient|column)s", r"\1", text, count=1) if number == 1 else text
    return f"{number:,} {text}"


def _told(counts: pd.Series) -> list[tuple[str, str, bool]]:
    """Lines of an exclusion box: number and reason, the rarest ones as one."""
    reasons = list(counts.items())
    if len(reasons) > SHOWN + 1:
        rest = reasons[SHOWN:]
        reasons = [*reasons[:SHOWN], (f"and {len(rest)} more reasons", sum(n for _, n in rest))]
    room = COLUMNS["out"][1] - 2 * PAD - NUMBERS
    return [
        (f"{n:,}" if i == 0 else "", line, False)
        for reason, n in reasons
        for i, line in enumerate(_wrapped(reason, room, wider=1.0))
    ]


def _wrapped(text: str, room: float, wider: float = 1.13, most: int = 3) -> list[str]:
    """Text in lines of `room` inches; what does not fit into `most` lines is cut. `wider`: bold against plain type."""

    def fits(line: str) -> bool:
        width, _, _ = text_to_path.get_text_width_height_descent(line, FontProperties(size=SIZE), ismath=False)
        return wider * width <= 72 * room

    lines: list[str] = []
    for word in text.split():
        while not fits(word):
            word = word[: int(0.9 * len(word)) - 1] + "…"
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1].rsplit(" ", 1)[0] + " …"]
    return lines


def _drawn(boxes: list[_Box], arrows: list[tuple[float, float, float, float]]) -> plt.Figure:
    height = max(box.bottom for box in boxes) + 0.05
    figure = plt.figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    for x0, y0, x1, y1 in arrows:
        aside = y0 == y1
        if aside:  # a line that is crossed passes behind
            axes.plot([x0 + 0.1, x1], [y0, y1], color="white", lw=7, zorder=2)
        arrow = {"arrowstyle": "-|>", "color": NEUTRAL, "shrinkA": 0, "shrinkB": 0, "lw": 1}
        axes.annotate("", (x1, y1), (x0, y0), zorder=3 if aside else 1, arrowprops=arrow)
    for box in boxes:
        left, width = COLUMNS[box.column]
        face = "#f4f4f4" if box.column == "out" else "white"
        frame = plt.Rectangle((left, box.top), width, box.bottom - box.top, fc=face, ec=box.color, lw=1.2, zorder=4)
        axes.add_patch(frame)
        for i, (number, text, bold) in enumerate(box.lines):
            y = box.top + PAD + (i + 0.5) * LINE
            style: dict[str, Any] = {"fontsize": SIZE, "va": "center_baseline", "zorder": 5, "parse_math": False}
            if box.column != "out":
                axes.text(box.middle, y, text, ha="center", fontweight="bold" if bold else "normal", **style)
            elif bold:
                axes.text(left + PAD, y, text, ha="left", fontweight="bold", **style)
            else:
                axes.text(left + PAD + NUMBERS - 0.1, y, number, ha="right", **style)
                axes.text(left + PAD + NUMBERS, y, text, ha="left", **style)
    return finish(figure, tight=False)
