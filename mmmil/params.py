"""Parameters: one flat set of settings (`mmmil.schema` lists them), checked before any work starts.

A task is one file of `params/`, an overlay (such as `demo`) is another one laid over it, and a notebook or the
command line may override single values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, field_validator, model_validator

from mmmil.schema import (
    PATHS,
    STAGES,
    UNHASHED,
    UNSTATED,
    Attention,
    Cohort,
    Evaluation,
    Genes,
    Model,
    Simulation,
    Tiles,
    Training,
)
from mmmil.settings import cells, encoders, papermill, paths, remedies, task_files
from mmmil.settings.encoders import FEATURES
from mmmil.settings.shown import Shown
from mmmil.settings.task_files import ParameterError, read_yaml, real_data, root

__all__ = ["FEATURES", "ParameterError", "Params", "check", "effective", "load", "read_yaml", "real_data", "root"]

if TYPE_CHECKING:
    import pandas as pd


class Params(Simulation, Cohort, Tiles, Genes, Model, Training, Evaluation, Attention):
    """All parameters of one task. Immutable; `override` gives a changed copy."""

    @field_validator("task", "overlay")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if value and not value.replace("_", "").replace("-", "").isalnum():
            raise ValueError("use letters, digits, '-' and '_' only")
        return value

    @field_validator(*PATHS)
    @classmethod
    def _path(cls, value: str | list[str]) -> str | list[str]:
        for text in [value] if isinstance(value, str) else value:
            paths.filled(text, task="", run="", real="")  # raises ValueError; the text is hashed as it was given
        if isinstance(value, list) and ("" in value or len(set(value)) < len(value)):
            raise ValueError("names each file once, and none that is empty; [] for none")
        return value

    @field_validator("encoders")
    @classmethod
    def _encoders(cls, value: dict[str, str]) -> dict[str, str]:
        encoders.require(value)
        return value

    @field_validator("class_names")
    @classmethod
    def _two_names(cls, value: list[str]) -> list[str]:
        if len({" ".join(name.casefold().split()) for name in value} - {""}) < len(value):
            raise ValueError("give each class a name of its own")
        return value

    @field_validator("results_dir")
    @classmethod
    def _folder(cls, value: str) -> str:
        if not value.strip("./"):
            raise ValueError("results need a folder of their own, as results/{run}")
        return value

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        of_matrix = self.expression_kind in ("counts", "log2tpm", "zscore")
        if of_matrix and not self.expression_matrix and self.has_genes:
            raise ValueError(
                f"expression_kind '{self.expression_kind}' describes a matrix: name it in expression_matrix"
            )
        if self.expression_matrix and not of_matrix:
            raise ValueError(
                f"expression_matrix is given but expression_kind is '{self.expression_kind}': "
                "say what the matrix holds (counts, log2tpm or zscore)"
            )
        if self.has_pixels and self.expression_matrix and not (self.cohort_table or self.sample_sheets):
            raise ValueError(
                f"inputs: {self.inputs} wants slides, and only expression_matrix is named: set inputs: genes, name "
                "the slides in a cohort_table or sample_sheets, or the folder of their features in features_dir"
            )
        if self.label_rule != "table" and (len(self.class_values) != 2 or not all(self.class_values)):
            raise ValueError(f"label_rule '{self.label_rule}' needs class_values: one list of values per class")
        for name in ("n_permutations", "null_draws"):
            if 1 / (getattr(self, name) + 1) >= self.attention_fdr:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) cannot give a p below attention_fdr ({self.attention_fdr})"
                )
        if self.seed + self.model_seeds > 2**32:
            raise ValueError(
                f"model_seeds ({self.model_seeds}) goes on from seed ({self.seed}) beyond 2**32: lower seed"
            )
        if self.features_dir and self.coords_dir:
            raise ValueError(
                "features_dir is read in place of slides, so there is nothing to cut at coords_dir's places"
            )
        if self.features_dir and self.stain != "none" and self.has_slides:
            raise ValueError(
                f"stain '{self.stain}' changes pixels, of which there are none with features_dir: set stain: none, and "
                "normalise where the features are made"
            )
        from_pixels = [name for name, source in self.encoders.items() if not encoders.folder_of(source)]
        if self.features_dir and from_pixels:
            raise ValueError(
                f"encoders: {from_pixels[0]} reads pixels, of which there are none with features_dir; name a folder of "
                "its features (features:<folder>), or leave it out"
            )
        return self

    # -- where things are ------------------------------------------------------------------------------------
    @property
    def run(self) -> str:
        """`<overlay>/<task>`, or `<task>`: what tells this run from others of the task, and where it lies."""
        return paths.run_of(self.task, self.overlay)

    @property
    def cohort(self) -> str:
        """The cohort as every table of results names it: the run, and that it is synthetic where it is."""
        return f"{'synthetic cohort ' if self.synthetic else ''}{self.run}"

    @property
    def data(self) -> Path:
        return _placed(self._filled(self.data_dir))

    @property
    def results(self) -> Path:
        return _placed(self._filled(self.results_dir))

    @property
    def weights_folder(self) -> str:
        """Folder of weight files, or '' where timm's cache has them."""
        return str(self.path(self.weights_dir)) if self.weights_dir else ""

    def path(self, name: str) -> Path:
        """A file named in the parameters: relative to `data_dir`, or to the project if it starts with params/."""
        name = self._filled(name)
        return (root() if name.startswith("params/") else self.data) / name

    def _filled(self, text: str) -> str:
        return paths.filled(text, task=self.task, run=self.run, real=str(real_data()))

    @property
    def has_slides(self) -> bool:
        return self.inputs in ("both", "slides")

    @property
    def has_pixels(self) -> bool:
        """Whether slides are read as pixels; where features stand in their place there is nothing to tile."""
        return self.has_slides and not self.features_dir

    @property
    def has_genes(self) -> bool:
        return self.inputs in ("both", "genes")

    @property
    def feature_folders(self) -> dict[str, Path]:
        """Folders of features made beforehand, by encoder; FEATURES is the one that stands in the place of slides."""
        named = {FEATURES: self.features_dir} if self.has_slides and self.features_dir else {}
        if self.has_slides:
            named |= {name: folder for name, source in self.encoders.items() if (folder := encoders.folder_of(source))}
        return {name: self.path(folder) for name, folder in named.items()}

    @property
    def leaks(self) -> bool:
        """Whether genes and gene sets are chosen on the very patients on whom models are evaluated."""
        return self.has_genes and self.selection == "all_patients"

    @property
    def enough_tiles(self) -> dict[str, Any]:
        """What decides whether a patient's slide gives enough tiles, and so whether the patient stays."""
        names = ["tile_px", "tile_level", "tile_mpp", "tissue", "tissue_percent", "n_tiles"]
        names += ["few_tiles", "mpp_table", "coords_dir"]
        return {name: getattr(self, name) for name in names} if self.has_pixels else {}

    # -- views -----------------------------------------------------------------------------------------------
    def stage(self, *names: str) -> dict[str, Any]:
        """Values that the named stages' results depend on, for hashing and for Snakemake's `params`."""
        fields = [f for name in names for f in STAGES[name].model_fields]
        return {f: getattr(self, f) for f in fields if f not in UNHASHED}

    def table(self, *names: str) -> pd.DataFrame:
        """Effective parameters of the named stages: one row each with value, default and meaning."""
        import pandas as pd

        rows = []
        for stage in names or STAGES:
            for name, field in STAGES[stage].model_fields.items():
                default = None if field.is_required() else field.default
                listed = "; see “What the paper does not say”" if name in UNSTATED else ""
                rows.append((name, getattr(self, name), default, f"{field.description}{listed}"))
        columns = ["parameter", "value", "default", "meaning"]
        return pd.DataFrame(rows, columns=columns, dtype=object).set_index("parameter")

    def show(self, *names: str) -> Shown:
        """The same for a page: the settings that are not at their default, and the others folded."""
        table = self.table(*names)
        differs = [value != default for value, default in zip(table["value"], table["default"], strict=True)]
        return Shown(table[differs], table[[not d for d in differs]])

    def override(self, **values: Any) -> Params:
        """A checked copy with some values replaced.

        Raises ParameterError for an unknown name, a wrong type or an impossible combination.
        """
        return check({**self.model_dump(), **values})

    def input_files(self) -> list[tuple[str, str]]:
        """(parameter, name as it stands there) of every table, matrix and gene-set file that this task reads."""
        named = [(f, name) for f in ("sample_sheets", "manifests", "clinical") for name in getattr(self, f)]
        named += [("cohort_table", self.cohort_table)]
        if self.has_pixels:
            named += [("mpp_table", self.mpp_table)]
        if self.has_genes:
            named += [("expression_matrix", name) for name in self.expression_matrix]
            named += [("gene_table", self.gene_table), ("go_gmt", self.go_gmt), ("kegg_gmt", self.kegg_gmt)]
        return [(field, name) for field, name in named if name]

    def missing_files(self) -> list[tuple[str, Path]]:
        """(parameter, path) of every input file that is not there."""
        paths = [(field, self.path(name)) for field, name in self.input_files()]
        return [(field, path) for field, path in paths if not path.is_file()]

    def require_files(self) -> Params:
        """Return self, or raise ParameterError naming every input file that is not there and what to do."""
        missing = self.missing_files()
        if missing:
            lines = "\n".join(f"  {field}: {path}" for field, path in missing)
            remedy = f"download them, or correct params/{self.task}.yaml (data_dir is {self.data})"
            if self.synthetic:
                remedy = f"make the synthetic cohort first: make book TASKS={self.task} OVERLAY={self.overlay}"
                remedy += '; or, for files of your own, lay nothing over the task: overlay = ""' * bool(self.overlay)
            if "{real}" in self.data_dir:
                remedy = f"set MMMIL_REAL_DATA to the folder of the real data (now {real_data()})"
            raise ParameterError(f"input files of task '{self.task}' are missing:\n{lines}\n{remedy}")
        return self


def _placed(name: str) -> Path:
    """A folder as it was given, or in the project's; one that is given whole needs no project."""
    return Path(name) if Path(name).is_absolute() else root() / name


def check(values: Mapping[str, Any], given_in: Mapping[str, str] | None = None, beside: Sequence[str] = ()) -> Params:
    """Validate a flat mapping of parameters; given_in: the file that gives a parameter, for those that one gives;
    beside: names that are none and may be meant by a misspelt one.

    Raises ParameterError with one line per fault: the parameter, what is wrong, the file, and for an unknown name the
    nearest known one.
    """
    known = Params.model_fields
    places = {name: f"; in {file}" for name, file in (given_in or {}).items()}
    faults = []
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), [*known, *beside], n=1, cutoff=0.5)
            meant = f"; did you mean '{near[0]}'?" if near else "; mmmil/schema.py lists all there are"
            meant = f"; {remedies.GONE[name]}" if name in remedies.GONE else meant
            faults.append(f"unknown parameter '{name}'{meant}{places.get(name, '')}")
    try:
        params = Params.model_validate({k: v for k, v in values.items() if k in known})
    except ValidationError as error:
        for e in error.errors():
            name = ".".join(str(part) for part in e["loc"])
            given = "" if e["type"] in ("missing", "value_error") else f" (given: {e['input']!r}{remedies.remedy(e)})"
            place = places.get(str(e["loc"][0]), "") if e["loc"] else ""
            faults.append(f"{name + ': ' if name else ''}{e['msg']}{given}{place}")
    if faults:
        raise ParameterError("wrong parameters:\n" + "\n".join(f"  {fault}" for fault in faults))
    return params


def load(task: str, overlay: str = "", **overrides: Any) -> Params:
    """Parameters of a task: schema defaults, then the task's file, then the overlay's, then single values.

    Raises ParameterError as `check` and `read_yaml`, and for an overlay taken for a task, or a task for an overlay.
    """
    return _load(task, overlay, overrides)


def _load(task: str, overlay: str, overrides: Mapping[str, Any], beside: Sequence[str] = ()) -> Params:
    files = task_files.of(task, overlay)
    values = {key: value for content in files.values() for key, value in content.items()}
    given_in = {key: f"params/{name}.yaml" for name, content in files.items() for key in content}
    single = {"task": task, "overlay": overlay, **overrides}
    return check(values | single, {key: file for key, file in given_in.items() if key not in single}, beside)


def effective(namespace: MutableMapping[str, Any], *beside: str) -> Params:
    """Parameters of a notebook: those of its `task` and `overlay`, overridden by the names it has set.

    `namespace` is the notebook's `globals()`; beside: switches of its parameters cell (True or False) that are no
    parameters. Every name that a parameters cell sets has to be known; so has every other one at the first call, when
    nothing but parameters and modules is there. Names that an earlier version of the cell had set, and an `overlay`
    that was given to another task, don't count and are removed (`mmmil.settings.cells`). Input files are checked too,
    but for those of a synthetic cohort, which `study.load` makes.
    """
    session = cells.read(map(str, namespace.get("In", ())), Params.model_fields)
    asked = {name: value for name, value in namespace.items() if not isinstance(value, Params)}
    given = {name: value for name, value in asked.items() if cells.is_set(name, value, Params.model_fields)}
    for name in session.outdated & given.keys():
        del given[name], namespace[name]
    known = {*Params.model_fields, *beside}
    if any(isinstance(value, Params) for value in namespace.values()):  # later cells have set names of their own
        given = {name: value for name, value in given.items() if name in known | session.current | session.beside}
    for name in beside:
        value = given.pop(name, None)
        if not isinstance(value, bool):
            near = difflib.get_close_matches(name, given.keys() - known, n=1)
            remedy = f"correct {near[0]}" if near else f"add the line {name} = False"
            remedy = remedy if value is None else f"here it is {value!r}"
            raise ParameterError(f"the parameters cell must set `{name}` to True or False; {remedy}")
    task, overlay = given.pop("task", None), given.pop("overlay", "")
    if not isinstance(task, str):
        raise ParameterError("the notebook sets no `task`: name a file of params/")
    try:
        given = papermill.without_files(task, overlay, given, session.injected)
        p = _load(task, overlay, given, beside)
        return p if p.synthetic else p.require_files()  # a synthetic cohort is made where there is none
    except ParameterError as error:
        elsewhere = sorted(given.keys() - known - session.current) if session.current else []
        if not elsewhere:
            raise
        raise ParameterError(
            f"{error}\n  set outside the parameters cell, so it stays there until: del {', '.join(elsewhere)}"
        ) from None
