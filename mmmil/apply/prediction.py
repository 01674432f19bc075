"""What the models of a kept folder make of one patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmmil.apply.distance import FAR, Distance
from mmmil.apply.models import Model
from mmmil.apply.patient import Patient, Reader

MODALITIES = {"image": "slide", "genes": "expression"}


@dataclass(frozen=True)
class Prediction:
    """One patient's: prob, model -> probability of class 1, the final one first; attention of the final model,
    source -> (N,); distance, modality -> percentile.
    """

    patient: Patient
    prob: dict[str, float]
    attention: dict[str, np.ndarray]
    distance: dict[str, float]

    @property
    def flags(self) -> list[str]:
        """What the input lacked, and where it lies far from the training patients."""
        far = [MODALITIES[name] for name, percentile in self.distance.items() if percentile > FAR]
        return [*self.patient.flags, *(f"{what} far from the training patients" for what in far)]


def predicted(
    patient: Patient, reader: Reader, loaded: Sequence[Model], distances: Mapping[str, Distance]
) -> Prediction:
    """What all models make of a patient; attention and distance are the final model's."""
    prob: dict[str, float] = {}
    attention: dict[str, np.ndarray] = {}
    percentiles: dict[str, float] = {}
    for i, model in enumerate(loaded):
        inputs = reader.inputs(patient, model)
        prob[model.name], weights = model.predict(inputs)
        if i == 0:
            attention = weights
            tokens = model.mean_tokens(inputs)
            percentiles = {name: distances[name].percentile(tokens[name]) for name in tokens}
    return Prediction(patient, prob, attention, percentiles)
