"""The table of which readout finds what was planted."""

import pandas as pd
import pytest

from mmmil import params
from mmmil.book import readouts


def test_the_table_is_the_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "root", lambda: tmp_path)
    assert "has not been run here" in readouts.readouts()
    rows = [("tiles, exact", seed, "image", "gradient", 0.9, found, None) for seed, found in enumerate((0.97, 0.93))]
    rows += [("tiles, exact", 0, "image", "rollout", 0.9, 0.4, 0.9), ("both", 0, "genes", "cross", 0.9, 0.6, 0.9)]
    table = pd.DataFrame(rows, columns=["model", "seed", "over", "read", "auc", "found", "evenness"])
    path = tmp_path / "benchmarks" / "results" / "planted_attention.csv"
    path.parent.mkdir(parents=True)
    table.to_csv(path, index=False)
    text = readouts.readouts()
    assert "| tiles, exact | tiles | – | – | 0.40 (0.40) | – | 0.95 (0.93) |" in text
    assert "| both | gene sets | – | – | – | 0.60 (0.60) | – |" in text
    table.drop(columns="found").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"planted_attention\.csv lacks the columns found; run"):
        readouts.readouts()
