"""Tuning: the candidates, the inner folds, and that a choice that was interrupted goes on to the same end."""

import numpy as np
import pytest
import torch

from mmmil.params import Params
from mmmil.training import device, fit, tuning
from mmmil.training.fit import TrainingError
from tests.training.test_fit import parameters, small

TRAIN = list(range(18))
LABELS = torch.arange(24) % 2


def chosen(p, checkpoint=None, **more):
    _, inputs, _ = small()

    def start(candidate, which):
        return small(candidate.dropout)[0]

    given = {"labels": LABELS, "train": TRAIN, "groups": None, "augment": False} | more
    return tuning.choose(p, device.make_fabric(p), start, inputs, **given, checkpoint=checkpoint)


def test_candidates_are_the_settings_and_then_the_same_draw_whatever_else_is_asked():
    p = parameters(tuning=9, epochs=5, lr=2e-3)
    tried = tuning.candidates(p)
    values = [tuple(getattr(c, name) for name in tuning.SPACE) for c in tried]
    assert len(set(values)) == 9 and tried[0] == p
    assert tuning.SPACE.keys() <= Params.model_fields.keys()
    for c in tried[1:]:
        assert c.lr in tuning.SPACE["lr"] and c.epochs in (3, 5, 10)
    fewer = tuning.candidates(parameters(tuning=4, epochs=5, lr=2e-3, seed=7))
    assert values[:4] == [tuple(getattr(c, name) for name in tuning.SPACE) for c in fewer]


def test_inner_folds_hold_training_patients_alone_each_once_and_keep_sites_whole():
    labels, sites = np.arange(24) % 2, np.repeat(np.arange(6), 4)
    for groups in (None, sites):
        folds = tuning.inner_folds(parameters(), TRAIN, labels, groups)
        assert sorted(i for _, held in folds for i in held) == TRAIN
        for fitted, held in folds:
            assert sorted([*fitted, *held]) == TRAIN and set(labels[held]) == {0, 1}
            assert groups is None or not set(groups[fitted]) & set(groups[held])
    for few, groups in (([0, 1, 2, 4], None), (TRAIN, np.repeat([0, 1, 2], 8))):
        with pytest.raises(TrainingError, match="set tuning: 0"):
            tuning.inner_folds(parameters(), few, np.where(np.arange(24) < 8, 0, 1) if len(few) > 4 else labels, groups)


def test_the_lowest_log_loss_is_chosen_by_hand(monkeypatch):
    """Probabilities are given by hand: the second of three candidates is right and unsure, the others wrong."""
    p, sure = parameters(tuning=3), {0: 0.1, 1: 0.6, 2: 0.2}
    fits = iter(np.repeat([0, 1, 2], tuning.INNER_FOLDS))
    monkeypatch.setattr(fit, "fit", lambda *given, **more: (sure[int(next(fits))], None))
    monkeypatch.setattr(
        fit, "predict", lambda fabric, of, inputs, held, batch, layers: (np.where(LABELS[held] == 1, of, 1 - of), 0)
    )
    best, table = chosen(p)
    assert best == tuning.candidates(p)[1] and table["chosen"].tolist() == [False, True, False]
    assert np.allclose(table["log_loss"], -np.log([0.1, 0.6, 0.2])) and table["roc_auc"].tolist() == [0, 1, 0]


def test_an_interrupted_choice_goes_on_to_the_same_end(tmp_path, monkeypatch):
    p, path = parameters(tuning=2, epochs=1), tmp_path / "k.checkpoint"
    best, whole = chosen(p)
    engine, calls = fit.fit, []

    def counted(*given, **more):
        calls.append(more["checkpoint"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return engine(*given, **more)

    monkeypatch.setattr(fit, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        chosen(p, path)
    again, resumed = chosen(p, path)
    assert len(calls) == 5 + 2 and again == best and resumed.equals(whole)
    assert {left.name for left in tmp_path.iterdir()} == {"k.tuning.checkpoint"}  # the caller's pattern removes it


def test_who_is_not_trained_on_changes_nothing():
    p = parameters(tuning=2, epochs=1)
    _, table = chosen(p)
    _, other = chosen(p, labels=torch.cat([LABELS[:18], 1 - LABELS[18:]]))
    assert table.equals(other)
