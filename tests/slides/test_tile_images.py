"""Images of tiles in the place of a slide: bags, what is wrong with them, and what a study without places does."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmmil import check, params, study
from mmmil.cohort import inventory
from mmmil.cohort.build import build
from mmmil.interpretation import heatmaps
from mmmil.slides import bags, quality, tile_images
from mmmil.slides.files import SlideError
from mmmil.sources import slide_files
from mmmil.sources.tables import CohortError

PX = 32


@pytest.fixture
def p(tmp_path):
    """Six patients of each class, each with four images; of the last two there are three."""
    random, rows = np.random.default_rng(0), []
    for i in range(12):
        for k in range(4 - (i == 11)):
            pixels = random.integers(0, 256, (PX, PX, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"g{i:02d}_{k}.png")
        rows.append((f"p{i:02d}", i % 2, f"g{i:02d}_?.png"))
    pd.DataFrame(rows, columns=["patient_id", "label", "slide_path"]).to_csv(tmp_path / "own.csv", index=False)
    given = {"task": "images", "class_names": ["a", "b"], "data_dir": str(tmp_path), "cohort_table": "own.csv"}
    given |= {"inputs": "slides", "tile_px": PX, "n_tiles": 3, "n_folds": 2, "results_dir": str(tmp_path / "results")}
    return params.check(given)


def images(p, patient):
    return slide_files.images_of(build(p).patients.loc[patient, "slide_path"])


def test_a_bag_is_a_seeded_choice_of_the_images_in_the_order_of_their_names(p):
    s = study.load(p)
    assert s.bags(0).shape == (12, 3, PX, PX, 3) and s.tile_masks.all() and not s.has_coords
    assert (s.tiles["valid"] == [4] * 11 + [3]).all() and (s.tiles["slide_id"] == s.tiles["patient_id"]).all()
    for i, patient in enumerate(s.patients):
        pixels = [np.asarray(Image.open(path)) for path in images(p, patient)]
        places = [next(k for k, image in enumerate(pixels) if (image == tile).all()) for tile in s.bags(0)[i]]
        assert places == sorted(set(places))
    other = study.load(p.override(seed=1))
    assert not np.array_equal(other.bags(0), s.bags(0)) and study.load(p).bag_keys(0) == s.bag_keys(0)
    study.write(s)
    assert not (p.results / "patches").exists() and (p.results / "tiles.csv").is_file()
    with pytest.raises(heatmaps.HeatmapError, match="images of tiles in the place of slides"):
        heatmaps.place_of(s, "p00")


def test_fewer_images_than_tiles_are_padded_or_leave(p):
    padded = study.load(p.override(n_tiles=4, few_tiles="pad"))
    assert (~padded.tile_masks).sum() == 1 and (padded.bags(0)[~padded.tile_masks] == 255).all()
    assert len(study.load(p.override(n_tiles=4)).patients) == 11


def test_every_image_is_in_the_inventory_and_a_replaced_one_makes_its_bag_anew(p):
    table = inventory.look(build(p), p)
    assert (table["setting"] == "slide_path").sum() == 47
    before = study.load(p).bag_keys(0)
    path = images(p, "p03")[0]
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    after = study.load(p).bag_keys(0)
    assert [i for i in range(12) if before[i] != after[i]] == [3]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda folder: Image.new("RGB", (PX, 20)).save(folder / "g03_1.png"), r"g03_1.png: is 32 x 20 px, and tiles"),
        (lambda folder: (folder / "g03_1.png").write_bytes(b"no image"), r"g03_1.png: is no image that can be read"),
        (
            lambda folder: Image.fromarray(np.full((PX, PX), 40_000, np.uint16)).save(folder / "g03_1.png"),
            r"g03_1.png: has more than 8 bits a channel \(I;16\); save it as RGB of 8 bits",
        ),
    ],
)
def test_an_image_that_is_no_tile_is_named_before_any_work(p, tmp_path, wrong, told):
    wrong(tmp_path)
    with pytest.raises(bags.TilingError, match=told):
        study.load(p)
    assert [told for error in check.look(p).errors if "g03_1.png" in error]


def test_what_is_transparent_is_white_and_grey_is_grey(tmp_path):
    pixels = np.full((PX, PX, 4), 90, np.uint8)
    pixels[..., 3] = 255
    pixels[0, 0] = 0  # as OpenSlide gives what was not scanned
    for mode, colour in (("RGBA", (90, 90, 90)), ("LA", (90, 90, 90)), ("L", (90, 90, 90))):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{mode}.png")
        tile = tile_images.read(tmp_path / f"{mode}.png", PX)
        assert tuple(tile[0, 0]) == ((0, 0, 0) if mode == "L" else (255, 255, 255)) and tuple(tile[1, 1]) == colour


def test_an_image_of_two_patients_is_an_error_but_for_glass(p, tmp_path):
    for patient in "34":
        Image.new("RGB", (PX, PX), "white").save(tmp_path / f"g0{patient}_1.png")
    inventory.look(build(p), p)
    shutil.copy(tmp_path / "g03_2.png", tmp_path / "g04_0.png")
    with pytest.raises(CohortError, match=r"g04_0.png, patient p04: .*the image is .*g03_2.png, patient p03, under"):
        inventory.look(build(p), p)


def test_an_image_that_ends_too_soon_is_named(p, tmp_path):
    path = tmp_path / "g03_1.png"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SlideError, match=r"g03_1.png: cannot be read as an image .*; copy it again"):
        tile_images.read(path, PX)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("none_*.png", r"p03: slide_path: .*none_\*.png matches no file; correct the pattern"),
        ("g0[34]_*.png", r"p04: slide_path: .* names 4 images of patient p03, as g04_0.png; give each its own"),
    ],
)
def test_a_pattern_without_images_or_with_anothers_is_an_error(p, tmp_path, pattern, told):
    table = pd.read_csv(tmp_path / "own.csv")
    table.loc[3, "slide_path"] = pattern
    table.to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(CohortError, match=told):
        build(p)


def test_a_look_counts_them_and_quality_says_that_there_is_no_slide(p):
    seen = check.look(p)
    assert not seen.errors and seen.counts["formats"] == "images of tiles: 12"
    s = study.load(p)
    found = quality.table(s.slides, s.tiles, p)
    assert (found["check"] == "not examined").all() and len(found) == 12 and not found["flagged"].any()
    with h5py.File(s.bag_paths["p00"]) as file:
        assert set(file) == {"imgs", "mask"}


def test_a_slide_whose_name_has_brackets_is_a_slide(tmp_path):
    slide = tmp_path / "slide [1].svs"
    assert slide_files.is_pattern(slide) and slide_files.images_of(slide) == []
    slide.touch()
    assert not slide_files.is_pattern(slide) and slide_files.files_of(slide) == [slide]


@pytest.mark.real
def test_bags_of_lc25000_share_no_original(real_data):
    cohort = build(params.load("real_lc25000"))
    originals = {
        i: {path.name[:4] for path in slide_files.images_of(row.slide_path)} for i, row in cohort.patients.iterrows()
    }
    for kind, number in {"aca": 243, "scc": 248}.items():
        of_kind = [names for patient, names in originals.items() if patient.startswith(kind)]
        assert sum(map(len, of_kind)) == len(set.union(*of_kind)) == number and max(map(len, of_kind)) == 5
