"""What APoZ pruning took away, read from trainings of a cohort of noise; and the figures that show it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from mmmil import params, plots
from mmmil.evaluation import summary
from mmmil.interpretation import pruning
from mmmil.models import backbone
from mmmil.training import runs


def noise_study(folder, **values):
    """Twelve patients with two tiles each: all that the trainings of an image model ask of a study."""
    p = params.load(
        "nsclc",
        "demo",
        **{"n_folds": 2, "n_tiles": 2, "epochs": 1, "apoz_tiles": 64, "width": 24},
        **{"results_dir": str(folder / "results")} | values,
    )
    patients = [f"P{i:02d}" for i in range(12)]
    folds = pd.Series([-1] * 4 + [0, 1] * 4, index=patients)
    tiles = np.random.default_rng(0).integers(0, 256, (12, 2, 64, 64, 3), dtype=np.uint8)
    return SimpleNamespace(
        train=True,
        p=p,
        patients=patients,
        labels=pd.Series([0, 1] * 2 + [0, 0, 1, 1] * 2, index=patients),
        fold_numbers=[0, 1, -1],
        fold_patients=lambda fold: (
            [i for i in patients if folds[i] not in (fold, -1)],
            [i for i in patients if folds[i] == fold],
        ),
        bags=lambda fold: tiles,
        bag_keys=lambda fold: ["noise"],
        tile_masks=np.ones((12, 2), bool),
        has_coords=True,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return noise_study(tmp_path_factory.mktemp("pruning"))


@pytest.fixture(scope="module")
def opened(study):
    """The final model's encoders and record, with the maps of six tiles."""
    whole, pruned, table = pruning.before_and_after(study)
    tiles = pruning.training_tiles(study, -1, 6)
    return whole, pruned, table, tiles, pruning.feature_maps(whole, tiles)


def test_every_training_records_its_96_channels_of_480(study):
    kept = pruning.kept_channels(study)
    assert kept.shape == (480, 3) and list(kept.columns) == study.fold_numbers
    assert (kept.sum() == 96).all()
    row = pruning.agreement(kept).iloc[0]
    assert row["kept by all"] + row["by some"] + row["by none"] == row["channels"] == 480
    assert row["by chance"] == 19.2 and row["trainings"] == 3


def test_agreement_counts_what_two_trainings_share():
    kept = pd.DataFrame({0: [True, True, False, False], 1: [True, False, True, False], -1: [True, True, False, False]})
    row = pruning.agreement(kept).iloc[0]
    assert row["shared"] == round((1 + 2 + 1) / 3, 1) and row["by chance"] == 1.0
    assert (row["kept by all"], row["by some"], row["by none"], row["kept"]) == (1, 2, 1, 2)


@pytest.mark.parametrize("batch_norm", ["fixed", "batch"])
def test_the_encoder_before_pruning_is_the_one_whose_apoz_is_on_record(tmp_path, batch_norm):
    study = noise_study(tmp_path, batch_norm=batch_norm)
    whole, pruned, table = pruning.before_and_after(study, fold=1)
    rows = [study.patients.index(patient) for patient in study.fold_patients(1)[0]]
    tiles = study.bags(1)[rows].reshape(-1, 64, 64, 3)  # all of them: apoz_tiles asks for more than there are
    x = backbone.to_input(torch.from_numpy(tiles), whole.mean, whole.std)
    assert np.allclose(backbone.apoz(whole, [x]), table["apoz"], atol=1e-3)
    recorded = pd.read_csv(runs.run(study, "wsi", 1) / "apoz.csv", index_col="channel")
    pd.testing.assert_frame_equal(table, recorded, check_dtype=False, atol=1e-6)
    kept = np.flatnonzero(table["kept"])
    assert kept.tolist() == backbone.lowest_apoz(torch.tensor(table["apoz"].to_numpy()), 96).tolist()
    with torch.no_grad():
        assert torch.allclose(pruned(x), whole(x)[:, kept], atol=1e-6)
    assert backbone.parameters(whole) == 94_224 and backbone.parameters(pruned) == 68_880


def test_tiles_come_from_training_patients_in_turn(study):
    tiles = pruning.training_tiles(study, 0, 3)
    train = [study.patients.index(patient) for patient in study.fold_patients(0)[0]]
    assert np.array_equal(tiles, study.bags(0)[train[:3], 0])
    assert len(pruning.training_tiles(study, 0, 999)) == 2 * len(train)


def test_feature_maps_average_to_the_tokens(opened):
    whole, _, _, tiles, maps = opened
    x = backbone.to_input(torch.from_numpy(tiles), whole.mean, whole.std)
    assert maps.shape == (6, 480, 2, 2)
    with torch.no_grad():
        assert np.allclose(maps.mean((2, 3)), whole(x), atol=1e-6)


def test_statistics_of_tokens_before_and_after():
    before = np.array([[0, 0, 2.0, 4.0], [0, 0, 0, 2.0], [0, 3.0, 1.0, 0]])
    table = pruning.token_statistics(before, before[:, 2:])
    assert table["length"].tolist() == [4, 2] and table["zero channels"].tolist() == [1, 0]
    assert np.allclose(table["zero values"], [7 / 12, 2 / 6]) and np.allclose(table["mean"], [1.0, 1.5])
    assert np.allclose(table["share of the activation"], [1, 9 / 12])
    distances = [np.sqrt([8, 26, 14]), np.sqrt([8, 17, 5])]
    assert np.isclose(table.loc["after", "correlation of distances"], np.corrcoef(*distances)[0, 1])
    with pytest.raises(ValueError, match="three tiles"):
        pruning.token_statistics(before[:2], before[:2])


def drawn(figure):
    figure.canvas.draw()
    return figure.axes


def test_the_ranking_shows_the_cut(opened):
    left, right = drawn(plots.apoz(opened[2]))
    assert {text.get_text() for text in left.get_legend().get_texts()} == {"384 pruned", "96 kept"}
    assert sum(bar.get_height() for bar in left.patches) == 480
    assert [text.get_text() for text in right.texts] == ["cut after 96"]
    assert (np.diff(right.lines[0].get_ydata()) >= 0).all()


def test_maps_of_lowest_and_highest_apoz_stand_beside_their_tile(opened):
    _, _, table, tiles, maps = opened
    axes = drawn(plots.activations(tiles[0], maps[0], table, shown=3))
    assert np.array_equal(axes[0].images[0].get_array(), tiles[0])
    assert len([a for a in axes if a.images]) >= 1 + 2 * 3
    lowest, highest = table["apoz"].idxmin(), table["apoz"].idxmax()
    assert axes[1].get_title().startswith(f"channel {lowest}\n") and axes[1].get_ylabel() == "kept"
    assert f"APoZ {table['apoz'][highest]:.2f}" in axes[4].get_title() and axes[4].get_ylabel() == "pruned"
    assert np.array_equal(axes[1].images[0].get_array(), maps[0][lowest])


def test_the_activation_that_the_kept_channels_hold(opened):
    _, _, table, _, maps = opened
    left, right = drawn(plots.channel_activation(maps, table))
    mean = maps.mean((0, 2, 3))
    share = mean[table["apoz"].sort_values(kind="stable").index[:96]].sum() / mean.sum()
    assert right.texts[0].get_text() == f"96 channels: {share:.0%}"
    assert sum(len(points.get_offsets()) for points in left.collections) == 480


def folds_of(gaps):
    rows = {("wsi", "val", 0, i): {"sensitivity": a, "specificity": b} for i, (a, b) in enumerate(gaps)}
    rows[("wsi", "test", 0, -1)] = {"sensitivity": 0.0, "specificity": 0.0}  # no validation fold
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["variant", "split", "seed", "fold"])


def test_balance_in_numbers_tells_a_bias_from_an_unstable_threshold():
    biased = summary.balance(folds_of([(0.9, 0.3), (0.8, 0.4)]), ["wsi"], ["LUAD", "LUSC"]).iloc[0]
    assert biased["favours"] == "LUSC" and biased["difference"] == pytest.approx(0.5)
    assert biased["|sensitivity - specificity|"].startswith("0.500 [")
    unstable = summary.balance(folds_of([(1.0, 0.0), (0.0, 1.0)]), ["wsi"], ["LUAD", "LUSC"]).iloc[0]
    assert unstable["favours"] == "neither" and unstable["difference"] == 0
    assert unstable["|sensitivity - specificity|"] == "1.000"  # the same in both folds: no scatter, so no interval
    assert summary.balance(folds_of([(0.2, 0.9)] * 2), ["wsi"], ["LUAD", "LUSC"]).iloc[0]["favours"] == "LUAD"


def test_balance_is_drawn_for_every_fold_and_its_mean():
    left, right = drawn(plots.balance(folds_of([(0.9, 0.3), (0.8, 0.4)]), ["wsi"], ["LUAD", "LUSC"]))
    folds, mean = (points.get_offsets() for points in left.collections)
    assert np.allclose(folds, [[0.3, 0.9], [0.4, 0.8]]) and np.allclose(mean, [[0.35, 0.85]])
    assert np.allclose(right.collections[1].get_offsets(), [[0.5, 0]])
    assert "favours LUAD" in right.get_xlabel() and "LUSC" in left.get_ylabel()
