"""Bags of features made beforehand: as many instances as each patient has, read file by file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from mmmil import record
from mmmil.params import Params
from mmmil.slides import packed
from mmmil.sources import barcodes, feature_files
from mmmil.sources.feature_files import FeatureError, Features
from mmmil.sources.tables import fail

if TYPE_CHECKING:
    import torch

LOOK = ["patient_id", "slide_id", "path", "instances", "width", "kind", "encoder", "name", "coords", "log_rms"]
LOOK += ["repeated", "content", "cut"]
CUT = ("patch_size", "target_magnification", "patch_level", "overlap")  # what coords' attributes say of the tiles


# -- files -------------------------------------------------------------------------------------------------------
def _seen(features: Features) -> dict[str, Any]:
    """What `look` tells of a file."""
    values = features.instances
    rows = {row.tobytes() for row in values}
    mean_square = np.square(values, dtype=np.float64).mean()
    return {
        "instances": len(values),
        "width": values.shape[1],
        "kind": features.kind,
        "encoder": features.encoder,
        "name": features.name,
        "coords": features.coords is not None,
        "log_rms": float(np.log(mean_square) / 2) if mean_square else -np.inf,
        "repeated": len(values) - len(rows),
        "content": hashlib.sha256(values.tobytes()).hexdigest(),
        "cut": ", ".join(f"{name} {_plain(features.attributes[name])}" for name in CUT if name in features.attributes),
    }


def _plain(value: Any) -> str:
    """A number as it is said, whatever type or list of one it has in the file."""
    try:
        return ", ".join(f"{float(part):g}" for part in np.ravel(value))
    except (TypeError, ValueError):
        return str(value)


def _read(files: pd.DataFrame, most: int, seed: int, keep: bool) -> tuple[pd.DataFrame, list[Features], list]:
    """`look`'s table; and with `keep` the capped features of each file, and which of its rows they are."""
    seen, kept, chosen, faults = [], [], [], []
    done = tqdm(total=len(files), desc="reading features", unit="file", delay=2, mininterval=2)
    for patient, of_patient in files.groupby("patient_id", sort=False):
        bag = []
        for row in of_patient.itertuples():
            try:
                features = feature_files.read(Path(row.path))
            except FeatureError as error:
                faults.append(f"patient {patient}: {error}")
            else:
                about = {"patient_id": patient, "slide_id": row.slide_id, "path": row.path}
                seen.append(about | _seen(features))
                bag.append(features)
            done.update()
        if not keep:
            continue
        sizes = [len(features.instances) for features in bag]
        rows = sample(sum(sizes), most, seed, str(patient))
        starts = np.cumsum([0, *sizes])
        for features, start, end in zip(bag, starts[:-1], starts[1:], strict=True):
            mine = rows[(rows >= start) & (rows < end)] - start
            coords = None if features.coords is None else features.coords[mine]
            kept.append(Features(features.instances[mine], coords))
            chosen.append(mine)
    done.close()
    fail(faults)
    return pd.DataFrame(seen, columns=LOOK), kept, chosen


def sample(n: int, most: int, seed: int, patient: str) -> np.ndarray:
    """Which of a patient's n instances are used, in their order: all, or a sample of `most` (0: all).

    The sample hangs on the seed, the patient's name and n alone: no other patient and no encoder changes it.
    """
    if not most or n <= most:
        return np.arange(n)
    name = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "little")
    return np.sort(np.random.default_rng([seed, name]).choice(n, most, replace=False))


def look(files: pd.DataFrame) -> pd.DataFrame:
    """One row per file of one encoder, columns LOOK; files: the encoder's rows of `Cohort.features`.

    kind: type of the numbers in the file; encoder, name: as the file states them, or ''; coords: whether it has some;
    log_rms: log of the root mean square; repeated: instances that another one equals; content: hash of the values; cut:
    how the tiles were cut, as the coords state it, or ''.
    Raises CohortError for files that cannot be read, of another width or encoder than most, of another patient as they
    say, and for two with the same values.
    """
    seen, _, _ = _read(files, 0, 0, keep=False)
    _require_alike(seen)
    return seen


def _require_alike(seen: pd.DataFrame) -> None:
    faults = []
    of_most = {name: _most(seen[name]) for name in ("width", "encoder")}
    for row in seen.itertuples():
        where = f"{row.path}, patient {row.patient_id}"
        if row.width != of_most["width"]:
            faults.append(
                f"{where}: features are {row.width} wide, and {of_most['width']} in most files; make it with their "
                "encoder"
            )
        elif row.encoder and row.encoder != of_most["encoder"]:
            faults.append(
                f"{where}: says that it is of encoder {row.encoder}, and most files of {of_most['encoder']}; make it "
                "with theirs"
            )
        named = barcodes.named_patient(row.name)
        if named and barcodes.site_of(row.patient_id) and named != row.patient_id:
            faults.append(f"{where}: says that it is of slide {row.name}; give it its name, or make it again")
    for _, same in seen.groupby("content", sort=False):
        first, *others = same.itertuples()
        faults += [
            f"{other.path}, patient {other.patient_id}: its features are those of {first.path}, patient "
            f"{first.patient_id}; one of them is a copy under a wrong name: make both again"
            for other in others
        ]
    fail(faults)


def _most(values: pd.Series) -> Any:
    """What most files state, of those that state something; of two equally frequent the first."""
    stated = values[values != ""]
    return stated.value_counts(sort=False).idxmax() if len(stated) else ""


# -- bags --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bags:
    """The bags of a cohort's patients, one behind the other.

    instances: (total, D) float32; offsets: (patients + 1,), where each bag begins, and the end; of_file: (total,), the
    row of `files` (columns LOOK) that an instance is from, and row: (total,), its row there; coords: (total, 2) in px
    of level 0, or None where a file has none.
    """

    patients: list[str]
    instances: np.ndarray
    offsets: np.ndarray
    files: pd.DataFrame
    of_file: np.ndarray
    row: np.ndarray
    coords: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def dim(self) -> int:
        """Width D of an instance."""
        return self.instances.shape[1]

    @property
    def sizes(self) -> np.ndarray:
        """Instances of each bag, (patients,)."""
        return np.diff(self.offsets)

    @property
    def has_coords(self) -> bool:
        return self.coords is not None

    def of(self, i: int) -> slice:
        """Where the bag of patient i lies in instances, of_file, row and coords."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def means(self, which: Sequence[int] | None = None) -> np.ndarray:
        """Mean of the instances of some patients' bags, or of each, (patients, D) float32."""
        which = range(len(self)) if which is None else which
        return np.stack([self.instances[self.of(i)].mean(axis=0) for i in which])

    def __getitem__(self, which: Sequence[int] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Instances (b, n, D) of some patients' bags, zeros behind the shorter ones, and a mask (b, n) of the instances
        that are real; None where all are.
        """
        import torch  # seconds, which a look at files does not need

        picked = [int(i) for i in which]
        sizes = torch.from_numpy(self.sizes[picked])
        tiles = torch.zeros(len(picked), int(sizes.max()), self.dim)
        for bag, i in zip(tiles, picked, strict=True):
            bag.numpy()[: self.sizes[i]] = self.instances[self.of(i)]
        packed.release(self.instances)
        mask = torch.arange(tiles.shape[1])[None] < sizes[:, None]
        return tiles, None if mask.all() else mask


def load(files: pd.DataFrame, patients: list[str], most: int, seed: int) -> Bags:
    """The bags of one encoder, in the order of the patients; files: the encoder's rows of `Cohort.features`.

    most: instances of a patient at most, a sample by seed (0: all). Several files of a patient are joined in their
    order. Raises CohortError as `look` does, and for a patient without a file.
    """
    there = dict(iter(files.groupby("patient_id", sort=False)))
    fail([f"patient {i} has no features; leave the patient out, or make them" for i in patients if i not in there])
    files = pd.concat([there[i] for i in patients], ignore_index=True)
    seen, kept, rows = _read(files, most, seed, keep=True)
    _require_alike(seen)
    sizes = pd.Series([len(part) for part in rows]).groupby(files["patient_id"].to_numpy(), sort=False).sum()
    offsets = np.cumsum([0, *sizes.loc[patients]])
    coords = np.concatenate([part.coords for part in kept]) if seen["coords"].all() else None
    values = np.empty((offsets[-1], kept[0].instances.shape[1]), np.float32)
    end = len(values)
    while kept:  # from the last on, so that parts go while the whole is filled
        part = kept.pop().instances
        values[end - len(part) : end] = part
        end -= len(part)
    of_file = np.repeat(np.arange(len(files)), [len(part) for part in rows])
    return Bags(list(patients), values, offsets, seen, of_file, np.concatenate(rows), coords)


def pack(p: Params, encoder: str, files: pd.DataFrame, patients: list[str], keys: list[list[str]]) -> Bags:
    """As `load` with the settings' sample, but read once: the bags are found again in one file, and mapped from there.

    keys: the content of each patient's files (`Study.feature_keys`). Raises CohortError as `load` does.
    """

    def make(folder: Path) -> None:
        bags = load(files, patients, p.n_tiles, p.seed)
        np.save(folder / "features.npy", bags.instances)
        places: dict[str, Any] = {"offsets": bags.offsets, "of_file": bags.of_file, "row": bags.row}
        places |= {} if bags.coords is None else {"coords": bags.coords}
        np.savez(folder / "places.npz", **places)
        bags.files.to_parquet(folder / "files.parquet")

    inputs = {"files": dict(zip(patients, keys, strict=True)), "order": patients, "sample": [p.n_tiles, p.seed]}
    folder = record.cached(p.results / "features" / encoder, inputs, make)
    table = record.read_parquet(folder / "files.parquet")
    now = dict(iter(files.groupby("patient_id", sort=False)))
    for name in ("slide_id", "path"):  # which may have been given other names since
        table[name] = np.concatenate([now[i][name] for i in patients])
    with np.load(folder / "places.npz") as places:
        return Bags(list(patients), packed.mapped(folder / "features.npy"), files=table, **places)
