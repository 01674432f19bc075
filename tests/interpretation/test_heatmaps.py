"""Heatmaps lie on the tiles that made them, to the pixel; what would be drawn wrongly is refused by name."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import matplotlib.pyplot as plt
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from PIL import Image

from mmmil import params, study
from mmmil.interpretation import extract, heatmaps, hooks
from mmmil.plots import attention as plots
from mmmil.slides.places import HeatmapError
from mmmil.training import runs
from tests import small_slides
from tests.small_slides import BLUE, write_slide
from tests.small_studies import make

SCHEMA = json.loads(Path(__file__).with_name("qupath.schema.json").read_text())
QUPATH = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def one_odd_tile(tmp_path):
    return functools.partial(small_slides.one_odd_tile, tmp_path)


def attended_by_colour(where):
    """What a model would give that attends to blue: from the pixels of the bag, not from any coordinate."""
    return (where.pixels[..., 2].astype(float) - where.pixels[..., 0]).mean((1, 2)).clip(0) / 255 + 0.01


LAYOUTS = [(64, 0, 7), (64, 0, -1), (48, 0, 40), (32, 1, 5), (50, 1, -1)]


@pytest.mark.parametrize("tile_px, level, odd", LAYOUTS)
def test_the_polygon_is_the_tile_that_made_it(one_odd_tile, tile_px, level, odd):
    s = one_odd_tile(tile_px, level, odd)
    where = heatmaps.place_of(s, "P1")
    assert where.size == tile_px * 4**level and where.mpp == 0.5
    _, path = heatmaps.write(s, "P1", {"self": attended_by_colour(where)})
    found = json.loads(path.read_text())
    assert found["type"] == "FeatureCollection" and len(found["features"]) == len(where.coords)
    best = max(found["features"], key=lambda f: f["properties"]["measurements"]["attention: self"])
    assert best["properties"]["measurements"]["rank: self"] == 1
    ring = np.array(best["geometry"]["coordinates"][0])
    assert ring.shape == (5, 2) and (ring[0] == ring[-1]).all()
    (left, top), (right, below) = ring.min(0), ring.max(0)
    with openslide.OpenSlide(s.cohort.patients.loc["P1", "slide_path"]) as slide:
        around = slide.read_region((left - 2, top - 2), 0, (right - left + 4, below - top + 4))
    blue = (np.asarray(around)[..., :3] == BLUE).all(-1)
    assert blue[2:-2, 2:-2].all() and blue.sum() == (right - left) * (below - top)


@pytest.mark.parametrize("longest", [97, 333, 900])
@pytest.mark.parametrize("tile_px, level, odd", LAYOUTS)
def test_the_drawn_square_covers_exactly_the_odd_tile(one_odd_tile, tile_px, level, odd, longest):
    """Rendered with and without its square, at thumbnail scales that are no whole number."""
    s = one_odd_tile(tile_px, level, odd)
    where = heatmaps.place_of(s, "P1")
    odd_one = int(np.argmax(attended_by_colour(where)))

    def render(only):
        figure = plt.figure(figsize=(7.3, 6.1), dpi=100)
        axes = figure.add_axes([0.03, 0.02, 0.93, 0.95])
        weights = np.ones(len(only.coords))
        plots.draw_tiles(axes, only, weights, lambda w: 0.5 * w, longest)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
        plt.close(figure)
        return pixels

    without = render(replace(where, coords=where.coords[:0]))
    drawn = render(replace(where, coords=where.coords[[odd_one]]))
    # Blueness of the thumbnail, and how far each pixel was painted over, both from 0 to 1.
    blue = np.clip((without[..., 2] - without[..., 0] - 60) / (BLUE[2] - BLUE[0] - 60), 0, 1)
    changed = np.abs(drawn - without).sum(-1)
    changed = np.clip(changed / np.median(changed[changed > 10]), 0, 1)
    grid = np.indices(blue.shape).reshape(2, -1)
    centre = [(grid * m.ravel()).sum(1) / m.sum() for m in (blue, changed)]
    assert np.abs(centre[0] - centre[1]).max() < 1.0, (centre, blue.sum(), changed.sum())
    assert abs(blue.sum() / changed.sum() - 1) < (0.2 if longest == 97 else 0.08)
    if longest == 900:  # at about the slide's own resolution the edges agree as well
        edges = [np.concatenate([np.flatnonzero((m > 0.5).any(a))[[0, -1]] for a in (0, 1)]) for m in (blue, changed)]
        assert np.abs(edges[0] - edges[1]).max() <= 1, edges


def test_tiles_that_would_be_specks_get_a_dot(one_odd_tile):
    where = heatmaps.place_of(one_odd_tile(), "P1")
    figure, axes = plt.subplots(figsize=(1, 1))
    plots.draw_tiles(axes, where, np.ones(len(where.coords)), plt.Normalize(0, 1))
    assert len(axes.collections) == 2
    plt.close(figure)


def test_the_files_are_whole_and_say_what_qupath_reads(one_odd_tile, tmp_path):
    s = one_odd_tile()
    n = len(heatmaps.place_of(s, "P1").coords)
    maps = {"self": np.linspace(0, 1, n), "cross, GO": np.linspace(1, 0, n)}
    png, path = heatmaps.write(s, "P1", maps, tmp_path / "out")
    assert Image.open(png).size[0] > 600 and sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "P1.geojson",
        "P1.png",
    ]
    first = json.loads(path.read_text())["features"][0]
    assert first["type"] == "Feature" and len(first["id"]) == 36
    assert first["properties"]["objectType"] == "tile"
    assert first["properties"]["measurements"] == {
        "attention: self": 0.0,
        "attention: cross, GO": 1.0,
        "rank: self": n,
        "rank: cross, GO": 1,
    }
    colour = first["properties"]["color"]
    assert len(colour) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in colour)


def strict_json(text):
    """Read as QuPath's parser and others do, who know no NaN."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_geojson_is_what_qupath_documents(one_odd_tile, tmp_path):
    s = one_odd_tile(48, 0, 40)
    where = heatmaps.place_of(s, "P1")
    values = np.linspace(-1, 1, len(where.coords))
    _, path = heatmaps.write(s, "P1", {"input × gradient": values, "cross-attention, GO": values**2}, tmp_path / "out")
    found = strict_json(path.read_text())
    QUPATH.validate(found)
    assert len({feature["id"] for feature in found["features"]}) == len(where.coords)
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in found["features"]])
    assert (rings[:, 0] == rings[:, -1]).all(), "closed"
    assert (rings.min(1) == where.coords).all() and (rings.max(1) == where.coords + where.size).all(), "level-0 px"
    assert (rings >= 0).all() and (rings <= (where.width, where.height)).all(), "inside the slide"
    x, y = rings[:, :-1].transpose(2, 0, 1)
    area = (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1) / 2
    assert (area == where.size**2).all(), "right-hand rule of RFC 7946"


FAULTS = {
    "objecttype": lambda f: f["properties"].update(objecttype=f["properties"].pop("objectType")),
    "is not one of": lambda f: f["properties"].update(objectType="Tile"),
    "is not of type 'number'": lambda f: f["properties"]["measurements"].update(a="0.5"),
    "is too short": lambda f: f["geometry"].update(coordinates=[[[0, 0], [1, 0], [0, 0]]]),
    "is greater than the maximum": lambda f: f["properties"].update(color=[256, 0, 0]),
    "does not match": lambda f: f.update(id="tile 1"),
    "classification": lambda f: f["properties"].update(classification="tumour"),
}


@pytest.mark.parametrize("said", FAULTS)
def test_the_schema_refuses_what_qupath_would_not_understand(one_odd_tile, said):
    where = heatmaps.place_of(one_odd_tile(), "P1")
    made = heatmaps.geojson(where, {"self": np.ones(len(where.coords))})
    QUPATH.validate(made)
    FAULTS[said](made["features"][0])
    with pytest.raises(jsonschema.ValidationError, match=said):
        QUPATH.validate(made)


def test_a_map_with_a_sign_is_red_above_zero_and_blue_below(one_odd_tile):
    where = heatmaps.place_of(one_odd_tile(), "P1")
    n = len(where.coords)
    values = np.linspace(-1, 3, n)
    maps = {"input × gradient": values, "self": np.full(n, 1 / n)}
    colours = [f["properties"]["color"] for f in heatmaps.geojson(where, maps)["features"]]
    for value, (red, _, blue) in zip(values, colours, strict=True):
        assert abs(value) < 0.2 or (red > blue) == (value > 0)
    labels = heatmaps.signed(params.load("lgg", "demo"), maps)
    assert labels == {"input × gradient": "grade II ← logits → grade III"}
    figure = plots.attention_on_slide(where, maps, "x", signed=labels)
    said = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert said == ["grade II ← logits → grade III", "attention × number of tiles"]
    limits = [axes.get_xlim() for axes in figure.axes if axes.get_xlabel()]
    assert limits[0] == pytest.approx((-3, 3)), "as they are, around 0"


def test_qupaths_origin_is_the_scanned_part(one_odd_tile):
    where = heatmaps.place_of(one_odd_tile(), "P1")
    moved = replace(where, origin=(4, 8))
    ring = heatmaps.geojson(moved, {"self": np.ones(len(where.coords))})["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == (where.coords[0] - (4, 8)).tolist()


# -- errors ------------------------------------------------------------------------------------------------------
def test_a_slide_that_is_gone_is_named(one_odd_tile, tmp_path):
    s = one_odd_tile()
    (tmp_path / "odd.svs").rename(tmp_path / "elsewhere.svs")
    with pytest.raises(HeatmapError, match=r"odd\.svs: the slide of P1 was there .* is gone; put it back, or correct"):
        heatmaps.write(s, "P1", {"self": np.ones(3)})
    assert not (tmp_path / "results").exists()


def test_a_bag_that_is_gone_is_named(one_odd_tile, tmp_path):
    s = one_odd_tile()
    (tmp_path / "bag.h5").unlink()
    with pytest.raises(HeatmapError, match=r"bag\.h5: the bag of tiles of P1 .* is gone"):
        heatmaps.place_of(s, "P1")


def test_a_slide_of_another_size_is_refused(one_odd_tile, tmp_path):
    s = one_odd_tile()
    write_slide(tmp_path / "odd.svs", np.full((800, 1004, 3), 200, np.uint8))
    with pytest.raises(HeatmapError, match=r"odd\.svs: has 1004 x 800 px, but the tiles of P1 are of .*1004 x 900 px"):
        heatmaps.place_of(s, "P1")


def test_another_slide_of_the_same_size_is_refused(one_odd_tile, tmp_path):
    s = one_odd_tile(odd=7)
    one_odd_tile_at = tifffile.imread(tmp_path / "odd.svs", key=0)
    write_slide(tmp_path / "odd.svs", one_odd_tile_at[:, ::-1].copy())
    with pytest.raises(HeatmapError, match=r"no longer shows the tile that P1's bag holds: the slide was replaced"):
        heatmaps.place_of(s, "P1")


def test_coordinates_outside_the_slide_are_refused(one_odd_tile, tmp_path):
    s = one_odd_tile()
    import h5py

    with h5py.File(tmp_path / "bag.h5", "a") as file:
        file["coords"][3] = (1004, 0)
    with pytest.raises(HeatmapError, match=r"bag\.h5: the tile at \[1004, 0\] lies outside odd\.svs"):
        heatmaps.place_of(s, "P1")


def test_a_map_of_other_tiles_is_refused(one_odd_tile):
    with pytest.raises(HeatmapError, match="self: 2 weights, but the bag of P1 has"):
        heatmaps.write(one_odd_tile(), "P1", {"self": np.ones(2)})


def test_a_class_without_test_patients_is_named():
    p = params.load("lgg", "demo")
    with pytest.raises(HeatmapError, match=r"no patient of class 1 \(grade III\) is in the test set"):
        heatmaps.require_both_classes(p, np.zeros(4, int))


def test_a_task_without_slides_has_no_heatmap():
    p = params.load("lgg", "demo", inputs="genes", variants=["go", "kegg"])
    s = SimpleNamespace(p=p, has_coords=False)
    assert heatmaps.of_each_class(s) == []
    with pytest.raises(HeatmapError, match=r"task 'lgg' has no slides \(inputs: genes\)"):
        heatmaps.place_of(s, "P1")


# -- a trained model ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    own = {"variants": ["wsi"], "sim_patients": 24, "sim_slide_px": 512, "n_tiles": 4, "epochs": 1, "apoz_tiles": 16}
    return make(tmp_path_factory.mktemp("trained"), workers=2, **own)


def test_one_patient_of_each_class_is_shown_as_predicted(trained):
    folder = trained.p.results / "heatmaps"
    folder.mkdir()
    for earlier in ("TCGA-before.png", "TCGA-before.geojson"):  # of a training that showed somebody else
        (folder / earlier).touch()
    table = heatmaps.write_all(trained)
    assert {path.name for path in folder.iterdir()} == {"index.csv", *table["png"], *table["geojson"]}
    kept = pd.read_parquet(runs.run(trained, "wsi", -1) / "predictions.parquet").set_index("patient_id")
    assert list(table["label"]) == [0, 1] and list(table.columns) == heatmaps.FILES
    assert np.allclose(table["prob"], kept.loc[table["patient_id"], "prob"], atol=1e-6)
    for row in table.itertuples():
        assert kept.loc[row.patient_id, "label"] == row.label
        assert (folder / row.png).is_file()
        features = json.loads((folder / row.geojson).read_text())["features"]
        assert len(features) == 4 and set(features[0]["properties"]["measurements"]) == {
            "input × gradient",
            "rank: input × gradient",
            "attention: self-attention, rolled out",
            "rank: self-attention, rolled out",
            "attention: self-attention, layer 1",
            "rank: self-attention, layer 1",
            "attention: self-attention, layer 2",
            "rank: self-attention, layer 2",
        }
    assert len(pd.read_csv(folder / "index.csv")) == 2


def test_a_prediction_that_is_not_the_records_stops_it(trained, monkeypatch, code_replaced):
    from mmmil.training import fit

    assert len(heatmaps.of_each_class(trained)) == 2
    exact = fit.predict
    monkeypatch.setattr(fit, "predict", lambda *a, **k: (exact(*a, **k)[0] + 2e-6, exact(*a, **k)[1]))
    with pytest.raises(hooks.AttentionError, match="this attention is not that of the record"):
        heatmaps.of_each_class(trained)


def test_attention_read_anew_is_what_was_kept(trained):
    kept, anew = (extract.extract(trained, "wsi", anew=again) for again in (False, True))
    assert kept.weights.keys() == anew.weights.keys()
    assert all(np.allclose(kept.weights[k], anew.weights[k], atol=1e-6) for k in kept.weights)


def test_a_test_set_of_one_class_is_refused_before_drawing(trained):
    folds = trained.folds.copy()
    folds[(folds == -1) & (trained.labels == 0)] = 0
    other = study.Study(trained.p, trained.cohort, folds, trained.tiles)
    with pytest.raises(HeatmapError, match="no patient of class 0"):
        heatmaps.of_each_class(other)
