"""The method in view: source as it stands in the files, and shapes with the names of their axes."""

import inspect
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch

from mmmil.book import listing
from mmmil.models import backbone, fusion
from tests.book_stubs import ROOT


def blocks(text):
    return [block.split("```")[0].rstrip("\n") for block in text.split("```python\n")[1:]]


def test_what_is_shown_is_what_runs_with_its_file_and_line():
    things = [backbone.TileEncoder.forward, fusion.mean_tile, fusion.Encoder.projected]  # with docstrings of a line
    text = listing.source(*things).data
    assert blocks(text) == [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things]
    for thing, block in zip(things, blocks(text), strict=True):
        name = f"mmmil/models/{thing.__module__.rpartition('.')[2]}.py"
        line = int(text.split(f"`{thing.__qualname__}` ({name}, line ")[1].split(")")[0])
        assert (ROOT / name).read_text().splitlines()[line - 1].strip() == block.splitlines()[0]


def test_of_a_long_docstring_nothing_is_left_and_every_line_of_code_is():
    for thing in (fusion.Encoder.forward, fusion.LinearSkip, fusion.MultimodalMIL.encode):
        (block,) = blocks(listing.source(thing).data)
        whole = textwrap.dedent(inspect.getsource(thing))
        assert inspect.getdoc(thing).splitlines()[-1] not in block
        shown = block.splitlines()
        assert [line for line in whole.splitlines() if line in shown] == shown
        assert shown[-1] == whole.rstrip().splitlines()[-1] and len(shown) < len(whole.splitlines())
        compile(block, "shown", "exec")


def test_shapes_are_those_of_the_arrays():
    shown = listing.shapes(("x", np.zeros((9, 4)), "tile, value"), ("v_t", torch.zeros(1), "patient")).data
    (table,) = pd.read_html(shown)
    assert table["shape"].astype(str).tolist() == ["9 × 4", "1"] and table["axes"].tolist() == [
        "tile × value",
        "patient",
    ]
    assert "<i>v<sub>t</sub></i>" in shown
    with pytest.raises(ValueError, match=r"x: 2 axes, and 1 names \(tile\)"):
        listing.shapes(("x", np.zeros((9, 4)), "tile"))
