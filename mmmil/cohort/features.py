"""Whose the features in a folder are, by the names of its files: a slide's, or a patient's.

A file is called as its slide, or as its patient where it holds all of the patient's slides. Of TCGA's slides those
count that the slide rule counts (diagnostic slides of primary tumours), and all of a patient's: their rows are joined
in the order of the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mmmil.params import FEATURES, Params
from mmmil.sources import barcodes, feature_files, slide_files
from mmmil.sources.findings import Finding
from mmmil.sources.tables import CohortError, absolute, fail

SEPARATORS = re.compile(r"[,|\s]+")  # which a table may have in the place of ;
COLUMNS = ["encoder", "patient_id", "slide_id", "path"]


def no_features() -> pd.DataFrame:
    """The features of a cohort that brings none."""
    return pd.DataFrame(columns=COLUMNS, dtype=object)


@dataclass
class Folder:
    """The files of one folder. files: name of slide or patient -> file, sorted; of_patient: patient -> names, as far as
    names alone tell; left_out: (patient, reason) of the others; whole: names that are a patient's, not a slide's.
    """

    encoder: str
    path: Path
    files: dict[str, Path] = field(default_factory=dict)
    of_patient: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    notes: list[Finding] = field(default_factory=list)

    @property
    def setting(self) -> str:
        """The setting that names the folder, as messages call it."""
        return FEATURES if self.encoder == FEATURES else f"encoders, {self.encoder}"

    def rows(self, found: Mapping[str, list[str]]) -> pd.DataFrame:
        """Columns COLUMNS; found: patient -> names."""
        rows = [(self.encoder, i, name, str(self.files[name])) for i, names in found.items() for name in names]
        return pd.DataFrame(rows, columns=COLUMNS, dtype=object)


def name_of(text: str) -> str:
    """The name of a slide or patient by a file's: without a slide's suffix (a.svs.h5 is of a), and blanks around it."""
    suffix = next((s for s in slide_files.SUFFIXES if text.casefold().endswith(s)), "")
    return text[: len(text) - len(suffix)].translate(barcodes.PLAIN).strip()


def names_of(cell: str) -> list[str]:
    """The slides that a cell of an own table names, separated by ';', sorted."""
    return sorted({name_of(part) for part in cell.split(";")} - {""})


def read(p: Params, encoder: str) -> Folder:
    """Look at the folder of an encoder's features (`Params.feature_folders`); no file is opened.

    Raises CohortError for a folder that is not there or holds none, for two files of one name (.h5 and .pt), for names
    that differ in their spelling only or are nearly a TCGA barcode, and where a patient has a file as a whole beside
    files of slides.
    """
    folder = Folder(encoder, absolute(p.feature_folders[encoder]))
    if not folder.path.is_dir():
        raise CohortError(
            f"{folder.setting}: {folder.path} is no folder that is there; correct it, or make the features"
        )
    others, faults = [], []
    for path in sorted(folder.path.glob("[!.]*")):
        if path.is_dir():
            continue
        if path.suffix.lower() not in feature_files.SUFFIXES:
            others.append(path.name)
            continue
        first = folder.files.setdefault(name_of(path.stem), path)
        if first != path:
            faults.append(f"{path}: {first.name} has the same name; keep one of them")
    if not folder.files:
        raise _none(folder, others)
    faults += [
        f"{folder.files[other]}: differs from {folder.files[one].name} in its spelling only; keep one of them, or give "
        "them names that differ"
        for one, other in barcodes.spelled_twice(folder.files)
    ]
    fail(faults)
    _assign(folder)
    if others:
        text = f"{len(others):,} files end in none of {', '.join(feature_files.SUFFIXES)}, as {others[0]}"
        folder.notes.append(Finding("files that are no features", text, "nothing to do if so", str(folder.path)))
    return folder


def _none(folder: Folder, others: list[str]) -> CohortError:
    there = f"; it has {len(others):,} others, as {others[0]}" if others else ""
    for inner in sorted(path for path in folder.path.iterdir() if path.is_dir()):
        if any(path.suffix.lower() in feature_files.SUFFIXES for path in inner.iterdir()):
            there = f", but its folder {inner.name} has some: name that one"
    suffixes = ", ".join(feature_files.SUFFIXES)
    return CohortError(
        f"{folder.setting}: {folder.path} holds no file of features ({suffixes}){there or '; make them'}"
    )


def _assign(folder: Folder) -> None:
    """Fill of_patient, left_out and whole by the names of the files."""
    faults = []
    slides: dict[str, dict[str, list[str]]] = {}
    wholes: dict[str, list[str]] = {}
    for name, path in folder.files.items():
        section = barcodes.slide_section(name)
        try:
            barcode = section[0] if section else barcodes.parse(name, str(path))
        except CohortError as error:
            faults.append(str(error))
            continue
        patient = barcode.patient if barcode else name
        if barcode and barcode.code not in ("", barcodes.PRIMARY):
            folder.left_out.append((patient, f"features: sample type {barcode.code}, not a primary tumour"))
        elif section and section[1] != "DX":
            folder.left_out.append((patient, f"features: frozen section ({section[1]}), not a diagnostic slide (DX)"))
        elif section:
            slides.setdefault(patient, {}).setdefault(section[2], []).append(name)
        else:
            folder.whole.add(name)
            wholes.setdefault(patient, []).append(name)
    for patient, names in wholes.items():
        beside = [*names[1:], *(name for of_number in slides.get(patient, {}).values() for name in of_number)]
        faults += [
            f"{folder.files[name]}: patient {patient} has {folder.files[names[0]].name} too, a file of the patient as "
            "a whole; keep that, or those of the slides"
            for name in beside
        ]
    fail(faults)
    for patient, by_number in slides.items():
        for number, names in by_number.items():
            reason = f"features: another DX{number} of the patient is used"
            folder.left_out += [(patient, reason)] * (len(names) - 1)
        wholes[patient] = sorted(names[0] for names in by_number.values())
    folder.of_patient = dict(sorted(wholes.items()))


def choose(folder: Folder, wanted: Mapping[str, Iterable[str]], source: str) -> dict[str, list[str]]:
    """{patient: names of the patient's files}, without those of whom one is missing.

    wanted: patient -> names of the slides, none where the patient's name is all that is known. Where no slide
    of a patient has a file, the file of the patient as a whole counts.
    Raises CohortError where names differ in their spelling only, for several names in one, and for a file of two
    patients.
    """
    found: dict[str, list[str]] = {}
    lacking: list[tuple[str, str]] = []
    for patient, names in wanted.items():
        names = list(names)
        if all(name == patient or _is_whole(name, patient) for name in names):
            if patient in folder.of_patient:
                found[patient] = folder.of_patient[patient]
            else:
                lacking.append((patient, patient))
            continue
        there = {name: _file_of(name, folder) for name in names}
        whole = [name for name in folder.of_patient.get(patient, []) if name in folder.whole]
        of_slides = sorted({name for name in there.values() if name is not None})
        lacking += [(patient, name) for name, file in there.items() if file is None]
        if of_slides and all(there.values()):
            found[patient] = of_slides
        elif whole and not of_slides:
            found[patient] = whole
        else:
            lacking.append((patient, patient))
    of_name = {name: patient for patient, name in reversed(lacking)}
    faults = [
        f"{source}, patient {of_name[name]}: '{name}' is '{other}' in {folder.path}; write both alike"
        for name, other in barcodes.nearly_the_same(of_name, [*folder.files, *folder.of_patient])
    ]
    faults += [
        f"{source}, patient {patient}: '{name}' is no file of {folder.path}, and {parts[0]} is; separate slides by ;"
        for name, patient in of_name.items()
        if (parts := [part for part in map(str.strip, SEPARATORS.split(name)) if part != name and part in folder.files])
    ]
    whose: dict[str, str] = {}
    faults += [
        f"{source}, patient {patient}: '{name}' in {folder.path} is patient {whose[name]}'s file too; name the "
        "slides of both in the column slide_id"
        for patient, names in found.items()
        for name in names
        if whose.setdefault(name, patient) != patient
    ]
    fail(faults)
    return found


def _is_whole(name: str, patient: str) -> bool:
    """Whether a name is a TCGA patient's or sample's, and not a slide's."""
    return barcodes.slide_section(name) is None and barcodes.named_patient(name) == patient


def _file_of(slide: str, folder: Folder) -> str | None:
    """The name of a slide's file; of TCGA's slides one of the two names may end before the UUID."""
    if slide in folder.files or not barcodes.slide_section(slide):
        return slide if slide in folder.files else None
    plain = slide.casefold()
    same = [name for name in folder.files if f"{name.casefold()}.".startswith(f"{plain}.")]
    same += [name for name in folder.files if plain.startswith(f"{name.casefold()}.") and barcodes.slide_section(name)]
    return same[0] if len(same) == 1 else None


def strangers(folder: Folder, found: Mapping[str, list[str]], patients: Iterable[str]) -> list[Finding]:
    """Files of nobody, and those of whom the cohort has the patient and not this slide, counted."""
    used = {name for names in found.values() for name in names}
    mine = set(patients)
    of_name = {name: patient for patient, names in folder.of_patient.items() for name in names}
    unused = [name for name in folder.files if name not in used]
    of_nobody = [name for name in unused if of_name.get(name, barcodes.named_patient(name) or name) not in mine]
    others = sorted(set(unused) - set(of_nobody))
    told = []
    if of_nobody:
        text = f"{len(of_nobody):,} of {len(folder.files):,} files are of no patient of the cohort, as {of_nobody[0]}"
        remedy = "nothing to do if they are others'; else name the slides of each patient in the column slide_id"
        told.append(Finding("features of nobody", text, remedy, str(folder.path)))
    if others:
        text = f"{len(others):,} files of the cohort's patients are not used, as {others[0]}"
        remedy = "nothing to do if they are of other slides or samples than those that the cohort names"
        told.append(Finding("features not used", text, remedy, str(folder.path)))
    return told


def _without_file(folder: Folder, wanted: Mapping[str, list[str]], found: Mapping[str, list[str]]) -> dict[str, str]:
    """patient -> the first of the slides named for it that has no file, of patients who are left out for it."""
    lacking = {
        patient: [name for name in names if name != patient and _file_of(name, folder) is None]
        for patient, names in wanted.items()
        if patient not in found
    }
    return {patient: names[0] for patient, names in lacking.items() if names}


def of_table(p: Params, patients: pd.DataFrame, notes: list[Finding]) -> pd.DataFrame:
    """The features in the place of slides of an own table's patients, of whom they become slide_id and slide_path.

    patients: index patient_id, column slide_id with the names of slides or ''. Notes what is found beside them.
    Raises CohortError as `read` and `choose`, and with incomplete: error for a named slide that has no file.
    """
    if FEATURES not in p.feature_folders:
        return no_features()
    folder = read(p, FEATURES)
    wanted = {patient: names_of(cell) for patient, cell in patients["slide_id"].items()}
    source = str(p.path(p.cohort_table))
    found = choose(folder, wanted, source)
    without = _without_file(folder, wanted, found)
    if without and p.incomplete == "error":
        fail(
            [
                f"{source}, patient {patient}: {FEATURES}: the slide '{name}' has no file in {folder.path}; add it, "
                "correct its name, or set incomplete: exclude"
                for patient, name in without.items()
            ]
        )
    if without:
        patient, name = next(iter(without.items()))
        text = f"{len(without):,} patients are left out since a slide that is named for them has no file in "
        text += f"{folder.path}, as '{name}' of {patient}"
        remedy = "add the files or correct the names, unless these patients are to be left out"
        notes.append(Finding("named slides without features", text, remedy, source))
    notes += folder.notes + strangers(folder, found, patients.index)
    patients["slide_id"] = [found.get(patient, [""])[0] for patient in patients.index]
    patients["slide_path"] = [str(folder.files[name]) if name else "" for name in patients["slide_id"]]
    return folder.rows(found)


def further(p: Params, patients: pd.DataFrame, features: pd.DataFrame, notes: list[Finding]) -> pd.DataFrame:
    """The features that stand in the place of slides, and those of `encoders`, of the same slides."""
    slides = features.groupby("patient_id")["slide_id"].agg(list).to_dict()
    found = [features]
    for encoder in [name for name in p.feature_folders if name != FEATURES]:
        folder = read(p, encoder)
        wanted = slides
        if not p.features_dir:  # own tables may call a slide otherwise than its file, by which features are called
            names = {i: (row["slide_id"], Path(row["slide_path"]).stem) for i, row in patients.iterrows()}
            wanted = {i: [name if name in folder.files else stem] for i, (name, stem) in names.items() if stem}
        chosen = choose(folder, wanted, "the cohort")
        notes += folder.notes + strangers(folder, chosen, patients.index)
        found.append(folder.rows(chosen))
    return pd.concat(found, ignore_index=True)
