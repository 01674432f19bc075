"""Fitting all genes at once gives what PyDESeq2 fits one by one."""

import numpy as np
import pandas as pd
from pydeseq2.default_inference import DefaultInference

from mmmil.genes import differential
from mmmil.genes.inference import AllAtOnce

RNG = np.random.default_rng(0)
COUNTS = RNG.negative_binomial(3, 0.02, (24, 200))
LABELS = np.repeat([0, 1], 12)


def test_means_are_those_of_a_regression_per_gene():
    design = np.column_stack([np.ones(24), LABELS]).astype(float)
    factors = RNG.uniform(0.5, 2, 24)
    ours = AllAtOnce(n_cpus=1).lin_reg_mu(COUNTS, factors, design, 0.5)
    theirs = DefaultInference(n_cpus=1).lin_reg_mu(COUNTS, factors, design, 0.5)
    assert ours.shape == COUNTS.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_differential_expression_is_pydeseq2s(monkeypatch):
    genes = [f"G{i}" for i in range(200)]
    ours = differential.differential_expression(COUNTS, LABELS, genes)
    monkeypatch.setattr(AllAtOnce, "lin_reg_mu", DefaultInference.lin_reg_mu)
    theirs = differential.differential_expression(COUNTS, LABELS, genes)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6)
