"""The map of the paper: sections with their notebooks, tables, and the models that it proposes. Data alone.

What belongs to which page, which steps a page waits for and which models are compared is said here and nowhere else.
The reading order of the book is `_toc.yml`, which a test holds against this map.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TASKS = ("lgg", "nsclc", "brca")  # files of params/
INPUTS = ("both", "slides", "genes")  # the setting `inputs`: which modalities a cohort has

# The models that the paper proposes, by the modalities that they read. Not in the paper: each is compared with
# logistic regression on a modality that it reads, too.
PROPOSED = {"slides": ("wsi",), "genes": ("go", "kegg"), "both": ("dual_go", "dual_kegg")}

# Patients per class, by the names of the classes.
PATIENTS = {("grade II", "grade III"): (225, 242), ("LUAD", "LUSC"): (465, 476), ("Luminal A", "TNBC"): (402, 108)}

ROC_AUC = {"lgg": 0.740, "nsclc": 0.982, "brca": 0.966}  # of the joint model, by its abstract

HEADINGS = (  # of the paper's text
    *("Abstract", "Introduction", "Proposed Method", "Dataset", "Preprocessing", "Experiments", "Structured pruning"),
    *("MIL models", "Multimodal integration", "Multimodal design", "End-to-end learning", "Gene representation"),
    *("Independent test set", "Attention over gene sets", "Discussion", "Limitations", "Conclusion"),
)


@dataclass(frozen=True)
class Table:
    """A table of the paper; its rows are the variants that name it (`mmmil.variants`)."""

    number: str
    section: str  # number of the section that shows it
    title: str
    proposed: tuple[str, ...] = ()  # compared with every other row; none where the table holds no scores of models

    @property
    def caption(self) -> str:
        return f"The paper's Table {self.number}. {self.title}"  # the book numbers its tables, too

    @property
    def supplement(self) -> str:
        """The supplement's nine tables, S1 to S9, repeat 3 to 11 on the held-out test patients."""
        return f"S{int(self.number) - 2}"


TABLES = {
    table.number: table
    for table in (
        Table("1", "02", "Significant gene sets, each fit on its own training patients"),
        Table("2", "03", "What a backbone costs"),
        Table("3", "03", "Reducing the backbone, whole-slide images only", ("wsi",)),
        Table("4", "03", "Against CLAM and TransMIL, whole-slide images only", ("wsi",)),
        Table("5", "04", "Images, GO sets, and both", ("dual_go",)),
        Table("6", "04", "Images, KEGG pathways, and both", ("dual_kegg",)),
        Table("7", "04", "Ways of joining images and GO sets", ("dual_go",)),
        Table("8", "04", "Ways of joining images and KEGG pathways", ("dual_kegg",)),
        Table("9", "05", "End to end against frozen features, with GO sets", ("dual_go",)),
        Table("10", "05", "End to end against frozen features, with KEGG pathways", ("dual_kegg",)),
        Table("11", "06", "Single genes against gene sets", ("dual_go", "dual_kegg")),
    )
}


@dataclass(frozen=True)
class Section:
    """A section of the book: `notebooks/<notebook>.ipynb`, executed per task, under the page `book/<notebook>.md`.

    stages: of `mmmil.schema`, whose parameters the page shows or uses. reads: results of earlier steps, where the task
    has that modality (patients, tiles, quality, genes, leakage, attention, audits, record). reads_models_of: tables
    whose models it reads beside those that it shows. needs: the inputs that it can be made with, and for each the model
    that it cannot do without, or ''. computes: with models, so that it asks for a GPU; others show what was computed.
    """

    notebook: str
    stages: tuple[str, ...]
    reads: tuple[str, ...] = ()
    reads_models_of: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(INPUTS, ""))
    computes: bool = False

    @property
    def number(self) -> str:
        return self.notebook[:2]

    @property
    def scores(self) -> list[Table]:
        """The paper's tables of models' scores that it shows."""
        return [table for table in TABLES.values() if table.section == self.number and table.proposed]


MODELS = ("cohort", "model", "training", "evaluation")
SECTIONS = {
    section.notebook: section
    for section in (
        Section(  # one patient's way through the model, and a model of the reader's own, which the page itself trains
            "00_method",
            (*MODELS, "tiles", "genes"),
            ("tiles", "genes"),
            reads_models_of=("5",),
            needs={"both": "dual_go"},
            computes=True,
        ),
        Section("01_dataset", ("cohort",), ("patients",)),
        Section(
            "02_preprocessing",
            ("cohort", "tiles", "genes"),
            ("patients", "tiles", "quality", "genes"),
        ),
        Section("03_backbone_pruning", MODELS, needs={"both": "wsi", "slides": "wsi"}, computes=True),
        Section("04_multimodal_ablations", MODELS),
        Section("05_end_to_end_vs_frozen", MODELS, needs={"both": "dual_go"}),
        Section(
            "06_gene_representation",
            ("cohort", "genes", "evaluation"),
            ("genes", "leakage"),
            needs={"both": "", "genes": ""},
        ),
        Section(
            "07_attention_analysis",
            ("cohort", "attention", "evaluation"),
            ("tiles", "genes", "attention"),
            reads_models_of=("5", "6"),
            needs={"both": "dual_go", "genes": "go"},
            computes=True,
        ),
        Section(  # not in the paper, but for its named limitations: what would refute a result
            "08_audits",
            (*MODELS, "tiles", "genes"),
            ("leakage", "audits"),
            reads_models_of=("5",),
            needs={"both": "dual_go", "slides": "wsi", "genes": "go"},
        ),
        Section("09_summary", MODELS, ("record",)),
        Section(  # not in the paper: what becomes of a model afterwards
            "10_apply",
            MODELS,
            reads_models_of=("5",),
            needs={"both": "dual_go", "slides": "wsi", "genes": "go"},
            computes=True,
        ),
    )
}


def table_of(value: str) -> Table | None:
    """Table 3 for '3', 'Table 3' and 'S1'; None for what is no table of the paper, such as 'baseline'."""
    match = re.search(r"(S?)(\d+)", value, re.IGNORECASE)
    return TABLES.get(str(int(match.group(2)) + (2 if match.group(1) else 0))) if match else None
