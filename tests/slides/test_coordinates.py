"""Tile coordinates of CLAM and TRIDENT are used in place of our grid, and ours open in their readers."""

import re

import h5py
import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.simulate import slides as synthetic_slides
from mmmil.slides import bags, coordinates, tiling
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def svs(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    synthetic_slides.write_slide(path, synthetic_slides.Slide(("coords", 1), 1024))
    return path


COORDS = np.array([[512, 384], [256, 256], [512, 512]])
TRIDENT = {  # as trident.IO.coords_to_h5 writes them
    "patch_size": 64, "patch_size_level0": 128, "level0_magnification": 20, "target_magnification": 10,
    "overlap": 0, "name": "a", "savetodir": "x", "level0_width": 1024, "level0_height": 1024,
}  # fmt: skip
CLAM = {"patch_size": 64, "patch_level": 1, "downsample": [4.0, 4.0], "name": "a", "save_path": "x"}


def write(path, attributes, coords=COORDS):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("coords", data=coords)
        dataset.attrs.update(attributes)
    return path


@pytest.mark.parametrize("name, attributes, covered", [("a_patches", TRIDENT, 128), ("a", CLAM, 256)])
def test_positions_of_trident_and_clam_replace_the_grid(svs, tmp_path, name, attributes, covered):
    write(tmp_path / f"{name}.h5", attributes)
    found = tiling.find_candidates(svs, 64, coords_file=coordinates.find(tmp_path, "a"))
    assert (found.coords == COORDS).all() and found.valid.all() and (found.tissue > 0.5).all()
    assert found.attributes["patch_size_level0"] == covered and found.attributes["grid"] == "file"
    assert found.attributes["mpp"] == 0.5 * covered / 64
    tile = tiling.read_tiles(svs, COORDS[:1], found.attributes)[0]
    with slide_files.open_slide(svs) as slide:
        pixels = np.asarray(slide_files.read_region(slide, (512, 384), 0, (covered, covered))[0], float)
    mean = pixels.reshape(64, covered // 64, 64, covered // 64, 3).mean((1, 3))
    assert np.abs(tile - mean).mean() < 6


def test_a_cohort_with_their_coordinates(svs, tmp_path):
    write(tmp_path / "a_patches.h5", TRIDENT)
    p = params.load(
        *("lgg", "demo"),
        **{"data_dir": str(tmp_path), "results_dir": str(tmp_path / "r"), "n_tiles": 2, "tile_px": 64},
        **{"mpp_table": "", "coords_dir": "."},
    )
    patients = pd.DataFrame({"slide_id": ["a"], "slide_path": [str(svs)]}, index=["P"])
    table = bags.tile_cohort(patients, p)
    columns = ["candidates", "tested", "valid", "valid_estimate", "used"]
    assert table[columns].to_numpy().tolist() == [[3, 2, 2, 3, 2]]
    first = table["bag"].item()
    write(tmp_path / "a_patches.h5", TRIDENT, COORDS[1:])  # other coordinates are another result
    assert bags.tile_cohort(patients, p)["bag"].item() != first


@pytest.mark.parametrize(
    "attributes, coords, told",
    [
        ({**TRIDENT, "patch_size": 256}, COORDS, "tiles are 256 px, tile_px is 64"),
        ({**TRIDENT, "level0_width": 999}, COORDS, "made for a slide of 999 x 1024 px"),
        (TRIDENT, COORDS * 100, r"the tile at \[51200, 38400\] lies outside the slide"),
        (TRIDENT, COORDS - 300, "lies outside"),
        (TRIDENT, COORDS.astype(float), "not whole numbers"),
        (TRIDENT, COORDS.ravel(), "not whole numbers"),
        ({}, COORDS, "no attribute patch_size"),
        ({**CLAM, "patch_level": 5}, COORDS, "patch_level 5"),
        ({**CLAM, "patch_level": -1}, COORDS, "patch_level -1"),
        ({**TRIDENT, "patch_size": [64, 64]}, COORDS, "its patch_size is .*, not one whole number"),
        ({**TRIDENT, "patch_size_level0": 0}, COORDS, "a side of 0 px"),
        (TRIDENT, COORDS[[0, 1, 0]], "holds tiles twice"),
    ],
)
def test_coordinates_that_do_not_fit(svs, tmp_path, attributes, coords, told):
    path = write(tmp_path / "a.h5", attributes, coords)
    with pytest.raises(SlideError, match=rf"a\.h5: .*{told}"):
        tiling.find_candidates(svs, 64, coords_file=path)


def test_numbers_written_as_lists_of_one_are_read(svs, tmp_path):
    path = write(tmp_path / "a.h5", {**CLAM, "patch_size": [64], "patch_level": [1]})
    assert tiling.find_candidates(svs, 64, coords_file=path).attributes["patch_size_level0"] == 256


def test_a_scale_that_is_asked_for_and_is_not_the_coordinates_is_an_error(svs, tmp_path):
    path = write(tmp_path / "a.h5", TRIDENT)  # 1 µm/px
    assert tiling.find_candidates(svs, 64, mpp=1.0, coords_file=path).attributes["mpp"] == 1.0
    with pytest.raises(SlideError, match=r"its tiles are of 1 µm/px, and tile_mpp 0\.5 is asked for; leave that out"):
        tiling.find_candidates(svs, 64, mpp=0.5, coords_file=path)
    with pytest.raises(SlideError, match=r"of 1 µm/px, and tile_level 1 \(2 µm/px\) is asked for"):
        tiling.find_candidates(svs, 64, level=1, coords_file=path)


def test_coordinates_of_another_slide_or_power_are_told(tmp_path):
    path = write(tmp_path / "a.h5", {**TRIDENT, "name": "b.svs", "level0_magnification": 40})
    assert coordinates.contradictions(path, "a", 0.5) == [
        "a.h5 says that it is of b.svs",
        "a.h5: objective 40 stated, 0.5 µm/px is 20",
    ]
    for attributes in ({**TRIDENT, "name": "A.svs"}, CLAM, {}):
        assert coordinates.contradictions(write(tmp_path / "a.h5", attributes), "a", 0.5) == []


def test_files_that_are_missing_or_no_hdf5(svs, tmp_path):
    with pytest.raises(SlideError, match=r"has no coordinates of slide a \(a_patches\.h5 or a\.h5\)"):
        coordinates.find(tmp_path, "a")
    (tmp_path / "a.h5").write_bytes(b"no")
    with pytest.raises(SlideError, match="no HDF5 file"):
        tiling.find_candidates(svs, 64, coords_file=tmp_path / "a.h5")


def test_ours_open_as_trident_and_torchmil_read_them(svs, tmp_path):
    p = params.load(
        "lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "r"), n_tiles=5, mpp_table="", tile_mpp=1.0
    )
    patients = pd.DataFrame({"slide_id": ["a"], "slide_path": [str(svs)]}, index=["P"])
    bag = bags.tile_cohort(patients, p)["bag"].item()
    coordinates.publish({"a": bag}, tmp_path / "patches")
    with h5py.File(tmp_path / "patches/a_patches.h5") as file:  # trident.IO.read_coords; torchmil reads the same
        attrs, coords = dict(file["coords"].attrs), file["coords"][:]
    assert coords.shape == (5, 2) and np.issubdtype(coords.dtype, np.integer)
    # What TRIDENT computes of its own files holds for ours.
    assert (
        attrs["patch_size_level0"]
        == attrs["patch_size"] * attrs["level0_magnification"] // attrs["target_magnification"]
    )
    # trident.IO.read_coords_legacy, for CLAM's consumers
    assert attrs["patch_level"] == 0 and attrs["custom_downsample"] == 1
    # and the way back: our file in place of our grid gives the same tiles
    again = tiling.find_candidates(svs, p.tile_px, coords_file=tmp_path / "patches/a_patches.h5")
    assert (again.coords == coords).all() and again.attributes["patch_size_level0"] == 2 * p.tile_px
    own = tiling.read_tiles(svs, coords, attrs)
    assert (tiling.read_tiles(svs, again.coords, again.attributes) == own).all()


@pytest.mark.parametrize("name", ["A_patches.h5", "a.svs.h5", "a .h5", "A.svs_patches.H5", "a_patches.hdf5"])
def test_a_file_that_nearly_has_the_slides_name_is_its_own(tmp_path, name):
    write(tmp_path / name, TRIDENT)
    assert coordinates.find(tmp_path, "a").name == name
    assert coordinates.unused_files(tmp_path, [tmp_path / "a.svs"]) == []
    with pytest.raises(SlideError, match=f"'{re.escape(name)}' may mean two slides"):
        coordinates.unused_files(tmp_path, [tmp_path / "a.svs", tmp_path / "A.tiff"])


def test_two_files_of_one_slide_and_files_of_none(tmp_path):
    write(tmp_path / "a_patches.h5", TRIDENT)
    write(tmp_path / "b_patches.h5", TRIDENT)
    assert coordinates.unused_files(tmp_path, [tmp_path / "a.svs", tmp_path / "c.svs"]) == ["b_patches.h5"]
    write(tmp_path / "a.h5", CLAM)
    with pytest.raises(SlideError, match=r"2 files are of slide a, a_patches\.h5 and a\.h5; keep one of them"):
        coordinates.find(tmp_path, "a")
