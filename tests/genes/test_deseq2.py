"""pydeseq2 as this package calls it, held against pydeseq2 as it is."""

import numpy as np
import pandas as pd
import pytest
from pydeseq2.default_inference import DefaultInference

from mmmil.genes import deseq2

LABELS = np.arange(24) % 2


@pytest.fixture
def counts():
    random = np.random.default_rng(0)
    mean = random.lognormal(4, 1, 300) * np.where(np.arange(300) < 30, 1 + LABELS[:, None], 1)
    return random.poisson(random.gamma(4, mean / 4) * random.uniform(0.5, 2, (24, 1))).clip(1)


def test_the_means_are_pydeseq2s_to_the_last_digit(counts):
    size_factors = np.random.default_rng(1).uniform(0.5, 2, 24)
    design = np.column_stack([np.ones(24), LABELS]).astype(float)
    given = counts.astype(float), size_factors, design, 0.5
    theirs = DefaultInference(n_cpus=1).lin_reg_mu(*given)
    assert np.array_equal(deseq2.Inference(n_cpus=1).lin_reg_mu(*given), theirs)
    assert (theirs.min(axis=0) < theirs.max(axis=0)).any()


def test_the_results_are_pydeseq2s_to_the_last_digit(counts, monkeypatch):
    genes = np.array([f"G{i}" for i in range(300)])
    ours = deseq2.wald(counts, LABELS, genes)
    monkeypatch.setattr(deseq2, "Inference", DefaultInference)
    pd.testing.assert_frame_equal(ours, deseq2.wald(counts, LABELS, genes), check_exact=True)
    assert set(ours.index[ours["padj"] < 0.05]) & set(genes[:30])
