"""Which pieces of tissue are tiled: the biggest, as histolab's, or all; what is left out is told."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmmil import params, schema
from mmmil.slides import bags, quality, tiling, tissue
from tests.small_slides import aperio
from tests.small_slides import tissue as drawn

pytestmark = pytest.mark.filterwarnings("ignore")
SECTIONS = [(100, 300, 1400, 2300), (1700, 300, 3000, 2300)]
CORES = [(150 + 480 * i, 200, 450 + 480 * i, 2800) for i in range(6)]


def per_piece(found, boxes):
    """Valid tiles that lie wholly in each piece."""
    x, y = found.coords[found.valid].T
    return [int(((x >= a) & (x + 128 <= c) & (y >= b) & (y + 128 <= d)).sum()) for a, b, c, d in boxes]


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    made = {name: drawn(3072, boxes) for name, boxes in {"sections": SECTIONS, "cores": CORES}.items()}
    made["frame"] = drawn(3072, SECTIONS[:1])  # of dust, beside one section
    for left, top, right, bottom in [(2000, 100, 2990, 140), (2000, 2950, 2990, 2990), (2000, 100, 2040, 2990)]:
        made["frame"][top:bottom, left:right] = 20
    made["pen"] = drawn(3072, SECTIONS[:1])
    made["pen"][300:2300, 2200:2320] = (40, 60, 150)
    made["crumbs"] = drawn(3072, [*SECTIONS[:1], *[(1700, 300 + 400 * i, 1900, 500 + 400 * i) for i in range(5)]])
    return {name: aperio(folder / f"{name}.svs", image) for name, image in made.items()}


@pytest.mark.parametrize("name, boxes, left_out", [("sections", SECTIONS, 1 / 2), ("cores", CORES, 5 / 6)])
def test_case_19_every_piece_gives_tiles_where_all_are_asked_for(slides, name, boxes, left_out):
    biggest, every = (tiling.find_candidates(slides[name], 128, tissue=which) for which in ("biggest", "all"))
    tiles = per_piece(biggest, boxes)
    assert tiles[0] > 10 and not any(tiles[1:])
    assert biggest.attributes["pieces"] == len(boxes) and biggest.attributes["left_out"] == pytest.approx(
        left_out, abs=0.01
    )
    tiles = per_piece(every, boxes)
    assert min(tiles) > 10 and max(tiles) - min(tiles) <= 2
    assert every.attributes["pieces"] == len(boxes) and every.attributes["left_out"] == 0
    assert {tuple(c) for c in biggest.coords[biggest.valid]} <= {tuple(c) for c in every.coords[every.valid]}
    apart = np.abs(every.coords[:, None] - every.coords[None]).max(-1) + 128 * np.eye(len(every.coords), dtype=int)
    assert (apart >= 128).all()  # no tissue is tiled twice


@pytest.mark.parametrize("name", ["frame", "pen", "crumbs"])
def test_dust_pen_and_crumbs_are_no_pieces(slides, name):
    biggest, every = (tiling.find_candidates(slides[name], 128, tissue=which) for which in ("biggest", "all"))
    assert every.attributes["pieces"] == 1 and biggest.attributes["left_out"] == 0
    assert (every.coords == biggest.coords).all()


def test_dust_that_histolab_takes_for_the_biggest_piece_is_told():
    image = np.full((200, 300, 3), 243, np.uint8)
    image[20:180, 10:120] = 120  # grey dust, larger than the tissue
    image[40:140, 180:270] = (205, 140, 185)
    noise = np.random.default_rng(0).integers(-9, 9, image.shape)
    image = (image + noise).clip(0, 255).astype(np.uint8)
    found = tissue.find(Image.fromarray(image))
    assert found.boxes[0][2] < 150 and found.pieces == 1 and found.left_out == 1.0
    assert tissue.find(Image.fromarray(image), "all").boxes[0][0] > 150
    image[:, 150:] = 243  # dust alone
    assert tissue.find(Image.fromarray(image)).pieces == 0 and tissue.find(Image.fromarray(image), "all").boxes == []
    (finding,) = [quality._other_pieces(0, 0.0, params.load("lgg", "demo"))]
    assert finding["flagged"] and finding["note"].startswith("no piece of tissue")


def test_boxes_that_touch_are_one():
    boxes = [(0, 0, 4, 4), (10, 0, 14, 4), (4, 2, 6, 8), (20, 0, 24, 4), (6, 7, 11, 9)]
    assert sorted(tissue._joined(boxes)) == [(0, 0, 14, 9), (20, 0, 24, 4)]
    assert tissue._joined([]) == []


def test_the_setting_makes_other_tiles_and_its_share_is_flagged(slides, tmp_path):
    p = params.load("lgg", "demo", data_dir=str(tmp_path), results_dir=str(tmp_path / "r"), mpp_table="", tile_px=128)
    p = p.override(n_tiles=30, few_tiles="exclude")
    patients = pd.DataFrame(
        {"slide_id": list(slides), "slide_path": [str(path) for path in slides.values()]}, index=list(slides)
    ).loc[["sections", "cores"]]
    one, every = (bags.tile_cohort(patients, p.override(tissue=which)) for which in ("biggest", "all"))
    assert one["problem"].tolist() == ["", "19 valid tiles, fewer than n_tiles (30)"] and not any(every["problem"])
    assert one["pieces"].tolist() == [2, 6] and one["left_out"].round(2).tolist() == [0.5, 0.83]
    assert every["left_out"].tolist() == [0, 0]
    found = {
        which: quality.table(patients, t, p.override(tissue=which)) for which, t in (("biggest", one), ("all", every))
    }
    found = {which: t[t["check"] == "other pieces"].set_index("slide_id") for which, t in found.items()}
    assert found["biggest"]["flagged"].all() and not found["all"]["flagged"].any()
    assert found["biggest"].loc["cores", "note"] == "6 pieces of tissue, tiled is the box of the biggest"
    assert found["biggest"].loc["cores", "value"] == pytest.approx(83, abs=1)


def test_who_has_enough_tiles_depends_on_it_and_the_paper_is_silent():
    p = params.load("lgg", "demo")
    assert p.tissue == "biggest" and p.enough_tiles != p.override(tissue="all").enough_tiles
    assert schema.UNSTATED["tissue"] == "tiles"
