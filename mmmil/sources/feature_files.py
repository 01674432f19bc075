"""One file of a slide's features, as CLAM, TRIDENT and others write it: read whole, or refused with what is wrong.

`.h5`: a dataset `features` (N, D) or (1, N, D), and `coords` (N, 2) with TRIDENT's attributes; `.pt`: a tensor, or a
dict with `features`, and `coords` if it has them; `.npy`: an array; `.npz`: `features`, or the only array that is in
it. Nothing is unpickled but tensors (torch's `weights_only`), so TRIDENT's `.pt`, which pickles an array, is refused:
its `.h5` is what it writes unless told otherwise.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmmil import record
from mmmil.sources.tables import CohortError

HDF5 = (".h5", ".hdf5")
SUFFIXES = (*HDF5, ".pt", ".pth", ".npy", ".npz")
AGAIN = "copy or make it again"
NOT_SAID = ("", "None")  # TRIDENT writes None as a word
KINDS = ("float16", "bfloat16", "float32", "float64")


class FeatureError(CohortError):
    """A file of features cannot be used; names the file, the field and the remedy."""


@dataclass(frozen=True)
class Features:
    """instances: (N, D) float32, N and D at least 1, all finite; coords: (N, 2) in px of level 0, or None; kind: the
    type in the file; encoder, name: of the model and the slide, as the file states them, or ''; attributes: of its
    coords.
    """

    instances: np.ndarray
    coords: np.ndarray | None = None
    kind: str = "float32"
    encoder: str = ""
    name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Features:
    """The features of one file.

    Raises FeatureError for a suffix that is not one of SUFFIXES, a file that is not there, cut short or pickled, none
    or several `features` in it, values that are no (N, D) of floating-point numbers, have no row or no column, or are
    not finite in float32 (how many, and the first row), and coords that are no (N, 2) of numbers.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FeatureError(f"{path}: features end in {', '.join(SUFFIXES)}, this in '{path.suffix}'; convert the file")
    readers = {**dict.fromkeys(HDF5, _of_hdf5), ".npy": _of_numpy, ".npz": _of_numpy}
    try:
        found = readers.get(suffix, _of_torch)(path)
    except MemoryError as error:
        raise FeatureError(f"{path}: states more values than memory holds ({_first_line(error)}); {AGAIN}") from None
    except FileNotFoundError:
        raise FeatureError(f"{path}: is not there; correct its name, or make it") from None
    except (OSError, EOFError) as error:
        about = _first_line(error)
        raise FeatureError(f"{path}: cannot be read, cut short or no {suffix} file ({about}); {AGAIN}") from None
    values, kind = _checked(path, found["features"])
    coords = None if found.get("coords") is None else _coords(path, np.asarray(found["coords"]), len(values))
    stated = {name: str(found[name]) for name in ("encoder", "name") if str(found.get(name, "")) not in NOT_SAID}
    return Features(values, coords, kind, **stated, attributes=found.get("attributes", {}))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# -- formats -----------------------------------------------------------------------------------------------------
def _of_hdf5(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path) as file:
            if not isinstance(file.get("features"), h5py.Dataset):
                raise _no_features(path, file)
            dataset, coords = file["features"], file.get("coords")
            about = {name: _plain(value) for name, value in {**file.attrs, **dataset.attrs}.items()}
            if dataset.shape is None:
                raise FeatureError(f"{path}: features is a dataset without values; {AGAIN}")
            found = {"features": dataset[()], "encoder": about.get("encoder", ""), "name": about.get("name", "")}
            if isinstance(coords, h5py.Dataset):
                found |= {"coords": coords[()], "attributes": {n: _plain(v) for n, v in coords.attrs.items()}}
            return found
    except (KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, FeatureError):
            raise
        raise OSError(_first_line(error)) from None  # h5py's ways to say that a part is missing


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _of_numpy(path: Path) -> dict[str, Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return {"features": loaded}
        with loaded:
            names = loaded.files
            if "features" not in names and len(names) != 1:
                raise _no_features(path, names)
            only = {"features": loaded[names[0] if "features" not in names else "features"]}
            return only | ({"coords": loaded["coords"]} if {"features", "coords"} <= set(names) else {})
    except (ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, FeatureError):
            raise
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise _pickled(path, "a pickled object, which runs code when it is loaded") from None
        raise OSError(_first_line(error)) from None


def _of_torch(path: Path) -> dict[str, Any]:
    import pickle  # for the name of its error alone; torch reads tensors without it

    import torch  # seconds, which HDF5 does not need

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):  # what torch says of what is no tensor
            raise _pickled(path, "a pickled object that is no tensor") from None
        raise OSError(_first_line(error)) from None
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError, IndexError, AssertionError) as error:
        raise OSError(_first_line(error)) from None
    if isinstance(loaded, torch.Tensor):
        return {"features": _array(path, loaded)}
    if not isinstance(loaded, Mapping) or not isinstance(loaded.get("features"), torch.Tensor):
        raise _no_features(path, loaded if isinstance(loaded, Mapping) else [type(loaded).__name__])
    coords = loaded.get("coords")
    if coords is not None and not isinstance(coords, torch.Tensor):
        raise FeatureError(f"{path}: coords is a {type(coords).__name__}, not a tensor; save a tensor, or none")
    found = {
        "features": _array(path, loaded["features"]),
        "coords": None if coords is None else _array(path, coords.double()),
    }
    return found | {name: loaded[name] for name in ("encoder", "name") if isinstance(loaded.get(name), str)}


def _array(path: Path, tensor: Any) -> Any:
    """A tensor as numpy has it; one of bfloat16, which numpy has not, stays a tensor. FeatureError for one that is
    sparse, quantised, of 8 bits or without values.
    """
    tensor = tensor.detach()
    try:
        return tensor if str(tensor.dtype) == "torch.bfloat16" else tensor.resolve_conj().numpy()
    except (TypeError, RuntimeError, NotImplementedError):
        kind = f"a tensor of {tensor.dtype} ({tensor.layout}, {tensor.device})"
        raise FeatureError(f"{path}: holds {kind}, not floating-point numbers; save what the encoder gave") from None


def _pickled(path: Path, what: str) -> FeatureError:
    return FeatureError(f"{path}: holds {what}; save the tensor or the array itself, or use the .h5 file")


def _no_features(path: Path, names: Any) -> FeatureError:
    there = ", ".join(sorted(map(str, names))[:8]) or "nothing"
    return FeatureError(f"{path}: has no `features`, only {there}; name the folder of the features, or save them so")


# -- what is in them ---------------------------------------------------------------------------------------------
def _checked(path: Path, found: Any) -> tuple[np.ndarray, str]:
    """(N, D) float32 and the type it came in, or FeatureError."""
    kind = getattr(found.dtype, "name", str(found.dtype).removeprefix("torch."))  # numpy's name has no byte order
    if kind not in KINDS:
        raise FeatureError(f"{path}: features is {kind}, not floating-point numbers; save what the encoder gave")
    shape = tuple(found.shape)
    if len(shape) == 3 and shape[0] == 1:
        found, shape = found[0], shape[1:]
    if 0 in shape:
        raise FeatureError(f"{path}: features is {shape}, an empty bag; make it again, or delete the file")
    if len(shape) != 2:
        one = ", one vector of a whole slide" if len(shape) == 1 else ""
        raise FeatureError(f"{path}: features is {shape}{one}, not (instances, width); give one row per tile or region")
    if kind == "bfloat16":
        found = found.float().numpy()
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(found, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(axis=1))[0])
        n = int((~finite).sum())
        raise FeatureError(f"{path}: features has {n:,} values that are NaN or infinite, first in row {row}; {AGAIN}")
    return values, kind


def _coords(path: Path, coords: Any, n: int) -> np.ndarray:
    coords = np.asarray(coords)
    if coords.ndim == 3 and len(coords) == 1:
        coords = coords[0]
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iuf":
        raise FeatureError(f"{path}: coords is {coords.dtype} {coords.shape}, not numbers (instances, 2); {AGAIN}")
    if len(coords) != n:
        raise FeatureError(f"{path}: coords has {len(coords)} rows, features {n}; {AGAIN}")
    if not np.isfinite(coords).all():
        raise FeatureError(f"{path}: coords has values that are NaN or infinite; {AGAIN}")
    return coords


# -- writing -----------------------------------------------------------------------------------------------------
def write(
    path: Path,
    features: np.ndarray,
    coords: np.ndarray | None = None,
    attributes: Mapping[str, Any] | None = None,
    encoder: str = "",
) -> Path:
    """Write features (N, D) of a slide in TRIDENT's layout; the file's stem is the slide's name.

    coords: (N, 2) in px of level 0, with TRIDENT's attributes. Raises FeatureError for what `read` would refuse.
    """
    if path.suffix.lower() not in HDF5:
        raise FeatureError(f"{path}: features are written as HDF5; end the name in .h5")
    features = np.asarray(features)
    _checked(path, features)
    arrays = {"features": features}
    if coords is not None:
        arrays["coords"] = _coords(path, coords, len(features))
    about = {"features": {"name": path.stem, "encoder": encoder or "None"}, "coords": dict(attributes or {})}

    def fill(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            for name, array in arrays.items():
                dataset = file.create_dataset(name, data=array)
                for key, value in about[name].items():
                    dataset.attrs[key] = json.dumps(value) if isinstance(value, dict) else value

    return record.write_atomically(path, fill)
