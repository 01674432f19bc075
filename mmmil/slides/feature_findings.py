"""What a look at features made beforehand finds: files that may be of another encoder, another slide, or cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmmil.cohort.features import name_of
from mmmil.params import FEATURES
from mmmil.sources import barcodes
from mmmil.sources.findings import Finding

FAR = 6  # median absolute deviations of the log of a file's root mean square from the median
LEAST = 0.02  # what such a deviation is taken for at least: layers that normalise leave nearly none
MANY_REPEATED = 0.1  # of a file's instances; glass gives some that are equal
EXAMPLES = 3
UNEVEN, LARGE = 10, 4096  # times the median's instances, and so many, from which a bag is told of


def counts(seen: pd.DataFrame, encoder: str, most: int = 0) -> dict[str, Any]:
    """{what: number or words} of the features of an encoder; seen: `features.look`'s table, most: n_tiles, of which a
    patient's instances are a sample where there are more (0: all are used).
    """
    head = encoder if encoder == FEATURES else f"encoders, {encoder}"
    of_patient = seen.groupby("patient_id")["instances"].sum()
    spread = f"median {of_patient.median():,.0f} ({of_patient.min():,} to {of_patient.max():,})"
    n = int(seen["coords"].sum())
    found: dict[str, Any] = {
        "patients": len(of_patient),
        "files": len(seen),
        "instances": int(of_patient.sum()),
        "instances of a patient": spread,
        "width": int(seen["width"].iloc[0]),
        "coordinates": {0: "none", len(seen): "in all files"}.get(n, f"in {n:,} of {len(seen):,} files"),
    }
    if n_more := int((of_patient > most).sum()) if most else 0:
        used = int(of_patient.clip(upper=most).sum())
        found["instances used"] = f"{used:,}: of {n_more:,} patients a sample of {most:,} (n_tiles; 0: all)"
    stated = sorted(set(seen["encoder"]) - {""})
    found |= {"encoder as the files state it": ", ".join(stated)} if stated else {}
    return {f"{head}: {what}": value for what, value in found.items()}


def find(seen: pd.DataFrame, folder: str) -> list[Finding]:
    """Findings on the features of an encoder; seen: `features.look`'s table, folder: as the settings name it."""
    far = _far(seen["log_rms"])
    median = np.exp(seen["log_rms"].median())
    told = [
        Finding(
            "scale of features",
            f"their root mean square is {np.exp(row.log_rms):.3g}, where that of the cohort's files is {median:.3g}: "
            "perhaps another encoder's, or scaled",
            "make them with the encoder and the settings of the others",
            row.path,
            f"patient {row.patient_id}",
        )
        for row in seen[far].itertuples()
    ]
    repeated = seen[seen["repeated"] > MANY_REPEATED * seen["instances"]]
    if len(repeated):
        some = [f"{row.repeated} of {row.instances} in {row.slide_id}" for row in repeated.itertuples()]
        text = f"{len(repeated):,} files hold instances that equal another one: {_some(some)}"
        told.append(
            Finding("repeated instances", text, "make them again without the tiles that are there twice", folder)
        )
    kinds = seen["kind"].value_counts()
    if len(kinds) > 1:
        text = f"the numbers are of several types: {', '.join(f'{kind} in {n:,} files' for kind, n in kinds.items())}"
        told.append(Finding("types of numbers", text, "right if the encoder ran in several precisions", folder))
    cuts = seen["cut"][seen["cut"] != ""].value_counts()
    if len(cuts) > 1:
        of_cut = {cut: seen["slide_id"][seen["cut"] == cut].iloc[0] for cut in cuts.index}
        ways = _some([f"{cut} in {n:,} files, as {of_cut[cut]}" for cut, n in cuts.items()])
        text = f"the coords state that tiles were cut in several ways: {ways}"
        remedy = "make all at one magnification and size, unless scanners differ and this makes them alike"
        told.append(Finding("cut of tiles", text, remedy, folder))
    sizes = seen.groupby("patient_id", sort=False)["instances"].sum()
    if sizes.max() > UNEVEN * max(sizes.median(), LARGE / UNEVEN):
        text = f"{sizes.idxmax()} has {sizes.max():,} instances, the median patient {sizes.median():,.0f}"
        remedy = "cap them by n_tiles if memory or time is not enough: a batch is padded to its largest patient"
        told.append(Finding("uneven bags", text, remedy, folder))
    if 0 < seen["coords"].sum() < len(seen):
        lacking = seen[~seen["coords"]]
        text = (
            f"{len(lacking):,} of {len(seen):,} files have no coords, as {lacking['slide_id'].iloc[0]}, so none count"
        )
        told.append(
            Finding("coordinates", text, "make all files with their coords if positions are to be used", folder)
        )
    strange = [
        f"{row.slide_id} says {row.name}"
        for row in seen[seen["name"] != ""].itertuples()
        if barcodes.near_key(name_of(row.name)) not in map(barcodes.near_key, (row.slide_id, row.patient_id))
    ]
    if strange:
        text = f"{len(strange):,} files state another slide than that of their name: {_some(strange)}"
        told.append(Finding("name in the file", text, "see whether they were renamed on purpose", folder))
    return told


def _far(log_rms: pd.Series) -> pd.Series:
    """Which files' scale is far from the cohort's."""
    off = (log_rms - log_rms.median()).abs()
    return off > FAR * max(off[np.isfinite(off)].median(), LEAST)


def _some(words: list[str]) -> str:
    more = f", and {len(words) - EXAMPLES} more" if len(words) > EXAMPLES else ""
    return "; ".join(words[:EXAMPLES]) + more
