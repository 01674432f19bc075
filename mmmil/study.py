"""A study: the patients that have everything the task needs, their split, and where their tiles and genes are.

What every stage and notebook starts from. Everything slow behind it is computed once and found again by hash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmmil import record, results
from mmmil.cohort import build as cohorts
from mmmil.cohort import flow, inventory, split_files
from mmmil.genes import expression
from mmmil.params import Params
from mmmil.simulate import at_hand
from mmmil.slides import bags, coordinates, packed, tiling
from mmmil.slides import features as slide_features
from mmmil.sources.slide_files import is_pattern

if TYPE_CHECKING:
    from mmmil.genes.choice import Library
    from mmmil.genes.encoder import GeneSetEncoder
    from mmmil.genes.tokens import GeneTokens
    from mmmil.processes.shards import Shard
    from mmmil.slides.stain import StainReference


@dataclass
class Study:
    """cohort: usable patients; folds: patient -> 0..n-1, -1 for the test set (of the first repeat: see `folds_of`);
    tiles: tiling's table, None where slides are not read as pixels; train: whether trainings that are asked for and not
    there are made, or are an error.
    """

    p: Params
    cohort: cohorts.Cohort
    folds: pd.Series
    tiles: pd.DataFrame | None
    train: bool = True

    @property
    def patients(self) -> list[str]:
        return list(self.cohort.patients.index)

    @property
    def labels(self) -> pd.Series:
        return self.cohort.patients["label"]

    def folds_of(self, fold: int) -> pd.Series:
        """patient -> number of its fold in the repeat that `fold` belongs to, -1 for the test set, which all share.

        Fold f of repeat r is number r * n_folds + f; -1 belongs to the first one.
        """
        p, repeat = self.p, max(fold, 0) // self.p.n_folds
        if not 0 < repeat < p.repeats:
            return self.folds
        if repeat not in self._repeats:
            sites = self.cohort.patients["site"] if p.fold_groups == "site" else None
            self._repeats[repeat] = cohorts.again(self.folds, self.labels, repeat, p.n_folds, p.seed, sites)
        return self._repeats[repeat]

    def repeated_folds(self) -> list[pd.Series]:
        """`folds_of` each repeat; without labels, which are needed to deal, of the first alone."""
        there = self.p.repeats if (self.folds >= 0).any() else 1
        return [self.folds_of(repeat * self.p.n_folds) for repeat in range(there)]

    @cached_property
    def _repeats(self) -> dict[int, pd.Series]:
        return {}

    def fold_patients(self, fold: int) -> tuple[list[str], list[str]]:
        """Training and evaluated patients of a fold; fold -1 is the final model and the held-out test set."""
        return cohorts.fold_patients(self.folds_of(fold), fold)

    def training_patients(self, fold: int) -> list[str]:
        """Who a fold's training may look at; all patients of a cohort without labels, which trains nothing."""
        return self.patients if (self.labels < 0).all() else self.fold_patients(fold)[0]

    @property
    def fold_numbers(self) -> list[int]:
        """Cross-validation folds of all repeats, then -1 for the final model."""
        return [*range(self.p.repeats * self.p.n_folds), -1]

    @property
    def once(self) -> list[int]:
        """As `fold_numbers`, of the first repeat: every patient is evaluated once."""
        return [*range(self.p.n_folds), -1]

    @cached_property
    def bag_paths(self) -> pd.Series:
        """patient -> HDF5 file of the bag, which is there: what is gone or damaged is made again.

        For what is asked of a slide; trainings read `bags`, for which these need not be there. Raises ValueError where
        slides are not read as pixels.
        """
        named = self._named_bags
        bags.make_again(self.tiles, self.p)
        return named

    @property
    def _named_bags(self) -> pd.Series:
        """As `bag_paths`, without a look at the files."""
        if self.tiles is None:
            there = f"features in their place ({self.p.features_dir})" if self.p.has_slides else "no slides"
            raise ValueError(f"task '{self.p.task}' has no pixels but {there}: see Study.features")
        return self.tiles.set_index("patient_id")["bag"].loc[self.patients]

    @property
    def has_coords(self) -> bool:
        """Whether it is known where tiles lie on their slides: not of images that were cut beforehand."""
        return self.tiles is not None and not self.tiles["slide_path"].map(is_pattern).any()

    def candidates(self, patient: str) -> tiling.Candidates:
        """Every grid position of a patient's slide with its tissue share, valid or not."""
        slide = self.cohort.patients.loc[patient]
        return tiling.read_candidates(
            tiling.candidates_of(slide["slide_path"], self.p.results / "tiles" / slide["slide_id"], self.p)
        )

    @property
    def slides(self) -> pd.DataFrame:
        """slide_id and slide_path of every patient whose slide was looked at, those left out for it included."""
        return self.tiles.set_index("patient_id")[["slide_id", "slide_path"]]

    def stain_reference(self, fold: int) -> StainReference:
        """The stain reference of a fold; only with stain normalisation."""
        from mmmil.slides import stained_bags

        return stained_bags.reference_of(self.p, self.bag_paths, self.training_patients(fold), fold)

    def bag_keys(self, fold: int) -> list[str]:
        """What names the pixels of a fold's bags, for the hash of results that depend on them; reads none of them."""
        if self.p.stain == "none":
            return [Path(path).parent.name for path in self._named_bags]
        from mmmil.slides import stained_bags

        return [stained_bags.key_of(self.p, self.bag_paths, self.training_patients(fold), fold)]

    def bags(self, fold: int) -> np.ndarray:
        """Pixels (patients, n_tiles, px, px, 3) uint8 of a fold's bags in the cohort's order, stain-normalised if asked
        for (the reference is fitted on the fold's training patients). Mapped from their packed file: see `packed`.
        """
        folder = self.packed_bags
        if self.p.stain != "none":
            from mmmil.slides import stained_bags

            folder = stained_bags.bags_of(self.p, self.bag_paths, self.training_patients(fold), fold)
        return packed.mapped(folder / packed.PIXELS)

    @cached_property
    def packed_bags(self) -> Path:
        """Folder of the cohort's packed bags (`packed.cohort`), made now where they are not there."""
        return packed.cohort(self.p, self._named_bags, lambda: list(self.bag_paths))

    @cached_property
    def tile_coords(self) -> np.ndarray | None:
        """Where all real tiles lie, one patient behind the other: (tiles, 2) in level-0 px; None where nobody knows."""
        return np.load(self.packed_bags / packed.COORDS) if self.has_coords else None

    def features(self, encoder: str) -> slide_features.Bags:
        """The bags of features made beforehand (`Params.feature_folders`), in the cohort's order (`features.pack`)."""
        if encoder not in self._features:
            rows, keys = self._files_of(encoder), self.feature_keys(encoder)
            self._features[encoder] = slide_features.pack(self.p, encoder, rows, self.patients, keys)
        return self._features[encoder]

    def feature_keys(self, encoder: str) -> list[list[str]]:
        """What names an encoder's features, for the hash of results that depend on them: the content of each patient's
        files in the cohort's order. By patient, for a file may be given to another one.
        """
        rows = self._files_of(encoder)
        of_patient = {i: list(map(record.file_digest, paths)) for i, paths in rows.groupby("patient_id")["path"]}
        return [of_patient.get(i, []) for i in self.patients]

    def _files_of(self, encoder: str) -> pd.DataFrame:
        if encoder not in self.p.feature_folders:
            known = ", ".join(self.p.feature_folders) or "none"
            raise ValueError(f"task '{self.p.task}' names no folder of features of {encoder}, only {known}")
        rows = self.cohort.features
        return rows[(rows["encoder"] == encoder) & rows["patient_id"].isin(self.patients)]

    @cached_property
    def _features(self) -> dict[str, slide_features.Bags]:
        return {}

    @cached_property
    def tile_masks(self) -> np.ndarray:
        """Which tiles of the bags are real and which padding, (patients, n_tiles) bool."""
        return np.load(self.packed_bags / packed.MASKS)

    @cached_property
    def expression(self) -> expression.Expression:
        return expression.load(self.cohort.patients, self.p)

    def gene_tokens(self, fold: int, library: Library) -> GeneTokens:
        """Gene tokens of a fold, fitted on its training patients."""
        from mmmil.genes import tokens as gene_tokens

        return gene_tokens.tokens(self.p, self.expression, self.labels, self.folds_of(fold), fold, library)

    def gene_tokens_key(self, fold: int, library: Library) -> str:
        """What names a fold's gene tokens, for the hash of results that depend on them; looked up once."""
        if (fold, library) not in self._token_keys:
            self._token_keys[fold, library] = self.gene_tokens(fold, library).folder.name
        return self._token_keys[fold, library]

    @cached_property
    def _token_keys(self) -> dict[tuple[int, str], str]:
        return {}

    def gene_encoder_inputs(self, tokens: GeneTokens) -> tuple[np.ndarray, GeneSetEncoder]:
        """Levels (patients, genes) of a fold's patients and the encoder half that makes `tokens` of them."""
        from mmmil.genes import tokens as gene_tokens

        return gene_tokens.encoder_inputs(self.expression, tokens)


def load(p: Params, workers: int = 1, train: bool = True) -> Study:
    """Build the cohort, tile its slides, leave out who has too few tiles, and split the rest; features that stand in
    the place of slides are read when they are first asked for. A synthetic cohort that is not there is made.

    train: False in a notebook that is not to train (`runs.NotTrainedError` says what is missing).
    """
    at_hand.require(p)
    p.require_files()
    cohort = cohorts.build(p)
    inventory.look(cohort, p)
    tiles = None
    if p.has_pixels:
        tiles = bags.tile_cohort(cohort.patients, p, workers)
        cohort = without(cohort, tiles[tiles["problem"] != ""].set_index("patient_id")["problem"])
        if not len(cohort):
            reasons = "; ".join(f"{n} x {reason}" for reason, n in flow.reasons(cohort.excluded, "tiles").items())
            raise cohorts.CohortError(f"task '{p.task}': no slide gives enough tiles ({reasons}); lower n_tiles")
    if (cohort.labels >= 0).all() and len(cohort) > 1:
        folds = cohorts.folds_of(cohort.patients, p)
    else:  # slides without labels can be tiled and looked at, nothing more
        folds = pd.Series(-1, index=cohort.patients.index, name="fold")
    study = Study(p, cohort, folds, tiles, train)
    study.repeated_folds()  # sites that cannot be dealt are told of now
    return study


def tile_shard(p: Params, shard: Shard, workers: int = 1) -> list[str]:
    """Tile a shard of the cohort's slides, which `load` then finds; what is wrong with slides, which it will tell."""
    p.require_files()
    cohort = cohorts.build(p)
    inventory.look(cohort, p)
    return bags.tile_some(shard.of(cohort.patients), p, workers)


def write(study: Study) -> None:
    """Write `cohort.csv`, `excluded.csv`, `flow.csv`, `tiles.csv`, the tiles' coordinates as TRIDENT has them
    (`patches/`) and CLAM-style `splits/` under the task's results.

    The batch run does this; a notebook with other parameters leaves the record as it is.
    """
    p, cohort = study.p, study.cohort
    further = {f"fold_of_repeat_{r}": folds for r, folds in enumerate(study.repeated_folds()) if r}
    tables = {
        "cohort": cohort.patients.assign(fold=study.folds, **further).reset_index(),
        "excluded": cohort.excluded,
        "flow": cohort.flow,
    }
    if study.tiles is not None:
        tables["tiles"] = study.tiles
    for name, table in tables.items():
        results.write(p, name, table)
    if study.has_coords:
        slides = cohort.patients["slide_id"]
        coordinates.publish({slides[patient]: bag for patient, bag in study.bag_paths.items()}, p.results / "patches")
    if (study.folds >= 0).any():
        for folds in study.repeated_folds():
            split_files.write(folds, cohort.patients, p)


def without(cohort: cohorts.Cohort, reasons: pd.Series) -> cohorts.Cohort:
    """The cohort less the patients of too few tiles (index of `reasons`), who are added to its excluded ones."""
    excluded, steps = flow.with_step((cohort.excluded, cohort.flow), "tiles", len(cohort), reasons)
    return replace(cohort, patients=cohort.patients.drop(reasons.index), excluded=excluded, flow=steps)
