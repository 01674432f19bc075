import itertools
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from histolab.stain_normalizer import MacenkoStainNormalizer, ReinhardStainNormalizer
from PIL import Image

from mmmil import params, plots
from mmmil.simulate.slides import Slide, strips
from mmmil.slides import packed, stain, stained_bags

KINDS = {"macenko": MacenkoStainNormalizer, "reinhard": ReinhardStainNormalizer}
PX = 96


def tiles_of(name, n=6, tint=(0.0, 0.0, 0.0, 0.0), planted=0.4):
    """Tiles (n, PX, PX, 3) out of the middle of a synthetic slide."""
    image = np.concatenate(list(strips(Slide(("stain", name), 512, planted_share=planted, site_tint=tint))))
    corners = [(y, x) for y in range(100, 340, PX) for x in range(100, 340, PX)]
    return np.stack([image[y : y + PX, x : x + PX] for y, x in corners[:n]])


@pytest.fixture(scope="module")
def pixels():
    tints = np.random.default_rng(0).normal(0, [0.2, 0.2, 0.08, 0.05], (6, 4))
    return {f"P{i}": tiles_of(i, tint=tuple(tint)) for i, tint in enumerate(tints)}


def reference_of(s, fold):
    return stained_bags.reference_of(s.p, s.bag_paths, s.training_patients(fold), fold)


def reference_tiles(s, fold):
    return stained_bags.reference_tiles(s.p, s.bag_paths, s.training_patients(fold), fold)


def bags_of(s, fold):
    return stained_bags.bags_of(s.p, s.bag_paths, s.training_patients(fold), fold)


@pytest.fixture
def make_study(tmp_path):
    """A study of some patients' tiles: the last two are evaluated in every fold."""
    number = itertools.count()

    def make(pixels, masks=(), **settings):
        results = tmp_path / f"results-{next(number)}"  # of its own: a cached reference would hide a leak
        folder = tmp_path / "bags"
        paths = {}
        for patient, tiles in pixels.items():
            key = stain.record.digest([patient, tiles.sum(), dict(masks).get(patient)])
            paths[patient] = folder / patient / key / "bag.h5"
            paths[patient].parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(paths[patient], "w") as file:
                file.create_dataset("imgs", data=tiles, chunks=(1, *tiles.shape[1:]))
                file["coords"] = np.arange(2 * len(tiles)).reshape(-1, 2)
                file["mask"] = np.array(dict(masks).get(patient, [True] * len(tiles)))
                for dataset in file.values():
                    dataset.attrs.update({"mpp": 0.5, "name": patient})
        defaults = {"stain": "reinhard", "n_folds": 2}
        patients = list(pixels)
        return SimpleNamespace(
            p=params.load("lgg", "demo", results_dir=str(results), **defaults | settings),
            patients=patients,
            bag_paths=pd.Series({patient: str(path) for patient, path in paths.items()}),
            fold_patients=lambda fold: (patients[:-2], patients[-2:]),
            training_patients=lambda fold: patients[:-2],
        )

    return make


def read(folder):
    return packed.mapped(folder / packed.PIXELS)


# -- fit and transform -------------------------------------------------------------------------------------------
@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
def test_fit_and_transform_are_histolabs(real_data, kind):
    files = (real_data / "images" / f"torchstain_{name}.png" for name in ("source", "target"))
    source, target = (Image.open(file).convert("RGB") for file in files)
    theirs = KINDS[kind]()
    target = target.crop((0, 0, 440, 440))
    theirs.fit(target)
    reference = stain.fit(np.asarray(target)[None], kind)
    for name, value in reference.fitted.items():
        np.testing.assert_array_equal(value, getattr(theirs, name))
    tiles = np.stack([np.asarray(source)[y : y + 200, x : x + 200] for y, x in ((0, 0), (0, 250), (100, 100))])
    expected = [np.asarray(theirs.transform(Image.fromarray(tile))) for tile in tiles]
    ours, done = stain.normalised(tiles, reference)
    assert done.all() and ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_differently_tinted_bags_come_closer(kind):
    # Of one morphology: what differs in nuclei is no matter of the stain.
    purple = tiles_of("purple", tint=(0.3, -0.2, 0.1, 0), planted=0)
    pink = tiles_of("pink", tint=(-0.2, 0.3, -0.1, 0.05), planted=0)
    reference = stain.fit(tiles_of("reference"), kind)
    before, after = (
        np.abs(a.mean((0, 1, 2)) - b.mean((0, 1, 2))).max()
        for a, b in [(purple, pink), (stain.transform(purple, reference), stain.transform(pink, reference))]
    )
    assert before > 20 and after < before / 4


def test_the_mosaic_holds_every_tile_once():
    tiles = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    assert stain.mosaic(tiles)[::4, ::4, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert stain.mosaic(tiles[:5]).shape == (4, 20, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tile_without_stains_stays_as_it_is(kind):
    good = tiles_of("good", 2)
    noise = np.random.default_rng(0).integers(-3, 4, good[0].shape)
    bad = np.stack([
        np.full_like(good[0], 255),
        (240 + noise).astype(np.uint8),  # nearly white
        np.full_like(good[0], (200, 120, 180)),  # one colour: its covariance is singular
    ])  # fmt: skip
    reference = stain.fit(good, kind)
    after, done = stain.normalised(np.concatenate([good[:1], bad, good[1:]]), reference)
    assert done.tolist() == [True, False, False, False, True]
    np.testing.assert_array_equal(after[1:4], bad)
    assert np.isfinite(reference.fitted[stain.FITTED[kind][0]]).all()
    with pytest.raises(stain.StainError, match="stain: none"):
        stain.fit(bad[:2], kind)
    with pytest.raises(stain.StainError, match="0 tiles"):
        stain.fit(good[:0], kind)


@pytest.mark.real
def test_colours_beside_the_two_stains_are_not_blown_up(real_data):
    # Photographs with a blue cast, some of which come out of histolab's method bright yellow.
    files = sorted((real_data / "tiles" / "lc25000_lung").glob("*/lungaca11*.jpeg"))
    tiles = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    target = Image.open(real_data / "images" / "torchstain_target.png").convert("RGB").crop((0, 0, 440, 440))
    theirs = MacenkoStainNormalizer()
    theirs.fit(target)
    after, done = stain.normalised(tiles, stain.fit(np.asarray(target)[None], "macenko"))
    histolabs = np.stack([np.asarray(theirs.transform(Image.fromarray(tile))) for tile in tiles])
    np.testing.assert_array_equal(after[done], histolabs[done])
    np.testing.assert_array_equal(after[~done], tiles[~done])
    yellow = histolabs.mean((1, 2))[:, :2].min(1) - histolabs.mean((1, 2))[:, 2] > 50
    assert yellow.any() and not done[yellow].any() and done.any()


def test_a_reference_is_written_to_the_last_digit(tmp_path):
    for kind in KINDS:
        reference = stain.fit(tiles_of("reference"), kind)
        reference.save(tmp_path / f"{kind}.json")
        again = stain.StainReference.load(tmp_path / f"{kind}.json")
        assert again == reference and again.key == reference.key


# -- a study's folds ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_only_training_patients_make_the_reference(make_study, pixels, kind):
    reference = reference_of(make_study(pixels, stain=kind), 0)
    other = tiles_of("other", tint=(0.4, -0.3, 0.1, 0.1))
    for evaluated in ("P4", "P5"):
        assert reference_of(make_study(pixels | {evaluated: other}, stain=kind), 0) == reference
    for trained in ("P0", "P3"):
        assert reference_of(make_study(pixels | {trained: other}, stain=kind), 0) != reference


def test_the_reference_is_fitted_again_where_a_training_patient_changed(make_study, pixels):
    study, changed = make_study(pixels), make_study(pixels | {"P0": tiles_of("other")})
    changed.p = study.p  # the same results, where the first reference lies
    assert reference_of(study, 0) == reference_of(study, 0) != reference_of(changed, 0)


def test_reference_tiles_are_drawn_by_seed_one_per_patient_first(make_study, pixels, monkeypatch):
    def drawn(n, seed=0, fold=0):
        monkeypatch.setattr(stained_bags, "TILES", n)
        return reference_tiles(make_study(pixels, seed=seed), fold)

    def owners(tiles):
        return [p for tile in tiles for p, own in pixels.items() if (own == tile).all((1, 2, 3)).any()]

    assert len({tuple(owners(drawn(2, seed))) for seed in range(4)}) > 1
    assert sorted(owners(drawn(4))) == ["P0", "P1", "P2", "P3"]
    assert {name: owners(drawn(8)).count(name) for name in pixels} == dict.fromkeys(pixels, 2) | {"P4": 0, "P5": 0}
    assert len(drawn(100)) == 24 and len(np.unique(drawn(100).reshape(24, -1), axis=0)) == 24
    np.testing.assert_array_equal(drawn(8), drawn(8))
    assert (drawn(8) != drawn(8, seed=1)).any() and (drawn(8) != drawn(8, fold=1)).any()


def test_bags_are_as_before_but_for_their_colours(make_study, pixels):
    study = make_study(pixels)
    folder = bags_of(study, 0)
    reference = reference_of(study, 0)
    assert folder.name == stained_bags.key_of(study.p, study.bag_paths, study.training_patients(0), 0)
    for patient, bag in zip(study.patients, read(folder), strict=True):
        np.testing.assert_array_equal(bag, stain.transform(pixels[patient], reference))
    assert stain.record.run_json(folder)["facts"] == {"normalised": 36, "left_as_they_are": 0}
    before = (folder / packed.PIXELS).stat().st_mtime_ns
    assert bags_of(study, 0) == folder and (folder / packed.PIXELS).stat().st_mtime_ns == before  # found again
    assert bags_of(study, 1) != folder  # another fold, another reference
    figure = plots.stain_before_after(pixels["P0"], read(folder)[0], stain.mosaic(reference_tiles(study, 0)))
    assert len(figure.axes) == 2 * 6 + 1


def test_padding_is_neither_fitted_on_nor_changed(make_study, pixels):
    red = np.zeros_like(pixels["P0"][:2])
    red[..., 0] = 250
    red[:, ::2, ::2] = (120, 30, 90)
    masks = {patient: [True] * 6 + [False] * 2 for patient in pixels}
    padded = {patient: np.concatenate([tiles, red]) for patient, tiles in pixels.items()}
    study = make_study(padded, masks=masks)
    assert len(reference_tiles(study, 0)) == 24
    assert not (reference_tiles(study, 0) == red[0]).all((1, 2, 3)).any()
    first = read(bags_of(study, 0))[0]
    np.testing.assert_array_equal(first[6:], red)
    assert (first[:6] != padded["P0"][:6]).any((1, 2, 3)).all()


def test_tiles_that_could_not_be_normalised_are_counted(make_study, pixels):
    white = pixels["P5"].copy()
    white[2] = 244
    study = make_study(pixels | {"P5": white}, stain="macenko")
    folder = bags_of(study, 0)
    assert stain.record.run_json(folder)["facts"] == {"normalised": 35, "left_as_they_are": 1}
    np.testing.assert_array_equal(read(folder)[-1][2], white[2])
