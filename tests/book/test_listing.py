"""The method in view: source as it stands in the files, and shapes with the names of their axes."""

import inspect
import textwrap

import numpy as np
import pytest
import torch

from mmmil.book import listing
from mmmil.models import backbone, fusion
from tests.book_stubs import ROOT


def blocks(text):
    return [block.split("```")[0].rstrip("\n") for block in text.split("```python\n")[1:]]


def test_what_is_shown_is_what_runs_with_its_file_and_line():
    things = [backbone.TileEncoder.forward, fusion.mean_tile, fusion.Square]
    text = listing.source(*things).data
    assert blocks(text) == [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things]
    for thing, block in zip(things, blocks(text), strict=True):
        head = f"`{thing.__qualname__}`, mmmil/models/{thing.__module__.rpartition('.')[2]}.py line "
        line = int(text.split(head)[1].split(":")[0])
        file = ROOT / "mmmil" / "models" / f"{thing.__module__.rpartition('.')[2]}.py"
        assert file.read_text().splitlines()[line - 1].strip() == block.splitlines()[0]


def test_a_method_stands_at_the_margin():
    assert blocks(listing.source(fusion.Encoder.projected).data)[0].startswith("def projected(")


def test_shapes_are_those_of_the_arrays():
    table = listing.shapes({"x": (np.zeros((9, 4)), "tile, value"), "v_t": (torch.zeros(1), "patient")}).data
    assert table.splitlines()[2:] == ["| $x$ | 9 × 4 | tile × value |", "| $v_t$ | 1 | patient |"]
    with pytest.raises(ValueError, match=r"x: 2 axes, and 1 names \(tile\)"):
        listing.shapes({"x": (np.zeros((9, 4)), "tile")})
