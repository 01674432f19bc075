"""Logistic regression on each input, and the late fusion of two."""

import numpy as np
import pytest
from scipy.special import expit, logit

from mmmil.models import baselines


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    y = np.arange(30) % 2
    image, genes = random.normal(size=(30, 3)) + y[:, None], random.normal(size=(30, 8)) + 2 * y[:, None]
    return y, [(image, baselines.FEATURES), (genes, baselines.GENES)]


def test_late_fusion_adds_logits_that_are_scaled_on_training_patients(data):
    y, inputs = data
    train, which = list(range(20)), list(range(20, 30))
    total = 0
    for x, strength in inputs:
        of_training, of_others = (logit(baselines.logistic(x[train], y[train], x[i], strength)) for i in (train, which))
        total = total + (of_others - of_training.mean()) / of_training.std()
    assert np.allclose(baselines.late_fusion(inputs, train, y[train], which), expit(total))


def test_no_evaluated_patient_changes_what_is_fitted(data):
    y, inputs = data
    train, which = list(range(20)), list(range(20, 30))
    before = baselines.late_fusion(inputs, train, y[train], which)
    for x, _ in inputs:
        x[25] += 100
    after = baselines.late_fusion(inputs, train, y[train], which)
    assert np.array_equal(np.delete(before, 5), np.delete(after, 5)) and before[5] != after[5]
