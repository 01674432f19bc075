"""What was never scanned is white, so that it is no tissue, no pen and no dark ground, wherever pixels are read."""

import shutil

import h5py
import numpy as np
import pytest

from mmmil import params
from mmmil.plots import slides as plots
from mmmil.slides import appearance, quality, tiling, tissue
from mmmil.slides import files as slide_files
from tests.small_slides import generic, unscan
from tests.small_slides import tissue as drawn

pytestmark = pytest.mark.filterwarnings("ignore")
SIDE, PIECE = 10_240, (6500, 2100, 8500, 4100)
PARTS = {  # of the slide that a scanner left: all but the label's side, only what is around the tissue
    "strip": lambda side, left, top: left + side > 4096,
    "around": lambda side, left, top: left + side > 6200 and left < 8800 and top + side > 1800 and top < 4400,
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """The same slide whole, and with parts that were never scanned."""
    folder = tmp_path_factory.mktemp("unscanned")
    whole = generic(folder / "whole.tiff", drawn(SIDE, [PIECE]))
    parts = {name: shutil.copy(whole, folder / f"{name}.tiff") for name in PARTS}
    return {"whole": whole} | {name: unscan(path, PARTS[name]) for name, path in parts.items()}


def candidates(path, tile_px=256, **asked):
    return tiling.find_candidates(path, tile_px, mpp_table={path.name: 0.5}, **asked)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("tile_px, level, mpp, valid", [(256, 0, 0, 49), (256, 0, 1.0, 9), (64, 1, 0, 49)])
def test_case_11_a_slide_with_missing_areas_gives_the_tiles_of_the_whole_one(slides, part, tile_px, level, mpp, valid):
    whole, found = (candidates(slides[name], tile_px, level=level, mpp=mpp) for name in ("whole", part))
    assert (found.coords == whole.coords).all() and (found.valid == whole.valid).all()
    assert found.valid.sum() == valid
    picked = found.coords[found.valid]
    tiles, same = (tiling.read_tiles(slides[name], picked, found.attributes) for name in (part, "whole"))
    assert (tiles == same).all()


def test_case_11_the_small_image_is_the_same_but_for_white(slides):
    with slide_files.open_slide(slides["strip"]) as slide:
        image = tissue.small_image(slide)
    assert image.getpixel((0, 0)) == (255, 255, 255) and tissue.biggest_box(image)[0] > 190


def test_a_tile_that_lacks_most_of_its_pixels_is_never_valid(slides, tmp_path):
    # The scan ends within the tissue, and little tissue is asked for: what decides is then the share that was scanned.
    cut = shutil.copy(slides["whole"], tmp_path / "cut.tiff")
    unscan(cut, lambda side, left, top: left < 7168)
    shares, otherwise_valid = [], 0
    for tile_px in (256, 300, 400):
        found = candidates(cut, tile_px, tissue_percent=5.0)
        with slide_files.open_slide(cut) as slide:
            for corner in found.coords[found.valid]:
                _, scanned = slide_files.read_region(slide, corner, 0, (tile_px, tile_px))
                shares.append((np.asarray(scanned) > 0).mean())
        otherwise_valid += (found.tissue[~found.valid] > 0.05).sum()
    assert 0.5 <= min(shares) < 1 and len(shares) > 30 and otherwise_valid > 5
    with h5py.File(tmp_path / "cut.h5", "w") as file:  # nor where CLAM has chosen it
        file["coords"] = [[6600, 2600], [7100, 2600], [7200, 2600]]
        file["coords"].attrs.update({"patch_size": 256, "patch_level": 0})
    found = candidates(cut, coords_file=tmp_path / "cut.h5")
    assert found.valid.tolist() == [True, False, False]


def test_thumbnails_show_it_white_and_say_where(slides):
    image, scanned = appearance.look(slides["around"], 640)
    assert (image[~scanned] == 255).all() and scanned.mean() == 0.48  # 2 x 3 TIFF tiles of its smallest level
    whole = appearance.thumbnail(slides["whole"], 640)
    assert appearance.tissue_percent(image) == pytest.approx(appearance.tissue_percent(whole), abs=0.2)
    figure, factor = plots.thumbnail(slides["around"], 640)
    assert (figure == image).all() and factor == 1 / 16


def test_its_share_is_told_and_it_is_neither_pen_nor_dark_ground(slides, tmp_path):
    p = params.load("lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "r"), mpp_table="")
    found = {f["check"]: f for f in quality.examine(slides["around"], p)}
    assert found["unscanned"]["value"] == pytest.approx(88, abs=0.5) and found["unscanned"]["flagged"]
    assert not any(found[check]["flagged"] for check in ("brightfield", "pen", "tissue", "H&E"))
    assert found["tissue"]["value"] == pytest.approx(32, abs=4)  # of what was scanned
    assert {f["check"]: f for f in quality.examine(slides["whole"], p)}["unscanned"]["value"] == 0


def test_fluorescence_is_told_where_little_was_scanned():
    image = np.full((100, 100, 3), 255, np.uint8)
    image[:20] = 3
    scanned = np.zeros((100, 100), bool)
    scanned[:20] = True
    assert not appearance.is_brightfield(image, scanned) and appearance.is_brightfield(image)
