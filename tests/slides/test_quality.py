import shutil

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from mmmil import params, plots
from mmmil.simulate.slides import Slide, strips, write_slide
from mmmil.slides import appearance, quality
from mmmil.slides import files as slide_files

PEN = {  # the colours drawn on each image, seen by eye
    "tcga-red-pen": {"red"},
    "high-nuclei-score-red-pen-level1": {"red"},
    "no-tissue-red-pen": {"red", "black"},
    "tcga-green-pen": {"green"},
    "medium-nuclei-score-green-pen-level1": {"green"},
    "wsi-blue-pen": {"blue"},
    "diagnostic-slide-thumb-rgb": {"red", "green", "black"},
}
CLEAN = ["histolab_high-nuclei-score-level0", "histolab_medium-nuclei-score-level0", "histolab_tcga-lung-rgb"]
CLEAN += ["histolab_very-low-nuclei-score-level0", "torchstain_source", "torchstain_target", "TCGA-HT-7470*"]
EMPTY = ["histolab_no-tissue", "histolab_almost-white-2"]


@pytest.fixture
def p(tmp_path):
    return params.load("lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "results"), mpp_table="")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two small slides, which state their scale or do not."""
    paths = {stated: tmp_path_factory.mktemp("small") / f"{stated}.svs" for stated in (True, False)}
    for stated, path in paths.items():
        write_slide(path, Slide(("quality", "small"), 256, states_mpp=stated))
    return paths


def picture(real_data, name):
    (path,) = (real_data / "images").glob(f"{name}.png")
    return np.asarray(Image.open(path).convert("RGB"))


def synthetic(key=0, side=512, **about):
    """Pixels of a synthetic slide, as its thumbnail shows them."""
    return np.concatenate(list(strips(Slide(("quality", key), side, planted_share=0.4, **about))))[:side, :side]


def write_bag(path, tiles, mask=None, mpp=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["imgs"] = tiles
        file["imgs"].attrs["mpp"] = mpp
        if mask is not None:
            file["mask"] = mask
    return path


def by_check(findings):
    return {finding["check"]: finding for finding in findings}


def flagged(findings):
    return {finding["check"] for finding in findings if finding["flagged"]}


# -- pixels ------------------------------------------------------------------------------------------------------
@pytest.mark.real
@pytest.mark.parametrize(("name", "colours"), PEN.items())
def test_ink_is_found_in_its_colour(real_data, name, colours):
    percent = appearance.pen_percent(picture(real_data, f"histolab_{name}"))
    assert {colour for colour, value in percent.items() if value > 1} == colours


@pytest.mark.real
@pytest.mark.parametrize("name", CLEAN + EMPTY)
def test_images_without_ink_have_none_and_are_he(real_data, name):
    image = picture(real_data, name)
    assert sum(appearance.pen_percent(image).values()) < 0.1
    assert appearance.is_brightfield(image)
    share = appearance.tissue_percent(image)
    if name in EMPTY:
        assert share < 2
    else:
        # Tiles without glass: their lightest tissue is taken for the light, so that some of it goes uncounted.
        assert share > 35 and appearance.he_share(image) > 99


@pytest.mark.real
def test_ink_is_no_tissue(real_data):
    image = picture(real_data, "histolab_wsi-blue-pen")
    tissue = appearance.tissue_mask(image)
    assert tissue[60:100, 20:60].mean() > 0.3
    assert tissue[100:, 150:].mean() < 0.02 and tissue[58:72, 152:].mean() < 0.02  # both strokes


@pytest.mark.parametrize("key", range(6))
def test_synthetic_slides_show_ink_only_where_there_is_a_pen(key):
    with_pen, without = (synthetic(key, pen=pen) for pen in (True, False))
    drawn = (with_pen != without).any(2) & (np.abs(with_pen.astype(int) - without).max(2) > 40)
    mean = with_pen[drawn].mean(0)
    colour = "black" if np.ptp(mean) < 20 else "green" if mean.argmax() == 1 else "blue"
    percent = appearance.pen_percent(with_pen)
    assert percent[colour] == pytest.approx(100 * drawn.mean(), abs=0.25) and percent[colour] > 0.7
    assert sum(percent.values()) == percent[colour]
    assert sum(appearance.pen_percent(without).values()) == 0


def test_dark_blue_ink_and_dark_nuclei_are_told_apart():
    image = synthetic(1)
    stroke = image.copy()
    cv2.line(stroke, (60, 20), (400, 60), (42, 42, 110), 9)
    assert appearance.pen_percent(stroke)["blue"] > 1
    nuclei = image.copy()
    for x in range(100, 400, 12):  # 5 px wide each, as a thumbnail of a biopsy shows them
        for y in range(100, 400, 12):
            cv2.circle(nuclei, (x, y), 2, (45, 20, 70), -1)
    assert sum(appearance.pen_percent(nuclei).values()) == 0


def test_tissue_is_counted_on_its_area():
    image = np.full((200, 200, 3), 243, np.uint8)
    image[50:150, 50:150] = (200, 120, 180)
    assert appearance.tissue_percent(image) == pytest.approx(25, abs=0.5)
    assert appearance.tissue_percent(np.full((200, 200, 3), 243, np.uint8)) == 0


def test_another_stain_is_no_he_even_on_tinted_glass():
    from skimage.color import hed2rgb, rgb2hed

    image = synthetic(2)
    assert appearance.he_share(image) > 99
    stains = rgb2hed(image)
    brown = np.stack([0.4 * stains[..., 0], 0 * stains[..., 0], 1.5 * stains[..., 1]], -1)  # haematoxylin and DAB
    assert appearance.he_share((255 * hed2rgb(brown)).astype(np.uint8)) < 50
    yellowish = (image * [1.0, 0.96, 0.88]).astype(np.uint8)
    assert appearance.he_share(yellowish) > 99 and appearance.tissue_percent(yellowish) < 90
    assert np.isnan(appearance.he_share(np.full((100, 100, 3), 240, np.uint8)))


def test_fluorescence_has_a_dark_ground():
    dark = np.zeros((100, 100, 3), np.uint8)
    dark[20:60, 20:60, 1] = 255
    assert not appearance.is_brightfield(dark) and appearance.is_brightfield(255 - dark)


def test_sharpness_falls_with_blur_and_hardly_depends_on_the_resolution():
    fine = synthetic(3, mpp=0.25)[128:384, 128:384]
    blurred = cv2.GaussianBlur(fine, (0, 0), 6)
    assert appearance.sharpness(fine[None], mpp=0.25) > 100 > 10 > appearance.sharpness(blurred[None], mpp=0.25)
    coarse = cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert appearance.sharpness(fine[None], mpp=0.25) == pytest.approx(appearance.sharpness(coarse[None]), rel=0.05)
    assert np.isnan(appearance.sharpness(fine[:0].reshape(0, 8, 8, 3)))


# -- thumbnail ---------------------------------------------------------------------------------------------------
@pytest.mark.real
@pytest.mark.parametrize("longest", [1024, 300])
def test_the_thumbnail_is_openslides(real_data, longest):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    image = appearance.thumbnail(path, longest)
    with slide_files.open_slide(path) as slide:
        theirs = slide.get_thumbnail(image.shape[1::-1]).convert("RGB").resize(image.shape[1::-1])
    assert max(image.shape) == longest
    assert np.abs(image.astype(int) - np.asarray(theirs)).mean() < 3


def test_a_slide_without_a_pyramid_is_read_in_blocks(tmp_path, monkeypatch):
    import openslide

    # One level of 4608 px, each 256 px tile of one grey value, which the thumbnail must show in its place.
    values = np.arange(18 * 18).reshape(18, 18) % 200 + 30
    tiles = (np.full((256, 256, 3), value, np.uint8) for value in values.ravel())
    path = tmp_path / "flat.tiff"
    tifffile.imwrite(path, tiles, shape=(4608, 4608, 3), dtype=np.uint8, tile=(256, 256), compression="deflate")
    largest = []
    read = openslide.OpenSlide.read_region

    def spy(slide, location, level, size):
        largest.append(max(size))
        return read(slide, location, level, size)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", spy)
    image = appearance.thumbnail(path, longest=450)
    assert image.shape == (450, 450, 3) and len(largest) > 4 and max(largest) <= appearance.BLOCK + 16
    assert (image[12::25, 12::25, 0] == values).all()


# -- one slide ---------------------------------------------------------------------------------------------------
@pytest.mark.real
def test_nothing_is_found_on_the_genuine_slide_until_it_is_blurred(real_data, p, tmp_path):
    from mmmil.slides import tiling

    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    found = tiling.find_candidates(path)
    tiles = tiling.read_tiles(path, found.coords[found.valid], found.attributes)
    findings = by_check(quality.examine(path, p, write_bag(tmp_path / "sharp" / "bag.h5", tiles), "15 valid tiles"))
    assert not flagged(findings.values())
    checks = ["brightfield", "tissue", "pen", "H&E", "unscanned", "other pieces", "blur", "frozen section", "scale"]
    assert list(findings) == checks
    assert findings["tissue"]["value"] == pytest.approx(34, abs=4) and findings["tissue"]["note"] == "15 valid tiles"
    assert findings["blur"]["value"] > 1000 and findings["pen"]["value"] < 0.2 and findings["H&E"]["value"] > 98
    blurred = np.stack([cv2.GaussianBlur(tile, (0, 0), 3) for tile in tiles])
    padded = np.concatenate([blurred, tiles])  # sharp padding must not hide it
    bag = write_bag(tmp_path / "blurred" / "bag.h5", padded, np.arange(30) < 15)
    assert flagged(quality.examine(path, p, bag)) == {"blur"}


@pytest.mark.real
def test_the_fluorescence_slide_is_not_brightfield(real_data, p):
    findings = by_check(quality.examine(real_data / "slides" / "hamamatsu_DAPI_fluorescence.ndpi", p))
    assert flagged(findings.values()) == {"brightfield"} and findings["brightfield"]["value"] < 10
    assert "pen" not in findings  # its colours are not judged


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TCGA-05-4244-01A-01-TS1.9b7d.svs", 1, "TS1"),
        ("TCGA-05-4244-01A-01-BS1.9b7d.svs", 1, "BS1"),
        ("TCGA-HT-7470-01Z-00-DX4.204D.svs", 0, "DX4"),
        ("hospital-17.svs", None, "nothing is claimed"),
    ],
)
def test_frozen_sections_are_told_by_their_barcode(p, small, tmp_path, name, value, told):
    shutil.copy(small[True], tmp_path / name)
    finding = by_check(quality.examine(tmp_path / name, p))["frozen section"]
    assert finding["value"] == value and finding["flagged"] == (value == 1) and told in finding["note"]


@pytest.mark.parametrize(
    ("stated", "listed", "is_flagged", "told"),
    [
        (True, None, False, "states 0.5"),
        (True, 0.51, False, "mpp_table 0.51"),
        (True, 0.25, True, "mpp_table 0.25"),
        (False, 0.5, True, "states no µm/px, mpp_table 0.5"),
        (False, None, True, "states no µm/px"),
    ],
)
def test_the_scale_is_compared_with_the_table(p, small, tmp_path, stated, listed, is_flagged, told):
    path = shutil.copy(small[stated], tmp_path / "one.svs")
    if listed:
        (tmp_path / "mpp.csv").write_text(f"wsi,mpp\none.svs,{listed}\n")
        p = p.override(mpp_table="mpp.csv")
    finding = by_check(quality.examine(path, p))["scale"]
    assert finding["flagged"] is is_flagged and told in finding["note"]


def test_a_value_beyond_its_limit_is_reported(p, tmp_path, monkeypatch):
    path = tmp_path / "pen.svs"
    write_slide(path, Slide(("quality", 0), 512, pen=True))
    ink = by_check(quality.examine(path, p))["pen"]
    assert ink["flagged"] and ink["value"] > 0.7 and " %" in ink["note"]
    monkeypatch.setattr(quality, "MAX_PEN_PERCENT", 5.0)
    monkeypatch.setattr(quality, "MIN_TISSUE_PERCENT", 90.0)
    assert flagged(quality.examine(path, p)) == {"tissue"}


# -- a cohort ----------------------------------------------------------------------------------------------------
@pytest.fixture
def cohort(tmp_path):
    for name in ("one", "two"):
        write_slide(tmp_path / f"{name}.svs", Slide(("quality", name), 512))
    (tmp_path / "broken.svs").write_bytes(b"no slide at all")
    rows = {name: (name, tmp_path / f"{name}.svs") for name in ("one", "two", "broken", "gone")}
    patients = pd.DataFrame.from_dict(rows, orient="index", columns=["slide_id", "slide_path"])
    patients.index = pd.Index([f"P-{name}" for name in rows], name="patient_id")
    tile = synthetic("one")[200:328, 200:328]
    blurred = cv2.GaussianBlur(tile, (0, 0), 4)
    bags = {
        "one": write_bag(tmp_path / "a1" / "bag.h5", np.stack([tile] * 3)),
        "two": write_bag(tmp_path / "a2" / "bag.h5", np.stack([blurred] * 3)),
    }
    tiles = pd.DataFrame(
        [
            *(("one", 9, 9, 3, str(bags["one"])), ("two", 9, 4, 3, str(bags["two"]))),
            *(("broken", "", "", "", ""), ("gone", np.nan, np.nan, np.nan, np.nan)),
        ],
        columns=["slide_id", "candidates", "tested", "valid", "bag"],
    )
    return patients, tiles


def test_one_row_per_slide_and_check_and_a_bad_slide_does_not_stop_the_others(cohort, p):
    patients, tiles = cohort
    table = quality.table(patients, tiles, p)
    assert list(table) == quality.COLUMNS and table["flagged"].dtype == bool and table["value"].dtype == float
    assert table.groupby("slide_id", sort=False).size().to_dict() == {"one": 9, "two": 9, "broken": 1, "gone": 1}
    found = table[table["flagged"]].set_index("patient_id")["check"].to_dict()
    assert found == {"P-two": "blur", "P-broken": "unreadable", "P-gone": "unreadable"}
    notes = table.set_index("slide_id").query("check == 'tissue'")["note"]
    assert notes.to_dict() == {"one": "3 valid tiles", "two": "at least 3 valid tiles"}
    notes = table.set_index("slide_id").query("check == 'unreadable'")["note"]
    assert "broken.svs" in notes["broken"] and "not there" in notes["gone"]
    words = plots.in_words(table)
    assert words.to_dict() == {"one": "", "two": "blurred", "broken": "cannot be read", "gone": "cannot be read"}
    figure = plots.contact_sheet(list(patients["slide_path"]), list(words.index), list(words))
    assert [axes.get_title() for axes in figure.axes] == ["two", "broken", "gone", "one"]
    assert [axes.texts[-1].get_text() for axes in figure.axes] == [*words[["two", "broken", "gone"]], "nothing found"]
    pd.testing.assert_frame_equal(table, quality.table(patients, tiles, p))


def test_findings_are_made_again_only_where_something_changed(cohort, p, monkeypatch, code_replaced):
    patients, tiles = cohort
    patients = patients.iloc[:2]
    made = []
    examine = quality.examine
    monkeypatch.setattr(quality, "examine", lambda path, *rest: made.append(path.stem) or examine(path, *rest))
    quality.table(patients, tiles, p)
    quality.table(patients, tiles, p)
    assert made == ["one", "two"]
    other = tiles.copy()
    other.loc[0, "bag"] = tiles.loc[1, "bag"]
    quality.table(patients, other, p)
    assert made[2:] == ["one"]
    quality.table(patients, None, p)  # nothing was tiled: blur is not measured
    assert made[3:] == ["one", "two"]


def test_case_12_slides_of_another_scale_than_most_are_flagged(cohort, p):
    patients, tiles = cohort
    patients = patients.iloc[:2]
    for mpp, flags in {(0.5, 0.499): [], (0.5, 0.25): ["one", "two"]}.items():
        table = quality.table(patients, tiles.iloc[:2].assign(mpp=mpp), p)
        same = table[table["check"] == "same scale"]
        assert same["slide_id"].tolist() == ["one", "two"] and same["value"].tolist() == list(mpp)
        assert same.loc[same["flagged"], "slide_id"].tolist() == flags
        assert same["note"].str.contains("0.25 to 0.5 µm/px; tile_mpp gives all of them one scale").all() == bool(flags)
    assert plots.in_words(table)["one"] == "other scale than most"
