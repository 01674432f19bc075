"""A pyramid shows the slide it is of, to the pixel, in no more bytes than it may have."""

import json
from types import SimpleNamespace

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from mmmil.slides import deep_zoom
from mmmil.slides.files import SlideError, open_slide
from mmmil.slides.places import Place

BLUE = (20, 20, 235)


@pytest.fixture
def drawn(tmp_path):
    """(levels, side, tile_px, size): a slide with a blue tile, and where three tiles lie on it, the blue one second."""

    def make(levels=2, width=1900, height=1300, tile_px=64, size=64):
        pixels = np.random.default_rng(0).normal((215, 160, 195), 12, (height, width, 3)).clip(0, 255).astype(np.uint8)
        coords = np.array([(40, 30), (1100, 700), (1500, 90)])
        x, y = coords[1]
        pixels[y : y + size, x : x + size] = BLUE
        path = tmp_path / "drawn.svs"
        with tifffile.TiffWriter(path) as file:
            for level in range(levels):
                step = 4**level
                part = pixels[: height // step * step, : width // step * step]
                shape = (height // step, step, width // step, step, 3)
                about = f"Aperio Image Library v12\r\n{width}x{height}|AppMag = 20|MPP = 0.5"
                file.write(
                    part.reshape(shape).mean((1, 3)).round().astype(np.uint8),
                    description=about, subfiletype=int(level > 0), tile=(64, 64), photometric="rgb",
                    metadata=None, software=False, compression="zlib",
                )  # fmt: skip
        seen = np.zeros((3, tile_px, tile_px, 3), np.uint8)
        return Place(path, coords, size, width, height, (0, 0), 0.5, seen)

    return make


def image(folder, at):
    return np.asarray(Image.open(folder / f"{at}.jpg")).astype(int)


def stored(folder):
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.jpg"))


def complete(p, level):
    """Files of a level that shows all of the slide."""
    width, height = (-(-side // 2 ** (p.finest - level)) for side in (p.width, p.height))
    down, across = (-(-side // deep_zoom.TILE) for side in (height, width))
    return {f"{level}/{x}_{y}" for x in range(across) for y in range(down)}


def test_a_slide_that_fits_is_there_whole_down_to_its_own_pixels(drawn, tmp_path):
    where = drawn()
    folder = deep_zoom.make(where, [1, 0, 2], 4, tmp_path / "kept")
    p = deep_zoom.read(folder)
    assert (p.width, p.height, p.shrink, p.whole, p.around, p.detailed) == (1900, 1300, 1, p.finest, [], 3)
    assert set(stored(folder)) == set().union(*(complete(p, level) for level in range(p.finest + 1)))
    assert stored(folder)[0] == "0/0_0" and max(image(folder, "0/0_0").shape[:2]) <= deep_zoom.TILE
    assert p.bytes == sum(path.stat().st_size for path in folder.rglob("*.jpg")) < 4e6
    with openslide.OpenSlide(where.slide_path) as slide:
        own = np.asarray(slide.read_region((1024, 512), 0, (256, 256)))[..., :3].astype(int)
    seen, own = image(folder, f"{p.finest}/4_2").mean(-1), own.mean(-1)
    off = {(y, x): np.abs(seen - np.roll(own, (y, x), (0, 1))).mean() for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert off[0, 0] < 0.8 * min(error for shift, error in off.items() if shift != (0, 0)), "not a pixel beside it"
    assert image(folder, f"{p.finest}/7_5").shape == (1300 - 5 * 256, 1900 - 7 * 256, 3)


@pytest.mark.parametrize("levels", [1, 2])
def test_every_level_shows_the_blue_tile_where_it_lies(drawn, tmp_path, levels):
    """With and without a pyramid in the slide: the script lays the overlay out by powers of two of level-0 px."""
    where = drawn(levels, size=128, tile_px=128)
    folder = deep_zoom.make(where, [0, 1, 2], 4, tmp_path / "kept")
    p = deep_zoom.read(folder)
    for level in range(p.finest - 2, p.finest + 1):
        scale = 2 ** (p.finest - level)
        canvas = np.zeros((-(-p.height // scale), -(-p.width // scale), 3), int)
        for name in complete(p, level):
            x, y = (int(n) * deep_zoom.TILE for n in name.split("/")[1].split("_"))
            part = image(folder, name)
            canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
        blue = np.argwhere(canvas[..., 2] - canvas[..., 0] > 150)
        centre = (where.coords[1] + where.size / 2) / scale
        assert np.abs(blue.mean(0)[::-1] + 0.5 - centre).max() < 1.5 / min(scale, 2), level
        assert len(blue) == pytest.approx((where.size / scale) ** 2, rel=0.2)  # colours have half the pixels


def test_a_small_budget_shows_all_coarsely_and_the_first_tiles_in_their_own_pixels(drawn, tmp_path):
    where = drawn()
    enough = deep_zoom.read(deep_zoom.make(where, [1, 0, 2], 0.075, tmp_path / "kept"))
    assert enough.whole < enough.finest and enough.detailed == 3
    folder = deep_zoom.make(where, [1, 0, 2], (enough.bytes - 1) / 1e6, tmp_path / "kept")
    p = deep_zoom.read(folder)
    assert p.bytes == sum(path.stat().st_size for path in folder.rglob("*.jpg")) < enough.bytes
    assert 0 <= p.whole < p.finest and 1 <= p.detailed < 3
    coarse = set().union(*(complete(p, level) for level in range(p.whole + 1)))
    assert set(stored(folder)) == coarse | set(p.around)
    needed = {f"{p.finest}/{x}_{y}" for x in (1100 // 256, 1163 // 256) for y in (700 // 256, 763 // 256)}
    assert needed <= set(p.around), "of the tile that comes first"
    found = sum((image(folder, name)[..., 2] - image(folder, name)[..., 0] > 150).sum() for name in needed)
    assert found == pytest.approx(64 * 64, rel=0.05)
    assert {int(name.split("/")[0]) for name in p.around} == set(range(p.whole + 1, p.finest + 1))


def test_nothing_is_finer_than_what_the_model_read(drawn, tmp_path):
    p = deep_zoom.read(deep_zoom.make(drawn(size=256, tile_px=64), [0, 1, 2], 4, tmp_path / "kept"))
    assert (p.shrink, p.width, p.height) == (4, 475, 325)


def test_memory_stays_bounded_without_a_pyramid(drawn, tmp_path):
    """No region that is read is larger than a block, however coarse the level is."""
    where, asked = drawn(levels=1, width=9000, height=1600), []
    with open_slide(where.slide_path) as slide:
        read = slide.read_region
        spy = SimpleNamespace(
            dimensions=slide.dimensions,
            level_downsamples=slide.level_downsamples,
            get_best_level_for_downsample=slide.get_best_level_for_downsample,
            read_region=lambda corner, level, size: asked.append(size) or read(corner, level, size),
        )
        deep_zoom._write(spy, where, [0, 1, 2], 100_000, tmp_path)
    assert asked and max(map(max, asked)) <= deep_zoom.BLOCK


def test_it_is_made_once_and_anew_where_something_changes(drawn, tmp_path):
    where = drawn()
    first = deep_zoom.make(where, [0, 1, 2], 0.3, tmp_path / "kept")
    assert deep_zoom.make(where, [0, 1, 2], 0.3, tmp_path / "kept") == first
    assert deep_zoom.make(where, [0, 1, 2], 0.5, tmp_path / "kept") != first
    assert deep_zoom.make(where, [2, 1, 0], 0.3, tmp_path / "kept") != first
    assert json.loads((first / "run.json").read_text())["facts"]["bytes"] == deep_zoom.read(first).bytes


def test_a_truncated_slide_is_named(drawn, tmp_path):
    where = drawn()
    whole = where.slide_path.read_bytes()
    where.slide_path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError, match=r"drawn\.svs: the download is truncated, at least .* bytes are missing"):
        deep_zoom.make(where, [0, 1, 2], 1, tmp_path / "kept")
    assert not stored(tmp_path / "kept")


def test_a_slide_whose_pixels_cannot_be_read_is_named(drawn, tmp_path):
    where = drawn()
    content = bytearray(where.slide_path.read_bytes())
    content[4000:-20_000] = bytes(len(content) - 24_000)
    where.slide_path.write_bytes(content)
    with pytest.raises(SlideError, match=r"drawn\.svs: (reading its pixels failed|.*download)"):
        deep_zoom.make(where, [0, 1, 2], 1, tmp_path / "kept")


@pytest.mark.parametrize("megabytes", [0, -1, float("nan"), float("inf"), "4", "4 MB", True, None])
def test_a_budget_of_nothing_or_of_no_number_is_refused(drawn, tmp_path, megabytes):
    with pytest.raises(SlideError, match=r"no pyramid has .+ MB; give a number, 0\.1 or more"):
        deep_zoom.make(drawn(), [0], megabytes, tmp_path)
