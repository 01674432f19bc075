"""A matrix's numbers against its stated kind: what is refused, and what looks odd but may be right."""

import numpy as np
import pandas as pd
import pytest

from mmmil.sources.expression import read_matrix
from mmmil.sources.expression_values import gene_moments, tpm_sums
from mmmil.sources.gene_names import ExpressionError

GENES, PATIENTS = [f"GENE{i}" for i in range(300)], [f"P{i}" for i in range(12)]


@pytest.fixture(scope="module")
def counts():
    """Raw counts of 12 libraries of 20 million reads."""
    draw = np.random.default_rng(0)
    level = draw.normal(0, 2.2, len(GENES))
    share = np.exp2(level + draw.normal(0, 0.7, (len(PATIENTS), len(GENES))))
    counts = draw.poisson(share / share.sum(axis=1, keepdims=True) * 2e7).T
    counts[-30:, 1:] = 0  # genes of one patient only
    return counts


@pytest.fixture(scope="module")
def kinds(counts):
    """The same cohort in every unit that people have it in."""
    lengths = np.exp(np.random.default_rng(1).normal(np.log(2500), 0.7, len(GENES)))[:, None]
    tpm = counts / lengths / (counts / lengths).sum(axis=0) * 1e6
    log2 = np.log2(tpm + 1)
    return {
        "counts": counts,
        "rsem": counts + np.where(np.arange(len(GENES)) % 10 == 0, 0.25, 0)[:, None],
        "scaled counts": counts * 1.137 + 0.001,
        "tpm": tpm,
        "fpkm": counts / lengths / counts.sum(axis=0) * 1e9,
        "cpm": counts / counts.sum(axis=0) * 1e6,
        "log2 tpm": log2,
        "log2 tpm, 0.001": np.log2(tpm + 0.001),
        "log2 counts": np.log2(counts // 5 + 1),
        "log2 cpm": np.log2(counts / counts.sum(axis=0) * 1e6 + 1),
        "ln counts": np.log(counts + 1),
        "zscore": (log2 - log2.mean(axis=1, keepdims=True)) / log2.std(axis=1, keepdims=True),
        "centred": (log2 - log2.mean(axis=1, keepdims=True)) / 2,
    }


def read(tmp_path, values, kind, whole=True):
    path = tmp_path / "m.tsv"
    pd.DataFrame(values, index=GENES, columns=PATIENTS).rename_axis("gene").to_csv(path, sep="\t")
    return read_matrix(path, kind, whole=whole)


@pytest.mark.parametrize(
    ("stated", "given", "whole"),
    [
        ("counts", "counts", True),
        ("counts", "counts", False),
        ("counts", "rsem", False),
        ("counts", "scaled counts", False),
        ("log2tpm", "log2 tpm", True),
        ("log2tpm", "log2 tpm, 0.001", True),
        ("log2tpm", "log2 cpm", True),
        ("log2tpm", "centred", True),
        ("zscore", "zscore", True),
        ("zscore", "centred", True),
    ],
)
def test_what_may_be_right_is_read(tmp_path, kinds, stated, given, whole):
    np.testing.assert_allclose(read(tmp_path, kinds[given], stated, whole), kinds[given], rtol=1e-6)


@pytest.mark.parametrize(
    ("stated", "given", "message"),
    [
        *[
            ("counts", name, "so these are TPM or their log")
            for name in ("tpm", "cpm", "fpkm", "log2 tpm", "ln counts")
        ],
        ("counts", "log2 counts", "no cell is above 32"),
        ("counts", "zscore", "set expression_kind: zscore"),
        ("counts", "log2 tpm, 0.001", "is negative"),
        *[("log2tpm", name, "cannot be log2 TPM") for name in ("tpm", "counts", "fpkm")],
        ("log2tpm", "log2 counts", r"add up to [\d,]+, and not to a million: .*expression_kind: counts"),
        ("log2tpm", "zscore", "so these are z-scores, not log2 TPM; set expression_kind: zscore"),
        *[("zscore", name, "holds no negative value") for name in ("counts", "tpm", "log2 tpm", "log2 counts")],
    ],
)
def test_another_kind_than_the_stated_one_is_refused(tmp_path, kinds, stated, given, message):
    for whole in (True, False):  # round_counts makes no counts of anything else
        with pytest.raises(ExpressionError, match=message) as error:
            read(tmp_path, kinds[given], stated, whole)
        assert "m.tsv" in str(error.value)


def test_summary_rows_do_not_hide_what_the_values_are(tmp_path, kinds):
    """The columns of a TPM matrix with its total add up to two million."""
    values = np.vstack([kinds["tpm"], kinds["tpm"].sum(axis=0)])
    path = tmp_path / "m.tsv"
    pd.DataFrame(values, index=[*GENES, "Total"], columns=PATIENTS).rename_axis("gene").to_csv(path, sep="\t")
    with pytest.raises(ExpressionError, match="columns add up to 1e6"):
        read_matrix(path, "counts", whole=False)


def test_sums_and_moments(kinds):
    np.testing.assert_allclose(tpm_sums(kinds["log2 tpm"]), 1e6)
    assert np.all(tpm_sums(kinds["log2 tpm, 0.001"]) > 0.99e6)
    mean, deviation = gene_moments(kinds["zscore"])
    assert abs(mean) < 1e-9 and deviation == pytest.approx(1)


def test_a_point_for_thousands_makes_no_expected_counts(tmp_path, counts):
    shown = np.where(counts < 1000, counts, counts / 1000)  # 2.256 is how 2,256 reads
    with pytest.raises(ExpressionError, match=r"no cell reaches 1,000 \(or a point stands for thousands\)"):
        read(tmp_path, np.minimum(shown, 999.5), "counts", whole=False)
