"""The method in view: source as it stands in the files, and shapes with the names of their axes."""

import ast
import inspect
import textwrap

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from mmmil.book import listing
from mmmil.models import backbone, fusion
from tests.book_stubs import ROOT


def blocks(text):
    return [block.split("```")[0].rstrip("\n") for block in text.split("```python\n")[1:]]


def without_long_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body[:] = node.body[node.body[0].end_lineno > node.body[0].lineno :]
    return tree


def test_what_is_shown_is_what_runs_with_its_file_and_line():
    things = [backbone.TileEncoder.forward, fusion.mean_tile, fusion.Encoder.projected]  # with docstrings of a line
    text = listing.source(*things).data
    assert blocks(text) == [textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things]
    for thing, block in zip(things, blocks(text), strict=True):
        name = f"mmmil/models/{thing.__module__.rpartition('.')[2]}.py"
        line = int(text.split(f"`{thing.__qualname__}` ({name}, line ")[1].split(")")[0])
        assert (ROOT / name).read_text().splitlines()[line - 1].strip() == block.splitlines()[0]


def test_of_a_long_docstring_nothing_is_left_and_every_line_of_code_is():
    for thing in (fusion.Encoder.forward, fusion.LinearSkip, fusion.MultimodalMIL.forward):
        (block,) = blocks(listing.source(thing).data)
        whole = textwrap.dedent(inspect.getsource(thing))
        assert inspect.getdoc(thing).splitlines()[-1] not in block
        rest = iter(whole.splitlines())
        assert all(line in rest for line in block.splitlines()), "the lines of the file, in their order"
        assert ast.dump(ast.parse(block)) == ast.dump(without_long_docstrings(ast.parse(whole)))


def test_shapes_are_those_of_the_arrays():
    shown = listing.shapes(("x", np.zeros((9, 4)), "tile, value"), ("v_t", torch.zeros(1), "patient")).data
    rows = [[cell.text for cell in row.find_all("td")] for row in BeautifulSoup(shown, "html.parser").find_all("tr")]
    assert rows[1:] == [["x", "9 × 4", "tile × value"], ["vt", "1", "patient"]]
    assert "<i>v<sub>t</sub></i>" in shown
    with pytest.raises(ValueError, match=r"x: 2 axes, and 1 names \(tile\)"):
        listing.shapes(("x", np.zeros((9, 4)), "tile"))
