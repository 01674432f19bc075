"""What a slide looks like: ink, tissue, light, hue and sharpness, measured on its thumbnail and its tiles.

Colours are judged in optical density (OD), where ink adds to the stain beneath it: eosin and haematoxylin both take
most from green, so whatever takes clearly more from red is blue or green ink, what takes as much from blue as from
green is red ink, and what takes alike from all three is black.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from openslide import OpenSlideError

from mmmil.slides import files as slide_files
from mmmil.slides.files import SlideError

LONGEST = 1024  # px, longest side of the thumbnail
BLOCK = 2048  # px, side of what is read at a time
SHARP_AT = 0.5  # µm per px at which quality.MIN_SHARPNESS holds
STAINED = 0.10  # difference between the channels' OD from which a pixel is tissue
MIN_BRIGHTNESS = 60.0  # median grey value: 99 in the densest H&E tile at hand, 2 in DAPI on its dark ground


def thumbnail(path: Path | str, longest: int = LONGEST) -> np.ndarray:
    """A slide's thumbnail (h, w, 3) uint8, at most `longest` px; what was not scanned is white (see `look`)."""
    return look(path, longest)[0]


def look(path: Path | str, longest: int = LONGEST) -> tuple[np.ndarray, np.ndarray]:
    """A slide's thumbnail (h, w, 3) uint8, at most `longest` px, and which of its pixels (h, w) bool were scanned.

    The next larger level is read in blocks, so that memory stays bounded without a pyramid, too. Raises SlideError
    where the slide cannot be opened or read.
    """
    with slide_files.open_slide(path) as slide:
        factor = max(max(slide.dimensions) / longest, 1)
        level = slide.get_best_level_for_downsample(factor)
        width, height = (max(round(side / factor), 1) for side in slide.dimensions)
        across, down = (full / side for full, side in zip(slide.level_dimensions[level], (width, height), strict=True))
        step = max(int(BLOCK / max(across, down)), 1)
        image, scanned = np.empty((height, width, 3), np.uint8), np.empty((height, width), bool)
        try:
            for top in range(0, height, step):
                for left in range(0, width, step):
                    here = slice(top, top + step), slice(left, left + step)
                    part = image[here]
                    x0, x1 = (round(x * across) for x in (left, left + part.shape[1]))
                    y0, y1 = (round(y * down) for y in (top, top + part.shape[0]))
                    left0, top0 = (round(v * slide.level_downsamples[level]) for v in (x0, y0))
                    block, alpha = slide_files.read_region(slide, (left0, top0), level, (x1 - x0, y1 - y0))
                    part[:], share = (
                        cv2.resize(np.asarray(pixels), part.shape[1::-1], interpolation=cv2.INTER_AREA)
                        for pixels in (block, alpha)
                    )
                    scanned[here] = share > 127
        except OpenSlideError as error:
            raise SlideError(f"{path}: reading its pixels failed ({error}): the file is damaged") from None
    return image, scanned


def optical_density(image: np.ndarray) -> np.ndarray:
    """OD (h, w, 3) float32 of an RGB image uint8, without single pixels and relative to the light's own colour.

    The light is the colour of the brightest 5 % of the pixels, but at least 200: an image without glass keeps its own.
    """
    image = cv2.medianBlur(np.ascontiguousarray(image), 5)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    light = np.median(image[grey >= np.percentile(grey, 95)], axis=0).clip(200)
    return -np.log((image + np.float32(1)) / np.float32(light + 1)).clip(None, 0)


def _range(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest channel (h, w) of an image (h, w, 3), much faster than by its last axis."""
    first, second, third = np.moveaxis(image, 2, 0)
    return np.minimum(np.minimum(first, second), third), np.maximum(np.maximum(first, second), third)


def _disk(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def _opened(mask: np.ndarray, diameter: int) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disk(diameter)) > 0


def _grown(core: np.ndarray, faint: np.ndarray, diameter: int) -> np.ndarray:
    """Pieces of core or faint ink, at least `diameter` px wide, that hold some core."""
    core = _opened(core, diameter)
    number, piece = cv2.connectedComponents(_opened(core | faint, diameter).astype(np.uint8))
    has_core = np.zeros(number, bool)
    has_core[piece[core]] = True
    has_core[0] = False
    return has_core[piece]


def pen_masks(image: np.ndarray) -> dict[str, np.ndarray]:
    """Red, green, blue and black ink on an RGB image (h, w, 3) uint8: four masks (h, w) that do not overlap.

    Made for thumbnails: a stroke is at least 1/200 (black: 1/100) of the longest side wide, which nuclei, blood cells
    and coal dust are not. A large haemorrhage may pass for red ink and a black frame for black.
    """
    longest = max(image.shape[:2])
    thin, thick = max(3, round(longest / 200)), max(5, round(longest / 100))
    od = optical_density(image)
    r, g, b = np.moveaxis(od, 2, 0)
    (low, high), (darkest, lightest) = _range(od), _range(image)
    # Dark blue ink takes as much from green as from red, and far more of both than nuclei do on a thumbnail.
    core = (r > 0.5) & (r > 1.25 * g) | (r > 1.2) & (r > 0.95 * g) & (b < 0.65 * r)
    cold = _grown(core, (r > 0.3) & (r > 1.1 * g), thin)
    # Blood is as red as ink, but not as dark: 1.3 in green, where strokes have 1.7 and more.
    red = _grown((g > 1.5) & (b > 0.75 * g) & (r < 0.35 * g), (g > 0.9) & (b > 0.65 * g) & (r < 0.4 * g), thin)
    # Near black the sensor's offset bends OD; there the grey values say how neutral a pixel is.
    dark = (low > 1.0) & (low > 0.62 * high) | (lightest < 55) & (lightest - darkest < 30)
    dark = cv2.morphologyEx((dark & ~cold & ~red).astype(np.uint8), cv2.MORPH_CLOSE, _disk(3))
    black = _opened(dark, thick) & ~cold & ~red
    # Over pink tissue green ink looks blue; what the whole stroke takes from blue light tells them apart.
    number, piece = cv2.connectedComponents(cold.astype(np.uint8))
    from_green, from_blue = (np.bincount(piece.ravel(), channel.ravel(), number) for channel in (g, b))
    green = cold & (from_blue > 0.65 * from_green)[piece]
    return {"red": red, "green": green, "blue": cold & ~green, "black": black}


def pen_percent(image: np.ndarray) -> dict[str, float]:
    """% of an RGB image (h, w, 3) uint8 that is covered by red, green, blue and black ink (see pen_masks)."""
    return {colour: 100 * float(mask.mean()) for colour, mask in pen_masks(image).items()}


def tissue_mask(image: np.ndarray, pens: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Stained pixels (h, w) bool of an RGB image uint8, without ink (`pens`: its masks) and the halo of ink.

    A fixed threshold: Otsu's, by which tiles are chosen, always finds something, on empty glass too.
    """
    ink = np.any(list((pens or pen_masks(image)).values()), axis=0).astype(np.uint8)
    halo = cv2.dilate(ink, _disk(2 * max(3, round(max(image.shape[:2]) / 100)) + 1)) > 0
    low, high = _range(optical_density(image))
    return (high - low > STAINED) & ~halo


def tissue_percent(image: np.ndarray) -> float:
    """% of an RGB image (h, w, 3) uint8 that is stained tissue (see tissue_mask)."""
    return 100 * float(tissue_mask(image).mean())


def brightness(image: np.ndarray, scanned: np.ndarray | None = None) -> float:
    """Median grey value (0 to 255) of an RGB image (h, w, 3) uint8, where it was scanned (h, w) bool."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return float(np.median(grey if scanned is None or not scanned.any() else grey[scanned]))


def is_brightfield(image: np.ndarray, scanned: np.ndarray | None = None) -> bool:
    """Whether light shines through the slide: fluorescence glows on a dark ground (median grey < MIN_BRIGHTNESS)."""
    return brightness(image, scanned) >= MIN_BRIGHTNESS


def tissue_hues(image: np.ndarray, tissue: np.ndarray | None = None) -> np.ndarray:
    """Hue in degrees (N,) of an RGB image's tissue pixels, relative to the light's own colour."""
    tissue = tissue_mask(image) if tissue is None else tissue
    return cv2.cvtColor(np.exp(-optical_density(image)), cv2.COLOR_RGB2HSV)[..., 0][tissue]


def he_share(image: np.ndarray, tissue: np.ndarray | None = None) -> float:
    """% of the tissue whose hue lies between violet-blue (220°) and pink (10°); NaN where there is no tissue."""
    hue = tissue_hues(image, tissue)
    return 100 * float(((hue >= 220) | (hue < 10)).mean()) if len(hue) else float("nan")


def sharpness(tiles: np.ndarray, mpp: float = SHARP_AT) -> float:
    """Median over tiles (N, px, px, 3) uint8 of the variance of the Laplacian of their grey values; NaN without tiles.

    Calibrated at 0.5 µm per px, to which finer tiles (`mpp`, µm per px) are shrunk first: the value falls about
    tenfold where a pixel is half as large. CMU-1's 15 tiles have 1951 there (569 to 3371), 229 after a Gaussian blur
    of 1 px, 29 after 2 px (1 µm) and 8 after 3 px. Coarser tiles hide a blur.
    """
    grey = [cv2.cvtColor(np.ascontiguousarray(tile), cv2.COLOR_RGB2GRAY) for tile in tiles]
    if mpp < 0.9 * SHARP_AT:
        grey = [cv2.resize(g, None, fx=mpp / SHARP_AT, fy=mpp / SHARP_AT, interpolation=cv2.INTER_AREA) for g in grey]
    return float(np.median([cv2.Laplacian(g, cv2.CV_64F).var() for g in grey])) if grey else float("nan")
