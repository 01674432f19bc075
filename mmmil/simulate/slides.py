"""Synthetic H&E slides with planted morphology, as tiled Aperio pyramids.

A slide is one irregular piece of tissue on glass: fibrous eosin stroma, haematoxylin nuclei, lumens,
dense spots of small inflammatory nuclei. On a level-0 grid of 128-px blocks some are planted: their nuclei are larger,
denser and darker. Slides differ in stain, so that the mean colour says less than the blocks do. Light passes through
both stains as in Beer-Lambert's law; slide and site vary the stains. Every block has its own random numbers and the
slide is made in strips of one row of tiles, so memory grows with its width and its 4x smaller second level only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from mmmil.simulate import pyramid
from mmmil.simulate.pyramid import GLASS, TILE

BLOCK = 128  # side of the planting grid, level-0 px
# Optical density per unit of stain in R, G, B (after Ruifrok & Johnston), eosin less pure than theirs.
HAEMATOXYLIN = np.array([0.62, 0.70, 0.34], np.float32)
EOSIN = np.array([0.15, 0.55, 0.24], np.float32)
PENS = {"blue": (1.5, 0.9, 0.15), "green": (1.6, 0.35, 1.0), "black": (1.6, 1.6, 1.5)}  # optical density

# Nuclei at 0.5 µm per px: grid cells along a block's side, share of them filled, mean radius (px) and its spread,
# stain at the centre and at the rim, half the side of the patch a nucleus is drawn in. Large nuclei are
# paler within than at their rim.
NUCLEI = {
    "normal": (8, 0.66, 4.0, 0.14, 1.05, 1.00, 8),
    "planted": (8, 0.95, 7.6, 0.16, 0.95, 1.15, 15),
    "inflamed": (12, 0.80, 2.9, 0.08, 1.10, 1.10, 6),
}
CYTOPLASM = {"normal": 0.20, "planted": 0.06}  # haematoxylin outside nuclei
INFLAMED_SHARE = 0.12  # of unplanted blocks, in both classes


def rng(*key: int | str) -> np.random.Generator:
    """Random numbers that depend on the key alone: names and indices, never the order of the work."""
    return np.random.default_rng([zlib.crc32(k.encode()) if isinstance(k, str) else int(k) for k in key])


@dataclass(frozen=True)
class Slide:
    """What a slide will show.

    `key` seeds it, `planted_share` is of its tissue blocks, `radius` that of the tissue in px (default: most of
    the slide), `site_tint` shifts haematoxylin and eosin in amount and hue (four numbers), and `states_mpp`
    says whether the file tells its scale.
    """

    key: tuple
    side: int
    planted_share: float = 0.0
    radius: float | None = None
    pen: bool = False
    mpp: float = 0.5
    states_mpp: bool = True
    site_tint: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    outline: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The outline as radius (px) over 720 angles: smooth lobes and a ragged edge.
        random = rng(*self.key, "outline")
        angle = np.linspace(-np.pi, np.pi, 720, endpoint=False)
        order = np.concatenate([np.arange(2, 7), np.arange(15, 40, 4)])
        waves = (
            (0.10 / order)[:, None]
            * random.normal(size=(len(order), 1))
            * np.cos(order[:, None] * angle + random.uniform(0, 2 * np.pi, (len(order), 1)))
        )
        # A squircle fills a square slide better than a circle does.
        shape = (np.abs(np.cos(angle)) ** 3 + np.abs(np.sin(angle)) ** 3) ** (-1 / 3)
        radius = self.radius or 0.43 * self.side
        object.__setattr__(self, "outline", (radius * shape * (1 + waves.sum(0))).astype(np.float32))

    def border_distance(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Px inside the tissue's outline (negative outside) along the ray from the centre; the ray's angle."""
        dx, dy = np.broadcast_arrays(x - self.side / 2, y - self.side / 2)
        angle = np.arctan2(dy, dx)
        at = (angle + np.pi) * (720 / (2 * np.pi))
        low = at.astype(np.int32) % 720
        part = at - np.floor(at)
        radius = self.outline[low] * (1 - part) + self.outline[(low + 1) % 720] * part
        return radius - np.hypot(dx, dy), angle

    @property
    def n_blocks(self) -> int:
        return -(-self.side // BLOCK)

    def planted(self) -> np.ndarray:
        """Grid (rows, columns) of blocks with the morphology of class 1: contiguous patches of the tissue."""
        n = self.n_blocks
        sample = (np.arange(n * 8) * (BLOCK // 8) + BLOCK // 16).astype(np.float32)
        grid = np.zeros((n, n), bool)
        inside, _ = self.border_distance(sample[None, :], sample[:, None])
        share = (inside > 0).reshape(n, 8, n, 8).mean((1, 3))
        tissue = np.flatnonzero(share.ravel() >= 0.5)
        count = round(self.planted_share * len(tissue))
        field_ = rng(*self.key, "planted").normal(size=(n, n))
        rank = np.argsort(-ndimage.gaussian_filter(field_, 1.2, mode="wrap").ravel()[tissue], kind="stable")
        grid.ravel()[tissue[rank[:count]]] = True
        return grid


@lru_cache(maxsize=1)
def texture(size: int = 1024) -> dict[str, np.ndarray]:
    """Periodic textures of unit variance (size x size, float32): wavy fibres, ragged edge, fine grain."""
    random = rng("texture")
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")

    def filtered(weight: np.ndarray) -> np.ndarray:
        image = np.fft.irfft2(np.fft.rfft2(random.normal(size=(size, size))) * weight, s=(size, size))
        return image / image.std()

    f = np.hypot(fx, fy)
    fibres = []
    for turn in np.deg2rad([20, 75, 130]):
        along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
        fibres.append(filtered(np.exp(-((along / 0.012) ** 2)) * across**2 * np.exp(-((across / 0.09) ** 2))))
    # Each place shows mostly one direction, as bundles do, and the bundles wave.
    bundles = np.stack([filtered(np.exp(-((f / 0.008) ** 2))) for _ in fibres])
    weight = np.exp(2.5 * bundles) / np.exp(2.5 * bundles).sum(0)
    fibre = (weight * np.stack(fibres)).sum(0)
    wave = [16 * filtered(np.exp(-((f / 0.012) ** 2))) for _ in range(2)]
    place = [i + w for i, w in zip(np.indices((size, size)), wave, strict=True)]
    fibre = ndimage.map_coordinates(fibre, place, order=1, mode="grid-wrap")
    edge, grain = (filtered(np.exp(-((f / width) ** 2))) for width in (0.06, 0.22))
    textures = {"fibre": fibre / fibre.std(), "edge": edge, "grain": grain}
    return {name: image.astype(np.float32) for name, image in textures.items()}


def nuclei(slide: Slide, planted: np.ndarray, kind: str, rows: range) -> np.ndarray:
    """Nuclei of one kind in some rows of blocks: (N, 6) x, y, semi-axes (px), angle, stain."""
    cells, filled, radius, spread, *_ = NUCLEI[kind]
    cells = max(round(cells * slide.mpp / 0.5), 1)
    whole = rng(*slide.key, "nuclei")  # the same for all blocks of a slide
    radius *= 0.5 / slide.mpp * np.exp(whole.normal(0, 0.04))
    filled = min(filled * np.exp(whole.normal(0, 0.05)), 1)
    cell = BLOCK / cells
    block_nuclei = []
    for row in rows:
        for column in range(slide.n_blocks):
            random = rng(*slide.key, "block", row, column)
            inflamed = random.random() < INFLAMED_SHARE
            of_block = "planted" if planted[row, column] else "inflamed" if inflamed else "normal"
            if of_block != kind:
                continue
            grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2)
            grid = grid[random.random(len(grid)) < filled]
            jitter = random.uniform(-0.42, 0.42, grid.shape)
            xy = (grid + 0.5 + jitter) * cell + np.array([column, row]) * BLOCK
            r = radius * np.exp(random.normal(0, spread, len(grid)))
            long = np.sqrt(random.uniform(1.05, 1.9, len(grid)))
            angle = random.uniform(0, np.pi, len(grid))
            stain = random.normal(1, 0.12, len(grid)).clip(0.6, 1.4)
            block_nuclei.append(np.column_stack([xy, r * long, r / long, angle, stain]))
    return np.concatenate(block_nuclei).astype(np.float32) if block_nuclei else np.zeros((0, 6), np.float32)


def draw_nuclei(canvas: np.ndarray, top: int, cells: np.ndarray, kind: str, mpp: float) -> None:
    """Lay ellipses over a haematoxylin map (height, width) whose first row is level-0 row `top`."""
    *_, centre, rim, half = NUCLEI[kind]
    half = int(np.ceil(half * 0.5 / mpp))
    offset = np.arange(-half, half + 1)
    height, width = canvas.shape
    for part in np.array_split(cells, max(len(cells) // 2048, 1)):
        x, y, a, b, angle, stain = (column[:, None, None] for column in part.T)
        px, py = np.floor(x).astype(np.int32) + offset, np.floor(y).astype(np.int32) + offset[:, None]
        dx, dy = px - x, py - y
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / a
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / b
        q = np.sqrt(u * u + v * v)
        edge = np.clip((1.05 - q) * np.sqrt(a * b) / 1.6, 0, 1)  # soft over about 1.6 px, as in a scan
        value = edge * stain * (centre + (rim - centre) * np.minimum(q, 1) ** 3)
        py = np.broadcast_to(py - top, value.shape)
        px = np.broadcast_to(px, value.shape)
        inside = (edge > 0) & (py >= 0) & (py < height) & (px >= 0) & (px < width)
        np.maximum.at(canvas.reshape(-1), py[inside] * width + px[inside], value[inside])


def strips(slide: Slide) -> Iterator[np.ndarray]:
    """The slide from top to bottom in strips (256, width, 3) uint8, the width padded to whole tiles."""
    planted = slide.planted()
    n, width = slide.n_blocks, -(-slide.side // TILE) * TILE
    random = rng(*slide.key, "stain")
    tint = np.asarray(slide.site_tint) + random.normal(0, [0.07, 0.07, 0.03, 0.03])  # slide to slide, within a site
    haematoxylin = np.float32(HAEMATOXYLIN * np.exp(tint[0]) * (1 + tint[2] * np.array([1, 0, -1])))
    eosin = np.float32(EOSIN * np.exp(tint[1]) * (1 + tint[3] * np.array([-1, 0, 1])))
    shift = random.integers(0, 1024, (4, 2))
    # Per block: how much haematoxylin the cytoplasm takes and how thick the section is. Planted blocks have paler
    # cytoplasm and denser stroma, which makes up for some of the stain in their nuclei.
    basophilic = np.where(planted, CYTOPLASM["planted"], CYTOPLASM["normal"]) + random.normal(0, 0.06, (n, n))
    thick = ndimage.gaussian_filter(random.normal(0, 0.5, (n, n)), 1, mode="wrap") + 0.12 * planted
    maps = [np.pad(m, 2, mode="edge").astype(np.float32) for m in (basophilic.clip(0), thick)]
    lumens = random.uniform(0.1, 0.9, (int(6 * (slide.side / 1024) ** 2), 2)) * slide.side
    lumens = np.column_stack([lumens, random.uniform(7, 17, len(lumens))])
    pen, arc = random.choice(list(PENS)), random.uniform(-np.pi, np.pi)

    def textured(name: str, y: np.ndarray, offset: np.ndarray) -> np.ndarray:
        image = texture()[name]
        rows, columns = (y.ravel() + offset[0]) % len(image), (np.arange(width) + offset[1]) % len(image)
        return image[rows.astype(int)][:, columns]

    x = np.arange(width, dtype=np.float32)[None, :]
    for top in range(0, slide.side, TILE):
        y = np.arange(top, top + TILE, dtype=np.float32)[:, None]
        inside, angle = slide.border_distance(x, y)
        fibres, fine = textured("fibre", y, shift[0]), textured("grain", y, shift[1])
        ragged = textured("edge", y, shift[2])
        density = np.clip((inside + 5 * ragged) / 3, 0, 1)
        for lx, ly, r in lumens:
            x0, x1 = max(int(lx - 2 * r), 0), int(lx + 2 * r)
            if top - 2 * r < ly < top + TILE + 2 * r:
                far = np.hypot(x[:, x0:x1] - lx, y - ly) + 2.5 * ragged[:, x0:x1] - r
                density[:, x0:x1] *= np.clip(far / 2, 0, 1)
        place = np.broadcast_arrays(y / BLOCK + 1.5, x / BLOCK + 1.5)
        cytoplasm, bulk = (ndimage.map_coordinates(m, place, order=1, mode="nearest") for m in maps)
        stroma = 1.08 + bulk + 0.11 * fibres + 0.08 * fine
        nuclear = np.zeros((TILE, width), np.float32)
        rows = range(max(top // BLOCK - 1, 0), min(top // BLOCK + TILE // BLOCK + 1, n))
        for kind in NUCLEI:
            draw_nuclei(nuclear, top, nuclei(slide, planted, kind, rows), kind, slide.mpp)
        chromatin = nuclear * (1 + 0.16 * fine)
        # Cytoplasm takes some haematoxylin; within a nucleus eosin is mostly displaced.
        blue = density * (cytoplasm * (1 + 0.25 * fibres) + chromatin)
        pink = density * stroma * (1 - 0.55 * np.minimum(nuclear, 1))
        absorbed = np.maximum(blue, 0)[..., None] * haematoxylin + np.maximum(pink, 0)[..., None] * eosin
        if slide.pen:
            off = np.abs((angle - arc + np.pi) % (2 * np.pi) - np.pi)
            ink = (np.abs(inside + 0.035 * slide.side) < 0.011 * slide.side + 1.5 * ragged) & (off < 0.55)
            absorbed += ink[..., None] * (0.8 + 0.1 * fine)[..., None] * np.array(PENS[pen], np.float32)
        light = GLASS * np.exp(-absorbed) + 1.2 * textured("grain", y, shift[3])[..., None]
        yield np.clip(light, 0, 255).astype(np.uint8)


def write_slide(path: Path, slide: Slide) -> None:
    """Write a slide as a pyramid that OpenSlide opens as Aperio `.svs`."""
    pyramid.write(path, strips(slide), slide.side, slide.mpp if slide.states_mpp else None)
