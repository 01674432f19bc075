"""Bags of features: read in the cohort's order, capped by a seeded sample, refused where one is not as the others."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil.cohort.features import COLUMNS
from mmmil.params import FEATURES
from mmmil.slides import feature_findings, features
from mmmil.sources import feature_files
from mmmil.sources.tables import CohortError
from tests import small_features

NAMES = ["a", "b1", "b2", "c"]
PATIENTS = {"a": "A", "b1": "B", "b2": "B", "c": "C"}


def rows(folder, names=NAMES, of=PATIENTS.get):
    found = [(FEATURES, of(name) or name, name, str(next(folder.glob(f"{name}.*")))) for name in names]
    return pd.DataFrame(found, columns=COLUMNS)


@pytest.fixture
def folder(tmp_path):
    return small_features.folder(tmp_path / "uni", NAMES)  # 1, 2, 3 and 4 instances


def test_bags_are_joined_padded_and_masked(folder):
    bags = features.load(rows(folder), ["C", "A", "B"], 0, 0)
    assert bags.sizes.tolist() == [4, 1, 5] and len(bags) == 3 and bags.dim == 4
    tiles, mask = bags[[2, 1]]
    assert tiles.shape == (2, 5, 4) and mask.tolist() == [[True] * 5, [True] + [False] * 4]
    b = np.concatenate([small_features.bag(1, 2), small_features.bag(2, 3)])
    np.testing.assert_array_equal(tiles[0], b)
    assert (tiles[1, 1:] == 0).all()
    alone, none = bags[torch.tensor([0])]
    np.testing.assert_array_equal(alone[0], small_features.bag(3, 4))
    assert none is None
    of_b = bags.of(2)
    assert bags.files["slide_id"][bags.of_file[of_b]].tolist() == ["b1"] * 2 + ["b2"] * 3
    assert bags.row[of_b].tolist() == [0, 1, 0, 1, 2]
    assert bags.has_coords and bags.coords[of_b].tolist() == [[1, 1]] * 2 + [[2, 2]] * 3
    np.testing.assert_allclose(bags.means()[2], b.mean(axis=0), rtol=1e-6)


def test_a_cap_takes_a_sample_in_its_order_that_hangs_on_the_patient_alone(folder):
    whole = features.load(rows(folder), ["A", "B", "C"], 0, 7)
    capped = features.load(rows(folder), ["A", "B", "C"], 3, 7)
    assert capped.sizes.tolist() == [1, 3, 3]
    places = [f"{f} {row}" for f, row in zip(whole.of_file, whole.row, strict=True)]
    taken = [places.index(f"{f} {row}") for f, row in zip(capped.of_file, capped.row, strict=True)]
    assert taken == sorted(taken)
    np.testing.assert_array_equal(capped.instances, whole.instances[taken])
    np.testing.assert_array_equal(capped.coords, whole.coords[taken])
    alone = features.load(rows(folder), ["C"], 3, 7)
    np.testing.assert_array_equal(alone[[0]][0], capped[[2]][0])


@settings(max_examples=30)
@given(n=st.integers(1, 60), most=st.integers(0, 60), patient=st.text(max_size=5))
def test_a_sample_is_as_large_as_asked_and_ordered(n, most, patient):
    chosen = features.sample(n, most, 3, patient)
    assert len(chosen) == (min(n, most) if most else n) and (np.diff(chosen) > 0).all() and chosen.max() < n
    np.testing.assert_array_equal(chosen, features.sample(n, most, 3, patient))


def test_samples_of_other_patients_and_seeds_differ():
    kept = {tuple(features.sample(100, 10, seed, patient)) for seed in (0, 1) for patient in ("A", "B")}
    assert len(kept) == 4


def test_formats_beside_each_other_and_no_coordinates(tmp_path):
    small_features.folder(tmp_path, ["a", "b1", "b2"])
    np.save(tmp_path / "c.npy", small_features.bag(9))
    bags = features.load(rows(tmp_path), ["A", "B", "C"], 0, 0)
    assert not bags.has_coords and bags.coords is None and bags.sizes.tolist() == [1, 5, 5]
    (found,) = feature_findings.find(bags.files, "uni")
    assert found.check == "coordinates" and "1 of 4 files have no coords, as c, so none count" in found.text
    shown = feature_findings.counts(bags.files, FEATURES)
    assert shown == {
        "features_dir: patients": 3,
        "features_dir: files": 4,
        "features_dir: instances": 11,
        "features_dir: instances of a patient": "median 5 (1 to 5)",
        "features_dir: width": 4,
        "features_dir: coordinates": "in 3 of 4 files",
        "features_dir: encoder as the files state it": "uni",
    }


def replace(folder, name, values, **about):
    feature_files.write(folder / f"{name}.h5", values, np.zeros((len(values), 2)), **about)


FAULTS = {
    "width": (
        lambda f: replace(f, "b2", small_features.bag(5, width=6)),
        r"b2.h5, patient B: features are 6 wide, and 4",
    ),
    "encoder": (
        lambda f: replace(f, "c", small_features.bag(5), encoder="virchow"),
        r"c.h5, patient C: says that it is of encoder virchow, and most files of uni",
    ),
    "twice": (
        lambda f: replace(f, "c", small_features.bag(0, 1)),
        r"c.h5, patient C: its features are those of .*a.h5, pat",
    ),
    "bad": (lambda f: (f / "a.h5").write_bytes(b"no"), r"patient A: .*a.h5: cannot be read"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_file_that_is_not_as_the_others_is_named(folder, case):
    spoil, fault = FAULTS[case]
    spoil(folder)
    for read in (features.look, lambda files: features.load(files, ["A", "B", "C"], 2, 0)):
        with pytest.raises(CohortError, match=fault) as raised:
            read(rows(folder))
        assert len(str(raised.value).splitlines()) == 2


def test_a_file_of_another_patient_by_what_it_says_is_an_error(tmp_path):
    names = ["TCGA-05-4000-01Z-00-DX1", "TCGA-05-4001-01Z-00-DX1"]
    small_features.folder(tmp_path, names)
    (tmp_path / f"{names[1]}.h5").rename(tmp_path / f"{names[1].replace('4001', '4002')}.h5")
    files = rows(tmp_path, [names[0], names[1].replace("4001", "4002")], lambda name: name[:12])
    with pytest.raises(
        CohortError, match=r"4002-01Z-00-DX1.h5, patient TCGA-05-4002: says that it is of slide TCGA-05-40"
    ):
        features.look(files)


def test_a_patient_without_a_file_is_named(folder):
    with pytest.raises(CohortError, match="patient D has no features"):
        features.load(rows(folder), ["A", "D"], 0, 0)


def test_what_is_unusual_is_a_finding(tmp_path):
    names = [f"s{i}" for i in range(9)]
    for i, name in enumerate(names):
        values = small_features.bag(i, 200) * (1.5 if name == "s4" else 1)
        values[1:60] = values[0] if name == "s5" else values[1:60]
        replace(tmp_path, name, values.astype(np.float16 if name == "s6" else np.float32))
    (tmp_path / "s7.h5").rename(tmp_path / "t7.h5")
    seen = features.look(rows(tmp_path, sorted({*names, "t7"} - {"s7"})))
    found = {finding.check: finding for finding in feature_findings.find(seen, "uni")}
    assert set(found) == {"scale of features", "repeated instances", "types of numbers", "name in the file"}
    assert found["scale of features"].place == "patient s4" and "mean square is 1.5" in found["scale of features"].text
    assert "1 files hold instances that equal another one: 59 of 200 in s5" in found["repeated instances"].text
    assert "float32 in 8 files, float16 in 1 files" in found["types of numbers"].text
    assert found["name in the file"].text == "1 files state another slide than that of their name: t7 says s7"
    assert [f.check for f in feature_findings.find(seen, "uni") if f.check == "scale of features"] == [
        "scale of features"
    ]


def test_tiles_of_two_magnifications_and_one_huge_patient_are_findings_and_a_cap_is_told(tmp_path):
    names = [f"s{i}" for i in range(6)]
    for i, name in enumerate(names):
        values = small_features.bag(i, 5_000 if i == 4 else 3)
        cut = {"patch_size": 256, "target_magnification": np.array([10.0 if i == 5 else 20])}
        feature_files.write(tmp_path / f"{name}.h5", values, np.zeros((len(values), 2)), cut)
    seen = features.look(rows(tmp_path, names, str))
    found = {finding.check: finding.text for finding in feature_findings.find(seen, "uni")}
    assert found["uneven bags"] == "s4 has 5,000 instances, the median patient 3"
    assert found["cut of tiles"].endswith(
        "ways: patch_size 256, target_magnification 20 in 5 files, as s0; "
        "patch_size 256, target_magnification 10 in 1 files, as s5"
    )
    used = "features_dir: instances used"
    assert feature_findings.counts(seen, FEATURES, 2)[used] == "12: of 6 patients a sample of 2 (n_tiles; 0: all)"
    assert used not in feature_findings.counts(seen, FEATURES)


@pytest.mark.real
def test_the_real_features_have_one_width_and_scale(real_data):
    paths = sorted((real_data / "features/hipt_vit256").glob("*.pt"))[::12]
    files = pd.DataFrame([(FEATURES, path.stem, path.stem, str(path)) for path in paths], columns=COLUMNS)
    seen = features.look(files)
    assert set(seen["width"]) == {192} and set(seen["kind"]) == {"float32"} and not seen["coords"].any()
    assert feature_findings.find(seen, "hipt") == []
