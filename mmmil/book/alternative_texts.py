"""Each figure says in words what it shows, for readers who do not see it: the sentence before it and what stands at its
axes.
"""

from __future__ import annotations

import re
from typing import Any

FIGURE = "<Figure"  # what a figure is without its picture begins so
LONGEST = 600  # letters


def of_figure(figure: Any) -> str:
    """A matplotlib figure in a line of text: for each of its axes title, labels and legend."""
    parts = []
    for axes in figure.axes:
        title = " ".join(axes.get_title(where) for where in ("left", "center", "right"))
        labels = [axes.get_ylabel(), axes.get_xlabel()] if axes.axison else []
        legend = axes.get_legend()
        names = [text.get_text() for text in legend.get_texts()] if legend else []
        said = [title, " against ".join(label for label in labels if label), ", ".join(names)]
        parts.append(": ".join(words for words in map(_plain, said) if words))
    return f"{FIGURE}: {'; '.join(dict.fromkeys(part for part in parts if part))}>"


def tell(formatter: Any) -> None:
    """From here on this formatter of a kernel (text/plain) writes figures as `of_figure` does."""
    from matplotlib.figure import Figure

    formatter.for_type(Figure, lambda figure, printer, cycle: printer.text(of_figure(figure)))


def put(notebook: dict[str, Any]) -> None:
    """Give every cell of an executed notebook that drew figures its text, which the book puts at each of them.

    A cell that has one of its own (`mystnb: {image: {alt: ...}}` in its metadata) keeps it.
    """
    heading = before = ""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for block in re.split(r"\n\s*\n", source):
                if block.startswith("#"):
                    heading, before = block.splitlines()[0], ""
                elif not block.lstrip().startswith(("|", "```", ":::", "$$", "- ", "<")):
                    before = block
            continue
        drawn = [data for data in (out.get("data", {}) for out in cell.get("outputs", [])) if "image/png" in data]
        if drawn:
            image = cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})
            image.setdefault("alt", _text(heading, before, ["".join(data.get("text/plain", "")) for data in drawn]))


def _text(heading: str, before: str, figures: list[str]) -> str:
    """The heading, the first sentence of the paragraph before the figures, and what stands in them."""
    sentence = re.split(r"(?<=[.!?:])\s+(?=[A-Z*])", _plain(before))[0].rstrip(":")
    words = [figure.removeprefix(f"{FIGURE}: ").rstrip(">") for figure in figures if figure.startswith(f"{FIGURE}: ")]
    shown = "; ".join(dict.fromkeys(words))
    text = ". ".join(part.rstrip(".") for part in (_plain(heading), sentence, shown) if part)
    if len(text) > LONGEST:
        text = text[:LONGEST].rsplit(" ", 1)[0] + " …"
    return f"{text or 'Figure'}."


def _plain(markdown: str) -> str:
    """Words alone: no marks of Markdown or of mathematics, and in one line."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"\{[\w:]+\}`([^`]*)`", r"\1", text)
    text = re.sub(r"^#+\s*", "", text.strip())
    text = re.sub(r"\\(?:mathrm|text|mathbf)\{([^}]*)\}", r"\1", text)
    return " ".join(re.sub(r"[*`$\\{}<>]", "", text).split())
