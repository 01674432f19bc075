"""All that the audits compute with models, once for the batch: page 08 finds it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmmil.evaluation import retrained, token_models

if TYPE_CHECKING:
    from mmmil.study import Study

TOKENS = "tokens"
SHOWN_AS = {  # audits in the order in which they are shown
    TOKENS: "the model's tokens",
    "labels": "labels",
    "folds": "folds",
    "tiles": "tiles of a patient",
    "stain": "stain",
}


def every(study: Study) -> pd.DataFrame:
    """audits.csv: what the tokens of the proposed model give, then the models trained anew (`retrained.table`), columns
    retrained.COLUMNS.
    """
    name, _ = retrained.models(study)
    tokens = token_models.table(token_models.of_all_folds(study, name)[0])
    return pd.concat([of_tokens(tokens, name), retrained.table(study)], ignore_index=True)


def of_tokens(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`token_models.table` as rows of audits.csv."""
    rows = [(TOKENS, condition, name, *row[:6], int(row[6]), "") for (_, condition), *row in table.itertuples()]
    return pd.DataFrame(rows, columns=retrained.COLUMNS).astype({"roc_auc": float, "over_unchanged": np.float64})
