"""Parameters: one flat set of settings (`mmmil.schema` lists them), checked before any work starts.

A task is one file of `params/`, an overlay (such as `demo`) is another one laid over it, and a notebook or the
command line may override single values.
"""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import ValidationError, field_validator, model_validator

from mmmil.schema import (
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

if TYPE_CHECKING:
    import pandas as pd


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type, impossible beside another one, or names a missing file."""


class Params(Simulation, Cohort, Tiles, Genes, Model, Training, Evaluation, Attention):
    """All parameters of one task. Immutable; `override` gives a changed copy."""

    @field_validator("task", "overlay")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if value and not value.replace("_", "").replace("-", "").isalnum():
            raise ValueError("use letters, digits, '-' and '_' only")
        return value

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.expression_kind in ("counts", "log2tpm", "zscore") and self.inputs != "slides":
            if not self.expression_matrix:
                raise ValueError(
                    f"expression_kind '{self.expression_kind}' describes a matrix: name it in expression_matrix"
                )
        elif self.expression_matrix:
            raise ValueError(
                f"expression_matrix is given but expression_kind is '{self.expression_kind}': "
                "say what the matrix holds (counts, log2tpm or zscore)"
            )
        if self.label_rule != "table" and len(self.class_values) != 2:
            raise ValueError(f"label_rule '{self.label_rule}' needs class_values: one list of values per class")
        for name in ("n_permutations", "null_draws"):
            if 1 / (getattr(self, name) + 1) >= self.attention_fdr:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) cannot give a p below attention_fdr ({self.attention_fdr})"
                )
        if self.weights == "random" and not self.synthetic and self.inputs != "genes":
            raise ValueError("weights: random is for synthetic cohorts; use imagenet for real slides")
        return self

    # -- where things are ------------------------------------------------------------------------------------
    @property
    def data(self) -> Path:
        return root() / self.data_dir.format(task=self.task, real=real_data())

    @property
    def results(self) -> Path:
        return root() / self.results_dir.format(task=self.task)

    def path(self, name: str) -> Path:
        """A file named in the parameters: relative to `data_dir`, or to the project if it starts with params/."""
        return (root() if name.startswith("params/") else self.data) / name

    @property
    def has_slides(self) -> bool:
        return self.inputs in ("both", "slides")

    @property
    def has_genes(self) -> bool:
        return self.inputs in ("both", "genes")

    @property
    def leaks(self) -> bool:
        """Whether genes and gene sets are chosen on the very patients on whom models are evaluated."""
        return self.has_genes and self.selection == "all_patients"

    @property
    def enough_tiles(self) -> dict[str, Any]:
        """What decides whether a patient's slide gives enough tiles, and so whether the patient stays."""
        names = ["tile_px", "tile_level", "tile_mpp", "tissue", "tissue_percent", "n_tiles"]
        names += ["few_tiles", "mpp_table", "coords_dir"]
        return {name: getattr(self, name) for name in names} if self.has_slides else {}

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
        if self.has_slides:
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
            remedy = (
                f"make the synthetic cohort first: make book TASKS={self.task} OVERLAY={self.overlay}"
                if self.synthetic
                else f"download them, or correct params/{self.task}.yaml (data_dir is {self.data})"
            )
            if "{real}" in self.data_dir:
                remedy = f"set MMMIL_REAL_DATA to the folder of the real data (now {real_data()})"
            raise ParameterError(f"input files of task '{self.task}' are missing:\n{lines}\n{remedy}")
        return self


@dataclass(frozen=True)
class Shown:
    """Settings as a page shows them: `changed` in a table, `at_default` folded behind a line that counts them.

    Both are frames with index parameter and columns value, default, meaning.
    """

    changed: pd.DataFrame
    at_default: pd.DataFrame

    def __repr__(self) -> str:
        lines = [f"{name}: {_text(value)}" for name, value in self.changed["value"].items()]
        return "\n".join([*lines, self.rest])

    def _repr_html_(self) -> str:
        if self.at_default.empty:
            return _html(self.changed, "changed")
        first = "<p>No setting differs from its default.</p>" if self.changed.empty else _html(self.changed, "changed")
        folded = _html(self.at_default.drop(columns="default"), "at_default")
        return f"{first}<details><summary>{self.rest}</summary>{folded}</details>"

    @property
    def rest(self) -> str:
        n = len(self.at_default)
        if self.changed.empty:
            return f"all {n} settings are at their default"
        return f"{n} setting{'s' * (n != 1)} at {'their' if n != 1 else 'its'} default"


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(_text, value))
    return "none" if value in ("", None) else str(value)


def _html(table: pd.DataFrame, name: str) -> str:
    """A table of settings: every text whole and wrapped, left-aligned wherever the page is opened."""
    look = "text-align: left; vertical-align: top; white-space: normal; padding: 0 1em 0.3em 0"
    cells = {"selector": "th, td", "props": look}
    style = table.reset_index().style.hide(axis="index").format(_text, escape="html").set_table_styles([cells])
    return style.to_html(table_uuid=f"settings_{name}")


def root() -> Path:
    """The project's folder: the nearest one upwards that holds `params/` and `_toc.yml`."""
    start = Path.cwd()
    for folder in (start, *start.parents, Path(__file__).resolve().parents[1]):
        if (folder / "params").is_dir() and (folder / "_toc.yml").is_file():
            return folder
    raise ParameterError(f"no project folder (with params/ and _toc.yml) at or above {start}; change into it first")


def real_data() -> Path:
    """Folder of the real data that some parameter files read; set MMMIL_REAL_DATA to move it."""
    return Path(os.environ.get("MMMIL_REAL_DATA", "../shared/data"))


def check(values: Mapping[str, Any]) -> Params:
    """Validate a flat mapping of parameters.

    Raises ParameterError with one line per fault: the parameter, what is wrong, and for an unknown name the
    nearest known one.
    """
    known = Params.model_fields
    faults = []
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            faults.append(f"unknown parameter '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    try:
        params = Params.model_validate({k: v for k, v in values.items() if k in known})
    except ValidationError as error:
        for e in error.errors():
            name = ".".join(str(part) for part in e["loc"])
            given = "" if e["type"] in ("missing", "value_error") else f" (given: {e['input']!r})"
            hint = ""
            if isinstance(e["input"], str) and e["type"] == "float_type":
                hint = "; YAML reads 1e-4 as text, write 1.0e-4"
            faults.append(f"{name + ': ' if name else ''}{e['msg']}{given}{hint}")
    if faults:
        raise ParameterError("wrong parameters:\n" + "\n".join(f"  {fault}" for fault in faults))
    return params


def read_yaml(name: str) -> dict[str, Any]:
    """The flat mapping in `params/<name>.yaml`."""
    path = root() / "params" / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise ParameterError(f"{path} does not exist; there are {', '.join(names)}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must hold one flat mapping `name: value`, one per line")
    return values


def load(task: str, overlay: str = "", **overrides: Any) -> Params:
    """Parameters of a task: schema defaults, then the task's file, then the overlay's, then single values."""
    values = read_yaml(task)
    if overlay:
        values |= read_yaml(overlay)
    return check({**values, "task": task, "overlay": overlay, **overrides})


def effective(namespace: Mapping[str, Any]) -> Params:
    """Parameters of a notebook: those of its `task` and `overlay`, overridden by the names it has set.

    `namespace` is the notebook's `globals()`, read before anything but parameters and modules is in it, so
    that a name papermill injected and nobody knows is an error, not a silent no-op. Input files are checked too.
    """
    ignored = {"In", "Out", "exit", "quit", "get_ipython", "open"}
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in ignored
        and not isinstance(value, types.ModuleType | types.FunctionType | type)
    }
    task, overlay = given.pop("task", None), given.pop("overlay", "")
    if not isinstance(task, str):
        raise ParameterError("the notebook sets no `task`: name a file of params/")
    if any(isinstance(value, Params) for value in given.values()):
        # The cell is run again, beside names that later cells have set; only parameters are looked at then.
        given = {name: value for name, value in given.items() if name in Params.model_fields}
    return load(task, overlay, **given).require_files()
