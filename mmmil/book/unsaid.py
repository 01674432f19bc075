"""The page of what the paper does not say, by topic: what no setting decides, with the code that does, then each open
setting with its default, reason and what it changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmmil import schema
from mmmil.book.decisions import DECISIONS
from mmmil.book.text import wide_table
from mmmil.evaluation import alternatives
from mmmil.genes.autoencoder import LR
from mmmil.genes.choice import MIN_CLASS_PATIENTS
from mmmil.interpretation.seeds import FURTHER
from mmmil.models.attention import HEADS
from mmmil.training.augmentation import JITTER

if TYPE_CHECKING:
    import pandas as pd

# Topic of the settings in schema.UNSTATED -> its heading, and what the paper leaves open about it.
TOPICS: dict[schema.Topic, tuple[str, str]] = {
    "patients": (
        "Who is a patient, and of which class",
        "The paper gives the number of patients and where their files came from, not the rules by which they were "
        "chosen: the clinical field of a grade, IHC or PAM50 for the breast cancer classes, and what became of "
        "patients without a slide or an expression profile. Nor does it say whether patients of one hospital may stand "
        "in training and test.",
    ),
    "leak": (
        "What the choice of genes and sets has seen",
        "Differential expression, enrichment and the autoencoder come before training. The paper does not say which "
        "patients they saw. If they see those on whom the model is evaluated, the result is too good, even on labels "
        "without any signal; section 6 measures by how much. But a leak need not raise a score. Where sets are planted "
        "and patients few, as in the last column, the attention model did worse on tokens that had seen its patients, "
        "over several seeds; logistic regression on the same tokens did as well. We do not know why. Where a fold "
        f"has fewer than {MIN_CLASS_PATIENTS} patients of a class to be fitted on, nothing starts.",
    ),
    "tiles": (
        "Tiles",
        "No magnification is named, nor which pieces of tissue are tiled where a slide has several, nor how 64 tiles "
        "are chosen where a slide gives more, nor what becomes of a slide that gives fewer.",
    ),
    "genes": (
        "Genes, sets and their levels",
        "Set sizes, the gene filter, the order of a set's genes in the autoencoder and their scale are open, and so is "
        "the list of genes in the single-gene vector.",
    ),
    "autoencoder": (
        "The autoencoder",
        "The loss is masked, but whether genes or sets weigh alike in it, the network's width and its training are not "
        f"stated. Its learning rate is fixed at Adam's {LR:g}.",
    ),
    "model": (
        "The model",
        "Widths, heads, landmarks and dropout are open; so is whether a gene set is told apart from another, and which "
        "tiles APoZ and batch norm were measured on. The features behind CLAM and TransMIL are not named, nor the "
        "layer whose attention is shown: here both are read, and the rollout over them. Fixed here are "
        f"{HEADS} heads, as in TransMIL.",
    ),
    "training": (
        "Training",
        "No optimiser, learning rate, batch, number of epochs or augmentation is stated, nor how the last epoch was "
        "chosen; choosing it on the fold that is reported would flatter every model. Labels are not smoothed, so that "
        "probabilities are those of the plain loss, and the augmentation changes each channel's gain by up to "
        f"{100 * JITTER:g} %.",
    ),
    "evaluation": (
        "Evaluation",
        "How a probability becomes a class, which model meets the test set, how the confidence intervals were made, "
        "what counts as attention and how many permutations were drawn is not said. Fixed here: attention is trained "
        f"again with {FURTHER} other seeds.",
    ),
}


def _noise(table: pd.DataFrame) -> str:
    effect = alternatives.effect(table, "seed")
    return f" Another seed alone moves it by as much as this: {effect}." if effect else ""


def measured(table: pd.DataFrame) -> str:
    """On which cohort the last column was measured, and by which command; or how to measure it."""
    command = "python benchmarks/alternatives.py"
    if table.empty:
        return f"What changes has not been measured here; `{command}` does it.\n"
    text = ""
    for (task, synthetic), rows in table.groupby(["task", "synthetic"], sort=False):
        kind = (
            "a synthetic cohort: it shows how the program reacts, not what patients would give" if synthetic else "real"
        )
        text += f"- **{task}**: {rows['cohort'].iloc[0]}, {rows['patients'].iloc[0]} patients, {kind}.{_noise(rows)}\n"
    return (
        "The last column gives the change of ROC-AUC over the validation folds when this setting alone is chosen "
        "otherwise, with a 95 % interval (paired bootstrap of the patients, same folds). Where the cohort's parameter "
        "files do not set the default, it says which value it was changed from. Measured by "
        f"`{command}` on\n\n{text}\n"
    )


def changes(table: pd.DataFrame, setting: str) -> str:
    """What was measured of a setting, cohort by cohort; a dash where nothing was."""
    cohorts = [
        f"{task}: {effect}"
        for (task, _), rows in table.groupby(["task", "synthetic"], sort=False)
        if (effect := alternatives.effect(rows, setting))
    ]
    return "; ".join(cohorts) or "–"


def decided(topic: schema.Topic, heading: str) -> str:
    """The table of what the code decides on a topic; '' where it decides nothing."""
    rows = [[d.open, d.ours, d.why, f"`mmmil.{d.where}`"] for d in DECISIONS if d.topic == topic]
    if not rows:
        return ""
    head = ["what the paper leaves open", "what is done here", "why", "where"]
    return wide_table(f"{heading}: decided by the code", head, rows, "decisions")


def unsaid() -> str:
    """The decisions and the settings on which the paper is silent, by topic."""
    table = alternatives.read()
    fields = {name: field for stage in schema.STAGES.values() for name, field in stage.model_fields.items()}
    head = ["setting", "default", "reason", "chosen otherwise: change of ROC-AUC"]
    text = measured(table)
    for topic, (heading, gap) in TOPICS.items():
        settings = [name for name, its_topic in schema.UNSTATED.items() if its_topic == topic]
        rows = [[f"`{n}`", f"`{fields[n].default!r}`", fields[n].description, changes(table, n)] for n in settings]
        text += f"\n## {heading}\n\n{gap}\n\n{decided(topic, heading)}\n{wide_table(heading, head, rows, 'settings')}"
    return text
