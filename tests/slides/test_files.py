"""Slides as files: what is wrong with one is told by name and kind; what was not scanned is white."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
                assert scale.microns_per_pixel(slide, path, {}) == pytest.approx(want, rel=1e-3)
        else:
            with pytest.raises(SlideError, match=want), slide_files.open_slide(path) as slide:
                scale.microns_per_pixel(slide, path, {})


def test_a_fingerprint_follows_content_not_time(svs, tmp_path):
    copy = tmp_path / "a.svs"
    shutil.copy(svs, copy)
    assert slide_files.slide_fingerprint(copy) == slide_files.slide_fingerprint(svs)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 255
    copy.write_bytes(data)
    assert slide_files.slide_fingerprint(copy) != slide_files.slide_fingerprint(svs)


# -- pixels ------------------------------------------------------------------------------------------------------
def test_pixels_beside_the_scan_are_white(svs):
    with slide_files.open_slide(svs) as slide:
        image, scanned = slide_files.read_region(slide, (1000, 1000), 0, (64, 64))
        inside, whole = slide_files.read_region(slide, (500, 500), 0, (64, 64))
        raw = np.asarray(slide.read_region((500, 500), 0, (64, 64)))
    assert (np.asarray(image)[30:, 30:] == 255).all() and image.mode == "RGB"
    assert (np.asarray(scanned) > 0).tolist() == [[x < 24 and y < 24 for x in range(64)] for y in range(64)]
    assert (np.asarray(inside) == raw[..., :3]).all() and (np.asarray(whole) == 255).all()


class Half:
    """A slide whose pixels are black, and of which each was scanned to `alpha`."""

    def __init__(self, alpha):
        self.alpha = alpha

    def read_region(self, corner, level, size):
        return Image.new("RGBA", size, (0, 0, 0, self.alpha))


@pytest.mark.parametrize("alpha, grey", [(0, 255), (64, 191), (128, 127), (255, 0)])
def test_what_is_scanned_in_part_lies_on_white(alpha, grey):
    image, scanned = slide_files.read_region(Half(alpha), (0, 0), 0, (2, 2))
    assert np.allclose(np.asarray(image), grey, atol=1) and (np.asarray(scanned) == alpha).all()


def test_only_one_function_reads_pixels_and_nothing_follows_a_link():
    package = Path(slide_files.__file__).parents[1]
    sources = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    assert [name for name, text in sources.items() if "slide.read_region(" in text or "get_thumbnail(" in text] == [
        "slides/files.py"
    ]
    assert not [name for name, text in sources.items() if name.startswith("slides/") and "resolve()" in text]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.svs", b"version https://git-lfs.github.com/spec/v1\n", "not there yet; run: git lfs pull a.svs"),
        ("a.svs", b"/annex/objects/SHA256E-s1--1.svs\n", "not there yet; run: git annex get a.svs"),
        ("a.svs", b"<html><title>Sign in</title></html>", "a page or message of a server.*download it again"),
        ("a.mrxs", b"\xff\xd8\xff\xe0", "a folder beside it, and a/ is not there; copy all of it again"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "a plain JPEG image.*convert it to a pyramid.*mpp_table: vips tiffsave"),
    ],
)
def test_what_is_no_slide_is_told_with_what_to_do(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideError, match=told):
        slide_files.open_slide(tmp_path / name)
