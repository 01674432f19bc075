"""Stain normalisation: every tile is given the colours of a reference made of a fold's training patients.

Macenko's method finds the two stains of an image in optical density and replaces them, with their amounts, by the
reference's; Reinhard's gives tissue the reference's mean and spread in CIELAB. Both are histolab's, which the paper
uses for its tiles. The reference is fitted on one mosaic of tiles of training patients, so that no patient who is
evaluated has a say in how any tile looks.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from histolab.stain_normalizer import MacenkoStainNormalizer, ReinhardStainNormalizer
from PIL import Image

from mmmil import record

if TYPE_CHECKING:
    pass

FITTED = {  # what histolab's normalisers learn
    "macenko": ("stain_matrix_target", "max_concentrations_target"),
    "reinhard": ("target_means", "target_stds"),
}
STAINED = 205  # grey value 0.15 OD below histolab's white of 240, from which on Macenko's method takes a pixel
MAX_LEFT = 1.0  # OD beside the two stains to which a tile may be scaled; above, lavender tissue comes out yellow
MIN_STAINED = 0.01  # share of a tile's pixels with stain, below which there are no stains to find
FAILURES = (FloatingPointError, np.linalg.LinAlgError, ValueError, IndexError)


class StainError(ValueError):
    """A stain reference cannot be made; says of what and what to do."""


@dataclass(frozen=True)
class StainReference:
    """What a normaliser learnt: by kind, the stain matrix and 99th percentiles, or mean and spread in CIELAB."""

    kind: str
    fitted: dict[str, list]

    @property
    def key(self) -> str:
        return record.digest([self.kind, self.fitted])

    def save(self, path: Path) -> None:
        """Write it as JSON; floats keep all their digits."""
        path.write_text(json.dumps({"kind": self.kind, "fitted": self.fitted}, indent=1))

    @classmethod
    def load(cls, path: Path) -> StainReference:
        return cls(**json.loads(path.read_text()))


class _Macenko(MacenkoStainNormalizer):
    """histolab's, but it fails where it would divide by nearly nothing.

    Besides the two stains it scales what is left of a pixel's colour, so that its 99th percentile becomes the
    reference's. Where a tile's is about zero, what is left is blown up, and the tile comes out yellow or blue.
    """

    max_concentrations_target = np.zeros(3)

    def _find_concentrations(self, *args: np.ndarray) -> np.ndarray:
        concentrations = super()._find_concentrations(*args)
        least, most = np.percentile(concentrations, [1, 99], axis=1)
        gain = self.max_concentrations_target / most
        if not (most[:2] > 0).all() or abs(gain[2] * least[2]) > MAX_LEFT:
            raise FloatingPointError("the two stains cannot be told apart")
        return concentrations


def _normaliser(kind: str) -> MacenkoStainNormalizer | ReinhardStainNormalizer:
    return {"macenko": _Macenko, "reinhard": ReinhardStainNormalizer}[kind]()


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Tiles (N, px, px, 3) side by side in the rectangle nearest a square that has no gap: (rows·px, columns·px, 3)."""
    n, px = tiles.shape[:2]
    rows = max(r for r in range(1, int(n**0.5) + 1) if n % r == 0)
    return tiles.reshape(rows, n // rows, px, px, 3).swapaxes(1, 2).reshape(rows * px, -1, 3)


def _has_stain(tile: np.ndarray, kind: str) -> bool:
    """Whether enough pixels are dark in every channel, as histolab's Macenko needs them, or for Reinhard in any."""
    dark = tile < STAINED
    return (dark.all(-1) if kind == "macenko" else dark.any(-1)).mean() >= MIN_STAINED


def fit(tiles: np.ndarray, kind: str) -> StainReference:
    """Fit histolab's normaliser (`macenko` or `reinhard`) on the mosaic of tiles (N, px, px, 3) uint8.

    Raises StainError where there is no tile, or nothing stained on them.
    """
    normaliser = _normaliser(kind)
    try:
        if not len(tiles) or not _has_stain(tiles, kind):
            raise ValueError("they show no stained tissue")
        with np.errstate(divide="raise", invalid="raise"):
            normaliser.fit(Image.fromarray(mosaic(tiles)))
    except FAILURES as error:
        raise StainError(
            f"no stain reference can be fitted on {len(tiles)} tiles of training patients ({error}); "
            "look at them, or set stain: none"
        ) from None
    return StainReference(kind, {name: getattr(normaliser, name).tolist() for name in FITTED[kind]})


def normalised(tiles: np.ndarray, reference: StainReference) -> tuple[np.ndarray, np.ndarray]:
    """Tiles (N, px, px, 3) uint8 in the reference's colours, and which of them (N,) bool could be normalised.

    A tile without stain, or on which the method fails numerically, stays as it is.
    """
    normaliser = _normaliser(reference.kind)
    for name, value in reference.fitted.items():
        setattr(normaliser, name, np.array(value))
    tiles, done = tiles.copy(), np.zeros(len(tiles), bool)
    for i, tile in enumerate(tiles):
        if not _has_stain(tile, reference.kind):
            continue
        try:
            with np.errstate(divide="raise", invalid="raise", over="raise"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # skimage's, of a colour outside sRGB, which is clipped
                image = normaliser.transform(Image.fromarray(tile))
        except FAILURES:
            continue
        tiles[i], done[i] = np.asarray(image), True
    return tiles, done


def transform(tiles: np.ndarray, reference: StainReference) -> np.ndarray:
    """Tiles (N, px, px, 3) uint8 in the reference's colours (see `normalised`)."""
    return normalised(tiles, reference)[0]


# -- a study's folds ---------------------------------------------------------------------------------------------
