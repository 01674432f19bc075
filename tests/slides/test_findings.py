"""A look at a cohort's slides before tiling: what contradicts what, what belongs to nothing, what will stop it."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from mmmil import params
from mmmil.slides import bags, findings, tiling
from mmmil.slides.bags import TilingError
from mmmil.slides.files import SlideError
from tests import small_slides
from tests.slides.test_coordinates import TRIDENT, write

pytestmark = pytest.mark.filterwarnings("ignore")
MAGNIFICATIONS = {"ok20": (0.5, 20), "ok40": (0.25, 40), "lying40": (0.5, 40), "lying20": (0.25, 20)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed, (name, (mpp, power)) in enumerate(MAGNIFICATIONS.items()):
        image = small_slides.tissue(640, [(60, 60, 580, 580)], seed)
        small_slides.aperio(folder / f"{name}.svs", image, mpp, power)
    return folder


def cohort(folder, names):
    rows = {name: (name, str(folder / f"{name}.svs")) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slide_id", "slide_path"])


@pytest.fixture
def p(tmp_path):
    places = {"data_dir": str(tmp_path), "results_dir": str(tmp_path / "r")}
    return params.load("lgg", "demo", **places, mpp_table="", n_tiles=2, tile_px=128)


def by_check(found):
    return {finding.check: finding for finding in found}


def test_case_12_contradictions_and_mixed_scales_are_findings(folder, p):
    patients = cohort(folder, MAGNIFICATIONS)
    found = by_check(findings.find(patients, p, workers=2))
    assert set(found) == {"scale", "mixed scales"}
    assert found["scale"].text == (
        "2 slides of 4 with statements of scale that contradict each other: lying40.svs: objective 40 stated, "
        "0.5 µm/px is 20; lying20.svs: objective 20 stated, 0.25 µm/px is 40"
    )
    assert found["scale"].place == "lying40; lying20" and "mpp_table" in found["scale"].remedy
    assert "2 slides of 0.25 µm/px, 2 slides of 0.5 µm/px" in found["mixed scales"].text
    assert found["mixed scales"].remedy == "tile_mpp: 0.5 gives all of them one scale"
    same = bags.tile_cohort(patients, p.override(tile_mpp=0.5))
    assert set(same["mpp"]) == {0.5} and set(by_check(findings.find(patients, p.override(tile_mpp=0.5)))) == {"scale"}
    for path in patients["slide_path"]:
        attributes = tiling.find_candidates(path, 128, mpp=0.5).attributes
        assert attributes["target_magnification"] == 20


def test_one_slide_of_another_scale_is_named(folder, p):
    (found,) = findings.find(cohort(folder, ["ok20", "ok40"]), p)
    assert found.check == "mixed scales"
    assert findings.find(cohort(folder, ["ok20"]), p) == []
    assert findings.find(cohort(folder, ["ok20", "ok40"]), p.override(inputs="genes")) == []


def test_slides_that_cannot_be_used_are_all_told_as_the_road_tells_them(folder, p, tmp_path):
    whole = (folder / "ok20.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("no slide")
    small_slides.aperio(tmp_path / "silent.svs", small_slides.tissue(512, []), None, None)
    names = ["cut", "empty", "text", "silent", "gone"]
    found = findings.find(cohort(tmp_path, names), p)
    assert [f.check for f in found] == [findings.ERROR] * 5 and [f.place for f in found] == names
    with pytest.raises(TilingError) as raised:
        bags.tile_cohort(cohort(tmp_path, names), p)
    assert all(f.text in str(raised.value) for f in found)
    counts = findings.counts(findings.look(cohort(tmp_path, names), p))
    assert (counts["slides"], counts["of them cannot be used"]) == (5, 5)


def test_rows_of_the_table_that_match_nothing_and_that_contradict(folder, p, tmp_path):
    rows = ["OK20,0.25", "lying40.svs,0.25", *[f"stranger{i}.svs,0.5" for i in range(5)]]
    (tmp_path / "mpp.csv").write_text("\n".join(["wsi,mpp", *rows]))
    p = p.override(mpp_table="mpp.csv")
    found = by_check(findings.find(cohort(folder, ["ok20", "lying40"]), p))
    assert set(found) == {"mpp_table", "scale"}
    told = (
        "5 rows of mpp_table that match no slide of the cohort: stranger0.svs; stranger1.svs; stranger2.svs, and 2 more"
    )
    assert found["mpp_table"].text == told and found["mpp_table"].file == "mpp.csv"
    assert "mpp_table has 0.25 µm/px, the file 0.5" in found["scale"].text
    (tmp_path / "mpp.csv").write_text("wsi,mpp\na.svs,fast\n")
    (found,) = findings.find(cohort(folder, ["ok20"]), p)
    assert found.check == findings.ERROR and "mpp.csv, line 2" in found.text


def test_coordinates_without_slides_slides_without_coordinates_and_of_another_slide(folder, p, tmp_path):
    about = TRIDENT | {"level0_width": 640, "level0_height": 640, "patch_size": 128}
    coords = np.array([[100, 100]])
    write(tmp_path / "ok20_patches.h5", about, coords)
    write(tmp_path / "nobody_patches.h5", about, coords)
    write(tmp_path / "lying40_patches.h5", about | {"level0_width": 999}, coords)
    write(tmp_path / "lying20_patches.h5", about | {"patch_size": 256}, coords)
    found = findings.find(cohort(folder, list(MAGNIFICATIONS)), p.override(coords_dir="."))
    errors = {finding.place: finding.text for finding in found if finding.check == findings.ERROR}
    assert set(errors) == {"ok40", "lying40", "lying20"}
    assert "has no coordinates of slide ok40" in errors["ok40"]
    assert "made for a slide of 999 x 640 px" in errors["lying40"] and "tiles are 256 px" in errors["lying20"]
    assert (
        by_check(found)["coords_dir"].text
        == "1 file of coords_dir that match no slide of the cohort: nobody_patches.h5"
    )


def test_frozen_sections_among_diagnostic_slides(folder, p, tmp_path):
    names = ["TCGA-05-4244-01Z-00-DX1.AA", "tcga-05-4245-01a-01-ts1.bb", "hospital"]
    for name in names:
        (tmp_path / f"{name}.svs").symlink_to(folder / "ok20.svs")
    (found,) = findings.find(cohort(tmp_path, names), p)
    assert found.check == "frozen section" and found.text == (
        "1 slide of 3 frozen sections, by name: tcga-05-4245-01a-01-ts1.bb.svs"
    )


def test_counts_of_a_cohort(folder, p):
    counts = findings.counts(findings.look(cohort(folder, ["ok20", "ok40", "lying40"]), p))
    assert counts.to_dict() == {
        "slides": 3, "of them cannot be used": 0, "formats": "aperio: 3",
        "objective by µm per px at level 0": "20x: 2, 40x: 1", "µm per px at level 0": "0.25 to 0.5",
        "µm per px of the tiles": "0.25 to 0.5", "longer side, px": "640",
    }  # fmt: skip


# -- real slides -------------------------------------------------------------------------------------------------
USED = {  # candidates, valid tiles of 256 px at level 0, µm per px, power
    "CMU-1-Small-Region.svs": (77, 15, 0.499, 20),
    "hamamatsu_DAPI_fluorescence.ndpi": (270, 257, 0.22818, 40),
    "openslide_small.svs": (0, 0, 0.499, 20),
}
REFUSED = {
    "histolab_broken.svs": "no whole-slide image, or damaged",
    "kidney-48-5.tif": "a plain TIFF image, not a whole-slide image",
    "openslide_boxes.tiff": "states no plausible µm per pixel",
    "openslide_unreadable.svs": "reading its pixels failed",
}


@pytest.mark.real
def test_every_real_slide_is_used_or_refused_as_expected(real_data, p):
    paths = sorted((real_data / "slides").iterdir())
    assert {path.name for path in paths} == USED.keys() | REFUSED.keys()
    headers = findings.look(pd.DataFrame({"slide_path": map(str, paths)}, index=[path.name for path in paths]), p)
    for row in headers.itertuples():
        if row.patient_id in USED:
            candidates, valid, mpp, power = USED[row.patient_id]
            found = tiling.find_candidates(row.slide_path, 256)
            assert (len(found.coords), found.valid.sum()) == (candidates, valid)
            assert found.attributes["mpp"] == pytest.approx(mpp, rel=1e-4) and row.mpp == pytest.approx(mpp, rel=1e-4)
            assert found.attributes["level0_magnification"] == row.power == power
            assert row.error == "" and row.contradictions == []
        else:
            with pytest.raises(SlideError, match=REFUSED[row.patient_id]) as error:
                tiling.find_candidates(row.slide_path, 8)
            if row.patient_id != "openslide_unreadable.svs":  # whose header is whole
                assert row.error == str(error.value)


@pytest.mark.real
def test_images_are_no_slides(real_data, p):
    paths = [*sorted((real_data / "images").iterdir()), *sorted((real_data / "tiles/lc25000_lung").rglob("*.*"))[:3]]
    headers = findings.look(pd.DataFrame({"slide_path": map(str, paths)}, index=[path.name for path in paths]), p)
    kinds = headers["error"].str.extract(r"cannot open it \(.*\): a plain (\w+) image, not a whole-slide image; ")[0]
    assert kinds.value_counts().to_dict() == {"PNG": 16, "JPEG": 3}


def test_the_remedy_of_mixed_scales_can_be_followed_at_a_level_too(tmp_path, p):
    for name, levels in {"half": (1, 2), "quarter": (1, 4)}.items():
        image = small_slides.tissue(640, [(60, 60, 580, 580)], len(name))
        small_slides.aperio(tmp_path / f"{name}.svs", image, 0.25, 40, levels)
    patients = cohort(tmp_path, ["half", "quarter"])
    found = by_check(findings.find(patients, p.override(tile_level=1, tile_px=64)))
    assert found["mixed scales"].remedy == "tile_mpp: 0.5 in place of tile_level gives all of them one scale"
    assert not findings.find(patients, p.override(tile_mpp=0.5, tile_px=64))


def test_a_slide_that_is_one_channel_of_a_picture_is_a_finding(tmp_path, p):
    image = small_slides.tissue(640, [(60, 60, 580, 580)])
    scale = {"tile": (256, 256), "resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "red.svs", np.ascontiguousarray(image[..., 0]), photometric="minisblack", **scale)
    tifffile.imwrite(tmp_path / "rgb.svs", image, photometric="rgb", **scale)
    found = by_check(findings.find(cohort(tmp_path, ["red", "rgb"]), p))
    assert set(found) == {"grey"} and found["grey"].text == "1 slide with one channel, read as grey: red.svs"
