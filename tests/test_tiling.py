import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmmil import params, slides, tiling
from mmmil.slides import SlideError
from mmmil.tiling import TilingError


@pytest.fixture
def p(tmp_path):
    return params.load(
        "lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "results"), n_tiles=4, mpp_table=""
    )


@pytest.mark.real
def test_the_genuine_slide_gives_histolabs_own_fifteen_tiles(real_data, tmp_path):
    from histolab.slide import Slide
    from histolab.tiler import GridTiler

    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    found = tiling.find_candidates(path)
    GridTiler((256, 256), level=0, tissue_percent=90.0).extract(Slide(path, tmp_path))
    saved = {}
    for file in tmp_path.glob("*.png"):
        x, y, *_ = file.stem.split("level0_")[1].split("-")
        saved[int(x), int(y)] = np.asarray(Image.open(file).convert("RGB"))
    ours = [tuple(map(int, c)) for c in found.coords[found.valid]]
    assert len(ours) == 15 and set(ours) == set(saved)
    pixels = tiling.read_tiles(path, np.array(ours), 256)
    assert all((saved[c] == tile).all() for c, tile in zip(ours, pixels, strict=True))
    assert found.attributes["mpp"] == pytest.approx(0.499)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("histolab_broken.svs", "truncated"),
        ("kidney-48-5.tif", "OpenSlide cannot open it"),
        ("openslide_unreadable.svs", "reading its pixels failed"),
        ("nothing_there.svs", "is not there"),
    ],
)
def test_each_bad_slide_is_told_by_name_and_kind(real_data, name, told):
    with pytest.raises(SlideError, match=told) as error:
        tiling.find_candidates(real_data / "slides" / name, mpp_table={name: 0.5})
    assert name in str(error.value)


@pytest.mark.real
def test_one_bad_slide_does_not_stop_the_others_and_is_named_at_the_end(real_data, p, tmp_path):
    slides = real_data / "slides"
    rows = {
        "good": ("CMU", slides / "CMU-1-Small-Region.svs"),
        "bad": ("broken", slides / "histolab_broken.svs"),
        "worse": ("gone", tmp_path / "gone.svs"),
    }
    patients = pd.DataFrame.from_dict(rows, orient="index", columns=["slide_id", "slide_path"])
    with pytest.raises(TilingError) as error:
        tiling.tile_cohort(patients, p)
    assert "2 of 3 slides" in str(error.value) and "bad: " in str(error.value) and "worse: " in str(error.value)
    assert list((p.results / "tiles" / "CMU" / "bags").iterdir())
    again = tiling.tile_cohort(patients.loc[["good"]], p)
    assert again["problem"].tolist() == [""] and tiling.load_bags(list(again["bag"])).shape == (1, 4, 64, 64, 3)


def test_too_few_tiles_are_a_reason_or_an_error(real_data, p, tmp_path):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    patients = pd.DataFrame({"slide_id": ["CMU"], "slide_path": [slide]}, index=["one"])
    many = p.override(tile_px=256, n_tiles=16)
    assert "15 valid tiles, fewer than n_tiles (16)" in tiling.tile_cohort(patients, many)["problem"].item()
    with pytest.raises(TilingError, match="15 valid tiles"):
        tiling.tile_cohort(patients, many.override(few_tiles="error"))


def candidates(n=30):
    coords = np.stack(np.meshgrid(np.arange(6) * 64, np.arange(n // 6) * 64), -1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    order = rng.permutation(n)
    return tiling.Candidates(coords[order], rng.random(n).astype(np.float32), rng.random(n) > 0.2, {"name": "a"})


@pytest.mark.parametrize("how", ["random", "tissue", "spread"])
def test_chosen_tiles_are_valid_distinct_and_in_reading_order(how):
    found = candidates()
    picked = tiling.choose(found, 9, how, seed=1)
    assert found.valid[picked].all() and len(set(picked)) == 9
    rows = [(y, x) for x, y in found.coords[picked]]
    assert rows == sorted(rows)
    assert (picked == tiling.choose(found, 9, how, seed=1)).all()
    if how == "tissue":
        assert set(found.tissue[picked]) == set(np.sort(found.tissue[found.valid])[-9:])


def test_an_mpp_table_is_read_and_its_faults_are_named(tmp_path):
    path = tmp_path / "mpp.csv"
    path.write_text("wsi,mpp\na.svs,0.25\n")
    assert slides.read_mpp_table(path) == {"a.svs": 0.25}
    path.write_text("wsi,mpp\na.svs,0.25\nb.svs,fast\n")
    with pytest.raises(SlideError, match="line 3"):
        slides.read_mpp_table(path)
    path.write_text("slide,mpp\na.svs,0.25\n")
    with pytest.raises(SlideError, match="columns wsi and mpp"):
        slides.read_mpp_table(path)


@pytest.mark.real
def test_files_carry_tridents_names(real_data, p):
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    patients = pd.DataFrame({"slide_id": ["CMU"], "slide_path": [slide]}, index=["one"])
    bag = tiling.tile_cohort(patients, p)["bag"].item()
    with h5py.File(bag) as file:
        assert file["imgs"].chunks == (1, 64, 64, 3) and file["coords"].shape == (4, 2)
        assert {
            "patch_size",
            "patch_size_level0",
            "level0_magnification",
            "target_magnification",
            "overlap",
            "name",
            "level0_width",
            "level0_height",
        } <= set(file["coords"].attrs)


@pytest.mark.real
def test_a_slide_without_mpp_stops_unless_the_table_has_it(real_data, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    slide = real_data / "slides" / "CMU-1-Small-Region.svs"
    copy = tmp_path / "no_mpp.svs"
    shutil.copy(slide, copy)
    with tifffile.TiffFile(copy, mode="r+b") as tiff:
        text = tiff.pages[0].description
        tiff.pages[0].tags["ImageDescription"].overwrite(text.replace("MPP = ", "XPP = "))
    with pytest.raises(SlideError, match="mpp_table"):
        tiling.find_candidates(copy)
    assert tiling.find_candidates(copy, mpp_table={"no_mpp.svs": 0.499}).valid.sum() == 15
