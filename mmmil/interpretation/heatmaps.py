"""Heatmaps of attention and of input x gradient: whose slide is shown, which readout, and the files (Figs 9-11).

The paper maps attention. Where a linear skip and a mean carry the decision, attention need not be of it, so what is
drawn is the readout that finds planted tiles: input x gradient. The others are there to be asked for, and the GeoJSON
holds all.

Nothing is drawn that was not checked: the kept model predicts the test patients once more and must give the record's
probabilities, and the slide must still hold, at the tiles' coordinates, the pixels that the model read.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmmil import record, results, variants
from mmmil.interpretation import attribution, extract
from mmmil.models.reading import SHOWN
from mmmil.params import Params
from mmmil.slides import bag_files
from mmmil.slides.places import HeatmapError, Place, place
from mmmil.training import runs

if TYPE_CHECKING:
    from mmmil.study import Study

FILES = ["patient_id", "label", "variant", "prob", "png", "geojson"]
# Readouts, and how the titles of their maps begin.
TITLES = {
    "gradient": "input × gradient",
    SHOWN: "self-attention, rolled out",
    "layer1": "self-attention, layer 1",
    "self": "self-attention, layer 2",
    "cross": "cross-attention",
}
DRAWN = ("gradient",)


@dataclass(frozen=True)
class Heatmap:
    """One patient's tiles: maps, title -> (N,), of attention shares that sum to 1, of input x gradient logits towards
    class 1; prob: variant -> of class 1.
    """

    patient: str
    label: int
    prob: dict[str, float]
    maps: dict[str, np.ndarray]


def sources(study: Study) -> dict[str, tuple[str, str]]:
    """The maps of Figs 9-11 that a task can have: title -> (variant, source); none without slides.

    Of an encoder's class token the rollout comes first: it finds planted tiles as layer 1 does, where layer 2 alone
    loses them (benchmarks/results/planted_attention.md). Models that the batch could not train have none.
    """
    readers = [name for name in variants.all_proposed(study.p) if variants.variant(name).uses_slides]
    standing = runs.standing(study, readers, [-1])
    first = [way for way in TITLES if way != "cross"] if standing else []
    maps = {TITLES[way]: (standing[0], "gradient" if way == "gradient" else f"{way}_image") for way in first}
    for v in map(variants.variant, standing):
        if v.uses_genes:
            maps[f"{TITLES['cross']}, {v.genes.upper()}"] = (v.name, "cross_image")
    return maps


def drawn(maps: Mapping[str, np.ndarray], readouts: Collection[str] = DRAWN) -> dict[str, np.ndarray]:
    """The maps of some readouts, of TITLES; all of them where there is none of these."""
    begin = tuple(TITLES[readout] for readout in readouts)
    return {title: values for title, values in maps.items() if title.startswith(begin)} or dict(maps)


def signed(p: Params, maps: Collection[str]) -> dict[str, str]:
    """Of the maps, by title, those whose values have a sign, and what their colours say."""
    zero, one = p.class_names
    return {title: f"{zero} ← logits → {one}" for title in maps if title.startswith(TITLES["gradient"])}


def caption(p: Params, planted: Mapping[str, pd.DataFrame], readouts: Collection[str] = DRAWN) -> str:
    """Which readouts the maps show and why, with what was measured of each on planted tiles.

    planted: variant -> `faithfulness.planted_tiles`; empty where nobody knows which tiles are planted.
    """
    zero, one = p.class_names
    text = f"**Drawn: {', '.join(TITLES[readout] for readout in readouts)}.** "
    if "gradient" in readouts:
        text += (
            f"Input × gradient: how far each tile, as the model reads it, moves the logits towards {one} (red) or "
            f"{zero} (blue), to first order. It counts every way by which a tile reaches the answer, the linear skip "
            "and the mean of all tiles too, of which no attention knows. "
        )
    if not planted:
        return text + "Nobody knows here which tiles should be found; the section's page has what planted tiles say."
    for name, table in planted.items():
        of_readout = {way: "gradient" if way == "gradient" else f"{way}_image" for way in TITLES}
        there = {TITLES[way]: table.loc[source] for way, source in of_readout.items() if source in table.index}
        said = [f"{title} {row['auroc']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for title, row in there.items()]
        best = max(there, key=lambda title: there[title]["auroc"])
        number = int(next(iter(there.values()))["patients"])
        text += (
            f"AUROC for the planted tiles of {number} patients, {variants.variant(name).shown_as}: {'; '.join(said)}. "
            f"The highest is that of {best}. "
        )
    return text.strip()


# -- who is shown ------------------------------------------------------------------------------------------------
def of_each_class(study: Study) -> list[Heatmap]:
    """One patient per class with all maps of `sources`; empty where nobody knows where the tiles lie on a slide.

    The patient is chosen by `extract.exemplars` of the first map's model: of those called rightly, the nearest
    to the class's median probability. Raises HeatmapError where the test set has no patient of a class.
    """
    panels = sources(study) if study.has_coords else {}
    models = {n: extract.extract(study, n, anew=True) for n in dict.fromkeys(n for n, _ in panels.values())}
    if not models:
        return []
    first = next(iter(models.values()))
    require_both_classes(study.p, first.labels)
    values = {
        (name, source): _gradient(study, models[name]) if source == "gradient" else models[name].weights[source]
        for name, source in panels.values()
    }
    heatmaps = []
    for i in extract.exemplars(first):
        patient = first.patients[i]
        at = {name: model.patients.index(patient) for name, model in models.items()}
        n = len(bag_files.load_coords(study.bag_paths[patient])[0])  # padding stands last and has no place on the slide
        maps = {title: values[name, source][at[name]][:n] for title, (name, source) in panels.items()}
        prob = {name: float(model.prob[at[name]]) for name, model in models.items()}
        heatmaps.append(Heatmap(patient, int(first.labels[i]), prob, maps))
    return heatmaps


def _gradient(study: Study, model: extract.Attention) -> np.ndarray:
    """Input x gradient towards class 1, (patients, N), of the model that gives the record's probabilities."""
    tokens = attribution.tokens(study, model.variant, -1, "tiles")
    off = np.abs(attribution.whole(tokens) - model.prob).max()
    if tokens.patients != model.patients or not off <= extract.ELSEWHERE:
        raise HeatmapError(f"{model.variant}: read tile by tile, it gives other probabilities: {off:.6f} apart")
    return attribution.rankings(tokens, "tiles", towards=1)["gradient"]


def place_of(study: Study, patient: str) -> Place:
    """Where a patient's tiles lie on the slide (see `places.place`). Raises HeatmapError where nobody knows."""
    if not study.has_coords:
        raise HeatmapError(f"task '{study.p.task}' has {why_none(study)}: there is nothing to map")
    return place(patient, Path(study.cohort.patients.loc[patient, "slide_path"]), Path(study.bag_paths[patient]))


def why_none(study: Study) -> str:
    """What a task without heatmaps has in the place of slides with tiles on them; '' for one that can have them."""
    if study.has_coords:
        return ""
    if not study.p.has_slides:
        return f"no slides (inputs: {study.p.inputs})"
    return "features in the place of slides" if study.p.features_dir else "images of tiles in the place of slides"


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

    Each tile is an object of the type `tile` with a measurement per map (its value, and its rank, 1 for the highest),
    for QuPath's measurement maps; its colour is by the first map. Corners are level-0 px from the corner of
    the scanned part, where QuPath has its origin (OpenSlide's bounds-x and bounds-y; 0 for Aperio slides).
    """
    from mmmil.plots.attention import shades

    gradient = TITLES["gradient"]
    names = {title: title if title.startswith(gradient) else f"attention: {title}" for title in maps}
    first = next(iter(maps))
    shade, colours = shades(maps[first], first.startswith(gradient))
    colour = colours(shade(maps[first]))
    rank = {title: np.argsort(np.argsort(-w, kind="stable")) + 1 for title, w in maps.items()}
    features = []
    for i, (x, y) in enumerate((where.coords - where.origin).tolist()):
        right, below = x + where.size, y + where.size
        measured = {names[title]: float(w[i]) for title, w in maps.items()}
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
                    "color": [int(255 * c) for c in colour[i, :3]],
                    "measurements": measured,
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def write(study: Study, patient: str, maps: dict[str, np.ndarray], folder: Path | None = None) -> tuple[Path, Path]:
    """Write `<patient>.png` and `<patient>.geojson` into results/<run>/heatmaps (or `folder`), each whole or not.

    maps: title -> (N,) values of the patient's tiles, in the bag's order; the PNG has those of `drawn`. Raises
    HeatmapError as `place` does, and where a map is not of the bag's tiles.
    """
    from mmmil.plots.attention import attention_on_slide
    from mmmil.plots.style import of_cohort

    of_cohort(study.p.synthetic)
    where, folder = place_of(study, patient), folder or study.p.results / "heatmaps"
    for title, weights in maps.items():
        if len(weights) != len(where.coords):
            raise HeatmapError(
                f"{title}: {len(weights)} weights, but the bag of {patient} has {len(where.coords)} tiles; "
                "the model was trained on other tiles: train it again"
            )
    label = study.p.class_names[study.labels[patient]]
    shown = drawn(maps)
    figure = attention_on_slide(where, shown, f"{label}, {patient}", signed=signed(study.p, shown))
    text = json.dumps(geojson(where, maps, patient), indent=1)
    png = record.write_atomically(
        folder / f"{patient}.png", lambda t: figure.savefig(t, format="png", dpi=150, bbox_inches="tight")
    )
    return png, record.write_atomically(folder / f"{patient}.geojson", lambda t: t.write_text(text))


def write_all(study: Study) -> pd.DataFrame:
    """Write the heatmaps of `of_each_class`, and index.csv that says who was shown; its rows, columns FILES.

    Where there can be none, it says why. Pictures and GeoJSON files of patients that an earlier training showed are
    removed from the folder.
    """
    rows, folder = [], study.p.results / "heatmaps"
    if why := why_none(study):
        print(f"no heatmaps: task '{study.p.task}' has {why}")
    for heatmap in of_each_class(study):
        files = [path.name for path in write(study, heatmap.patient, heatmap.maps)]
        rows += [(heatmap.patient, heatmap.label, name, prob, *files) for name, prob in heatmap.prob.items()]
    table = pd.DataFrame(rows, columns=FILES)
    results.write(study.p, "heatmaps/index", table)
    for kind in ("png", "geojson"):
        for file in folder.glob(f"*.{kind}"):
            if file.name not in set(table[kind]):
                file.unlink()
    return table
