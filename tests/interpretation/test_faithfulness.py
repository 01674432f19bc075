"""Curves, gradients and truths are right where the answer is known, and hold on trained models."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from mmmil import params, record, study
from mmmil.interpretation import attribution, faithfulness, heatmaps, hooks, set_scores
from mmmil.interpretation import seeds as attention_seeds
from mmmil.interpretation.attribution import AttributionError, Tokens
from mmmil.interpretation.faithfulness import FaithfulnessError
from mmmil.training import runs
from mmmil.training.device import make_fabric
from tests.small_studies import make


# -- a model that is known through and through -------------------------------------------------------------------
class Additive(torch.nn.Module):
    """The logit of class 1 is the sum of what the tokens hold in their first number; attention is what `att` says."""

    def __init__(self, att):
        super().__init__()
        self.att = att

    def forward(self, image, genes, mask):
        tokens, name = (image, "self_image") if image is not None else (genes, "self_genes")
        held = tokens[..., 0] if mask is None else tokens[..., 0] * mask
        margin = held.sum(1)
        att = {"right": tokens[..., 0], "wrong": -tokens[..., 0], "even": 0 * tokens[..., 0]}[self.att]
        return torch.stack([0 * margin, margin], 1), {name: torch.stack([att, att], 1)}


def additive(values, over="tiles", att="right", real=None):
    values = torch.tensor(values, dtype=torch.float32)[..., None].repeat(1, 1, 3)
    given = {"image": values, "genes": None} if over == "tiles" else {"image": None, "genes": values}
    real = torch.ones(values.shape[:2], dtype=torch.bool) if real is None else torch.tensor(real)
    return Tokens(
        make_fabric(params.load("lgg", "demo")),
        Additive(att),
        [f"P{i}" for i in range(len(values))],
        np.ones(len(values), int),
        **given,
        real=real if over == "tiles" else None,
        neutral=None if over == "tiles" else torch.zeros(values.shape[1:]),
    )


VALUES = [[3.0, 0.5, -1.0, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5]]


def test_gradient_and_attention_of_an_additive_model_are_its_terms():
    t = additive(VALUES)
    scores = attribution.rankings(t, "tiles")
    assert np.allclose(scores["self_image"], VALUES)
    assert np.allclose(scores["gradient"], VALUES)  # input x gradient of a sum is the term itself
    assert np.allclose(attribution.rankings(t, "tiles", towards=0)["gradient"], -np.array(VALUES))
    assert np.allclose(attribution.whole(t), 1 / (1 + np.exp(-np.sum(VALUES, 1))))
    assert np.allclose(attribution.alone(t), 1 / (1 + np.exp(-np.array(VALUES))))


def test_the_gradient_of_gene_sets_counts_from_their_training_mean():
    t = replace(additive(VALUES, "sets"), neutral=torch.full((5, 3), 0.2))
    assert np.allclose(attribution.rankings(t, "sets")["gradient"], np.array(VALUES) - 0.2, atol=1e-6)
    without_first = t.prob(np.array([0]), "sets", np.array([[False, True, True, True, True]]))
    assert np.allclose(without_first, 1 / (1 + np.exp(-(sum(VALUES[0]) - 3.0 + 0.2))))


@pytest.mark.parametrize("over", ["tiles", "sets"])
def test_curves_are_those_computed_by_hand(over):
    table = faithfulness._curves(additive(VALUES, over), over, orders=3, seed=0)
    assert list(table.columns) == faithfulness.COLUMNS
    assert set(table["ranking"]) == {"self_image" if over == "tiles" else "self_genes", "gradient", "random"}
    for i, values in enumerate(VALUES):
        ranked = np.sort(values)[::-1]
        for way in ("deletion", "insertion"):
            own = table.query(f"ranking == 'gradient' and direction == @way and patient_id == 'P{i}'")
            k = np.rint(np.linspace(0, 1, 11) * 5).astype(int)
            if over == "tiles":  # one always stays
                k = np.minimum(k, 4) if way == "deletion" else np.maximum(k, 1)
            left = [ranked[n:].sum() if way == "deletion" else ranked[:n].sum() for n in k]
            assert np.allclose(own["prob"], 1 / (1 + np.exp(-np.array(left))), atol=1e-6)


def test_a_right_ranking_is_more_faithful_than_a_random_one_and_a_wrong_one_less():
    values = np.random.default_rng(0).normal(0.1, 1, (12, 20))
    gains = {}
    for att in ("right", "wrong"):
        sign = np.where(values.sum(1, keepdims=True) > 0, 1, -1)  # towards the class that is called
        t = additive(values * sign, "tiles", att)
        found = faithfulness.areas(faithfulness._curves(t, "tiles", 10, 0))
        gains[att] = found.loc[("tiles", slice(None), "self_image"), :]
    assert (gains["right"]["random_low"] > 0).all() and (gains["wrong"]["random_high"] < 0).all()
    assert np.allclose(gains["right"]["over_gradient"], 0, atol=1e-6)  # the two rank alike
    assert (gains["wrong"]["over_gradient"] < 0).all()


def test_areas_are_paired_differences_with_scipys_interval():
    rng = np.random.default_rng(1)
    rows = [
        ("tiles", ranking, way, f"P{i}", fraction, rng.random())
        for ranking in ("self_image", "gradient", "random")
        for way in ("deletion", "insertion")
        for i in range(7)
        for fraction in (0.0, 0.5, 1.0)
    ]
    table = pd.DataFrame(rows, columns=faithfulness.COLUMNS)
    found = faithfulness.areas(table, 0.9).loc[("tiles", "deletion", "self_image")]
    area = {
        r: table.query("ranking == @r and direction == 'deletion'")
        .groupby("patient_id")["prob"]
        .apply(lambda prob: 0.25 * prob.iloc[0] + 0.5 * prob.iloc[1] + 0.25 * prob.iloc[2])
        for r in ("self_image", "random")
    }
    gain = (area["random"] - area["self_image"]).to_numpy()
    drawn = stats.bootstrap(
        (gain,), np.mean, confidence_level=0.9, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert np.allclose(found[["area", "over_random"]].astype(float), [area["self_image"].mean(), gain.mean()])
    assert np.allclose(found[["random_low", "random_high"]].astype(float), drawn)
    one = faithfulness.areas(table.query("patient_id == 'P0'"))
    assert one["random_low"].isna().all() and one["area"].notna().all()


def test_padding_is_ranked_last_and_never_counted():
    real = [[True, True, False, True, False], [True] * 5]
    t = additive([[1.0, 2.0, 9.0, 3.0, 9.0], VALUES[1]], real=real)
    assert t.number("tiles").tolist() == [3, 5]
    assert np.isneginf(attribution.rankings(t, "tiles")["self_image"][0][[2, 4]]).all()
    table = faithfulness._curves(t, "tiles", 2, 0).query("patient_id == 'P0' and direction == 'deletion'")
    ends = table.query("fraction == 1").set_index("ranking")["prob"]
    assert np.isclose(ends["gradient"], 1 / (1 + np.exp(-1.0)))  # the real tile ranked last stays
    assert np.allclose(table.query("fraction == 0")["prob"], 1 / (1 + np.exp(-6.0)))


def test_evenness_runs_from_one_tile_to_all_alike():
    assert faithfulness.evenness(np.full(8, 0.1)) == pytest.approx(1)
    assert faithfulness.evenness(np.eye(8)[0]) == pytest.approx(1 / 8)
    assert faithfulness.evenness(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)


# -- trained models ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make(
        tmp_path_factory.mktemp("trained"),
        workers=2,
        **{"variants": ["dual_go", "go", "baseline_genes"], "sim_patients": 30, "sim_slide_px": 512, "sim_genes": 500},
        **{"sim_sets": 16, "sim_image_share": 0.5, "n_tiles": 6, "n_folds": 2, "epochs": 2, "apoz_tiles": 16},
        **{"ae_epochs": 3, "ae_hidden": 16, "latent_dim": 16, "width": 32, "tile_px": 64, "lr": 1e-3},
    )


def test_with_all_tokens_it_is_the_recorded_prediction(trained):
    for name in ("dual_go", "go"):
        kept = record.read_parquet(runs.run(trained, name, -1) / "predictions.parquet")
        t = attribution.tokens(trained, name)
        assert t.patients == list(kept["patient_id"])
        assert np.allclose(attribution.whole(t), kept["prob"], atol=1e-6)
        assert torch.abs(t.neutral).max() < 1e-5  # what a left-out set becomes: zero where tokens are standardised


def test_curves_start_at_the_record_and_are_kept(trained, monkeypatch, code_replaced):
    kept = record.read_parquet(runs.run(trained, "dual_go", -1) / "predictions.parquet")
    whole = np.where(kept["prob"] >= 0.5, kept["prob"], 1 - kept["prob"])
    for over in ("tiles", "sets"):
        table = faithfulness.curves(trained, "dual_go", over, orders=2)
        tokens = attribution.OVER[over]
        attended = {f"{way}{tokens}" for way in ("layer1", "self", "rollout", "cross")}
        assert set(table["ranking"]) == attended | {"gradient", "random"}
        start = table.query("direction == 'deletion' and fraction == 0")
        for _, own in start.groupby("ranking"):
            assert np.allclose(own.set_index("patient_id")["prob"].loc[kept["patient_id"]], whole, atol=1e-6)
    monkeypatch.setattr(attribution, "tokens", lambda *a: pytest.fail("made again"))
    pd.testing.assert_frame_equal(faithfulness.curves(trained, "dual_go", "sets", orders=2), table)


def test_the_model_of_images_alone_stands_beside_joint_ones_where_the_task_trains_it(trained):
    assert faithfulness.models_of_tiles(trained) == ["dual_go"]
    with_images = replace(trained, p=trained.p.override(variants=[*trained.p.variants, "wsi"]))
    assert faithfulness.models_of_tiles(with_images) == ["dual_go", "wsi"]
    real = SimpleNamespace(p=SimpleNamespace(synthetic=False, has_pixels=True))
    assert faithfulness.models_of_tiles(real) == []


def test_planted_tiles_are_scored_once_by_models_that_never_saw_the_patient(trained):
    found = faithfulness.planted_tiles(trained, "dual_go")
    attended = ["self_image", "cross_image", "layer1_image", "rollout_image"]
    assert list(found.index) == [*attended, "gradient", "alone"]
    truth = {i: faithfulness._planted(trained, i) for i in trained.patients}
    mixed = [i for i, planted in truth.items() if 0 < planted.sum() < len(planted)]
    assert (found["patients"] == len(mixed)).all() and len(mixed) > 5
    t = attribution.tokens(trained, "dual_go", 0)
    scores = attribution.alone(t)
    by_hand = [roc_auc_score(truth[i], scores[t.patients.index(i)]) for i in mixed if i in t.patients]
    assert 0 < len(by_hand) < len(mixed) and found["auroc"].between(0, 1).all()
    assert found["evenness"].iloc[:4].between(1 / 6, 1).all() and found["evenness"].iloc[4:].isna().all()


def test_what_a_model_or_cohort_lacks_is_said(trained):
    with pytest.raises(AttributionError, match="go reads no tiles"):
        faithfulness.curves(trained, "go", "tiles")
    with pytest.raises(AttributionError, match="go reads no tiles"):
        faithfulness.planted_tiles(trained, "go")
    p = trained.p.override(synthetic=False, weights="imagenet")
    real = study.Study(p, trained.cohort, trained.folds, trained.tiles)
    with pytest.raises(FaithfulnessError, match="no synthetic cohort: nobody knows"):
        faithfulness.planted_tiles(real, "dual_go")


def test_the_models_of_a_task_follow_its_inputs_and_what_was_trained(monkeypatch):
    failed = set()
    monkeypatch.setattr(runs, "failure", lambda study, name, fold: (name, fold) in failed or None)

    def task(**changes):
        return SimpleNamespace(p=params.load("lgg", "demo", **changes), fold_numbers=[0, 1, -1])

    genes = task(inputs="genes", variants=["go", "kegg", "baseline_genes"])
    slides = task(inputs="slides", variants=["wsi", "clam"])
    assert attribution.variants(task()) == ["dual_go", "dual_kegg"]
    assert attribution.variants(genes) == ["go", "kegg"]
    assert attribution.variants(slides) == ["wsi"]
    assert attribution.kinds("dual_go") == ["tiles", "sets"] and attribution.kinds("dual_genes") == ["tiles"]
    layers = ["self-attention, layer 1", "self-attention, layer 2"]
    assert list(heatmaps.sources(slides)) == ["input × gradient", "self-attention, rolled out", *layers]
    assert heatmaps.sources(genes) == {}
    failed |= {("dual_go", -1), ("dual_kegg", 1), ("wsi", 0)}
    assert attribution.variants(task()) == ["go", "kegg"] and attribution.variants(slides) == []
    assert heatmaps.sources(task())["self-attention, rolled out"] == ("dual_kegg", "rollout_image")
    assert heatmaps.sources(task())["input × gradient"] == ("dual_kegg", "gradient")


def test_heatmaps_of_a_multimodal_model_show_what_finds_planted_tiles_and_have_the_rest(trained):
    found = heatmaps.of_each_class(trained)
    assert [shown.label for shown in found] == [0, 1]
    t = attribution.tokens(trained, "dual_go", -1, "tiles")
    gradient = attribution.rankings(t, "tiles", towards=1)["gradient"]
    for shown in found:
        layers = ["self-attention, layer 1", "self-attention, layer 2"]
        assert list(shown.maps) == ["input × gradient", "self-attention, rolled out", *layers, "cross-attention, GO"]
        first, *attended = shown.maps.values()
        assert np.allclose(first, gradient[t.patients.index(shown.patient)]) and (first < 0).any() and (first > 0).any()
        assert all(len(w) == 6 and w.sum() == pytest.approx(1) for w in attended)
        assert list(heatmaps.drawn(shown.maps)) == ["input × gradient"]
        asked = ["self-attention, rolled out", "cross-attention, GO"]
        assert list(heatmaps.drawn(shown.maps, ["rollout", "cross"])) == asked
        assert heatmaps.signed(trained.p, shown.maps) == {"input × gradient": "LUAD ← logits → LUSC"}


def test_a_gradient_of_another_prediction_is_not_drawn(trained, monkeypatch, code_replaced):
    monkeypatch.setattr(attribution, "whole", lambda t: np.zeros(len(t.patients)))
    with pytest.raises(heatmaps.HeatmapError, match="dual_go: read tile by tile, it gives other probabilities"):
        heatmaps.of_each_class(trained)


def test_the_caption_says_what_was_measured_of_each_readout(trained):
    table = faithfulness.planted_tiles(trained, "dual_go")
    said = heatmaps.caption(trained.p, {"dual_go": table})
    assert said.startswith("**Drawn: input × gradient.**") and "towards LUSC (red)" in said
    for title, source in (("input × gradient", "gradient"), ("rolled out", "rollout_image")):
        assert f"{title} {table.loc[source, 'auroc']:.2f} [{table.loc[source, 'low']:.2f}" in said
    swapped = table.assign(auroc=[0.1, 0.2, 0.3, 0.9, 0.4, 0.5])  # the rollout is best, and the caption says so
    assert heatmaps.caption(trained.p, {"dual_go": swapped}).endswith("highest is that of self-attention, rolled out.")
    unknown = heatmaps.caption(trained.p, {}, ["cross"])
    assert unknown.startswith("**Drawn: cross-attention.**") and "Nobody knows here" in unknown
    assert "logits" not in unknown and not any(c.isdigit() for c in unknown)


# -- seeds -------------------------------------------------------------------------------------------------------
def test_another_seed_changes_the_training_and_nothing_else(trained):
    folders = [runs.run(trained, "go", -1, seed=seed) for seed in (None, trained.p.seed + 1)]
    assert folders[0] == runs.run(trained, "go", -1, seed=trained.p.seed)
    said = [record.run_json(folder)["inputs"] for folder in folders]
    assert {k for k in said[0] if said[0][k] != said[1][k]} == {"seed"}
    probs = [record.read_parquet(folder / "predictions.parquet")["prob"] for folder in folders]
    assert not np.allclose(*probs, atol=1e-6)


def test_stability_is_one_between_equal_models_and_counts_every_pair(trained, monkeypatch, code_replaced):
    found = attention_seeds.across_seeds(trained, "go", further=1)
    assert list(found.index) == ["self_genes", "layer1_genes", "rollout_genes", "gradient, sets", "probability"]
    assert (found["seeds"] == 2).all() and found["spearman"].between(-1, 1).all()
    a, b = attention_seeds.attentions(trained, "go", 1)
    by_hand = np.mean([stats.spearmanr(x, y).statistic for x, y in zip(a["self_genes"], b["self_genes"], strict=True)])
    assert found.loc["self_genes", "spearman"] == pytest.approx(by_hand)
    tokens = attention_seeds.attribution.tokens
    monkeypatch.setattr(attention_seeds.attribution, "tokens", lambda s, name, seed: tokens(s, name))
    assert np.allclose(attention_seeds.across_seeds(trained, "go", further=2)["spearman"], 1)


def test_patients_without_a_ranking_are_left_out_of_stability_and_counted(monkeypatch):
    rng = np.random.default_rng(0)
    seeds = [{"self_image": rng.random((5, 4)), "probability": rng.random(5)} for _ in range(2)]
    for seed in seeds:
        seed["self_image"][0, 1:] = -np.inf  # a bag of one tile
    seeds[1]["self_image"][1] = 0.25  # no order at all
    monkeypatch.setattr(attention_seeds, "attentions", lambda *_: seeds)
    row = attention_seeds.across_seeds(None, "wsi").loc["self_image"]
    a, b = (seed["self_image"][2:] for seed in seeds)
    assert row["spearman"] == pytest.approx(np.mean([stats.spearmanr(*x).statistic for x in zip(a, b, strict=True)]))
    assert row["patients"] == 3 and row["low"] <= row["spearman"] <= row["high"]


# -- gene-set scores without attention ---------------------------------------------------------------------------
def test_set_scores_are_of_training_statistics_and_compared_as_sklearn_says(trained):
    table = set_scores.predictions(trained, "dual_go")
    assert sorted(table.index) == sorted(trained.patients)
    assert list(table.columns) == [
        "label",
        "fold",
        set_scores.PLAIN,
        "self_genes",
        "cross_genes",
        "layer1_genes",
        "rollout_genes",
        set_scores.REGRESSION,
        "dual_go",
    ]
    found = set_scores.compare(table)
    for name in found.index:
        assert found.loc[name, "auroc"] == pytest.approx(roc_auc_score(table["label"], table[name]))
    assert found.loc[set_scores.PLAIN, "over_plain"] == 0 and found.loc[set_scores.PLAIN, "auroc"] > 0.6
    scores, sign = set_scores.of_patients(trained, 0, "go")
    train, _ = trained.fold_patients(0)
    assert abs(scores.loc[train].to_numpy().mean()) < 0.02 and set(np.unique(sign)) <= {-1, 1}
    # Of a set's sign, class 1 is higher in the training patients, on average over the sets.
    labels = trained.labels.loc[train].to_numpy()
    signed = scores.loc[train].to_numpy() * sign
    assert signed[labels == 1].mean() > signed[labels == 0].mean()


def test_attention_without_a_positive_sum_weighs_no_set(trained, monkeypatch):
    rankings = attribution.rankings
    monkeypatch.setattr(attribution, "rankings", lambda *a: {k: -np.abs(v) for k, v in rankings(*a).items()})
    with pytest.raises(hooks.AttentionError, match="a sum that is not positive"):
        set_scores.predictions(trained, "go")


def test_even_attention_adds_nothing(trained):
    table = set_scores.predictions(trained, "go")
    table["self_genes"] = table[set_scores.PLAIN]
    row = set_scores.compare(table).loc["self_genes"]
    assert row["over_plain"] == 0 and row["over_low"] < 0 < row["over_high"]  # no scatter is no certainty
