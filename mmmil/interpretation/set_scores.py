"""Does attention add anything to a gene-set score alone? The same scores, plain and weighted by attention.

A set's score is the mean level of its genes, in deviations of the training patients. Signed by the direction in which
the set is enriched in the training patients, the scores of all sets average to one number per patient; attention
enters as the weights of that average. Nothing else is fitted. Every patient is scored by the fold that did not train
on them. Beside them stand a logistic regression on the set scores, and the model that the attention is of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mmmil import variants
from mmmil.evaluation import intervals
from mmmil.evaluation.bootstrap import drawn_scores, paired_difference
from mmmil.evaluation.metrics import CONFIDENCE
from mmmil.evaluation.paired_tests import widened
from mmmil.genes import scaling
from mmmil.genes import tokens as gene_tokens
from mmmil.genes.choice import rows_of
from mmmil.interpretation import attribution
from mmmil.interpretation.extract import over_tokens

if TYPE_CHECKING:
    from mmmil.study import Study

PLAIN, REGRESSION = "mean of set scores", "logistic regression on set scores"


def of_patients(study: Study, fold: int, library: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Set scores of a fold's patients (rows) over its chosen sets (columns), and the sign of each set's enrichment.

    Scores are means over a set's genes of levels scaled on the training patients. The sign is 1 where the set is
    enriched in class 1 of the training patients, -1 where in class 0.
    """
    tokens = study.gene_tokens(fold, library)
    train, _ = study.fold_patients(fold)
    expression = study.expression
    column = {symbol: i for i, symbol in enumerate(expression.genes["symbol"])}
    level = scaling.scale_genes(expression.level, rows_of(expression, train), study.p.gene_clip)
    level = level[rows_of(expression, tokens.patients)]
    scores = np.column_stack([level[:, [column[gene] for gene in genes]].mean(1) for genes in tokens.genes.values()])
    table = gene_tokens.enrichment_table(study.p, expression, study.labels, study.folds_of(fold), fold, library)
    return pd.DataFrame(scores, tokens.patients, tokens.names), np.sign(table["nes"].loc[tokens.names].to_numpy())


def predictions(study: Study, name: str) -> pd.DataFrame:
    """One row per patient, each scored by the fold that held them out: label, fold, and one column per score.

    Columns are PLAIN, one per attention over gene sets, REGRESSION (on the fold's training patients), and the model's
    probability under its variant's name. Raises AttributionError for a model without gene sets, and AttentionError
    where attention over a patient's sets has no positive sum.
    """
    library = variants.variant(name).genes
    frames = []
    for fold in study.once:
        t = attribution.tokens(study, name, fold, "sets")
        scores, sign = of_patients(study, fold, library)
        train, held = study.fold_patients(fold)
        signed = scores.loc[held].to_numpy() * sign
        frame = pd.DataFrame({"label": study.labels.loc[held], "fold": fold, PLAIN: signed.mean(1)}, index=held)
        for source, weights in attribution.rankings(t, "sets").items():
            if source != "gradient":
                frame[source] = (over_tokens(weights) * signed).sum(1)
        fitted = LogisticRegression(C=1.0, max_iter=5000, class_weight="balanced")
        fitted.fit(scores.loc[train], study.labels.loc[train])
        frame[REGRESSION] = fitted.predict_proba(scores.loc[held])[:, 1]
        frame[name] = attribution.whole(t)
        frames.append(frame)
    return pd.concat(frames).rename_axis("patient_id")


def compare(table: pd.DataFrame, confidence: float = CONFIDENCE, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """AUROC of every score of `predictions` over all patients, and its difference to PLAIN on the same patients.

    Score intervals; of the paired difference the percentile interval of a bootstrap, patients resampled within their
    class. Scores of different folds are pooled, which each model's own offset makes worse: for the model and the
    regression it is a lower bound of what they tell within a fold.
    """
    label = table["label"].to_numpy()
    scores = {name: table[name].to_numpy() for name in table if name not in ("label", "fold")}
    drawn = drawn_scores(label, scores, draws=draws, seed=seed)
    aucs = {name: metrics["roc_auc"] for name, metrics in drawn.items()}
    own = {name: _auroc(label, table[name].to_numpy(), confidence) for name in scores}
    rows = {}
    for name in scores:
        rows[name] = dict(zip(("auroc", "low", "high"), own[name], strict=True))
        paired = (0.0, np.nan, np.nan)
        if name != PLAIN:
            tested = paired_difference(aucs[name], aucs[PLAIN], confidence, len(label))
            paired = widened(tested, own[name], own[PLAIN], confidence)[:3]
        rows[name] |= dict(zip(("over_plain", "over_low", "over_high"), paired, strict=True)) | {"patients": len(label)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def _auroc(label: np.ndarray, score: np.ndarray, confidence: float) -> intervals.Estimate:
    value = roc_auc_score(label, score)
    return value, *intervals.roc_auc(value, [((label == 1).sum(), (label == 0).sum())], confidence)
