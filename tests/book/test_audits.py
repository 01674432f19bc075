"""What the page of audits includes: the audits of every cohort in their order, and calibration from the record."""

import numpy as np
import pandas as pd
import pytest

from mmmil import params, results
from mmmil.book import audits as book_audits
from mmmil.book import sections
from mmmil.evaluation import calibration, retrained
from tests import book_stubs


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = book_stubs.project(tmp_path, tasks=("lgg",), names=["08_audits"])
    nan = np.nan
    rows = [
        ("stain", "normalised (macenko)", "wsi", 0.8, 0.7, 0.9, 0.1, -0.05, 0.25, 40, ""),
        ("labels", "shuffled", "dual_go", 0.51, 0.4, 0.62, nan, nan, nan, 40, ""),
        ("folds", "no site divided", "dual_go", nan, nan, nan, nan, nan, nan, 0, "6 sites cannot be dealt"),
    ]
    monkeypatch.chdir(folder)
    results.write(params.load("lgg", "demo"), "audits", pd.DataFrame(rows, columns=retrained.COLUMNS))
    return folder


def recorded(p):
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    table = pd.DataFrame({"variant": "dual_go", "seed": p.seed, "fold": np.arange(200) % 5, "split": "val"})
    table = table.assign(patient_id=[f"P{i}" for i in range(200)], label=label)
    table["prob"] = 1 / (1 + np.exp(-(3 * label - 1.5 + rng.normal(0, 2, 200))))
    results.write(p, results.PREDICTIONS, table)
    return table


def test_audits_stand_in_their_order_with_intervals(project):
    text = book_audits.part({"lgg": params.load("lgg", "demo")})
    rows = [line for line in book_stubs.in_full(text).split("\n") if line.startswith("| LGG")]
    assert [row.split(" | ")[1] for row in rows] == ["labels", "folds", "stain"]
    assert "| shuffled | WSI + GO, dual-attention | 0.510 [0.400, 0.620] | – |" in rows[0]
    assert "| no site divided: 6 sites cannot be dealt | WSI + GO, dual-attention | – | – |" in rows[1]
    assert "0.800 [0.700, 0.900] | +0.100 [-0.050, +0.250] |" in rows[2]
    assert "no record of predictions" in text


def test_calibration_is_that_of_the_record(project):
    p = params.load("lgg", "demo")
    found = calibration.table(recorded(p), p, ["dual_go"]).loc[("dual_go", "Platt")]
    text = sections.section("08", {"lgg": p})
    row = next(line for line in book_stubs.in_full(text).split("\n") if "| Platt |" in line)
    assert f"{found['slope']:.3f} [{found['slope_low']:.3f}, {found['slope_high']:.3f}]" in row
    assert "| 0.250 |" in row and text.startswith("### Synthetic cohorts")


def test_nothing_made_says_so_and_a_table_without_its_columns_is_named(project):
    path = params.load("lgg", "demo").results / "audits.csv"
    path.write_text("audit,changed\nlabels,shuffled\n")
    with pytest.raises(results.ResultsError, match="lacks the columns variant"):
        book_audits.part({"lgg": params.load("lgg", "demo")})
    path.unlink()
    assert "no table of audits" in book_audits.part({"lgg": params.load("lgg", "demo")})
