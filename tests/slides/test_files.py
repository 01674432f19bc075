"""Slides as files: what is wrong with one is told by name and kind; scale is stated or asked for."""

import shutil
import struct

import numpy as np
import openslide
import pytest

from mmmil.simulate import slides as synthetic_slides
from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError


@pytest.fixture(scope="module")
def svs(tmp_path_factory):
    """A synthetic slide of two levels, 0.5 µm per px, 20x."""
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    synthetic_slides.write_slide(path, synthetic_slides.Slide(("slides", 1), 1024))
    return path


# -- truncated, damaged, no slide --------------------------------------------------------------------------------
def test_a_whole_file_lacks_nothing(svs):
    assert slide_files.missing_bytes(svs) == 0


@pytest.mark.parametrize("share", [0.0002, 0.01, 0.3, 0.7, 0.95, 0.9999])
def test_a_truncated_download_is_told_apart(svs, tmp_path, share):
    data = svs.read_bytes()
    cut = tmp_path / "cut.svs"
    cut.write_bytes(data[: int(len(data) * share)])
    missing = slide_files.missing_bytes(cut)
    assert 0 < missing <= len(data) - cut.stat().st_size
    with pytest.raises(SlideError, match=r"cut\.svs: the download is truncated, at least [\d,]+ bytes are missing"):
        slide_files.open_slide(cut)


@pytest.mark.parametrize("order, version", [("<", 42), (">", 42), ("<", 43), (">", 43)])
def test_missing_bytes_in_all_kinds_of_tiff(tmp_path, order, version):
    magic = b"II" if order == "<" else b"MM"
    word, count, value = ("I", "H", "I") if version == 42 else ("Q", "Q", "Q")
    head = magic + struct.pack(order + "H", version)
    head += struct.pack(order + "I", 16) if version == 42 else struct.pack(order + "HHQ", 8, 0, 16)
    kind = 4 if version == 42 else 16
    tags = b"".join(struct.pack(order + "HH" + word + value, t, kind, 1, v) for t, v in ((324, 200), (325, 100)))
    body = head.ljust(16, b"\0") + struct.pack(order + count, 2) + tags + struct.pack(order + word, 0)
    path = tmp_path / "x.tif"
    path.write_bytes(body.ljust(300, b"\0"))
    assert slide_files.missing_bytes(path) == 0
    path.write_bytes(body.ljust(290, b"\0"))
    assert slide_files.missing_bytes(path) == 10
    path.write_bytes(body[: len(body) - 2])
    assert slide_files.missing_bytes(path) == 2


def test_garbage_is_no_tiff_or_cut_but_never_a_crash(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "x.svs"
    for magic in (b"", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        for n in (0, 3, 16, 60, 4000):
            path.write_bytes(magic + rng.bytes(n))
            assert slide_files.missing_bytes(path) >= 0


def test_a_loop_of_directories_ends(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + struct.pack("<HI", 0, 16))
    assert slide_files.missing_bytes(path) == 0


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(SlideError, match="is not there"):
        slide_files.open_slide(tmp_path / "none.svs")
    (tmp_path / "empty.svs").write_bytes(b"")
    with pytest.raises(SlideError, match=r"empty\.svs: the slide is empty"):
        slide_files.open_slide(tmp_path / "empty.svs")


@pytest.mark.real
def test_every_real_slide_opens_or_is_refused_for_its_reason(real_data):
    expected = {
        "CMU-1-Small-Region.svs": 0.499,
        "hamamatsu_DAPI_fluorescence.ndpi": 0.22818,
        "openslide_small.svs": 0.499,
        "openslide_unreadable.svs": 0.499,  # opens; its pixels cannot be read
        "openslide_boxes.tiff": r"states no plausible µm per pixel \(openslide\.mpp-x is '352",
        "histolab_broken.svs": "no whole-slide image, or damaged",
        "kidney-48-5.tif": "a plain TIFF image, not a whole-slide image",
    }
    assert {path.name for path in (real_data / "slides").iterdir()} == set(expected)
    for name, want in expected.items():
        path = real_data / "slides" / name
        assert slide_files.missing_bytes(path) == 0
        if isinstance(want, float):
            with slide_files.open_slide(path) as slide:
                assert slide_files.microns_per_pixel(slide, path, {}) == pytest.approx(want, rel=1e-3)
        else:
            with pytest.raises(SlideError, match=want), slide_files.open_slide(path) as slide:
                slide_files.microns_per_pixel(slide, path, {})


def test_a_fingerprint_follows_content_not_time(svs, tmp_path):
    copy = tmp_path / "a.svs"
    shutil.copy(svs, copy)
    assert slide_files.slide_fingerprint(copy) == slide_files.slide_fingerprint(svs)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 255
    copy.write_bytes(data)
    assert slide_files.slide_fingerprint(copy) != slide_files.slide_fingerprint(svs)


# -- scale -------------------------------------------------------------------------------------------------------
def without_mpp(tmp_path):
    path = tmp_path / "silent.svs"
    synthetic_slides.write_slide(path, synthetic_slides.Slide(("slides", 2), 512, states_mpp=False))
    return path


def test_a_slide_without_mpp_stops_unless_the_table_has_it(tmp_path):
    path = without_mpp(tmp_path)
    with slide_files.open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"silent\.svs: the file is whole but states no plausible µm.*mpp_table"):
            slide_files.geometry(slide, path, 256)
        for table in ({"silent.svs": 0.25}, {"silent": 0.25}):
            assert slide_files.geometry(slide, path, 256, mpp_table=table).mpp == 0.25


def test_the_table_overrides_what_the_file_states(svs):
    with slide_files.open_slide(svs) as slide:
        assert slide_files.microns_per_pixel(slide, svs, {}) == 0.5
        assert slide_files.microns_per_pixel(slide, svs, {"a.svs": 0.25}) == 0.25


@pytest.mark.parametrize(
    "text, told",
    [
        ("wsi,mpp\na.svs,0.25\nb.svs,fast\n", "line 3"),
        ("wsi,mpp\na.svs,0.25\na.svs,0.5\n", "line 3"),
        ("wsi,mpp\na.svs,250\n", "line 2.*between 0.05 and 20"),
        ("wsi,mpp\n,0.25\n", "line 2"),
        ("slide,mpp\na.svs,0.25\n", "needs the columns wsi and mpp"),
        ("", "not a table"),
    ],
)
def test_faults_of_an_mpp_table(tmp_path, text, told):
    path = tmp_path / "mpp.csv"
    path.write_text(text)
    with pytest.raises(SlideError, match=rf"mpp\.csv.*{told}"):
        slide_files.read_mpp_table(path)


def test_an_mpp_table_is_read(tmp_path):
    path = tmp_path / "mpp.csv"
    path.write_text("\ufeffwsi,mpp\na.svs,0.25\n", encoding="utf-8")
    assert slide_files.read_mpp_table(path) == {"a.svs": 0.25}


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
        g = slide_files.geometry(slide, svs, 256, **asked)
    assert (g.level, g.size, g.size_level0) == (level, size, size_level0)
    assert g.mpp == pytest.approx(mpp, rel=1e-3) and g.magnification == pytest.approx(power, rel=1e-2)


def test_scales_that_a_slide_cannot_give(svs):
    with slide_files.open_slide(svs) as slide:
        with pytest.raises(SlideError, match=r"tile_mpp 0\.25 is finer than the slide's pixels \(0\.5000"):
            slide_files.geometry(slide, svs, 256, mpp=0.25)
        with pytest.raises(SlideError, match="tile_level 7 is none"):
            slide_files.geometry(slide, svs, 256, level=7)


# -- pixels ------------------------------------------------------------------------------------------------------
def test_pixels_beside_the_scan_are_white(svs):
    with openslide.OpenSlide(svs) as slide:
        pixels = slide_files.rgb(slide.read_region((1000, 1000), 0, (64, 64)))
    assert (pixels[30:, 30:] == 255).all() and pixels.shape == (64, 64, 3)


def test_a_resized_tile_is_the_mean_of_what_it_covers(svs):
    with slide_files.open_slide(svs) as slide:
        g = slide_files.geometry(slide, svs, 128, mpp=1.0)
        small = slide_files.rgb(slide_files.read_tile(slide, g, 384, 384)).astype(float)
        whole = slide_files.rgb(slide.read_region((384, 384), 0, (256, 256))).astype(float)
    mean = whole.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert small.shape == (128, 128, 3) and np.abs(small - mean).mean() < 4
