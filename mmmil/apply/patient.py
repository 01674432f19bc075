"""One new patient as the models read it, alone: whatever is wrong with the patient is the patient's own problem.

No other patient of the cohort has a say: a measurement, a slide and a name are all that is looked at.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import torch

from mmmil import record
from mmmil.apply import frozen, repeated
from mmmil.apply.cohort import literal
from mmmil.apply.folder import KeptModel
from mmmil.apply.models import Model
from mmmil.genes import expression, raw
from mmmil.genes.expression import ExpressionError
from mmmil.params import Params
from mmmil.slides import bags, scale, stain
from mmmil.slides import features as slide_features
from mmmil.sources.expression import matrix_columns, read_matrix
from mmmil.sources.expression_values import checked
from mmmil.sources.gene_names import WITHOUT_TPM
from mmmil.training import features
from mmmil.training.fit import Inputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Share of a model's genes that may be missing: each then has its mean over the training patients, which is 0 after
# scaling. A set of ten genes that lacks one still says what it said; with more missing, sets lose their meaning.
MOST_MISSING = 0.1
NAMED = 5  # missing genes that a message names


class PatientError(ValueError):
    """A patient cannot be predicted; says why."""


@dataclass
class Patient:
    """level: (1, genes) of `symbols`; slide: its file; bag: HDF5 file of the tiles, with imgs (N, px, px, 3) uint8 and
    mask (N,) of the real ones; features (N, D) made beforehand; None for what the model does not read. has_coords:
    whether it is known where the tiles lie; flags: what the input lacked.
    """

    name: str
    level: np.ndarray | None = None
    symbols: list[str] = field(default_factory=list)
    slide: Path | None = None
    bag: Path | None = None
    imgs: np.ndarray | None = None
    mask: np.ndarray | None = None
    features: np.ndarray | None = None
    has_coords: bool = True
    flags: list[str] = field(default_factory=list)

    def contents(self) -> dict[str, str]:
        """Hash of what the models read of each of the patient's inputs, by which two patients with one are told."""
        images = self.imgs if self.features is None else self.features
        there = {"slide": images, "expression": self.level}
        return {what: hashlib.sha256(a.tobytes()).hexdigest() for what, a in there.items() if a is not None}


class CachedMatrices(raw.Matrices):
    """Columns of matrices, each file read once for all patients that are asked for, and then cut by patient.

    Where one of the columns cannot be read, each is read alone, so that it is the fault of its own patient. genes: ids
    that the training read, took: of which of these it took which row of several (`mmmil.apply.repeated`); unknown:
    those of the last patient of which that is not known.
    """

    def __init__(self, genes: frozenset[str] = frozenset(), took: repeated.Taken | None = None) -> None:
        self.genes, self.took, self.unknown = genes, took or {}, list[str]()
        self._frames: dict[tuple[str, str, bool], pd.DataFrame | None] = {}
        self._columns: dict[str, list[str]] = {}

    def columns(self, path: Path) -> list[str]:
        if str(path) not in self._columns:
            self._columns[str(path)] = matrix_columns(path)
        return self._columns[str(path)]

    def read(self, path: Path, kind: str, columns: list[str], whole: bool) -> pd.DataFrame:
        key = (str(path), kind, whole)
        if key not in self._frames:
            try:
                self._frames[key] = read_matrix(path, kind, None, whole)
            except ExpressionError:
                self._frames[key] = None
        frame = self._frames[key]
        if frame is None:
            cut = read_matrix(path, kind, columns, whole)
        else:
            cut = frame[columns].copy()
            cut.attrs = frame.attrs
            cut = checked(cut, path, kind, whole)  # what others' columns would have hidden
        if kind != "zscore":  # of these the first is taken
            cut, self.unknown = repeated.without_others(cut, self.genes, self.took)
        return cut


class Reader:
    """Reads patients of a cohort for the models of a kept folder; brought: features, as `Cohort.features`; scales:
    slide -> what its row of the cohort says of its µm per px.
    """

    def __init__(
        self,
        kept: KeptModel,
        p: Params,
        models: Sequence[Model],
        fabric: Fabric,
        brought: pd.DataFrame,
        scales: Mapping[str, str],
    ):
        self.kept, self.p, self.models, self.fabric, self.brought = kept, p, models, fabric, brought
        self.scales = scales
        self.source = CachedMatrices()
        if kept.variant.uses_genes:
            genes = frozenset(kept.expression["gene_ids"].values()) | frozenset(kept.expression["measured"])
            self.source = CachedMatrices(genes, kept.expression["taken"])
        self.encoder: Any = None
        if kept.about["image"].get("kind") == "frozen":
            self.encoder = frozen.required(kept, p, fabric)

    def read(self, name: str, row: pd.Series) -> Patient:
        """A patient, from a row of the cohort. Raises PatientError, or what the readers of the files raise."""
        patient = Patient(name)
        if self.kept.variant.uses_genes:
            self._read_genes(patient, row["expression_path"])
        if self.kept.about["image"].get("kind") == "features":
            self._read_features(patient)
        elif self.kept.variant.uses_slides:
            self._read_slide(patient, row["slide_id"], Path(row["slide_path"]))
        return patient

    def _read_genes(self, patient: Patient, path: str) -> None:
        p, about = self.p, self.kept.expression
        if not Path(path).is_file():
            raise PatientError(f"{path}: the expression file is not there; correct expression_path")
        settings: dict[str, Any] = {"counts_level": p.counts_level} if p.expression_kind in WITHOUT_TPM else {}
        settings |= {"round_counts": p.round_counts} if p.expression_kind == "counts" else {}
        table = p.path(p.gene_table) if p.gene_table and p.expression_kind != "star" else None
        like = expression.Reading(frozenset(about["gene_ids"].values()), frozenset(about["measured"]))
        found = expression.assemble(
            pd.Series({patient.name: path}),
            p.expression_kind,
            gene_table=table,
            like=like,
            source=self.source,
            **settings,
        )
        if p.expression_kind == "log2tpm" and about["lowest"] >= 0 > found.level.min():
            raise PatientError(
                f"{path}: holds values below 0 (lowest {found.level.min():.4g}), the training's none: they are not on "
                "one scale, such as log2(TPM + 0.001) and log2(TPM + 1); give log2(TPM + 1)"
            )
        lacking = len(like.measured) - len(found.measured)
        if lacking > MOST_MISSING * len(like.measured):
            patient.flags.append(
                f"{lacking} of the {len(like.measured)} genes that {found.level_unit} was computed of are missing, so "
                "that levels are too high"
            )
        if again := sorted(like.chosen & set(self.source.unknown)):
            names = ", ".join(again[:NAMED]) + " ..." * (len(again) > NAMED)
            patient.flags.append(f"{len(again)} genes stand there more than once, the highest is taken: {names}")
        patient.level, patient.symbols = found.level, list(found.genes["symbol"])
        self._require_genes(patient, path)

    def _require_genes(self, patient: Patient, path: str) -> None:
        lacking: dict[str, None] = {}
        for model in self.models:
            assert model.transform is not None
            genes, missing = len(model.transform.symbols), model.transform.missing(patient.symbols)
            if len(missing) > MOST_MISSING * genes:
                names = ", ".join(missing[:NAMED]) + " ..." * (len(missing) > NAMED)
                remedy = (
                    f"its genes are called {', '.join(patient.symbols[:2])}: where these are ids, name symbols in a "
                )
                remedy += "gene_table; else measure these genes too, or keep a model on other gene sets"
                raise PatientError(
                    f"{path}: lacks {len(missing)} of the {genes} genes that the model {model.name} reads ({names}), "
                    f"more than the {MOST_MISSING:.0%} that are filled in; {remedy}"
                )
            lacking |= dict.fromkeys(missing)
        if lacking:
            names = ", ".join(list(lacking)[:NAMED]) + " ..." * (len(lacking) > NAMED)
            patient.flags.append(f"{len(lacking)} genes missing, taken as the training mean: {names}")

    def _read_slide(self, patient: Patient, slide_id: str, path: Path) -> None:
        row = bags.tile_patient(patient.name, slide_id, path, self._with_scale(path))
        if row["problem"]:
            raise PatientError(row["problem"].removeprefix("error: "))
        patient.slide, patient.bag = path, Path(row["bag"])
        self._flag_scale(patient, row["um_per_tile"])
        with h5py.File(patient.bag) as file:
            patient.imgs, patient.mask, patient.has_coords = file["imgs"][:], file["mask"][:], "coords" in file
        assert patient.mask is not None
        if self.kept.about["image"]["coordinates"] and not patient.has_coords:
            raise PatientError(
                f"{path}: are tiles of which nobody knows where they lie, and the model learnt of tiles in their "
                "places; give the slide, or keep a model of such tiles"
            )
        if not patient.mask.all():
            patient.flags.append(f"{int(patient.mask.sum())} tiles of {len(patient.mask)}, the rest is padding")

    def _flag_scale(self, patient: Patient, side: float | str) -> None:
        """Say where tiles are of another scale than all of the training's; side: of a tile in µm, '' if unknown."""
        low, high = self.kept.about["image"]["um_per_tile"] or (0.0, math.inf)
        if side and not low / scale.SAME_SCALE <= float(side) <= high * scale.SAME_SCALE:
            trained = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            patient.flags.append(f"a tile is {float(side):g} µm wide, in training {trained}: of another magnification")

    def _with_scale(self, slide: Path) -> Params:
        """The parameters with a slide's own µm per px, so that no other slide's row or name has a say."""
        stated = self.scales.get(str(slide), "")
        if not stated:
            return self.p
        mpp = pd.to_numeric(stated, errors="coerce")
        if not scale.is_plausible(mpp):
            low, high = scale.PLAUSIBLE_MPP
            raise PatientError(f"{slide}: its mpp '{stated}' is no number of µm per px between {low} and {high}")
        table = self.p.results / "mpp" / f"{record.digest([str(slide), stated])}.csv"
        row = pd.DataFrame({"wsi": [slide.name], "mpp": [mpp]})
        record.write_atomically(table, lambda t: row.to_csv(t, index=False))
        return self.p.override(mpp_table=literal(table))

    def _read_features(self, patient: Patient) -> None:
        image, p, rows = self.kept.about["image"], self.p, self.brought
        mine = rows[(rows["encoder"] == image["encoder"]) & (rows["patient_id"] == patient.name)]
        bag = slide_features.load(mine, [patient.name], p.n_tiles, p.seed)
        path, expected = mine["path"].iloc[0], image["stated_encoder"]
        if bag.dim != image["width"]:
            raise PatientError(
                f"{path}: features are {bag.dim} wide, the model reads {image['width']}; make them with its encoder"
                + f", {expected}" * bool(expected)
            )
        others = sorted(set(bag.files["encoder"]) - {"", expected})
        if others and expected:
            raise PatientError(
                f"{path}: says that it is of the encoder {others[0]}, and the model was trained on features of "
                f"{expected}; make it with that one"
            )
        if image["coordinates"] and not bag.has_coords:
            raise PatientError(
                f"{path}: has no coordinates, and the model was trained on features with them; give files with "
                "coords, or keep a model that was trained without"
            )
        patient.features = bag.instances

    def inputs(self, patient: Patient, model: Model) -> Inputs:
        """What one model reads of a patient: a batch of one."""
        tiles = genes = mask = None
        if patient.features is not None:
            tiles = torch.from_numpy(patient.features)[None]
        if patient.imgs is not None and patient.mask is not None:
            pixels, real = patient.imgs, patient.mask
            if model.stain is not None:
                pixels = pixels.copy()
                pixels[real] = stain.transform(pixels[real], model.stain)
            if self.encoder is not None:  # of real tiles alone, as trainings read features
                tiles = torch.from_numpy(features.of_tiles(self.encoder, pixels, self.fabric)[real])[None]
            else:
                tiles, mask = torch.from_numpy(pixels)[None], None if real.all() else torch.from_numpy(real)[None]
        if patient.level is not None:
            genes = torch.from_numpy(model.genes(patient.level, patient.symbols))
        return Inputs(tiles, genes, mask, [patient.name])
