"""A figure in words: what stands in it and before it, and nothing of Markdown."""

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import PlainTextFormatter

from mmmil.book import alternative_texts


@pytest.fixture
def figure():
    figure, axes = plt.subplots(1, 2)
    axes[0].plot([0, 1], label="the model")
    axes[0].set(title="Fold $k$", xlabel="epoch", ylabel="loss")
    axes[0].legend()
    axes[1].set_axis_off()
    yield figure
    plt.close(figure)


def cells(*outputs, markdown="## Training *loss*\n\nThe loss of $f$, see [page](x.md). More.", **metadata):
    code = {"cell_type": "code", "source": ["draw()"], "metadata": metadata, "outputs": list(outputs)}
    return {"cells": [{"cell_type": "markdown", "source": [markdown], "metadata": {}}, code]}


def drawn(text):
    return {"output_type": "display_data", "data": {"image/png": "", "text/plain": [text]}}


def text_of(notebook):
    alternative_texts.put(notebook)
    return notebook["cells"][1]["metadata"].get("mystnb", {}).get("image", {}).get("alt")


def test_what_stands_in_a_figure_is_its_plain_text_in_a_kernel(figure):
    formatter = PlainTextFormatter()
    alternative_texts.tell(formatter)
    assert formatter(figure) == "<Figure: Fold k: loss against epoch: the model>"


def test_heading_sentence_and_figures_become_one_text():
    both = [drawn("<Figure: loss against epoch>"), drawn("<Figure: AUC against epoch>")]
    assert text_of(cells(*both)) == "Training loss. The loss of f, see page. loss against epoch; AUC against epoch."
    assert text_of(cells(drawn("<Figure size 640x480 with 1 Axes>"))) == "Training loss. The loss of f, see page."
    assert text_of(cells(drawn(""), markdown="")) == "Figure."


def test_a_list_or_a_table_is_no_sentence():
    assert text_of(cells(drawn(""), markdown="# Curves\n\n- one\n- two\n\n| a |\n|---|")) == "Curves."


def test_a_cell_without_figures_or_with_a_text_of_its_own_is_left():
    assert text_of(cells({"output_type": "stream", "text": "x"})) is None
    assert text_of(cells(drawn(""), mystnb={"image": {"alt": "A cat."}})) == "A cat."


def test_a_long_text_ends_after_a_word():
    text = text_of(cells(drawn("<Figure: " + "word " * 500 + ">")))
    assert len(text) <= alternative_texts.LONGEST + 3 and text.endswith("word ….")
