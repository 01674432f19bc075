"""The models of a kept folder, each with what was fitted for it, and what they make of one patient alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmmil.apply.folder import FINAL, STAIN, WEIGHTS, KeptModel, ModelError
from mmmil.genes.transform import Transform
from mmmil.params import Params
from mmmil.training import build, fit
from mmmil.training.fit import Inputs
from mmmil.variants import Variant

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from mmmil.slides.stain import StainReference

# By which the probe's probability may differ on the same device and elsewhere (bf16 keeps three digits).
SAME, ELSEWHERE = 1e-4, 0.02
PROBED = 16  # instances of the probe where a bag may have any number


@dataclass(frozen=True)
class Model:
    """One model: module (set up on its device), transform of its genes or None, stain reference or None."""

    name: str
    fabric: Fabric
    module: Any
    transform: Transform | None
    stain: StainReference | None
    trains_encoder: bool

    def genes(self, level: np.ndarray, symbols: Sequence[str]) -> np.ndarray:
        """What it reads of levels (patients, symbols): tokens, or scaled levels where it encodes them itself."""
        assert self.transform is not None
        if self.trains_encoder:
            return self.transform.levels(level, symbols, impute=True)
        return self.transform.apply(level, symbols, impute=True)

    def predict(self, inputs: Inputs) -> tuple[float, dict[str, np.ndarray]]:
        """Probability of class 1 of the one patient of `inputs`, and attention, source -> (N,), mean over heads."""
        prob, attention = fit.predict(self.fabric, self.module, inputs, [0], batch=1)
        return float(prob[0]), {source: rows[0] for source, rows in attention.items()}

    def mean_tokens(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """As `mean_tokens`, of the one patient of `inputs`: modality -> (D,)."""
        return {name: values[0] for name, values in mean_tokens(self.fabric, self.module, inputs, [0], 1).items()}


@torch.no_grad()
def mean_tokens(fabric: Fabric, module: Any, inputs: Inputs, which: Sequence[int], batch: int) -> dict[str, np.ndarray]:
    """Mean of the tokens that the aggregator reads of each modality, image and genes: (len(which), D) float64."""
    module.eval()
    found: dict[str, list[np.ndarray]] = {}
    for part in torch.tensor(list(which)).split(batch):
        given = fabric.to_device(inputs.take(part))
        tokens = {}
        with fabric.autocast():
            if inputs.tiles is not None:
                tokens["image"] = module.module.image_tokens(given["tiles"], given.get("mask"))
            if inputs.genes is not None:
                tokens["genes"] = module.module.gene_tokens(given["genes"])
        for name, values in tokens.items():
            real = torch.ones(values.shape[:2], device=values.device, dtype=torch.float64)
            if name == "image" and "mask" in given:
                real = given["mask"].double()
            means = (values.double() * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            found.setdefault(name, []).append(means.cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def probe(model: Any, fabric: Fabric, p: Params, image: Mapping[str, Any], genes: tuple[int, ...]) -> float:
    """Probability that a model gives to numbers drawn by a fixed seed: tells whether other code computes the same.

    image: what the kept model says of its image side, empty without; genes: shape of a patient's genes, () without.
    """
    random = np.random.default_rng(0)
    tiles, number = None, image.get("tiles") or PROBED
    if image and image["kind"] == "pixels":
        tiles = torch.from_numpy(random.integers(0, 256, (1, number, p.tile_px, p.tile_px, 3), dtype=np.uint8))
    elif image:
        tiles = torch.from_numpy(random.normal(size=(1, number, image["width"])).astype(np.float32))
    values = torch.from_numpy(random.normal(size=(1, *genes)).astype(np.float32)) if genes else None
    return float(fit.predict(fabric, model, Inputs(tiles, values), [0], 1)[0][0])


def read_parts(folder: Path, v: Variant) -> tuple[Transform | None, StainReference | None]:
    """What was fitted for one model of a kept folder."""
    transform = Transform.load(folder) if v.uses_genes else None
    if not (folder / STAIN).is_file():
        return transform, None
    from mmmil.slides.stain import StainReference

    return transform, StainReference.load(folder / STAIN)


def gene_shapes(v: Variant, p: Params, transform: Transform | None) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Tokens and their length, and the shape of what the model reads of a patient."""
    if transform is None:
        return (0, 0), ()
    width = len(transform.symbols) if transform.autoencoder is None else transform.autoencoder.latent
    tokens = (len(transform.genes), width)
    return tokens, (len(transform.symbols),) if v.trains_gene_encoder(p) else tokens


def load(kept: KeptModel, p: Params, fabric: Fabric) -> list[Model]:
    """All models of a kept folder, the final one first.

    Raises ModelError where one does not give its probe the probability that it gave when it was kept.
    """
    v, image, models = kept.variant, kept.about["image"], []
    for name in kept.models:
        folder = kept.folder / name
        transform, stain = read_parts(folder, v)
        tokens, shape = gene_shapes(v, p, transform)
        trains = v.trains_gene_encoder(p)
        encoder = transform.encoder() if transform is not None and trains else None
        width, positions = image.get("width", 0), image.get("coordinates", True)
        module = build.restored(p, v, folder / WEIGHTS, tokens, encoder, width, fabric, positions)
        _require_same(kept, name, probe(module, fabric, p, image, shape), p)
        models.append(Model(name, fabric, module, transform, stain, trains))
    assert models[0].name == FINAL
    return models


def _require_same(kept: KeptModel, name: str, prob: float, p: Params) -> None:
    from mmmil.training import device

    then = kept.about["kept_on"]
    tolerance = SAME if then == device.circumstances(p) else ELSEWHERE
    expected = kept.about["models"][name]["probe"]
    if not abs(prob - expected) <= tolerance:
        raise ModelError(
            f"{kept.folder}: its model {name} gives the numbers that it is tried with {prob:.6f} here, and gave "
            f"{expected:.6f} when it was kept, by commit {kept.about['commit']}: this version computes otherwise; use "
            "that commit, or keep the model anew"
        )
