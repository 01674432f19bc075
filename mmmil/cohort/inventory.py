"""The inventory: every file that a study reads, as it is named, with its state, its content and whose it is.

Made once before a run; a job asks the file system for sizes and times, and reads a file for its fingerprint only where
these are not what the inventory says. Replaced, missing and doubled files are seen here, before any work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pandas as pd
from tqdm import tqdm

from mmmil import record
from mmmil.cohort import characteristics
from mmmil.cohort.build import Cohort
from mmmil.params import FEATURES, Params
from mmmil.sources.slide_files import files_of, is_pattern
from mmmil.sources.tables import CohortError, absolute, fail, is_file

T = TypeVar("T")

FILE = "inventory.parquet"
COLUMNS = ["setting", "patient_id", "path", "bytes", "time", "changed", "fingerprint"]
CONTENT = ["setting", "patient_id", "path", "fingerprint"]  # what results depend on: not the times
# What a file is read for: who is in the study, the pixels of slides, the tokens of genes, the start of a network.
WHO = ["cohort_table", "sample_sheets", "clinical", "manifests"]
SLIDES = ["mpp_table", "slide_path", "coords_dir", "features_dir", "encoders"]
GENES = ["gene_table", "go_gmt", "kegg_gmt", "expression_path", "expression_matrix"]
WEIGHTS = ["weights_dir"]
SUBGROUPS = ["clinical", "expression_matrix", "further"]  # what says more of a patient than the class


def named(cohort: Cohort, p: Params) -> Iterator[tuple[str, str, Path]]:
    """(setting or column that names it, patient or '', path) of every file that the study reads."""
    for field, name in p.input_files():
        yield field, "", absolute(p.path(name))
    for path in characteristics.further_files(p):
        yield "further", "", absolute(path)
    matrices = {str(absolute(p.path(name))) for name in p.expression_matrix}
    for patient, row in cohort.patients.iterrows():
        if row["slide_path"] and p.has_pixels:
            for path in files_of(Path(row["slide_path"])):
                yield "slide_path", str(patient), path
        if row["expression_path"] and row["expression_path"] not in matrices:
            yield "expression_path", str(patient), Path(row["expression_path"])
    for row in cohort.features.itertuples():
        yield FEATURES if row.encoder == FEATURES else "encoders", row.patient_id, Path(row.path)
    folders = {"coords_dir": p.coords_dir if p.has_pixels else "", "weights_dir": p.weights_dir}
    for field, folder in folders.items():  # whole: which file is a slide's or a network's is told by its name
        for path in sorted(absolute(p.path(folder)).glob("[!.]*")) if folder else []:  # .DS_Store, .nfs000... are none
            if path.is_file():
                yield field, "", path


def look(cohort: Cohort, p: Params) -> pd.DataFrame:
    """The inventory as it is now: one row per file and patient, columns COLUMNS (times in ns).

    Fingerprints of files that have not changed since the last inventory are taken from it, and are known to
    `record.fingerprint` from here on. Raises CohortError where files are missing or two patients have the same one.
    """
    rows = list(named(cohort, p))
    fail([f"{field}{_of(patient)}: {path} is not there; download it or correct it"
          for field, patient, path in rows if not is_file(path)])  # fmt: skip
    states = {path: _asked(record.state, path) for _, _, path in rows}
    for state, fingerprint in _known(read(p)).items():
        record.remember(state, fingerprint)
    slides = {path for field, _, path in rows if field == "slide_path"}
    fingerprints = _fingerprints(states, slides)
    table = pd.DataFrame(
        [(field, patient, *states[path], fingerprints[path]) for field, patient, path in rows], columns=COLUMNS
    )
    _require_unlike(table)
    _require_own_images(table, [str(i) for i, path in cohort.patients["slide_path"].items() if is_pattern(path)])
    return table


def _asked(what: Callable[[Path], T], path: Path) -> T:
    """What the file system says of a file; CohortError where it does not let us look."""
    try:
        return what(path)
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error}); see to its permissions and its disk") from None


def _of(patient: str) -> str:
    return f", patient {patient}" if patient else ""


def _known(table: pd.DataFrame) -> dict[tuple[str, int, int, int], str]:
    states = table[["path", "bytes", "time", "changed"]].itertuples(index=False, name=None)
    return dict(zip(states, table["fingerprint"], strict=True))


def _fingerprints(states: dict[Path, tuple[str, int, int, int]], slides: set[Path]) -> dict[Path, str]:
    """The fingerprint of every path; several are read at a time, since most of it is waiting for the disk.

    Slides have gigabytes, and their fingerprint is of parts of them; of every other file all bytes count.
    """

    def read(path: Path) -> str:
        return _asked(record.fingerprint if path in slides else record.file_digest, path)

    with ThreadPoolExecutor(8) as pool:
        done = tqdm(
            pool.map(read, states), desc="inventory", total=len(states), unit="file",
            delay=2, mininterval=2,
        )  # fmt: skip
        fingerprints = dict(zip(states, done, strict=True))
    for path, fingerprint in fingerprints.items():
        record.remember(states[path], fingerprint)
    return fingerprints


def _require_unlike(table: pd.DataFrame) -> None:
    """Raise CohortError where a slide or a counts file of two patients has the same content, or two files of features:
    one of them is not its.
    """
    of_patients = table[table["setting"].isin(["slide_path", "expression_path"])]
    # A slide of several files as a whole: slides of a scanner may share a preview or a file of settings.
    files = of_patients.groupby(["setting", "patient_id"], sort=False)
    whole = files.agg(path=("path", "first"), content=("fingerprint", lambda parts: tuple(sorted(parts)))).reset_index()
    faults = []
    for _, same in whole.groupby(["setting", "content"], sort=False):
        first, *others = same.itertuples()
        faults += [
            f"{other.path}, patient {other.patient_id}: {other.setting}: the content is that of {first.path}, "
            f"patient {first.patient_id}; one of them is a copy under a wrong name: download both again"
            for other in others
        ]
    of_features = table[table["setting"].isin([FEATURES, "encoders"])]
    folders = of_features["path"].map(lambda path: Path(path).parent)
    for _, same in of_features.groupby([folders, "fingerprint"], sort=False):
        first, *others = same.drop_duplicates("path").itertuples()
        faults += [
            f"{other.path}, patient {other.patient_id}: {other.setting}: the content is that of {first.path}, patient "
            f"{first.patient_id}; one of them is a copy under a wrong name: make both again"
            for other in others
        ]
    fail(faults)


def _require_own_images(table: pd.DataFrame, patients: list[str]) -> None:
    """Raise CohortError where an image of tiles is in the bags of two patients, under whatever name; patients: whose
    slides are patterns of images. Images of one colour (glass, what is beside a slide) are alike by nature.
    """
    images = table[(table["setting"] == "slide_path") & table["patient_id"].isin(patients)]
    faults = []
    for _, same in images.groupby("fingerprint", sort=False):
        first, *others = same.drop_duplicates("patient_id").itertuples()
        if others and not _is_of_one_colour(Path(first.path)):
            faults += [
                f"{other.path}, patient {other.patient_id}: slide_path: the image is {first.path}, patient "
                f"{first.patient_id}, under another name; give each its own"
                for other in others
            ]
    fail(faults)


def _is_of_one_colour(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return len(image.convert("RGB").getcolors(image.width * image.height) or []) == 1
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ):  # no image, which is told where tiles are read
        return True


def read(p: Params) -> pd.DataFrame:
    """The inventory that the last run wrote; without rows where there is none, or a damaged one or one of an older
    version: it is made again.
    """
    try:
        table = record.read_parquet(p.results / FILE)
    except (OSError, ValueError):
        table = pd.DataFrame()
    return table if list(table.columns) == COLUMNS else pd.DataFrame(columns=COLUMNS)


def update(cohort: Cohort, p: Params) -> pd.DataFrame:
    """Look, and write `inventory.parquet` where it differs from what is there."""
    table = look(cohort, p)
    if not read(p).equals(table):
        record.write_atomically(p.results / FILE, lambda path: table.to_parquet(path, index=False))
    return table


def digest(table: pd.DataFrame, settings: Iterable[str]) -> str:
    """What results depend on that are made of the files of some settings."""
    return record.digest(table.loc[table["setting"].isin(list(settings)), CONTENT].to_numpy().tolist())
