"""Grid, masks and verdicts are histolab's own, whatever the slide's shape and the tile's content."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from mmmil.slides import tissue

pytestmark = pytest.mark.filterwarnings("ignore")


def histolabs_tile(gray: np.ndarray):
    from histolab.tile import Tile
    from histolab.types import CoordinatePair

    opaque = np.full_like(gray, 255)
    return Tile(Image.fromarray(np.dstack([gray, gray, gray, opaque])), CoordinatePair(0, 0, 1, 1), 0)


def blobs(seed: int, px: int, smooth: float, share: float, noise: float) -> np.ndarray:
    """A grey tile with dark pieces of any size on light glass."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(px, px)), smooth)
    dark = field < np.quantile(field, share)
    return np.clip(np.where(dark, 120, 235) + rng.normal(0, noise, (px, px)), 0, 255).astype(np.uint8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    px=st.sampled_from([33, 64, 128, 256]),
    smooth=st.floats(0.5, 30),
    share=st.floats(0.0, 1.0),
    noise=st.floats(0, 30),
    percent=st.sampled_from([10.0, 50.0, 80.0, 90.0]),
)
def test_mask_and_verdict_of_any_tile(seed, px, smooth, share, noise, percent):
    gray = blobs(seed, px, smooth, share, noise)
    theirs = histolabs_tile(gray)
    assert np.array_equal(tissue.mask(gray).astype(bool), theirs.tissue_mask)
    assert tissue.check(gray, percent) == (theirs.tissue_ratio, theirs.has_enough_tissue(percent))


@pytest.mark.parametrize("value", [0, 1, 128, 229, 230, 254, 255])
def test_verdict_of_a_tile_of_one_value(value):
    gray = np.full((64, 64), value, np.uint8)
    theirs = histolabs_tile(gray)
    assert tissue.check(gray, 90.0) == (theirs.tissue_ratio, theirs.has_enough_tissue(90.0))


@pytest.mark.real
def test_verdict_of_real_tiles(real_data):
    rng = np.random.default_rng(0)
    verdicts = []
    for path in sorted((real_data / "images").glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB").convert("L"))
        for _ in range(6):
            y, x = (rng.integers(0, max(n - 200, 1)) for n in image.shape)
            tile = np.ascontiguousarray(image[y : y + 200, x : x + 200])
            theirs = histolabs_tile(tile)
            assert np.array_equal(tissue.mask(tile).astype(bool), theirs.tissue_mask), path
            verdicts.append(tissue.check(tile, 90.0)[1])
            assert verdicts[-1] == theirs.has_enough_tissue(90.0), path
    assert 0.1 < np.mean(verdicts) < 0.9  # both kinds were among them


class FakeSlide:
    """As much of histolab's Slide as its grid asks for: a small image and the dimensions."""

    def __init__(self, size, level_size, image):
        self.dimensions, self.level_size, self.image = size, level_size, image

    thumbnail = property(lambda self: self.image)

    def scaled_image(self):
        return self.image.resize((1, 1))  # the smaller one, so that the thumbnail counts

    def level_dimensions(self, level):
        return (self.dimensions, self.level_size)[level]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    width=st.integers(300, 40_000),
    height=st.integers(300, 40_000),
    small=st.integers(40, 300),
    downsample=st.sampled_from([1, 2, 4]),
    tile=st.sampled_from([64, 200, 256, 507]),
    box=st.tuples(*[st.floats(0.05, 0.95)] * 4),
)
def test_grid_over_any_box(width, height, small, downsample, tile, box):
    from histolab.masks import BiggestTissueBoxMask
    from histolab.tiler import GridTiler

    factor = small / max(width, height)
    size = (max(8, int(width * factor)), max(8, int(height * factor)))
    image = np.full((size[1], size[0], 3), 245, np.uint8)
    (x0, x1), (y0, y1) = sorted((box[0], box[1])), sorted((box[2], box[3]))
    image[int(y0 * size[1]) : int(y1 * size[1]) + 1, int(x0 * size[0]) : int(x1 * size[0]) + 1] = (180, 90, 160)
    level = (width // downsample, height // downsample)
    if width / tile > 150 or height / tile > 150:
        tile *= 8  # histolab looks at a whole mask per position; keep their number small
    slide = FakeSlide((width, height), level, Image.fromarray(image))
    tiler = GridTiler((tile, tile), level=int(downsample > 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = list(tiler._grid_coordinates_generator(slide, BiggestTissueBoxMask()))
        except ValueError:  # no tissue: histolab raises
            assert tissue.biggest_box(slide.image) is None
            return
    theirs = [(c.x_ul, c.y_ul) for c in theirs if c.x_br < width and c.y_br < height]
    ours = tissue.grid(tissue.biggest_box(slide.image), size, level, (width, height), tile)
    assert [tuple(c) for c in ours.tolist()] == [tuple(map(int, c)) for c in theirs]


def test_no_tissue_is_no_box():
    assert tissue.biggest_box(Image.new("RGB", (200, 100), "white")) is None


class LevelSlide:
    """One level that is read in parts."""

    def __init__(self, image, downsample=1.0):
        self.image, self.level_dimensions, self.level_downsamples = image, [image.size], [downsample]

    def read_region(self, corner, level, size):
        x, y = (round(c / self.level_downsamples[level]) for c in corner)
        return self.image.crop((x, y, x + size[0], y + size[1])).convert("RGBA")


def test_a_level_shrunk_in_strips_is_the_level_shrunk_at_once():
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (1003, 777, 3), dtype=np.uint8))
    at_once = np.asarray(image.resize((24, 31), Image.Resampling.LANCZOS))
    for strip_px in (1, 777 * 100, 10**9):
        assert np.array_equal(np.asarray(tissue.shrunk(LevelSlide(image), 0, (24, 31), strip_px)), at_once)
