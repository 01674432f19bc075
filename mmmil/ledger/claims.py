"""The claims of the paper as data: `book/claims.yml`, checked as a whole before anything is judged by it.

A claim says in our words what the paper says, of what kind it is, and by which query and tolerance it is decided. A
query is one of a small closed set, never code; what each reads is said in `mmmil.ledger.queries`, how it is judged in
`mmmil.ledger.rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from mmmil import paper as paper_map
from mmmil import params, record, variants
from mmmil.evaluation import metrics as evaluation_metrics
from mmmil.ledger import facts as paper_facts
from mmmil.schema import Stage as Strict  # unknown keys and other types are errors
from mmmil.settings import yaml_files

TABLES = (*paper_map.TABLES, *(table.supplement for table in paper_map.TABLES.values() if table.proposed))


class LedgerError(ValueError):
    """book/claims.yml names what does not exist, or a claim that its query cannot decide."""


def _known(kind: str, names: Iterable[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"no {kind} {value!r}; there are {', '.join(names)}")
        return value

    return AfterValidator(check)


Variant = Annotated[str, _known("variant", variants.VARIANTS)]
Metric = Annotated[str, _known("metric", evaluation_metrics.METRICS)]
Task = Annotated[str, _known("task of the paper", paper_map.TASKS)]
Table = Annotated[str, _known("table of the paper", TABLES)]
Setting = Annotated[str, _known("setting", params.Params.model_fields)]
Pair = Annotated[list[Variant], Field(min_length=2, max_length=2)]
Split = Literal["val", "test"]
Library = Literal["go", "kegg"]


class Value(Strict):
    """A metric of one variant, mean over folds (val) or of the final model (test), with its interval."""

    variant: Variant
    metric: Metric
    split: Split = "val"


class Pairs(Strict):
    """Pairs of variants, each compared in every metric: the first is claimed to come out ahead of the second."""

    pairs: list[Pair] = Field(min_length=1)
    metrics: list[Metric] = Field(min_length=1)
    split: Split = "val"


class Contrast(Strict):
    """Two metrics of one variant on the same folds."""

    variant: Variant
    higher: Metric
    lower: Metric


class Balance(Strict):
    """`|sensitivity - specificity|`: the first of each pair is claimed to have the smaller one."""

    pairs: list[Pair] = Field(min_length=1)


class Spread(Strict):
    """Standard deviation over the folds: the first of each pair is claimed to have the smaller one."""

    pairs: list[Pair] = Field(min_length=1)
    metrics: list[Metric] = Field(min_length=1)


class Count(Strict):
    """Patients of a class, genes of an expression file, tiles that every slide gives, or significant gene sets."""

    what: Literal["patients", "genes", "tiles", "sets"]
    label: Literal[0, 1] | None = None
    library: Library | None = None

    @model_validator(mode="after")
    def _needs(self) -> Self:
        if (self.what == "patients") != (self.label is not None) or (self.what == "sets") != (self.library is not None):
            raise ValueError("patients are counted per label, sets per library, and nothing else is")
        return self


class Attention(Strict):
    """Gene sets whose attention differs between the classes; `sets` (identifier: name) asks for these ones."""

    library: Library
    source: Literal["self_genes", "cross_genes"]
    sets: dict[str, str] = Field(default_factory=dict)


class Measured(Strict):
    """A column of benchmarks/results/<file>.csv in the one row with the values of `where`, over that of `over`."""

    file: str
    column: str
    where: dict[str, str]
    over: dict[str, str] = Field(default_factory=dict)
    on_gpu: bool = Field(False, description="decided only by rows whose column device is not cpu")


class Query(Strict):
    """Exactly one of these."""

    fact: Annotated[str, _known("fact", paper_facts.FACTS)] | None = None
    setting: Setting | None = None
    count: Count | None = None
    metric: Value | None = None
    ordering: Pairs | None = None
    equal: Pairs | None = None
    contrast: Contrast | None = None
    balance: Balance | None = None
    spread: Spread | None = None
    attention: Attention | None = None
    measured: Measured | None = None
    none: str | None = Field(None, description="why nothing here decides the claim")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(Query.model_fields)}")
        return self

    @property
    def name(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def variants(self) -> set[str]:
        """The models whose predictions it reads."""
        asked = getattr(self, self.name)
        named: set[str] = {getattr(asked, field) for field in ("variant",) if getattr(asked, field, None)}
        return named.union(*getattr(asked, "pairs", []))


KINDS = {
    "exact": {"fact", "setting", "count"},
    "number": {"count", "metric", "measured", "none"},
    "ordering": {"ordering", "contrast", "balance", "spread", "measured"},
    "qualitative": {"count", "metric", "equal", "spread", "attention", "measured", "none"},
}
Kind = Literal["exact", "number", "ordering", "qualitative"]
WITHOUT_COHORT = {"fact", "measured", "none"}


class Claim(Strict):
    """One claim: `paper` is its value there (per task where it differs), `at_least` what we take its words to mean.

    tolerance: of a number, or the margin within which a difference counts as none. states: settings that it states
    beside that of its query.
    """

    id: str = Field(pattern=r"^C\d{3}$")
    section: Annotated[str, _known("section of the paper", paper_map.HEADINGS)]
    claim: str = Field(min_length=10)
    kind: Kind
    tasks: list[Task] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    page: Annotated[str, _known("notebook", paper_map.SECTIONS)]
    paper: int | float | str | dict[Task, int | float] | None = None
    at_least: float | None = None
    tolerance: float = Field(0.0, ge=0)
    headline: bool = False
    states: dict[Setting, int | float | str] = Field(default_factory=dict)
    query: Query

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        query = self.query.name
        if query not in KINDS[self.kind]:
            raise ValueError(f"a claim of kind {self.kind} is decided by {', '.join(KINDS[self.kind])}, not by {query}")
        if not self.tasks and query not in WITHOUT_COHORT:
            raise ValueError(f"a {query} is that of a task: name tasks")
        if self.tasks and query in ("fact", "measured"):
            raise ValueError(f"a {query} is that of no task")
        if isinstance(self.paper, dict) and set(self.paper) != set(self.tasks):
            raise ValueError("paper: give a value for each of its tasks and no other")
        if query in ("equal", "attention") and not self.tolerance:
            raise ValueError(f"a {query} needs a tolerance: the margin within which a difference counts as none")
        needs = query in ("fact", "setting", "count", "metric", "measured")
        if needs and (self.paper is None) == (self.at_least is None):
            raise ValueError(f"a {query} is set against the paper's value (paper) or a limit (at_least): give one")
        return self

    def paper_value(self, task: str) -> int | float | str | None:
        return self.paper.get(task) if isinstance(self.paper, dict) else self.paper


def check(rows: list[dict]) -> list[Claim]:
    """Validate the claims. Raises LedgerError with one line per fault: the claim, the field and what is wrong."""
    claims, faults = [], []
    for number, row in enumerate(rows, start=1):
        name = row.get("id", f"claim {number}") if isinstance(row, dict) else f"claim {number}"
        try:
            claims.append(Claim.model_validate(row))
        except ValidationError as error:
            for e in error.errors():
                where = ".".join(str(part) for part in e["loc"])
                faults.append(f"{name}: {where + ': ' if where else ''}{e['msg']}")
    ids = [claim.id for claim in claims]
    faults += [f"{name}: stands there {ids.count(name)} times" for name in dict.fromkeys(ids) if ids.count(name) > 1]
    if faults:
        raise LedgerError("book/claims.yml:\n" + "\n".join(f"  {fault}" for fault in faults))
    return claims


def load() -> list[Claim]:
    """The claims of `book/claims.yml`, in its order. Raises LedgerError where it is not a list of valid claims."""
    path = params.root() / "book" / "claims.yml"
    try:
        rows = yaml_files.read(path)
    except yaml_files.YamlError as error:
        raise LedgerError(str(error)) from None
    if not isinstance(rows, list):
        raise LedgerError(f"{path} must be a list of claims")
    return check(rows)


def stated(task: str) -> dict[str, int | float | str | None]:
    """The settings that the paper states for a task, with its values: those of the claims about settings."""
    path = params.root() / "book" / "claims.yml"
    return _stated(record.state(path))[task]


@lru_cache(maxsize=4)  # by the file's state: every cohort asks
def _stated(_: tuple[str, int, int, int]) -> dict[str, dict[str, int | float | str | None]]:
    by_task: dict[str, dict[str, int | float | str | None]] = {task: {} for task in paper_map.TASKS}
    for claim in load():
        for task in claim.tasks or paper_map.TASKS:
            by_task[task] |= claim.states
            if claim.query.setting:
                by_task[task] |= {claim.query.setting: claim.paper_value(task)}
    return by_task
