"""What each step of the batch reads and depends on: the Python behind the rules of the Snakefile.

A step's dependencies are one string that Snakemake compares with last time's: the values of the stages it depends on,
a hash of the code behind them, and the content of the files that it reads, by the inventory. One changed value or one
replaced file re-runs the steps that depend on it. What the file system says of times decides about results only.

Which patients stay is known when the slides are tiled, and the slides of a synthetic cohort when it is made: a run is
planned anew after each (run.py's `prepare`), so that the steps behind depend on who and what is there, not on its time.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the package, whichever one is installed

import pandas as pd
from snakemake.io import ancient

from mmmil import paper, params, record, source_code
from mmmil import variants as variant_table
from mmmil.book import pages
from mmmil.cohort import build as cohorts
from mmmil.cohort import inventory
from mmmil.evaluation import retrained
from mmmil.params import ParameterError, Params
from mmmil.simulate import cohort as synthetic
from mmmil.training import receipts

# A stage: the wings and modules whose code, with all that they import, computes it.
CODE = {
    "cohort": ["mmmil.cohort"],
    "tiles": ["mmmil.slides.bags", "mmmil.slides.stained_bags"],
    "quality": ["mmmil.slides.quality"],
    "genes": ["mmmil.genes"],
    "weights": ["mmmil.models.weights"],
    "model": ["mmmil.models"],
    "training": ["mmmil.training"],
    "evaluation": ["mmmil.evaluation", "mmmil.training.receipts"],
    "confounded": ["mmmil.check"],
    "leakage": ["mmmil.evaluation.leakage"],
    "attention": ["mmmil.interpretation"],
    "audits": ["mmmil.evaluation.audits"],
}
# A step: the stages whose values and those whose code it depends on.
STEPS = {
    "tiles": (["cohort", "tiles"], ["cohort", "tiles"]),
    "quality": (["tiles"], ["tiles", "quality"]),
    "genes": (["cohort", "genes"], ["cohort", "tiles", "genes"]),
    "leakage": (["cohort", "genes"], ["cohort", "tiles", "genes", "leakage"]),
    "weights": ([], ["weights"]),
    "features": (["cohort", "tiles"], ["cohort", "tiles", "model", "training"]),
    "record": (["evaluation"], ["evaluation", "confounded"]),
    "attention": (["attention", "evaluation"], ["attention"]),
    "audits": (["cohort", "tiles", "genes", "model", "training"], ["tiles", "genes", "audits"]),
}
# Packages that compute results: each is in the keys of what it computes, and an upgrade has the steps look there.
PACKAGES = [
    *("torch", "timm", "nystrom-attention", "scikit-learn", "scipy", "numpy", "pandas", "pydeseq2", "gseapy"),
    *("histolab", "scikit-image", "openslide-bin", "opencv-python-headless", "pillow"),
]
PYTHON = "python -I -S workflow/warm.py"  # python, with its libraries imported where that is done already
LOT = 18  # trainings of a job, at most
BENCHMARKS = Path("benchmarks/results")
BROUGHT = [params.FEATURES, "encoders"]  # settings whose folders hold features made beforehand
AUDITED = [*inventory.GENES, *inventory.WEIGHTS, *BROUGHT]


@dataclass(frozen=True)
class Steps:
    """The steps of one task: input files of each, relative to the project's folder, and what it depends on."""

    p: Params

    # -- what the task's pages ask for ---------------------------------------------------------------------------
    @cached_property
    def sections(self) -> list[paper.Section]:
        return pages.sections_of(self.p)

    @cached_property
    def reads(self) -> set[str]:
        """Steps whose results some page of the task reads."""
        return {step for section in self.sections for step in section.reads}

    @cached_property
    def trained(self) -> list[str]:
        """Variants that some page of the task shows: all that it trains, or none."""
        is_shown = any(self.models_of(section) or "record" in section.reads for section in self.sections)
        return variant_table.variants(self.p) if is_shown else []

    @property
    def attended(self) -> list[str]:
        """Proposed models whose attention the task's pages count."""
        wanted = "attention" in self.reads
        proposed = [name for name in variant_table.proposed(self.p) if name in self.trained and wanted]
        return [name for name in proposed if variant_table.variant(name).uses_gene_sets]

    def models_of(self, section: paper.Section) -> list[str]:
        """Variants whose predictions a page reads; without slides the gene models are all there is to compare."""
        tables = [*(table.number for table in section.scores), *section.reads_models_of]
        if tables and not self.p.has_slides:
            return variant_table.variants(self.p)
        return list(dict.fromkeys(name for table in tables for name in variant_table.in_table(self.p, table)))

    # -- inputs --------------------------------------------------------------------------------------------------
    def result(self, name: str) -> str:
        return f"results/{self.p.run}/{name}"

    @property
    def certificate(self) -> list[str]:
        """What says that a synthetic cohort is whole; its files' content is in the inventory."""
        return [ancient(f"{_relative(self.p.data)}/truth/cohort.json")] if self.p.synthetic else []

    @property
    def patients(self) -> list[str]:
        """Who is in: patients with too few tiles leave, so this comes after tiles; `who` says who they are."""
        return self.certificate + self.prepared("tiles")

    def prepared(self, *steps: str) -> list[str]:
        """Tables of some of the steps tiles, genes, quality and leakage, where the task has what they read."""
        has = {"tiles": self.p.has_pixels, "quality": self.p.has_pixels}
        has |= {"genes": self.p.has_genes, "leakage": self.p.has_genes}
        made = [self.result(f"{step}.csv") for step in has if step in steps and has[step]]
        return [ancient(name) if name.endswith("/tiles.csv") else name for name in made]  # its content counts

    @property
    def weights(self) -> list[str]:
        """What says that published weights were fetched, where a model starts from any."""
        return [ancient(self.result("weights.done"))] if variant_table.published(self.p) else []

    def shard_inputs(self, step: str) -> list[str]:
        """What a shard of the slides needs at a step of `shards`."""
        return self.certificate if step == "tiles" else self.prepared("tiles")

    def variant_inputs(self, name: str) -> list[str]:
        v = variant_table.variant(name)
        computed = v.reads_features(self.p) and v.encoder(self.p) not in self.p.feature_folders
        frozen = [self.result(f"features_{v.encoder(self.p)}.done")] if computed else []
        return self.prepared(*["tiles"] * v.uses_slides, *["genes"] * v.uses_genes) + frozen

    def trainings(self, names: Iterable[str]) -> list[str]:
        """What says that all trainings of some variants are there."""
        wanted = set(names)
        return [self.done(lot) for lot, of_lot in self.lots.items() if wanted & set(map(_variant, of_lot))]

    @property
    def audited(self) -> list[str]:
        """What the audits read: the trainings of their page, and where the patients' tiles and genes are from."""
        return self.prepared("tiles", "genes") + self.trainings(self.models_of(paper.SECTIONS["08_audits"]))

    def page_inputs(self, notebook: str) -> list[str]:
        section = paper.SECTIONS[notebook]
        files = self.patients if "patients" in section.reads and "tiles" not in section.reads else []
        files = [*files, *self.prepared(*section.reads)]
        files += [self.result("attention.csv")] if "attention" in section.reads and self.attended else []
        files += [self.result("audits.csv")] if "audits" in section.reads else []
        files += [self.result("metrics.csv")] if "record" in section.reads else []
        return files + self.trainings(self.models_of(section))

    @property
    def pages(self) -> list[str]:
        return [pages.page_of(self.p.run, section.notebook) for section in self.sections]

    @property
    def summaries(self) -> list[str]:
        """Tables of results that the generated parts of the book read."""
        files = self.prepared(*self.reads)
        files += (
            [self.result("metrics.csv"), self.result("comparisons.csv"), self.result("confounded.csv")]
            if self.trained
            else []
        )
        files += [self.result("audits.csv")] if "audits" in self.reads else []
        return files + ([self.result("attention.csv")] if self.attended else [])

    # -- trainings -----------------------------------------------------------------------------------------------
    @cached_property
    def lots(self) -> dict[str, list[str]]:
        """Trainings that read the same inputs, at most LOT to a job: importing what trains takes longer than a small
        training. Lot -> trainings. Logistic regressions are the last of theirs, so that whole lots of them take no GPU.
        """
        groups: dict[tuple[str, ...], list[str]] = {}
        wanted = receipts.trainings(self.p) if self.trained else []
        for training in sorted(wanted, key=lambda training: _variant(training) in variant_table.BASELINES):
            groups.setdefault(tuple(self.variant_inputs(_variant(training))), []).append(training)
        return {
            "-".join([*(Path(name).stem for name in inputs), str(i // LOT)]): names[i : i + LOT]
            for inputs, names in groups.items()
            for i in range(0, len(names), LOT)
        }

    def done(self, lot: str) -> str:
        return self.result(f"trainings/{lot}.done")

    def reopen(self) -> None:
        """Have lots of which a training has no receipt made again."""
        for lot, names in self.lots.items():
            if not all(receipts.receipt(self.p, name).is_file() for name in names):
                (params.root() / self.done(lot)).unlink(missing_ok=True)

    def lot_inputs(self, lot: str) -> list[str]:
        variant = _variant(self.lots[lot][0])
        return self.variant_inputs(variant) + (self.weights if variant_table.variant(variant).uses_slides else [])

    def lot_gpus(self, lot: str) -> int:
        return int(not all(_variant(name) in variant_table.BASELINES for name in self.lots[lot]))

    def train_call(self, lot: str) -> str:
        named = " ".join(f"--training {training}" for training in self.lots[lot])
        return f"{PYTHON} -m mmmil train --task {self.p.task} --overlay '{self.p.overlay}' {named}"

    def lot_depends(self, lot: str) -> list[str]:
        return [*self.lots[lot], *map(self.variant_depends, dict.fromkeys(map(_variant, self.lots[lot])))]

    def variant_depends(self, name: str) -> str:
        v = variant_table.variant(name)
        stages = ["cohort", *["tiles"] * v.uses_slides, *["genes"] * v.uses_genes, "model", "training"]
        slides = [self.content("tiles.csv"), self.files(inventory.WEIGHTS)] if v.uses_slides else []
        brought = v.reads_features(self.p) and v.encoder(self.p) in self.p.feature_folders
        slides += [self.files(BROUGHT)] if brought else []
        return self._digest(stages, stages, asdict(v), self.who, slides)

    # -- dependencies --------------------------------------------------------------------------------------------
    @property
    def simulated(self) -> str:
        return record.digest(synthetic.inputs(self.p))

    @cached_property
    def inventory(self) -> pd.DataFrame:
        return inventory.read(self.p)

    def files(self, settings: Iterable[str]) -> str:
        """The content of all files that some settings name, by the inventory."""
        return inventory.digest(self.inventory, settings)

    def content(self, name: str) -> str:
        """The content of a table of results that an earlier stage of the run has made; '' before that."""
        path = self.p.results / name
        return record.file_digest(path) if path.is_file() else ""

    @property
    def asked(self) -> str:
        """The tables that say who is asked for; patients with too few tiles are among them."""
        matrices = ["expression_matrix"] if self.p.expression_matrix else []
        return self.files([*inventory.WHO, *matrices])

    @property
    def who(self) -> str:
        """The patients that stay, with label and fold; who has no pixels to tile is known before anything is made."""
        if self.p.has_pixels:
            return self.content("cohort.csv")
        features = self.inventory["setting"].isin(BROUGHT)
        named = self.inventory.loc[features, ["setting", "patient_id"]].to_numpy().tolist()
        return record.digest([self.asked, named]) if named else self.asked

    def depends(self, step: str) -> str:
        """What a step of STEPS depends on: its stages, their code, the files it reads, single values beside them."""
        p = self.p
        beside: dict[str, list] = {
            "tiles": [self.asked, self.files(inventory.SLIDES)],
            "quality": [self.content("tiles.csv"), self.files(inventory.SLIDES)],
            "genes": [p.enough_tiles, self.who, self.files(inventory.GENES)],
            "leakage": [p.enough_tiles, self.who, self.files(inventory.GENES), p.null_repeats],
            "weights": [p.weights, p.encoders, self.files(inventory.WEIGHTS)],
            "features": [p.weights, p.encoders, self.content("tiles.csv"), self.files(inventory.WEIGHTS)],
            "record": [[asdict(table) for table in paper.TABLES.values()], paper.PROPOSED],
            "attention": [paper.PROPOSED],
            "audits": [self.who, self.content("tiles.csv"), self.files(AUDITED), p.variants, retrained.grid(p)],
        }
        return self._digest(*STEPS[step], *beside[step])

    def page_depends(self, notebook: str) -> str:
        """What a page depends on: the code is that of the modules which the notebook imports."""
        p, section = self.p, paper.SECTIONS[notebook]
        code = source_code.digest(*imports(Path("notebooks") / f"{notebook}.ipynb"))
        beside = [p.enough_tiles, p.title, paper.PROPOSED]
        beside += [self.inventory[inventory.CONTENT].to_numpy().tolist()] if "patients" in section.reads else []
        beside += [p.set_sizes] if "patients" in section.reads else []  # the look at gene sets
        beside += [self.files(inventory.SUBGROUPS)] if "audits" in section.reads else []  # subgroups
        beside += [self.who, self.content("tiles.csv")] if {"patients", "tiles"} & set(section.reads) else []
        return record.digest([p.stage(*section.stages), code, beside, [asdict(table) for table in section.scores]])

    def _digest(self, stages: list[str], code: list[str], *beside) -> str:
        modules = [module for stage in code for module in CODE[stage]]
        code = [source_code.digest(*modules), _study(), record.versions(*PACKAGES), self.p.cohort]
        return record.digest([self.p.stage(*stages), *code, *beside])


def load(tasks: Iterable[str], overlay: str = "") -> dict[str, Steps]:
    """The steps of every task.

    Raises ParameterError for wrong parameters, a page that its task cannot have or that the book has no place for,
    results that lie elsewhere, and synthetic cohorts outside the project or two in one folder.
    """
    steps = {task: Steps(params.load(task, overlay)) for task in tasks}
    for task, task_steps in steps.items():
        pages.require_possible(task_steps.p)
        if task_steps.p.results != params.root() / "results" / task_steps.p.run:
            raise ParameterError(
                f"results_dir of {task}: the batch engine writes to results/{task_steps.p.run}; leave the setting out, "
                "another folder is for notebooks run by hand"
            )
    _require_own_folders([task.p for task in steps.values() if task.p.synthetic])
    _require_named([page for task_steps in steps.values() for page in task_steps.pages])
    return steps


def _require_named(executed: Iterable[str]) -> None:
    """The book could not show a page that its table of contents lacks: told now rather than after all the training."""
    named = {entry["file"] for entry in pages.entries_of(pages.read_toc())}
    if lacking := sorted({pages.entry_of(page) for page in executed} - named):
        lines = "".join(f"\n- file: {page}" for page in lacking)
        raise ParameterError(f"_toc.yml has no place for these pages; add a line for each to one of its parts:{lines}")


def _require_own_folders(synthetic_tasks: list[Params]) -> None:
    of_folder: dict[Path, str] = {}
    for p in synthetic_tasks:
        if not p.data.is_relative_to(params.root()):
            raise ParameterError(
                f"data_dir of {p.task}: {p.data} is outside the project; a synthetic cohort is made in it"
            )
        if (other := of_folder.setdefault(p.data, p.task)) != p.task:
            raise ParameterError(
                f"data_dir of {p.task}: {p.data} is the synthetic cohort of {other}; name another folder"
            )


# -- of all tasks ------------------------------------------------------------------------------------------------
def missing_cohorts(steps: Mapping[str, Steps]) -> list[str]:
    """Certificates of the synthetic cohorts that are not there as the parameters want them, to be made first."""
    wanted = [task for task in steps.values() if task.p.synthetic and not synthetic.is_made(task.p)]
    return [path for task in wanted for path in task.certificate]


def take_inventory(steps: Mapping[str, Steps]) -> None:
    """Write the inventory of every task.

    Raises one CohortError, naming the tasks, for what their cohorts cannot be built of: files that are missing, or
    there under two names.
    """
    faults = []
    for name, task in steps.items():
        try:
            inventory.update(cohorts.build(task.p), task.p)
        except ValueError as error:
            faults.append(f"task {name}: {error}")
    if faults:
        raise cohorts.CohortError("\n".join(faults))


def tiles(steps: Mapping[str, Steps]) -> dict[str, str]:
    """Table of tiles -> what it depends on, of every task that tiles slides: who stays is known after these."""
    return {task.result("tiles.csv"): task.depends("tiles") for task in steps.values() if task.p.has_pixels}


def all_pages(steps: Mapping[str, Steps]) -> list[str]:
    """This run's pages, and those of other tasks that earlier runs left (real input joins the book this way)."""
    planned = [page for task in steps.values() for page in task.pages]
    return sorted({*planned, *(str(page) for page in pages.executed_pages(pages.shown(runs(steps))))})


def summaries(steps: Mapping[str, Steps]) -> list[str]:
    """Tables of results that the generated parts read: this run's, and those that earlier runs left."""
    planned = [table for task in steps.values() for table in task.summaries]
    return sorted({*planned, *(str(table) for table in pages.summary_tables(pages.shown(runs(steps))))})


def runs(steps: Mapping[str, Steps]) -> list[str]:
    """The runs that the book is made for: it shows these tasks as this run makes them."""
    return [task.p.run for task in steps.values()]


def synthetic_folders(steps: Mapping[str, Steps]) -> dict[str, str]:
    """Folder of a synthetic cohort -> the task that makes it."""
    return {_relative(task.p.data): name for name, task in steps.items() if task.p.synthetic}


def book_tables() -> list[str]:
    """Files beside the results from which the generated parts are written."""
    tables = [*BENCHMARKS.glob("*.csv"), *BENCHMARKS.glob("real_*.md")]
    return ["book/claims.yml", *sorted(map(str, tables))]


def book_sources() -> list[str]:
    """Files that Sphinx reads beside the executed notebooks and the generated parts."""
    pages_of_text = sorted(str(page) for folder in (Path("book"), Path("book/howto")) for page in folder.glob("*.md"))
    docstrings = sorted(str(module) for module in Path("mmmil").rglob("*.py"))  # the API reference shows them
    assets = sorted(str(path) for path in Path("book/_static").glob("*.*"))  # our own; libraries lie in folders
    return [*pages_of_text, *docstrings, *assets, "book/references.bib", "_config.yml", "_toc.yml"]


def book_depends() -> str:
    """What the generated parts of the section pages depend on beside the results."""
    sections = [asdict(section) for section in paper.SECTIONS.values()]
    tables = [asdict(table) for table in paper.TABLES.values()]
    return record.digest(
        [source_code.digest("mmmil.book"), sections, tables, *(record.file_digest(table) for table in book_tables())]
    )


# -- code and commands -------------------------------------------------------------------------------------------
def imports(notebook: Path) -> list[str]:
    """The modules of the package that a notebook imports."""
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return source_code.imported(re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE))  # without IPython's commands


def logged(command: str, on_failure: str = "tail -n 20 {log} >&2; exit $status") -> str:
    """A rule's shell command with all that it says in {log}; on_failure: what is done where it fails ($status)."""
    return f"{{{{ {command}; }}}} > {{log}} 2>&1 || {{{{ status=$?; {on_failure}; }}}}"


def call(command: str) -> str:
    """A command of the package for the rule's task; the Snakefile knows OVERLAY."""
    return f"{PYTHON} -m mmmil {command} --task {{wildcards.task}} --overlay '{{OVERLAY}}'"


def shards(results: str, step: str, n: int) -> list[str]:
    """What says that each of n shards of the slides is through tiles, quality or features_<encoder>; nothing of one."""
    return [f"{results}/shards/{step}-{i}-of-{n}.done" for i in range(1, n + 1)] if n > 1 else []


def shard_command(step: str) -> str:
    """The command of the package that computes a step of `shards`, on all cores that the job is given."""
    name, _, encoder = step.partition("_")
    return f"{name} --encoder {encoder}" if encoder else f"{name} --workers 0"


def _study() -> str:
    """The code of `mmmil.study`, through which every step reads its patients, not counting what it imports."""
    return source_code.code_digest((source_code.ROOT / "study.py").read_text())


def _variant(training: str) -> str:
    return training.split("/")[0]


def _relative(path: Path) -> str:
    return path.relative_to(params.root()).as_posix()
