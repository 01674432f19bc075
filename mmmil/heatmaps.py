"""Attention heatmaps: whose slide is shown, where its tiles lie on it, and the files PNG and GeoJSON (Figs 9-11).

Nothing is drawn that was not checked: the kept model predicts the test patients once more and must give the record's
probabilities, and the slide must still hold, at the tiles' coordinates, the pixels that the model read.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmmil import bags, experiments, interpretation, record, slides, tiling
from mmmil.params import Params

SAME_PIXELS = 2.0  # grey values, mean over a tile, by which builds of a JPEG decoder may differ
FILES = ["patient_id", "label", "variant", "prob", "png", "geojson"]


class HeatmapError(ValueError):
    """A heatmap would not show what the model saw; names the patient or the file and what to do."""


@dataclass(frozen=True)
class Place:
    """Where the tiles of one patient lie on the slide.

    coords: (N, 2) upper left corners and size: side of a tile, both in level-0 px, in the bag's order; width, height
    of the slide in level-0 px; origin: (x, y) of the scanned part in level-0 px, from which QuPath counts; mpp: µm per
    level-0 px, None where it is not known; pixels: (N, px, px, 3) uint8.
    """

    slide_path: Path
    coords: np.ndarray
    size: int
    width: int
    height: int
    origin: tuple[int, int]
    mpp: float | None
    pixels: np.ndarray


@dataclass(frozen=True)
class Heatmap:
    """One patient's attention over tiles: maps, title -> (N,) shares that sum to 1; prob: variant -> of class 1."""

    patient: str
    label: int
    prob: dict[str, float]
    maps: dict[str, np.ndarray]


def sources(study) -> dict[str, tuple[str, str]]:
    """The maps of Figs 9-11 that a task can have: title -> (variant, source of attention); none without slides.

    Models that the batch could not train have none.
    """
    readers = [name for name in ("dual_go", "dual_kegg", "wsi") if name in experiments.variants(study.p)]
    there = experiments.standing(study, readers, [-1])
    dual, whole = [name for name in there if name != "wsi"], next(iter(there), None)
    found = {"self-attention": (whole, "self_image")} if whole else {}
    for name in dual:
        found[f"cross-attention, {experiments.variant(name).genes.upper()}"] = (name, "cross_image")
    return found


# -- checks ------------------------------------------------------------------------------------------------------
def place(study, patient: str) -> Place:
    """Where a patient's tiles lie, read from the bag and checked against the slide as it is now.

    Raises HeatmapError for a task without slides, a slide or bag that is gone, a slide of another size than the tiles
    were cut from, tiles outside the slide, and pixels that are not those of the bag.
    """
    if study.tiles is None:
        raise HeatmapError(f"task '{study.p.task}' has no slides (inputs: {study.p.inputs}): there is nothing to map")
    path, bag = Path(study.cohort.patients.loc[patient, "slide_path"]), Path(study.bag_paths[patient])
    for file, what in ((path, "slide"), (bag, "bag of tiles")):
        if not file.is_file():
            raise HeatmapError(
                f"{file}: the {what} of {patient} was there when the models were trained and is gone; put it back, or "
                "correct slide_path and tile and train again"
            )
    coords, a = bags.load_coords(str(bag))
    with slides.open_slide(path) as slide:
        width, height = slide.dimensions
        origin = tuple(int(slide.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
    again = "the slide was replaced; put the old one back, or tile and train again"
    of = (int(a["level0_width"]), int(a["level0_height"]))
    if of != (width, height):
        raise HeatmapError(
            f"{path}: has {width} x {height} px, but the tiles of {patient} are of a slide of {of[0]} x {of[1]} px: "
            + again
        )
    outside = ((coords < 0) | (coords >= (width, height))).any(1)
    if outside.any():
        raise HeatmapError(
            f"{bag}: the tile at {coords[outside][0].tolist()} lies outside {path.name} ({width} x {height} px): "
            "the coordinates are not this slide's; tile it and train again"
        )
    pixels = bags.load_bags([str(bag)])[0][: len(coords)]
    now = tiling.read_tiles(path, coords, a)
    off = np.abs(now.astype(np.int16) - pixels).mean((1, 2, 3))
    if off.max() > SAME_PIXELS:
        x, y = coords[off.argmax()]
        raise HeatmapError(f"{path}: at x {x}, y {y} it no longer shows the tile that {patient}'s bag holds: {again}")
    mpp = float(a.get("mpp_level0", 0)) or None
    return Place(path, coords, int(a["patch_size_level0"]), width, height, origin, mpp, pixels)


# -- who is shown ------------------------------------------------------------------------------------------------
def of_each_class(study) -> list[Heatmap]:
    """One patient per class with all maps of `sources`; empty for a task without slides.

    The patient is chosen by `interpretation.exemplars` of the first map's model: of those called rightly, the nearest
    to the class's median probability. Raises HeatmapError where the test set has no patient of a class.
    """
    shown = sources(study)
    models = {n: interpretation.extract(study, n, anew=True) for n in dict.fromkeys(n for n, _ in shown.values())}
    if not models:
        return []
    first = next(iter(models.values()))
    require_both_classes(study.p, first.labels)
    found = []
    for i in interpretation.exemplars(first, study.p.threshold):
        patient = first.patients[i]
        at = {name: model.patients.index(patient) for name, model in models.items()}
        n = len(bags.load_coords(study.bag_paths[patient])[0])  # padding stands last and has no place on the slide
        maps = {title: models[name].weights[source][at[name]][:n] for title, (name, source) in shown.items()}
        prob = {name: float(model.prob[at[name]]) for name, model in models.items()}
        found.append(Heatmap(patient, int(first.labels[i]), prob, maps))
    return found


def require_both_classes(p: Params, labels: np.ndarray) -> None:
    """Raise HeatmapError where the test set lacks a class."""
    for label, name in enumerate(p.class_names):
        if not (labels == label).any():
            raise HeatmapError(
                f"no patient of class {label} ({name}) is in the test set, so none of it can be shown; "
                "use more patients or a larger test_fraction"
            )


# -- files -------------------------------------------------------------------------------------------------------
def geojson(where: Place, maps: dict[str, np.ndarray], patient: str = "") -> dict:
    """A FeatureCollection of square tiles as QuPath (0.4 and later) opens it: drop the file onto the open slide.

    Each tile is an object of the type `tile` with a measurement per map (its attention, and its rank, 1 for the most
    attended), for QuPath's measurement maps; its colour is by the first map. Corners are level-0 px from the corner of
    the scanned part, where QuPath has its origin (OpenSlide's bounds-x and bounds-y; 0 for Aperio slides).
    """
    from matplotlib import colormaps

    first = next(iter(maps.values()))
    shade = (first - first.min()) / (np.ptp(first) or 1.0)
    rank = {title: np.argsort(np.argsort(-w, kind="stable")) + 1 for title, w in maps.items()}
    features = []
    for i, (x, y) in enumerate((where.coords - where.origin).tolist()):
        right, below = x + where.size, y + where.size
        measured = {f"attention: {title}": float(w[i]) for title, w in maps.items()}
        measured |= {f"rank: {title}": int(rank[title][i]) for title in maps}
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{patient}/{where.slide_path.name}/{x},{y},{where.size}")),
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[x, y], [right, y], [right, below], [x, below], [x, y]]],
                },
                "properties": {
                    "objectType": "tile",
                    "name": f"tile {i + 1}",
                    "color": [int(255 * c) for c in colormaps["inferno"](float(shade[i]))[:3]],
                    "measurements": measured,
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def write(study, patient: str, maps: dict[str, np.ndarray], folder: Path | None = None) -> tuple[Path, Path]:
    """Write `<patient>.png` and `<patient>.geojson` into results/<task>/heatmaps (or `folder`), each whole or not.

    maps: title -> (N,) attention over the patient's tiles, in the bag's order. Raises HeatmapError as `place` does,
    and where a map is not of the bag's tiles.
    """
    from mmmil.plots.attention import attention_on_slide

    where, folder = place(study, patient), folder or study.p.results / "heatmaps"
    for title, weights in maps.items():
        if len(weights) != len(where.coords):
            raise HeatmapError(
                f"{title}: {len(weights)} weights, but the bag of {patient} has {len(where.coords)} tiles; "
                "the model was trained on other tiles: train it again"
            )
    label = study.p.class_names[study.labels[patient]]
    figure = attention_on_slide(where, maps, f"{label}, {patient}", study.p.top_tiles)
    text = json.dumps(geojson(where, maps, patient), indent=1)
    png = record.write_atomically(folder / f"{patient}.png", lambda t: figure.savefig(t, format="png", dpi=150))
    return png, record.write_atomically(folder / f"{patient}.geojson", lambda t: t.write_text(text))


def write_all(study) -> pd.DataFrame:
    """Write the heatmaps of `of_each_class`, and index.csv that says who was shown; its rows, columns FILES.

    Pictures and GeoJSON files of patients that an earlier training showed are removed from the folder.
    """
    rows, folder = [], study.p.results / "heatmaps"
    for shown in of_each_class(study):
        files = [path.name for path in write(study, shown.patient, shown.maps)]
        rows += [(shown.patient, shown.label, name, prob, *files) for name, prob in shown.prob.items()]
    table = pd.DataFrame(rows, columns=FILES)
    record.write_atomically(folder / "index.csv", lambda t: table.to_csv(t, index=False))
    for kind in ("png", "geojson"):
        for file in folder.glob(f"*.{kind}"):
            if file.name not in set(table[kind]):
                file.unlink()
    return table
