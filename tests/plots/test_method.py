"""Figures of one patient show the numbers that they are given."""

from math import log

import numpy as np
import pandas as pd
import pytest

from mmmil import plots
from mmmil.models import costs


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ticks(axes, axis):
    return [label.get_text() for label in getattr(axes, f"get_{axis}ticklabels")()]


def test_self_attention_is_the_mean_of_the_heads_times_the_tokens(rng):
    heads = rng.dirichlet(np.ones(4), (2, 4))
    figure = plots.self_attention({"layer 1": heads, "layer 2": heads[::-1]}, ["a", "b", "c" * 40])
    first = figure.axes[0]
    assert np.allclose(first.images[0].get_array(), heads.mean(0) * 4)
    assert ticks(first, "x") == ["class", "1", "2", "3"]
    assert ticks(first, "y") == ["class", "a  1", "b  2", f"{'c' * 29}…  3"]


def test_tokens_that_an_encoder_repeats_keep_their_number(rng):
    figure = plots.self_attention({"layer 1": rng.dirichlet(np.ones(5), (2, 5))}, ["a", "b", "c"])
    assert ticks(figure.axes[0], "x") == ["class", "1", "2", "3", "1"]


def test_of_many_tokens_some_are_numbered(rng):
    figure = plots.self_attention({"layer 1": rng.dirichlet(np.ones(65), (1, 65))}, ["tile"] * 64)
    assert 5 < len(ticks(figure.axes[0], "x")) < 12


def test_cross_attention_has_the_most_attended_sets_on_top(rng):
    sets, tiles = rng.dirichlet(np.ones(5), 3), rng.dirichlet(np.ones(4), 3)
    figure = plots.cross_attention(sets, tiles, list("abcde"), shown=2)
    order = np.argsort(-sets.mean(0))[:2]
    assert np.allclose(figure.axes[0].images[0].get_array(), 5 * sets.T[order])
    assert ticks(figure.axes[0], "y") == [f"{'abcde'[i]}  {i + 1}" for i in order]
    assert np.allclose(figure.axes[1].images[0].get_array(), 4 * tiles.T)


def test_the_vectors_and_what_they_add(rng):
    values = {"image": rng.normal(size=(1, 6)), "genes": rng.normal(size=(1, 6))}
    figure = plots.vectors(values, pd.Series({"image": 1.5, "genes": -0.25}))
    above, below = figure.axes[:2]
    assert np.allclose(above.images[0].get_array(), np.concatenate(list(values.values())))
    assert [bar.get_width() for bar in below.patches] == [1.5, -0.25] and "+1.25" in below.get_xlabel()
    assert below.patches[0].get_facecolor() != below.patches[1].get_facecolor()


def test_every_tile_is_drawn_once_with_its_number():
    tiles = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    drawn = [axes for axes in plots.tile_grid(tiles).axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in drawn] == list(range(7))
    assert [axes.texts[0].get_text() for axes in drawn] == [str(i + 1) for i in range(7)]


def test_tokens_are_drawn_a_row_each(rng):
    image, genes = rng.normal(size=(3, 5)), rng.normal(size=(40, 4))
    figure = plots.tokens(image, genes)
    assert [axes.images[0].get_array().shape for axes in figure.axes[:2]] == [(3, 5), (40, 4)]
    assert len(ticks(figure.axes[1], "y")) <= 11


@pytest.mark.parametrize(("tiles", "said"), [((9, 64, 64, 3), "9 tiles of 64 px"), ((12, 384), "features of 12 tiles")])
def test_the_road_has_the_patients_own_shapes(tiles, said):
    (axes,) = plots.road(tiles, 96, (10, 24), 48, ["II", "III"]).axes
    text = " ".join(text.get_text() for text in axes.texts)
    for part in (said, "10 gene sets", f"{tiles[0]} × 96", "10 × 24", "10 × 48", "192", "probability of III"):
        assert part in text


def test_a_loss_stands_beside_that_of_a_coin():
    coin, line = plots.loss_of_steps([0.7, 0.4, 0.2]).axes[0].lines
    assert coin.get_ydata()[0] == pytest.approx(log(2)) and list(line.get_ydata()) == [0.7, 0.4, 0.2]


def test_backbones_stand_where_they_were_counted():
    table = pd.DataFrame({"parameters": [1500, 20], "macs": [3e9, 4e6], "token": [480, 96]}, ["original", "reduced"])
    figure = plots.backbones(table)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["1.5 k", "3 G", "480"]
    assert np.allclose(figure.axes[1].collections[0].get_offsets()[:, 0], table["macs"])
    assert ticks(figure.axes[0], "y") == [costs.SHOWN_AS["original"], costs.SHOWN_AS["reduced"]]
