"""A study on features made beforehand: nothing is tiled, the bags are the files', and what they are is its key."""

import shutil
from itertools import chain

import numpy as np
import pandas as pd
import pytest

from mmmil import study
from mmmil.sources import feature_files
from tests import small_features

NAMES = [f"P{i}" for i in range(10)]


@pytest.fixture
def p(tmp_path):
    for folder in ("uni", "more"):
        small_features.folder(tmp_path / folder, NAMES, width=4 if folder == "uni" else 3)
    small_features.table(tmp_path / "cohort.csv", {name: {} for name in NAMES})
    return small_features.parameters(tmp_path, encoders={"other": "features:more"}, n_tiles=5)


def test_a_study_reads_features_in_the_cohorts_order_and_is_written_without_tiles(p):
    s = study.load(p)
    bags = s.features("features_dir")
    assert s.tiles is None and bags.patients == s.patients == NAMES and s.features("features_dir") is bags
    assert bags.sizes.tolist() == [min(5, 1 + i % 7) for i in range(10)]
    np.testing.assert_array_equal(bags[[2]][0][0], small_features.bag(2, 3))
    assert s.features("other").dim == 3
    np.testing.assert_array_equal(s.features("other").row, bags.row)  # of two encoders the same instances
    study.write(s)
    assert not (p.results / "tiles.csv").exists() and not (p.results / "patches").exists()
    splits = pd.read_csv(p.results / "splits/labels.csv")
    assert splits["slide_id"].tolist() == NAMES


def test_what_needs_pixels_says_that_there_are_none(p):
    s = study.load(p)
    for ask in (lambda: s.bags(0), lambda: s.bag_paths, lambda: s.tile_masks):
        with pytest.raises(
            ValueError, match=r"task 't' has no pixels but features in their place \(uni\): see Study.fea"
        ):
            ask()
    for ask in (s.features, s.feature_keys):
        with pytest.raises(ValueError, match="names no folder of features of resnet50d, only features_dir, other"):
            ask("resnet50d")


def test_the_key_is_the_files_content_in_the_cohorts_order(p):
    before = study.load(p).feature_keys("features_dir")
    other = study.load(p).feature_keys("other")
    assert len({key for [key] in before}) == 10 and not {key for [key] in before} & {key for [key] in other}
    moved = shutil.copytree(p.data / "uni", p.data / "moved")
    assert study.load(p.override(features_dir=moved.name)).feature_keys("features_dir") == before
    feature_files.write(p.data / "uni/P4.h5", small_features.bag(77))
    after = study.load(p)
    assert [i for i, (a, b) in enumerate(zip(after.feature_keys("features_dir"), before, strict=True)) if a != b] == [4]
    assert after.feature_keys("other") == other


def test_a_file_that_is_given_to_another_patient_changes_the_key(p):
    before = study.load(p).feature_keys("features_dir")
    rows = {
        "P0": {"slide_id": "P0;P1"},
        "P1": {"slide_id": "P2"},
        "P2": {"slide_id": "P3;P4"},
        "P3": {"slide_id": "P5"},
    }
    keep = [patient for patient in NAMES if patient not in ("P4", "P5")]
    small_features.table(p.data / "cohort.csv", {patient: rows.get(patient, {}) for patient in keep})
    first = study.load(p.override(encoders={})).feature_keys("features_dir")
    rows |= {"P0": {"slide_id": "P0"}, "P1": {"slide_id": "P1;P2"}}
    small_features.table(p.data / "cohort.csv", {patient: rows.get(patient, {}) for patient in keep})
    moved = study.load(p.override(encoders={})).feature_keys("features_dir")
    assert first != moved and list(chain(*first)) == list(chain(*moved)) == list(chain(*before))
