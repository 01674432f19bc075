"""Scale is stated or asked for; powers follow from it; a table's rows find their slides, however they are written."""

import numpy as np
import pytest

from mmmil.simulate import slides as synthetic_slides
from mmmil.slides import files as slide_files
from mmmil.slides import scale
from mmmil.slides.files import SlideError


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
        ("wsi,mpp\nx/a.svs,0.25\ny/a.svs,0.5\n", "line 3"),
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
