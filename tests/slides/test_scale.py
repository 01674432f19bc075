"""Scale is stated or asked for; powers follow from it; a table's rows find their slides, however they are written."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil import params
from mmmil.simulate import slides as synthetic_slides
from mmmil.slides import bags, names, quality, scale, tiling
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError
from tests import small_slides

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def svs(tmp_path_factory):
    """A synthetic slide of two levels, 0.5 µm per px, 20x."""
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    synthetic_slides.write_slide(path, synthetic_slides.Slide(("slides", 1), 1024))
    return path


# -- scale -------------------------------------------------------------------------------------------------------
def without_mpp(tmp_path):
    path = tmp_path / "silent.svs"
    synthetic_slides.write_slide(path, synthetic_slides.Slide(("slides", 2), 512, states_mpp=False))
    return path


def test_a_slide_without_mpp_stops_unless_the_table_has_it(tmp_path):
    path = without_mpp(tmp_path)
    with slide_files.open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"silent\.svs: the file is whole but states no plausible µm.*mpp_table"):
            scale.geometry(slide, path, 256)
        for table in ({"silent.svs": 0.25}, {"silent": 0.25}):
            assert scale.geometry(slide, path, 256, mpp_table=table).mpp == 0.25


def test_the_table_overrides_what_the_file_states(svs):
    with slide_files.open_slide(svs) as slide:
        assert scale.microns_per_pixel(slide, svs, {}) == 0.5
        assert scale.microns_per_pixel(slide, svs, {"a.svs": 0.25}) == 0.25


@pytest.mark.parametrize(
    "text, told",
    [
        ("wsi,mpp\na.svs,0.25\nb.svs,fast\n", "line 3"),
        ("wsi,mpp\na.svs,0.25\na.svs,0.5\n", "line 3"),
        ("wsi,mpp\na.svs,250\n", "line 2.*between 0.05 and 10"),
        ("wsi,mpp\na.svs,0.00025\n", "line 2"),  # mm
        ("wsi,mpp\na.svs,20\n", "line 2"),  # the power
        ('wsi,mpp\na.svs,"0,25"\n', "line 2.*'0,25'"),
        ("wsi,mpp\nx/a.svs,0.25\ny/a.svs,0.5\n", "line 3: 'y/a.svs' and line 2's 'x/a.svs' are one name"),
        ("wsi,mpp\n,0.25\n", "line 2"),
        ("slide,mpp\na.svs,0.25\n", "needs the columns wsi and mpp"),
        ("", "the table is empty"),
        ("wsi;mpp\na.svs;0.25\n", "separated by ';'"),
        ("wsi,mpp\na.svs\n", "line 2: 1 cells"),
    ],
)
def test_faults_of_an_mpp_table(tmp_path, text, told):
    path = tmp_path / "mpp.csv"
    path.write_text(text)
    with pytest.raises(SlideError, match=rf"mpp\.csv.*{told}"):
        scale.read_mpp_table(path)


def test_an_mpp_table_is_read(tmp_path):
    path = tmp_path / "mpp.csv"
    path.write_text("\ufeffwsi,mpp\na.svs,0.25\n", encoding="utf-8")
    assert scale.read_mpp_table(path) == {"a.svs": 0.25}


# -- which slide a row of the table means ------------------------------------------------------------------------
ROWS = [
    "Case-1.svs", "Case-1", "case-1.SVS", " Case-1.svs ", "/data/slides/Case-1.svs", "D:\\slides\\Case-1.svs", "CASE_1",
    "case 1.svs", "Case.1", "Case-1.tiff", "\u0043ase\u20111.svs",
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_case_10_a_row_is_read_as_its_slide_however_it_is_written(tmp_path, row):
    table = tmp_path / "mpp.csv"
    table.write_text(f"wsi,mpp\nother.svs,0.5\n{row},0.25\n", encoding="utf-8")
    slides = [tmp_path / "Case-1.svs", tmp_path / "other.svs", tmp_path / "Case-11.svs"]
    read = scale.read_mpp_table(table)
    assert [scale.table_mpp(slide, read) for slide in slides] == [0.25, 0.5, None]
    assert scale.unused_rows(table, slides) == []


def test_case_10_a_slide_that_is_a_link_has_the_links_name(tmp_path, svs):
    (tmp_path / "store").mkdir()
    shutil.copy(svs, tmp_path / "store/9f86d081884c")
    link = tmp_path / "TCGA-44-1000-01A-01-TS1.AAAA0.svs"
    link.symlink_to("store/9f86d081884c")
    (tmp_path / "mpp.csv").write_text(f"wsi,mpp\n{link.name},0.25\n")
    p = params.load("lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "r"), mpp_table="mpp.csv")
    found = tiling.read_candidates(
        tiling.candidates_of(link, tmp_path / "tiles", p.override(tile_mpp=0.5, tile_px=128))
    )
    assert found.attributes["mpp_level0"] == 0.25 and found.attributes["patch_size_level0"] == 256
    assert found.attributes["name"] == link.stem
    checks = {finding["check"]: finding for finding in quality.examine(link, p)}
    assert checks["frozen section"]["flagged"] and checks["scale"]["flagged"]
    assert scale.unused_rows(tmp_path / "mpp.csv", [link]) == []


def test_exact_names_come_before_those_that_nearly_match(tmp_path):
    table = {"a.svs": 0.25, "A.svs": 0.5, "a": 1.0}
    slides = {name: tmp_path / name for name in ("a.svs", "A.svs", "a.tiff")}
    assert [scale.table_mpp(path, table) for path in slides.values()] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    "rows, slides, told",
    [
        (["case_1", "CASE.1"], ["Case-1.svs"], r"2 rows of the mpp_table mean it, case_1 and CASE\.1; keep one"),
        (["a"], ["a.svs", "a.tiff"], r"'a' may mean two slides, .*a\.svs and .*a\.tiff"),
        (["a.svs"], ["a.svs", "A.svs"], r"'a\.svs' may mean two slides"),
    ],
)
def test_a_name_that_may_mean_two_is_an_error_before_anything_is_tiled(tmp_path, svs, rows, slides, told):
    (tmp_path / "mpp.csv").write_text("wsi,mpp\n" + "".join(f"{row},0.25\n" for row in rows))
    patients = pd.DataFrame({"slide_path": [str(tmp_path / name) for name in slides]}, index=slides)
    patients["slide_id"] = slides
    p = params.load("lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "r"), mpp_table="mpp.csv")
    with pytest.raises(SlideError, match=told):
        bags.tile_cohort(patients, p)
    assert not (tmp_path / "r").exists()


@settings(deadline=None, derandomize=True)
@given(
    name=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}([-_ .][A-Za-z0-9]{1,5}){0,3}", fullmatch=True),
    separator=st.sampled_from("-_. "),
    case=st.sampled_from([str.upper, str.lower, str.title, str]),
    suffix=st.sampled_from(["", *names.SUFFIXES, ".SVS"]),
    folder=st.sampled_from(["", "x/", "C:\\x\\", " "]),
)
def test_any_way_of_writing_a_name_is_the_slide_and_never_another(name, separator, case, suffix, folder):
    written = folder + case(re.sub(r"[-_ .]", separator, name)) + suffix
    assert names.meant(f"{name}.svs", ["other", written]) == [written]
    assert names.meant(f"{name}x.svs", [written]) == [] and names.meant(f"x{name}.svs", [written]) == []


# -- powers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "mpp, power",
    [
        *((0.5, 20), (0.499, 20), (0.46, 20), (0.25, 40), (0.2278, 40), (0.17, 60), (0.125, 80), (0.05, 80)),
        *((1, 10), (2, 5), (4, 2.5), (8, 1.25), (0.36, 20), (0.35, 40)),
    ],
)
def test_case_12_the_power_is_the_nearest_standard_one(mpp, power):
    assert scale.power_of(mpp) == power


@pytest.mark.parametrize(
    "mpp, stated, power, is_wrong",
    [(0.5, 20, 20, 0), (0.25, 40, 40, 0), (0.5, 40, 20, 1), (0.25, 20, 40, 1), (0.25, None, 40, 0), (0.2, 40, 60, 0)],
)
def test_case_12_a_stated_power_is_compared_and_never_used(tmp_path, mpp, stated, power, is_wrong):
    path = small_slides.aperio(tmp_path / "a.svs", small_slides.tissue(512, [(40, 40, 470, 470)]), mpp, stated)
    with slide_files.open_slide(path) as slide:
        found = scale.stated(slide, path, {})
        g = scale.geometry(slide, path, 64)
    assert g.level0_magnification == g.magnification == power
    words = [f"objective {stated} stated, {mpp} µm/px is {power}"]
    assert found.contradictions() == (words if is_wrong else [])
    p = params.load("lgg", "demo", data_dir=str(tmp_path), mpp_table="")
    (check,) = [finding for finding in quality.examine(path, p) if finding["check"] == "scale"]
    assert check["flagged"] is bool(is_wrong) and (words[0] in check["note"]) is bool(is_wrong)
    attributes = tiling.find_candidates(path, 64, mpp=2.0).attributes
    assert attributes["level0_magnification"] == power
    assert attributes["target_magnification"] == pytest.approx(power * mpp / 2.0)


@pytest.mark.parametrize("mpp, is_wrong", [((0.5, 0.5), 0), ((0.5, 0.51), 0), ((0.5, 0.25), 1)])
def test_axes_of_different_scale_are_told(tmp_path, mpp, is_wrong):
    path = small_slides.generic(tmp_path / "a.tiff", small_slides.tissue(512, [(40, 40, 470, 470)]), mpp)
    with slide_files.open_slide(path) as slide:
        told = scale.stated(slide, path, {}).contradictions()
    assert told == (["0.5 µm/px across, 0.25 down"] if is_wrong else [])


@pytest.mark.parametrize(
    "mpp, number, is_common",
    [
        ([0.5, 0.25, 0.5, 0.25], [1, 0, 1, 0], [False] * 4),  # no scale is that of most
        ([0.499, 0.503, 0.25, 0.46], [1, 1, 0, 1], [True, True, False, True]),
        ([0.25], [0], [True]),
        ([], [], []),
        ([0.25, 0.5, 1.0], [0, 1, 2], [False] * 3),
    ],
)
def test_scales_of_a_cohort(mpp, number, is_common):
    assert scale.groups(mpp).tolist() == number and scale.common(mpp).tolist() == is_common


@pytest.mark.parametrize(
    "mpp, wanted", [([0.25, 0.499], 0.5), ([0.2522, 0.5022], 0.5), ([0.25, 0.23], 0.25), ([0.6], 1)]
)
def test_the_scale_that_all_slides_can_give(mpp, wanted):
    assert scale.common_mpp(mpp) == wanted


# -- how tiles are cut -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "asked, level, size, size_level0, mpp, power",
    [
        ({}, 0, 256, 256, 0.5, 20),
        ({"level": 1}, 1, 256, 1024, 2.0, 5),
        ({"mpp": 0.5}, 0, 256, 256, 0.5, 20),
        ({"mpp": 2.0}, 1, 256, 1024, 2.0, 5),
        ({"mpp": 1.0}, 0, 512, 512, 1.0, 10),
        ({"mpp": 2.5}, 1, 320, 1280, 2.5, 4),
        ({"mpp": 0.51}, 0, 261, 261, 0.5098, 19.6),
    ],
)
def test_tiles_by_level_or_mpp(svs, asked, level, size, size_level0, mpp, power):
    with slide_files.open_slide(svs) as slide:
        g = scale.geometry(slide, svs, 256, **asked)
    assert (g.level, g.size, g.size_level0) == (level, size, size_level0)
    assert g.mpp == pytest.approx(mpp, rel=1e-3) and g.magnification == pytest.approx(power, rel=1e-2)


def test_scales_that_a_slide_cannot_give(svs):
    with slide_files.open_slide(svs) as slide:
        with pytest.raises(SlideError, match=r"tile_mpp 0\.25 is finer than the slide's pixels \(0\.5000"):
            scale.geometry(slide, svs, 256, mpp=0.25)
        with pytest.raises(SlideError, match="tile_level 7 is none"):
            scale.geometry(slide, svs, 256, level=7)


def test_a_resized_tile_is_the_mean_of_what_it_covers(svs):
    with slide_files.open_slide(svs) as slide:
        g = scale.geometry(slide, svs, 128, mpp=1.0)
        small = np.asarray(scale.read_tile(slide, g, 384, 384), float)
        whole = np.asarray(slide_files.read_region(slide, (384, 384), 0, (256, 256))[0], float)
    mean = whole.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert small.shape == (128, 128, 3) and np.abs(small - mean).mean() < 4


def test_a_table_that_says_what_the_file_does_not_know_is_no_contradiction():
    dpi72 = 25400 / 72
    assert scale.Stated(dpi72, dpi72, 0.5, None).contradictions() == []
    assert len(scale.Stated(0.25, 0.25, 0.5, None).contradictions()) == 1
