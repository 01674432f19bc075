"""Features of a frozen tile encoder: computed once for a cohort's bags and read by all trainings, or brought along."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from mmmil import record
from mmmil.models import backbone, weights
from mmmil.params import ParameterError, Params
from mmmil.slides import bag_files, packed
from mmmil.slides.features import LOOK, Bags
from mmmil.sources import feature_files
from mmmil.training import device
from mmmil.variants import network

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from mmmil.processes.shards import Shard
    from mmmil.study import Study


def frozen_features(study: Study, name: str, fold: int) -> Bags:
    """Features of a frozen tile encoder as a fold's models see them, of real tiles, in the cohort's order: those of a
    folder, or those of a network, which are computed once for the cohort's bags.
    """
    if name in study.p.feature_folders:
        return study.features(name)
    masks = study.tile_masks
    files = study.cohort.patients.reset_index().reindex(columns=LOOK)
    of_file, row = np.nonzero(masks)
    values = packed.mapped(_computed(study, name, fold))
    return Bags(study.patients, values, np.cumsum([0, *masks.sum(1)]), files, of_file, row, study.tile_coords)


def _computed(study: Study, name: str, fold: int) -> Path:
    """File of a network's features (real tiles, D) float32, one patient behind the other: gathered once."""
    inputs = _inputs(study.p, name) | {"bags": study.bag_keys(fold)}

    def make(folder: Path) -> dict:
        bags = compute(study, name, fold)
        parts = [np.load(bag / "features.npy")[mask] for bag, mask in zip(bags, study.tile_masks, strict=True)]
        np.save(folder / "features.npy", np.concatenate(parts))
        return record.run_json(bags[0])["facts"]

    return record.cached(study.p.results / "features" / name, inputs, make) / "features.npy"


def _inputs(p: Params, name: str) -> dict:
    source, kind = network(p, name)
    return {
        "encoder": source,
        "weights": weights.weights_key(source, kind, p.weights_folder),
        "seed": p.seed if kind == "random" else None,
        "precision": device.precision_of(p),
        "versions": record.versions("torch", "timm"),
    }


def compute(study: Study, name: str, fold: int, shard: Shard | None = None) -> list[Path]:
    """Folders with the features of a fold's bags, or of a shard of them: each found again, or computed now.

    Bag by bag, so that what was computed before a kill is found, whoever computed it.
    """
    p = study.p
    inputs = _inputs(p, name)

    @cache
    def network_on_device() -> tuple[backbone.FrozenEncoder, Fabric]:  # where everything is found it is not read
        fabric = device.make_fabric(p)
        return encoder(p, name, fabric), fabric

    def features_of(i: int) -> Path:
        def make(folder: Path) -> dict:
            made, fabric = network_on_device()
            np.save(folder / "features.npy", of_tiles(made, packed.taken(study.bags(fold), [i])[0], fabric))
            return device.circumstances(p)

        return record.cached(p.results / "features" / name / "bags", {**inputs, "bag": names[i]}, make)

    keys, number = study.bag_keys(fold), len(study.patients)
    names = keys if len(keys) == number else [[*keys, i] for i in range(number)]  # stained bags have one key for all
    which = list(range(number)) if shard is None else shard.of(list(range(number)))
    return [features_of(i) for i in tqdm(which, desc=f"features, {name}", unit="slide", mininterval=5, delay=5)]


def encoder(p: Params, name: str, fabric: Fabric) -> backbone.FrozenEncoder:
    """A frozen encoder by its name, on the device; random weights are those of the seed."""
    source, kind = network(p, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(p.seed)
        return backbone.FrozenEncoder(source, kind, p.weights_folder, p.tile_px).to(fabric.device)


@torch.inference_mode()
def of_tiles(made: backbone.FrozenEncoder, tiles: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Features (N, D) float32 of tiles (N, px, px, 3) uint8."""
    with fabric.autocast():
        pixels = torch.from_numpy(tiles).to(fabric.device)[None]
        return made(backbone.to_input(pixels, made.mean, made.std)).float().cpu().numpy()


def export(study: Study, name: str, folder: Path) -> list[Path]:
    """Write an encoder's features as TRIDENT does, `<slide_id>.h5` a slide, as the final model reads them.

    With stain normalisation their reference is that of the final model's training patients. Padding is left out; where
    the tiles have no coordinates, the files have none. Raises ParameterError for an encoder that is a folder already.
    """
    if name in study.p.feature_folders:
        raise ParameterError(f"{name} is read from {study.p.feature_folders[name]}: its files are there already")
    bags = frozen_features(study, name, -1)
    written = []
    for i, patient in enumerate(study.patients):
        coords, about = None, None
        if study.has_coords:
            coords, about = bag_files.load_coords(study.bag_paths[patient])
        path = folder / f"{study.cohort.patients.loc[patient, 'slide_id']}.h5"
        written.append(feature_files.write(path, bags.instances[bags.of(i)], coords, about, name))
    return written
