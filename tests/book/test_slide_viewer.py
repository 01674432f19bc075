"""A slide to look into: what the page says of it, and that a browser shows it from a disk, with no network."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmmil import params
from mmmil.book import page_files, pages, slide_viewer
from mmmil.interpretation import heatmaps
from mmmil.interpretation.heatmaps import Heatmap
from mmmil.slides import deep_zoom
from tests import book_stubs, small_slides

STATIC = book_stubs.ROOT / "book" / "_static"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def study(tmp_path):
    return small_slides.one_odd_tile(tmp_path)


def shown(study):
    n = len(heatmaps.place_of(study, "P1").coords)
    maps = {"input × gradient": np.linspace(-1, 3, n), "self-attention, rolled out": np.full(n, 1 / n)}
    return Heatmap("P1", 1, {"wsi": 0.75}, maps)


def about(viewers):
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', viewers._repr_html_())
    return json.loads(text)


def test_the_page_says_where_every_tile_lies_and_what_every_map_has_of_it(study):
    heatmap = shown(study)
    said = about(slide_viewer.show(study, [heatmap]))
    where = heatmaps.place_of(study, "P1")
    assert said["tiles"] == where.coords.tolist() and said["side"] == where.size == 64
    assert (said["width"], said["height"], said["shrink"], said["mpp"]) == (1004, 900, 1, 0.5)
    first, second = said["maps"]
    assert first["title"] == "input × gradient" and first["says"] == "grade II ← logits → grade III"
    assert first["value"] == pytest.approx(heatmap.maps["input × gradient"].tolist(), rel=1e-3)
    assert first["ends"] == [-3, 3] and first["step"][0] == round(63 / 3) and first["step"][-1] == 63
    assert re.fullmatch(r"#[0-9a-f]{6}", first["palette"][0]) and len(first["palette"]) == slide_viewer.STEPS
    assert second["says"] == "attention × number of tiles" and second["value"] == pytest.approx([1] * len(where.coords))


def test_its_images_are_those_of_the_kept_pyramid(study):
    said = about(slide_viewer.show(study, [shown(study)]))
    folder = study.p.results / slide_viewer.FOLDER
    (kept,) = [path for path in folder.iterdir() if path.is_dir()]
    assert said["files"] == page_files.mark(kept)
    assert deep_zoom.read(kept).bytes <= 1e6 * slide_viewer.MEGABYTES


def test_the_scripts_come_after_the_slides_and_only_with_them(study):
    text = slide_viewer.show(study, [shown(study)])._repr_html_()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert [address.removeprefix(pages.ASSETS) for address in loaded] == [
        "slide_viewer.css",
        slide_viewer.LIBRARY,
        "slide_viewer.js",
    ]
    assert all((STATIC / address.removeprefix(pages.ASSETS)).is_file() for address in loaded)
    assert text.index("<figure") < text.index("<script defer")
    assert "<script" not in slide_viewer.show(study, [])._repr_html_()


def test_without_javascript_the_page_leads_to_its_figures(study):
    viewers = slide_viewer.show(study, [shown(study)])
    text = re.sub(r"<script.*?</script>", "", viewers._repr_html_(), flags=re.DOTALL)
    assert "The figures above show the same maps" in text and "<button" not in text and "<input" not in text
    assert repr(viewers).startswith("Slides to look into, in the book: P1, grade III: 0.")


def test_names_cannot_leave_their_place(study):
    study.p = study.p.override(class_names=["a", "</script><b>"])
    text = slide_viewer.show(study, [shown(study)])._repr_html_()
    assert "<b>" not in text and about(slide_viewer.show(study, [shown(study)]))["name"] == "P1, </script><b>"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"features_dir": "features"}, "features in the place of slides"),
        ({"inputs": "genes", "variants": ["go", "kegg"]}, r"no slides \(inputs: genes\)"),
        ({}, "images of tiles in the place of slides"),
    ],
)
def test_without_slides_one_sentence_says_so(settings, reason):
    p = params.load("lgg", "demo", **settings)
    viewers = slide_viewer.show(SimpleNamespace(p=p, has_coords=False), [])
    assert re.fullmatch(rf"There is no slide to look into: this task has {reason}\.", repr(viewers))
    assert viewers._repr_html_() == f"<p>{viewers!r}</p>"


def test_a_slide_that_is_cut_short_has_a_sentence_in_the_place_of_its_viewer(study, tmp_path):
    heatmap, path = shown(study), tmp_path / "odd.svs"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    viewers = slide_viewer.show(study, [heatmap])
    assert re.search(r"P1, grade III: no slide to look into: .*odd\.svs: the download is truncated", repr(viewers))
    assert "<figure" not in viewers._repr_html_() and "truncated" in viewers._repr_html_()


# -- in a browser ------------------------------------------------------------------------------------------------
@pytest.fixture
def page(study, tmp_path):
    """A page of the book with a viewer, where a browser opens it from a disk."""
    site = tmp_path / "site"
    path = site / "book" / "executed" / "lgg" / "07_attention_analysis.html"
    path.parent.mkdir(parents=True)
    shutil.copytree(STATIC, site / "_static", ignore=shutil.ignore_patterns("mathjax"))
    body = page_files.publish(slide_viewer.show(study, [shown(study)])._repr_html_(), path)
    path.write_text(f'<!doctype html><html lang="en"><head><meta charset="utf-8"></head><body>{body}</body></html>')
    return path


def chromium(page, *asked):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}"]
    command += ["--window-size=1000,1100", "--virtual-time-budget=8000", *asked, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_a_browser_shows_the_slide_from_a_disk_with_controls_that_have_names(page):
    text = chromium(page, "--dump-dom")
    assert 'role="application"' in text and 'aria-label="Slide of P1, grade III"' in text
    assert re.search(r'class="slide-viewer-bar"[^>]*>\d+ µm<', text), "the scale bar"
    assert re.search(r'role="alert"[^>]*hidden=""|hidden=""[^>]*role="alert"', text), "every image was there"
    labels = set(re.findall(r'<button[^>]*aria-label="([^"]+)"', text))
    assert {"Zoom in", "Zoom out", "Show the whole slide"} <= labels
    assert text.count('type="radio"') == 3 and text.count('type="range"') == 1 and "slide-viewer-absent" not in text


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_the_overlay_lies_on_the_tiles(page, study, tmp_path):
    """Seen on the screen: the slide's one blue tile is where its outline is."""
    picture = tmp_path / "seen.png"
    chromium(page, f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 100)[: pixels.shape[0] // 2]  # the controls are below
    down, across = (np.flatnonzero(blue.sum(axis) > 5) for axis in (1, 0))
    top, bottom, left, right = down[0], down[-1], across[0], across[-1]
    assert 30 < bottom - top < 60 and abs((bottom - top) - (right - left)) <= 1, "one square"
    inner = pixels[top + 3 : bottom - 2, left + 3 : right - 2]
    assert np.ptp(inner.reshape(-1, 3), axis=0).max() < 60, "nothing but the tile"
    y, x = (top + bottom) // 2, (left + right) // 2
    for edge in (
        pixels[y, left - 3 : left + 3],
        pixels[y, right - 3 : right + 3],
        pixels[top - 3 : top + 3, x],
        pixels[bottom - 3 : bottom + 3, x],
    ):
        assert edge.max(-1).min() < 130, "its outline is at its edge, on all four sides"


def test_our_script_fetches_nothing():
    text = (STATIC / "slide_viewer.js").read_text()
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|https?://", text)
    assert 'drawer: "canvas"' in text and "loadTilesWithAjax: false" in text
