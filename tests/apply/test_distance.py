"""How far a patient lies from those of the training, against the same computed patient by patient."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.covariance import ledoit_wolf

from mmmil.apply import distance


@pytest.mark.parametrize(("n", "width"), [(12, 30), (40, 5)])
def test_each_patient_is_measured_by_the_others(n, width):
    x = np.random.default_rng(0).normal(size=(n, width)) * np.linspace(0.1, 3, width)
    shrinkage = max(ledoit_wolf(x)[1], distance.LEAST_SHRINKAGE)
    target = shrinkage * np.trace(np.cov(x.T, bias=True)) / width * np.eye(width)
    found = []
    for i in range(n):
        others = np.delete(x, i, axis=0)
        off = x[i] - others.mean(axis=0)
        covariance = (1 - shrinkage) * np.cov(others.T, bias=True) + target
        found.append(np.sqrt(off @ np.linalg.solve(covariance, off)))
    fitted = distance.fit(x)
    assert np.allclose(fitted.quantiles, np.percentile(found, distance.PERCENTILES), rtol=1e-8)
    again = distance.Distance.from_arrays(fitted.arrays("genes"), "genes")
    assert again.percentile(x[0]) == fitted.percentile(x[0])


def test_patients_like_those_of_the_training_lie_anywhere_and_others_far():
    random = np.random.default_rng(1)
    fitted = distance.fit(random.normal(size=(200, 20)))
    like = [fitted.percentile(x) for x in random.normal(size=(300, 20))]
    assert kstest(np.array(like) / 100, "uniform").statistic < 0.12
    assert fitted.percentile(np.full(20, 2.0)) == 100 and fitted.percentile(np.zeros(20)) < 1
