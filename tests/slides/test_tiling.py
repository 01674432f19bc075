"""Tiles are histolab's own; their number, choice and padding follow the parameters; a bad slide is named."""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmmil import params
from mmmil.processes.shards import Shard
from mmmil.simulate import slides as synthetic_slides
from mmmil.slides import bag_files, bags, tiling
from mmmil.slides.bags import TilingError
from mmmil.slides.files import SlideError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def svs(tmp_path_factory):
    """A synthetic slide of 2048 px, three levels, with pen."""
    path = tmp_path_factory.mktemp("slides") / "big.svs"
    synthetic_slides.write_slide(path, synthetic_slides.Slide(("tiling", 3), 2048, planted_share=0.3, pen=True))
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Four small slides: three with tissue enough, one with a little."""
    folder = tmp_path_factory.mktemp("cohort")
    rows = {}
    for i, radius in enumerate((None, None, 200, 60)):
        synthetic_slides.write_slide(folder / f"s{i}.svs", synthetic_slides.Slide(("few", i), 512, radius=radius))
        rows[f"P{i}"] = (f"s{i}", str(folder / f"s{i}.svs"))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["slide_id", "slide_path"])


@pytest.fixture
def p(tmp_path):
    return params.load(
        *("lgg", "demo"),
        **{"data_dir": str(tmp_path), "results_dir": str(tmp_path / "results"), "n_tiles": 4, "tile_px": 64},
        mpp_table="",
    )


def histolabs(path, folder, tile_px, level, percent=90.0) -> dict:
    """Tiles that histolab writes: corner -> pixels."""
    from histolab.slide import Slide
    from histolab.tiler import GridTiler

    GridTiler((tile_px, tile_px), level=level, tissue_percent=percent).extract(Slide(path, folder))
    saved = {}
    for file in folder.glob("*.png"):
        x, y, *_ = file.stem.split(f"level{level}_")[1].split("-")
        saved[int(x), int(y)] = np.asarray(Image.open(file).convert("RGB"))
    return saved


@pytest.mark.parametrize("tile_px, level", [(256, 0), (100, 0), (64, 1), (100, 1), (16, 2)])
def test_tiles_and_pixels_are_histolabs(svs, tmp_path, tile_px, level):
    saved = histolabs(svs, tmp_path, tile_px, level)
    found = tiling.find_candidates(svs, tile_px, level, threads=2)
    ours = [tuple(c) for c in found.coords[found.valid].tolist()]
    assert len(ours) == len(saved) > 3 and ours == list(dict.fromkeys(ours)) and set(ours) == set(saved)
    pixels = tiling.read_tiles(svs, np.array(ours), found.attributes)
    assert all((saved[c] == tile).all() for c, tile in zip(ours, pixels, strict=True))
    assert found.attributes["mpp"] == 0.5 * 4**level


@pytest.mark.real
def test_the_genuine_slide_gives_histolabs_own_fifteen_tiles(real_data, tmp_path):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    saved = histolabs(path, tmp_path, 256, 0)
    found = tiling.find_candidates(path)
    ours = [tuple(c) for c in found.coords[found.valid].tolist()]
    assert len(ours) == 15 and set(ours) == set(saved)
    pixels = tiling.read_tiles(path, np.array(ours), found.attributes)
    assert all((saved[c] == tile).all() for c, tile in zip(ours, pixels, strict=True))
    assert found.attributes["mpp"] == pytest.approx(0.499)


def test_threads_change_nothing(svs):
    one, four = (tiling.find_candidates(svs, 100, threads=n) for n in (1, 4))
    assert (one.coords == four.coords).all() and (one.tissue == four.tissue).all() and (one.valid == four.valid).all()


# -- random order --------------------------------------------------------------------------------------------------
def looked_up(valid):
    """What `search` asks for, of positions (i, 0) whose validity is given."""

    def examine(coords):
        of = valid[coords[:, 0]]
        return of.astype(np.float32), of, np.ones(len(of))

    return examine


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_every_set_of_valid_tiles_is_as_likely_as_any_other(wanted):
    """Over all 720 orders of 6 positions, of which 4 are valid: exactly, and the estimate has no bias."""
    valid = np.array([True, False, True, True, False, True])
    coords = np.stack([np.arange(6), np.zeros(6, int)], 1)
    times, estimates = {}, []
    for order in itertools.permutations(range(6)):
        share, found = tiling.search(wanted, coords, np.array(order), looked_up(valid), False)
        seen = tiling.Candidates(coords, share, found, {})
        picked = frozenset(np.flatnonzero(found).tolist())
        times[picked] = times.get(picked, 0) + 1
        estimates.append(seen.valid_estimate)
        last = max(order.index(i) for i in picked)
        assert seen.tested.sum() == last + 1 and len(picked) == wanted and valid[list(picked)].all()
    sets = set(map(frozenset, itertools.combinations([0, 2, 3, 5], wanted)))
    assert set(times) == sets and set(times.values()) == {720 // len(sets)}
    if 1 < wanted < 4:  # of all four there is nothing left to estimate where the last position is the fourth
        assert np.mean(estimates) == pytest.approx(4)


def test_where_there_are_fewer_than_wanted_all_are_tested_and_their_number_is_exact():
    valid = np.arange(50) % 10 == 0
    coords = np.stack([np.arange(50), np.zeros(50, int)], 1)
    share, found = tiling.search(6, coords, np.random.default_rng(0).permutation(50), looked_up(valid), False)
    seen = tiling.Candidates(coords, share, found, {})
    assert seen.tested.all() and (found == valid).all() and seen.valid_estimate == 5


def test_seeds_and_slides_draw_positions_evenly():
    found = candidates()

    def of_slide(i):
        return tiling.choose(dataclasses.replace(found, attributes={"name": f"slide {i}"}), 9, "random", 0)

    require_even(found, 9, lambda seed: tiling.choose(found, 9, "random", seed), 4000)
    require_even(found, 9, of_slide, 4000)


@pytest.mark.parametrize("tile_px, level", [(64, 0), (100, 0), (64, 1)])
def test_random_order_gives_the_tiles_that_testing_every_position_gives(svs, tile_px, level):
    every = tiling.find_candidates(svs, tile_px, level)
    assert every.tested.all() and every.valid_estimate == every.valid.sum() > 20
    for seed, wanted in ((0, 1), (1, 9), (2, 20)):
        first, again = (
            tiling.find_candidates(svs, tile_px, level, wanted=wanted, seed=seed, threads=n) for n in (1, 3)
        )
        assert (first.coords == every.coords).all() and first.attributes == every.attributes
        assert np.array_equal(first.tissue, again.tissue, equal_nan=True) and (first.valid == again.valid).all()
        tested = first.tested
        assert first.valid.sum() == wanted <= tested.sum() < len(tested)
        assert (first.tissue == every.tissue)[tested].all() and (first.valid == every.valid)[tested].all()
        picked = tiling.choose(first, wanted, "random", seed)
        assert (picked == tiling.choose(every, wanted, "random", seed)).all()
        assert set(picked) == set(np.flatnonzero(first.valid))
    fewer = tiling.find_candidates(svs, tile_px, level, wanted=100_000, seed=1)
    assert np.array_equal(fewer.tissue, every.tissue) and (fewer.valid == every.valid).all()


@pytest.mark.real
def test_random_order_on_a_genuine_slide_draws_its_valid_tiles_evenly(real_data):
    """Three seeds read the tiles that testing every position gives, and 3,000 of those take each tile alike often."""
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    every = tiling.find_candidates(path, 128)
    for seed in range(3):
        found = tiling.find_candidates(path, 128, wanted=12, seed=seed)
        assert found.tested.sum() < len(found.valid) and found.valid.sum() == 12
        assert (np.flatnonzero(found.valid) == np.sort(tiling.choose(every, 12, "random", seed))).all()
    require_even(every, 12, lambda seed: tiling.choose(every, 12, "random", seed), 3000)


def require_even(found, wanted, draw, draws):
    """Chi-square of how often each valid position is drawn, of `wanted` at a time without putting back."""
    n, times = int(found.valid.sum()), np.zeros(len(found.valid))
    for i in range(draws):
        times[draw(i)] += 1
    expected = draws * wanted / n
    chi2 = ((times[found.valid] - expected) ** 2).sum() / (expected * (1 - wanted / n)) * (n - 1) / n
    assert not times[~found.valid].any() and abs(chi2 - (n - 1)) < 4 * np.sqrt(2 * (n - 1))


def test_other_choices_need_every_position(svs):
    found = tiling.find_candidates(svs, 64, wanted=5)
    for how in ("tissue", "spread"):
        with pytest.raises(ValueError, match="not every position was tested"):
            tiling.choose(found, 5, how)


# -- scale and bad slides ------------------------------------------------------------------------------------------
def test_tiles_at_another_scale_cover_the_same_tissue(svs):
    level, found = tiling.find_candidates(svs, 64, level=1), tiling.find_candidates(svs, 64, mpp=2.0)
    assert found.attributes["patch_size_level0"] == level.attributes["patch_size_level0"] == 256
    assert found.attributes["mpp"] == 2.0 and found.valid.sum() == pytest.approx(level.valid.sum(), abs=4)
    between = tiling.find_candidates(svs, 64, mpp=1.5)
    assert between.attributes["patch_size_level0"] == 192 and between.attributes["size"] == 192
    tiles = tiling.read_tiles(svs, between.coords[between.valid][:3], between.attributes)
    assert tiles.shape == (3, 64, 64, 3)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("histolab_broken.svs", "no whole-slide image"),
        ("kidney-48-5.tif", "plain TIFF"),
        ("openslide_unreadable.svs", "reading its pixels failed .*: the file is damaged"),
        ("nothing_there.svs", "is not there"),
        ("openslide_boxes.tiff", "no plausible µm per pixel"),
    ],
)
def test_each_bad_slide_is_told_by_name_and_kind(real_data, name, told):
    with pytest.raises(SlideError, match=told) as error:
        tiling.find_candidates(real_data / "slides" / name, tile_px=8)
    assert name in str(error.value)


@pytest.mark.real
def test_a_fluorescence_slide_is_tiled_without_a_crash_and_a_tiny_one_has_no_tile(real_data):
    glow = tiling.find_candidates(real_data / "slides/hamamatsu_DAPI_fluorescence.ndpi")
    assert len(glow.coords) > 50  # mmmil.quality says that it is no H&E
    assert tiling.find_candidates(real_data / "slides/openslide_small.svs").coords.shape == (0, 2)


def test_a_slide_of_glass_has_no_candidate(tmp_path):
    synthetic_slides.write_slide(tmp_path / "glass.svs", synthetic_slides.Slide(("glass",), 512, radius=1e-6))
    found = tiling.find_candidates(tmp_path / "glass.svs", 64)
    assert found.valid.sum() == 0


# -- cohort ------------------------------------------------------------------------------------------------------
def test_one_bad_slide_does_not_stop_the_others_and_is_named_at_the_end(cohort, p, tmp_path):
    whole = Path(cohort["slide_path"].iloc[0]).read_bytes()
    (tmp_path / "cut.svs").write_bytes(whole[: len(whole) // 2])
    rows = {
        "good": tuple(cohort.iloc[0]),
        "cut": ("cut", str(tmp_path / "cut.svs")),
        "gone": ("gone", str(tmp_path / "gone.svs")),
    }
    patients = pd.DataFrame.from_dict(rows, orient="index", columns=["slide_id", "slide_path"])
    with pytest.raises(TilingError, match=r"(?s)2 of 3 slides.*cut: .*truncated.*gone: .*is not there"):
        bags.tile_cohort(patients, p)
    assert len(list((p.results / "tiles" / "s0" / "bags").iterdir())) == 1
    again = bags.tile_cohort(patients.loc[["good"]], p)
    assert again["problem"].tolist() == [""] and bag_files.load_bags(list(again["bag"])).shape == (1, 4, 64, 64, 3)


def test_too_few_tiles_are_a_reason_an_error_or_padded(cohort, p):
    table = bags.tile_cohort(cohort, p, workers=2)
    few = int(table["valid"].iloc[3])
    assert 1 <= few < 4 and table["problem"].tolist() == ["", "", "", f"{few} valid tiles, fewer than n_tiles (4)"]
    with pytest.raises(TilingError, match=rf"P3: {few} valid tiles"):
        bags.tile_cohort(cohort, p.override(few_tiles="error"))
    padded = bags.tile_cohort(cohort, p.override(few_tiles="pad"))
    assert padded["problem"].tolist() == [""] * 4 and padded["used"].tolist() == [4, 4, 4, few]
    masks, pixels = bag_files.load_masks(list(padded["bag"])), bag_files.load_bags(list(padded["bag"]))
    assert masks.sum(1).tolist() == [4, 4, 4, few] and masks[3, :few].all()
    assert (pixels[~masks] == 255).all() and not (pixels[masks] == 255).all((1, 2, 3)).any()
    assert len(bag_files.load_coords(padded["bag"].iloc[3])[0]) == few


def test_the_number_that_all_patients_can_give(cohort, p, monkeypatch, code_replaced):
    p = p.override(n_tiles=0)
    monkeypatch.setattr(bags, "MIN_TILES", 4)
    table = bags.tile_cohort(cohort, p)
    valid = table["valid"].tolist()
    assert set(table["used"].iloc[:3]) == {min(valid[:3])} and table["problem"].iloc[3].endswith("fewer than 4")
    shutil.rmtree(p.results / "tiling")  # the constant is part of the code, of which the test changes no line
    monkeypatch.setattr(bags, "MIN_TILES", 5000)
    with pytest.raises(TilingError, match="no patient has 5000 valid tiles"):
        bags.tile_cohort(cohort, p)
    monkeypatch.setattr(bags, "MIN_TILES", 1)
    everyone = bags.tile_cohort(cohort, p)
    assert set(everyone["used"]) == {valid[3]}


def test_the_table_is_found_without_a_look_at_the_bags_and_lost_bags_are_made_again(cohort, p, monkeypatch):
    first = bags.tile_cohort(cohort, p)
    pixels, paths = bag_files.load_bags(list(first["bag"][:3])), list(map(Path, first["bag"][:3]))
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    monkeypatch.setattr(bag_files.h5py, "File", None)
    pd.testing.assert_frame_equal(bags.tile_cohort(cohort, p), first)
    monkeypatch.undo()
    bags.make_again(first, p)
    np.testing.assert_array_equal(bag_files.load_bags(list(map(str, paths))), pixels)


def test_another_slide_under_the_same_name_is_tiled_anew(cohort, p, tmp_path):
    path = tmp_path / "s0.svs"
    patients = cohort.iloc[:1].assign(slide_path=str(path))
    path.write_bytes(Path(cohort["slide_path"].iloc[0]).read_bytes())
    first = bags.tile_cohort(patients, p)
    path.write_bytes(Path(cohort["slide_path"].iloc[1]).read_bytes())
    assert bags.tile_cohort(patients, p)["bag"].item() != first["bag"].item()


def test_a_slide_tiled_once_is_not_tiled_again(cohort, p, monkeypatch, code_replaced):
    first = bags.tile_cohort(cohort.iloc[:2], p)
    monkeypatch.setattr(tiling, "find_candidates", None)
    monkeypatch.setattr(tiling, "read_tiles", None)
    assert bags.tile_cohort(cohort.iloc[:2], p).equals(first)


def test_the_table_says_what_was_tested_and_workers_change_nothing(cohort, p):
    table = bags.tile_cohort(cohort, p)
    assert (table["tested"] < table["candidates"]).tolist() == [True, True, True, False]
    assert table["valid"].tolist()[:3] == [4, 4, 4] and table["valid_estimate"].iloc[3] == table["valid"].iloc[3] < 4
    counted = bags.tile_cohort(cohort, p.override(tile_choice="spread"))
    assert (counted["tested"] == counted["candidates"]).all() and counted["valid"].iloc[0] > 4
    assert counted["valid"].iloc[3] == table["valid"].iloc[3]
    again = bags.tile_cohort(cohort, p.override(results_dir=str(p.results / "again")), workers=3)
    plain = table.drop(columns="bag")
    assert plain.equals(again.drop(columns="bag"))
    for one, other in zip(table["bag"][:3], again["bag"][:3], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes() and Path(one).parent.name == Path(other).parent.name


def test_the_figure_of_valid_tiles_says_where_their_number_is_estimated():
    from mmmil import plots

    table = pd.DataFrame({"candidates": [100, 90, 50, ""], "tested": [80, 90, 50, ""], "used": [64, 64, "", ""]})
    table = table.assign(valid=[64, 70, 5, ""], valid_estimate=[80, 70, 5, ""])
    (axes,) = plots.valid_tiles(table).axes
    assert [bar.get_height() for bar in axes.patches] == [80, 70, 5, 0, 64, 70, 5, 0]
    assert axes.get_ylabel() == "valid tiles\n(pale: estimated)"
    (axes,) = plots.valid_tiles(table.iloc[1:]).axes
    assert [bar.get_height() for bar in axes.patches] == [70, 5, 0] and axes.get_ylabel() == "valid tiles"


@pytest.mark.parametrize("n_tiles", [4, 0])
def test_shards_of_slides_are_found_by_the_whole(cohort, p, monkeypatch, code_replaced, n_tiles):
    monkeypatch.setattr(bags, "MIN_TILES", 4)
    p = p.override(n_tiles=n_tiles)
    expected = bags.tile_cohort(cohort, p.override(results_dir=str(p.results / "whole"))).drop(columns="bag")
    told = [bags.tile_some(Shard(i, 3).of(cohort), p) for i in (1, 2, 3)]
    few = f"P3: {expected['problem'].iloc[3]}"
    assert told == [[few] if n_tiles else [], [], []]  # with n_tiles 0 nobody knows yet what is enough
    monkeypatch.setattr(tiling, "find_candidates", None)
    if n_tiles:
        monkeypatch.setattr(tiling, "read_tiles", None)
    assert bags.tile_cohort(cohort, p).drop(columns="bag").equals(expected)


def test_a_slide_that_is_bad_in_a_shard_is_told_and_stops_nobody(cohort, p, tmp_path):
    patients = cohort.iloc[:2].assign(slide_path=[str(tmp_path / "gone.svs"), cohort["slide_path"].iloc[1]])
    (told,) = bags.tile_some(patients, p)
    assert told.startswith("P0: error: ") and "gone.svs" in told
    assert len(list((p.results / "tiles" / "s1" / "bags").iterdir())) == 1


def candidates(n=60):
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
    assert len(tiling.choose(found, 1000, how)) == found.valid.sum()
    if how == "tissue":
        assert set(found.tissue[picked]) == set(np.sort(found.tissue[found.valid])[-9:])


def test_spread_tiles_lie_farther_apart_than_random_ones():
    def nearest(how):
        xy = candidates().coords[tiling.choose(candidates(), 9, how, seed=1)].astype(float)
        apart = np.hypot(*(xy[:, None] - xy[None]).T) + 1e9 * np.eye(9)
        return apart.min(1).mean()

    assert nearest("spread") > 1.2 * nearest("random")


def test_files_carry_tridents_names(cohort, p):
    bag = bags.tile_cohort(cohort.iloc[:1], p)["bag"].item()
    with h5py.File(bag) as file:
        assert file["imgs"].chunks == (1, 64, 64, 3) and file["coords"].shape == (4, 2)
        names = {"patch_size", "patch_size_level0", "level0_magnification", "target_magnification"}
        assert names | {"overlap", "name", "level0_width", "level0_height"} <= set(file["coords"].attrs)


def test_memory_does_not_grow_with_a_slide_that_has_no_pyramid(tmp_path):
    import tifffile

    side = 12_000
    path = tmp_path / "flat.svs"

    def tiles():
        rng = np.random.default_rng(0)
        tissue = np.clip(rng.normal((190, 100, 170), 25, (256, 256, 3)), 0, 255).astype(np.uint8)
        glass = np.full((256, 256, 3), 243, np.uint8)
        n = -(-side // 256)
        for row in range(n):
            for column in range(n):
                yield tissue if 2 < row < 6 and 2 < column < 8 else glass

    with tifffile.TiffWriter(path) as file:
        file.write(
            tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb", compression="jpeg",
            description="Aperio Image Library v12.0.15 \r\n12000x12000 |AppMag = 20|MPP = 0.5", metadata=None,
        )  # fmt: skip
    code = (
        "import resource; from mmmil.slides import tiling\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"found = tiling.find_candidates({str(path)!r})\n"
        "assert found.valid.sum() > 5, found\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)"
    )
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    grown = int(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout
    )
    assert grown < 600, grown  # MiB; at once it would be 144 MP x 7 bytes, about 1000


def test_fewer_random_tiles_are_taken_from_more_without_another_search(cohort, p, monkeypatch, code_replaced):
    cohort, fewer = cohort.iloc[:2], p.override(n_tiles=2)
    searched = bags.tile_cohort(cohort, fewer)
    bags.tile_cohort(cohort, p)
    monkeypatch.setattr(tiling, "find_candidates", None)
    taken = bags.tile_cohort(cohort, fewer, examined_for=p)
    assert taken["used"].tolist() == [2, 2] and taken["valid"].tolist() == [4, 4]
    np.testing.assert_array_equal(*(bag_files.load_bags(list(table["bag"])) for table in (taken, searched)))
