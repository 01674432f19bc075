"""The mean colour of tiles, of the real ones alone, and found again."""

import h5py
import numpy as np
import pytest

from mmmil import params
from mmmil.slides import colours


@pytest.fixture
def bags(tmp_path):
    """Two bags of four tiles of one colour each, the last of them padding."""
    paths = []
    for name, colour in (("a", (10, 20, 30)), ("b", (200, 100, 0))):
        path = tmp_path / name / "bag.h5"
        path.parent.mkdir()
        tiles = np.full((4, 8, 8, 3), colour, np.uint8)
        tiles[3] = 255
        with h5py.File(path, "w") as file:
            file["imgs"], file["mask"] = tiles, np.array([True, True, True, False])
        paths.append(str(path))
    return paths


def test_padding_has_no_colour_and_the_means_are_found_again(bags, tmp_path):
    p = params.load("lgg", "demo", results_dir=str(tmp_path / "results"))
    first = colours.means(p, bags)
    assert first.tolist() == [[10, 20, 30], [200, 100, 0]]
    for path in bags:
        (tmp_path / path).unlink()
    assert colours.means(p, bags).tolist() == first.tolist()
    with pytest.raises(FileNotFoundError):
        colours.means(p, bags[::-1])
