"""One file of features: what CLAM, TRIDENT and others write is read alike, everything else is one clear error."""

import pickle
import re

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmmil.sources import feature_files
from mmmil.sources.feature_files import FeatureError, read

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
COORDS = np.arange(10).reshape(5, 2) * 256
TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "name": "slide"}


def hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file[name] = array
    return path


def npz(path, **content):
    np.savez(path, **content)
    return path


def pt(path, content):
    torch.save(content, path)
    return path


def npy(path, content):
    np.save(path, content)
    return path


MAKERS = {
    "h5": lambda folder, x: hdf5(folder / "a.h5", features=x),
    "clam": lambda folder, x: hdf5(folder / "a.hdf5", features=x, coords=COORDS),
    "one": lambda folder, x: hdf5(folder / "a.h5", features=x[None], coords=COORDS[None]),
    "pt": lambda folder, x: pt(folder / "a.pt", torch.from_numpy(x)),
    "dict": lambda folder, x: pt(folder / "a.pth", {"features": torch.from_numpy(x), "coords": torch.tensor(COORDS)}),
    "npy": lambda folder, x: npy(folder / "a.npy", x),
    "npz": lambda folder, x: npz(folder / "a.npz", features=x, coords=COORDS, other=x),
    "alone": lambda folder, x: npz(folder / "a.npz", arr_0=x),
}


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("maker", MAKERS)
def test_every_layout_gives_the_same_bag(tmp_path, maker, kind):
    values = VALUES.astype(kind)
    if kind == ">f4" and maker in ("pt", "dict"):
        pytest.skip("torch has no byte orders")
    found = read(MAKERS[maker](tmp_path, values))
    np.testing.assert_array_equal(found.instances, values.astype(np.float32))
    assert found.instances.dtype == np.float32 and found.kind == values.dtype.name
    if maker in ("clam", "one", "dict", "npz"):
        np.testing.assert_array_equal(found.coords, COORDS)
    else:
        assert found.coords is None


def test_bfloat16_is_read(tmp_path):
    tensor = torch.from_numpy(VALUES).bfloat16()
    found = read(pt(tmp_path / "a.pt", {"features": tensor[None], "encoder": "uni"}))
    np.testing.assert_array_equal(found.instances, tensor.float().numpy())
    assert (found.kind, found.encoder) == ("bfloat16", "uni")


def test_what_trident_says_of_a_file_is_kept(tmp_path):
    path = tmp_path / "slide.h5"
    with h5py.File(path, "w") as file:  # as TRIDENT's save_h5 leaves it
        file["features"], file["coords"] = VALUES, COORDS
        file["features"].attrs.update({"name": "slide", "savetodir": "out", "encoder": "uni_v1"})
        file["coords"].attrs.update(TRIDENT)
    found = read(path)
    assert (found.encoder, found.name, found.attributes) == ("uni_v1", "slide", TRIDENT)
    with h5py.File(path, "a") as file:
        file["features"].attrs["encoder"] = "None"
    assert read(path).encoder == ""


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=arrays.arrays(
        st.sampled_from([np.float16, np.float32]),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(-100, 100, width=16),
    ),
    with_coords=st.booleans(),
    encoder=st.sampled_from(["", "uni", "ctranspath, ours"]),
)
def test_what_is_written_is_read_back(tmp_path, values, with_coords, encoder):
    coords = np.arange(2 * len(values)).reshape(-1, 2) if with_coords else None
    path = feature_files.write(tmp_path / "some slide.h5", values, coords, TRIDENT, encoder)
    found = read(path)
    np.testing.assert_array_equal(found.instances, values)
    assert (found.encoder, found.name, found.kind) == (encoder, "some slide", values.dtype.name)
    assert [f.name for f in tmp_path.iterdir()] == [path.name]
    if with_coords:
        np.testing.assert_array_equal(found.coords, coords)
        assert found.attributes == TRIDENT


def test_what_could_not_be_read_is_not_written(tmp_path):
    for name, values, coords, fault in [
        ("a.h5", VALUES[0], None, "not \\(instances, width\\)"),
        ("a.h5", VALUES, COORDS[:4], "coords has 4 rows, features 5"),
        ("a.pt", VALUES, None, "end the name in .h5"),
    ]:
        with pytest.raises(FeatureError, match=fault):
            feature_files.write(tmp_path / name, values, coords)
    assert list(tmp_path.iterdir()) == []


def with_nan(n):
    values = VALUES.copy()
    values[3, :n] = np.nan
    values[4, 0] = -np.inf
    return values


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def emptied(path):
    path.write_bytes(b"")
    return path


def pickled(path, what):
    path.write_bytes(pickle.dumps(what))
    return path


def without_values(path):
    with h5py.File(path, "w") as file:
        file["features"] = h5py.Empty("f4")
    return path


def huge(path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 8), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return path


BAD = {
    "sparse": (lambda f: pt(f / "a.pt", torch.eye(3).to_sparse_coo()), "torch.sparse_coo, cpu.*, not floating-point"),
    "8 bits": (lambda f: pt(f / "a.pt", torch.eye(3).to(torch.float8_e4m3fn)), "a tensor of torch.float8_e4m3fn"),
    "sparse coords": (
        lambda f: pt(f / "a.pt", {"features": torch.eye(2), "coords": torch.eye(2).to_sparse_coo()}),
        "a tensor of torch.float64 .torch.sparse_coo",
    ),
    "Empty": (lambda f: without_values(f / "a.h5"), "features is a dataset without values"),
    "huge": (lambda f: huge(f / "a.npy"), "states more values than memory holds"),
    "a whole slide": (lambda f: hdf5(f / "a.h5", features=VALUES[0]), r"features is \(3,\), one vector of a whole"),
    "three axes": (lambda f: npy(f / "a.npy", VALUES.reshape(5, 3, 1)), r"features is \(5, 3, 1\), not \(instances"),
    "no row": (lambda f: hdf5(f / "a.h5", features=VALUES[:0]), r"features is \(0, 3\), an empty bag"),
    "nothing": (lambda f: hdf5(f / "a.h5", features=VALUES[:0, 0], coords=COORDS[:0]), r"\(0,\), an empty bag"),
    "NaN": (lambda f: npy(f / "a.npy", with_nan(2)), r"features has 3 values that are NaN or infinite, first in row 3"),
    "too large": (lambda f: npy(f / "a.npy", VALUES.astype(float) * 1e200), "15 values that are NaN or infinite"),
    "integers": (lambda f: npy(f / "a.npy", VALUES.astype(int)), "features is int64, not floating-point numbers"),
    "words": (lambda f: npy(f / "a.npy", np.array([["a"]])), "not floating-point numbers"),
    "cut h5": (lambda f: cut(hdf5(f / "a.h5", features=np.ones((500, 9)))), r"cannot be read, cut short or no .h5"),
    "cut pt": (lambda f: cut(pt(f / "a.pt", torch.ones(500, 9))), r"cannot be read, cut short or no .pt file"),
    "cut npy": (lambda f: cut(npy(f / "a.npy", np.ones((500, 9)))), r"cannot be read, cut short or no .npy file"),
    "cut npz": (lambda f: cut(npz(f / "a.npz", a=np.ones((500, 9)))), r"cannot be read, cut short or no .npz file"),
    "empty": (lambda f: emptied(pt(f / "a.pt", 1)), "cannot be read, cut short"),
    "pickled npy": (lambda f: npy(f / "a.npy", np.array([None, {}])), "holds a pickled object, which runs code"),
    "pickled npz": (lambda f: npz(f / "a.npz", features=np.array([None])), "holds a pickled object, which runs code"),
    "pickle": (lambda f: pickled(f / "a.npy", VALUES), "holds a pickled object, which runs code"),
    "array in pt": (lambda f: pt(f / "a.pt", VALUES), "a pickled object that is no tensor; .* use the .h5 file"),
    "list": (lambda f: pt(f / "a.pt", [1, 2]), "has no `features`, only list"),
    "weights": (lambda f: pt(f / "a.pt", {"w": torch.ones(2, 2)}), "has no `features`, only w; name the folder"),
    "coords file": (lambda f: hdf5(f / "a.h5", coords=COORDS), "has no `features`, only coords"),
    "many arrays": (lambda f: npz(f / "a.npz", a=VALUES, b=VALUES), "has no `features`, only a, b"),
    "coords short": (lambda f: npz(f / "a.npz", features=VALUES, coords=COORDS[:3]), "coords has 3 rows, features 5"),
    "coords odd": (lambda f: npz(f / "a.npz", features=VALUES, coords=VALUES), r"coords is float32 \(5, 3\), not num"),
    "coords list": (lambda f: pt(f / "a.pt", {"features": torch.ones(1, 2), "coords": [1]}), "coords is a list, not"),
    "suffix": (lambda f: pickled(f / "a.pkl", VALUES), r"features end in \.h5, .*, this in '\.pkl'; convert the file"),
    "not there": (lambda f: f / "a.h5", "is not there"),
    "pt not there": (lambda f: f / "a.pt", "is not there"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_bag_is_one_error_with_file_and_remedy(tmp_path, case):
    make, fault = BAD[case]
    path = make(tmp_path)
    with pytest.raises(FeatureError, match=fault) as raised:
        read(path)
    told = str(raised.value)
    assert told.startswith(f"{path}: ") and "\n" not in told and re.search(r"; \w+", told)
