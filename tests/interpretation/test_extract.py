"""Attention read from models: rows over tokens, by head, before the softmax, rolled out; the record's own pass."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from mmmil import params, study, variants
from mmmil.interpretation import extract, gene_sets, hooks
from mmmil.interpretation.hooks import AttentionError
from mmmil.models.attention import ExactSelfAttention, NystromSelfAttention, PublishedSelfAttention
from mmmil.models.clam import CLAM
from mmmil.models.mcat import MCAT
from mmmil.models.reading import reading_layers
from mmmil.models.transmil import TransMIL
from mmmil.processes.shards import Shard
from mmmil.simulate import slides as synthetic_slides
from mmmil.simulate import truth
from mmmil.training import runs
from tests.models.test_aggregators import small_dual
from tests.small_studies import make

kinds = pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])


# -- the class token's row ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [3, 9, 12])
@kinds
def test_the_first_row_alone_is_the_first_row_of_all(kind, n):
    """Nyström pads at the front, so the class token does not stand first in what it computes."""
    torch.manual_seed(0)
    made = {
        "exact": ExactSelfAttention(8, heads=2),
        "nystrom": NystromSelfAttention(8, 4, 2, num_landmarks=4, residual_conv_kernel=5),
        "published": PublishedSelfAttention(8, 4, 2, num_landmarks=4, residual_conv_kernel=5),
    }
    module, x = made[kind].double().eval(), torch.randn(3, n, 8, dtype=torch.float64)
    for mask in (None, torch.arange(n) < torch.tensor([n, n - 1, 2])[:, None]):
        out, att = module(x, return_att=True, mask=mask)
        same, first = module(x, return_att="first", mask=mask)
        assert torch.equal(out, same)
        assert first.shape == (3, 2, 1, n) and torch.allclose(first, att[:, :, :1], atol=1e-12)
        if mask is not None:
            assert (first.permute(0, 3, 1, 2)[~mask] == 0).all()


def test_rows_become_shares_of_the_tokens_and_negative_ones_stay():
    rows = np.array([[0.2, 0.2, 0.1], [0.4, -0.1, 0.2]])
    shares = extract.over_tokens(rows)
    assert np.allclose(shares.sum(-1), 1) and np.allclose(shares[0], [0.4, 0.4, 0.2])
    assert np.allclose(shares[1], [0.8, -0.2, 0.4])
    with pytest.raises(AttentionError, match=r"1 rows of attention .* attention: exact"):
        extract.over_tokens(np.array([[0.2, 0.8], [0.1, -0.3]]))


# -- before the softmax ----------------------------------------------------------------------------------------------
def test_scores_are_what_the_softmax_is_taken_of():
    model, (tiles, genes) = small_dual("exact").eval(), (torch.randn(3, 7, 5), torch.randn(3, 6, 3))
    mask = torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    with hooks.reading_scores(model) as kept, reading_layers(model) as layers:
        logits, att = model(tiles, genes, mask)
    att |= {source: layers[source] for source in ("layer1_image", "layer1_genes")}
    assert kept.keys() == att.keys()
    for source, weights in att.items():
        # Of self-attention, the class token's own score is left out: what remains are shares of the tokens.
        shares = kept[source][0].softmax(-1)
        assert torch.allclose(shares, weights / weights.sum(-1, keepdim=True), atol=1e-6), source
    again, _ = model(tiles, genes, mask)
    assert torch.equal(again, logits)
    assert [len(parts) for parts in kept.values()] == [1] * 6, "nothing is read once the block is left"


@pytest.mark.parametrize("model", ["clam", "mcat"])
def test_scores_of_gated_pooling_and_of_co_attention(model):
    torch.manual_seed(0)
    model = {"clam": lambda: CLAM(5), "mcat": lambda: MCAT(5, [3], shared=True)}[model]().eval()
    tiles, mask = torch.randn(2, 7, 5), torch.arange(7) < torch.tensor([7, 4])[:, None]
    with hooks.reading_scores(model) as kept:
        _, att = model(tiles, torch.randn(2, 6, 3), mask)
    for source, parts in kept.items():
        assert torch.allclose(parts[0].softmax(-1), att[source], atol=1e-6), source
    assert set(kept) == set(att) - {"cross_image"}  # a mean of weights, which has no scores


@pytest.mark.parametrize("model", [lambda: small_dual("nystrom"), lambda: TransMIL(5, width=16)])
def test_nystrom_has_no_scores(model):
    with pytest.raises(AttentionError, match=r"no scores before a softmax.*attention: exact"):
        hooks.reading_scores(model()).__enter__()


# -- one interface over a record ---------------------------------------------------------------------------------------
SMALL = {
    **{"sim_patients": 30, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "n_folds": 2, "test_fraction": 0.4},
    **{"n_tiles": 4, "tile_px": 64, "apoz_tiles": 16, "epochs": 1, "ae_epochs": 2, "ae_hidden": 16, "latent_dim": 8},
    **{"width": 16, "single_genes": 64, "gene_set_fdr": 1e-300, "fallback_sets": 9},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make(tmp_path_factory.mktemp("small"), **SMALL)


IMAGE, GENES = ({f"{way}_{over}" for way in ("layer1", "self", "rollout")} for over in ("image", "genes"))
SOURCES = {
    "wsi": IMAGE,
    "go": GENES,
    "self_go": IMAGE | GENES,
    "co_go": {"self_genes", "cross_image"},
    "dual_go": IMAGE | GENES | {"cross_image", "cross_genes"},
}


@pytest.mark.parametrize("name", SOURCES)
def test_one_interface_for_every_variant_with_attention(small, name):
    mean = extract.extract(small, name)
    each = extract.extract(small, name, heads="each")
    assert set(mean.weights) == SOURCES[name]
    assert set(each.weights) == SOURCES[name] | ({"co_attention"} if name == "co_go" else set())
    assert mean.patients == small.fold_patients(-1)[1] and np.allclose(mean.prob, each.prob, atol=1e-6)
    for source, weights in mean.weights.items():
        n = len(mean.sets) if source.endswith("genes") else small.p.n_tiles
        assert weights.shape == (len(mean.patients), n) and np.allclose(weights.sum(-1), 1, atol=1e-5)
        by_head = each.weights[source]
        assert by_head.shape[::2] == weights.shape and np.allclose(by_head.sum(-1), 1, atol=1e-5)
        if by_head.shape[1] == 1 or source.startswith("cross"):  # no class token that takes a share of its own
            assert np.allclose(by_head.mean(1), weights, atol=1e-5), source
    anew = extract.extract(small, name, anew=True).weights
    assert all(np.allclose(anew[source], weights, atol=1e-6) for source, weights in mean.weights.items())


def test_scores_and_heads_of_the_record(small):
    scores = extract.extract(small, "dual_go", heads="each", form="scores")
    weights = extract.extract(small, "dual_go", heads="each")
    assert set(scores.weights) == SOURCES["dual_go"] - {"rollout_image", "rollout_genes"}  # which have no scores
    for source, values in scores.weights.items():
        assert np.allclose(torch.from_numpy(values).softmax(-1), weights.weights[source], atol=1e-5), source
    assert extract.extract(small, "dual_go", form="scores").over_sets("cross_genes").shape == (12, 9)
    assert list(weights.over_sets("self_genes", head=1)) == weights.sets
    with pytest.raises(ValueError, match="kept by head"):
        weights.over_sets("self_genes")


def test_padding_has_no_weight_and_no_score(small, tmp_path):
    padded = study.Study(small.p.override(results_dir=str(tmp_path)), small.cohort, small.folds, small.tiles)
    padded.tile_masks = small.tile_masks.copy()
    padded.tile_masks[::2, 3] = False
    real = padded.tile_masks[[padded.patients.index(i) for i in padded.fold_patients(-1)[1]]]
    assert not real.all()
    for scores in extract.extract(padded, "wsi", form="scores").weights.values():
        assert (np.isnan(scores) == ~real).all()
    for weights in extract.extract(padded, "wsi").weights.values():
        assert (weights[~real] == 0).all() and (weights[real] > 0).all() and np.allclose(weights.sum(1), 1, atol=1e-5)


def test_a_model_that_does_not_predict_the_record_gives_no_attention(small, monkeypatch, code_replaced):
    from mmmil.training import build

    trained = build.load_model

    def other(*args):
        model, inputs = trained(*args)
        with torch.no_grad():
            model.module.aggregator.classifier[-1].bias += torch.tensor([0.0, 0.01])
        return model, inputs

    monkeypatch.setattr(build, "load_model", other)
    with pytest.raises(
        AttentionError, match=r"patient TCGA-.* is predicted 0\.\d+ on .* and recorded 0\..* train again"
    ):
        extract.extract(small, "go", heads="each")


@pytest.mark.parametrize("trained", [{"device": "NVIDIA H100"}, {"precision": "bf16-mixed"}])
def test_another_device_or_precision_may_round_otherwise_and_is_named(trained):
    now = {"device": "x86_64", "precision": "32-true"}
    recorded, prob = np.array([0.5, 0.3]), np.array([0.5, 0.31])
    with pytest.raises(AttentionError, match=r"P2 is predicted 0\.31.* on x86_64 \(32-true\) .*more than 1e-06 apart"):
        extract.require_recorded("wsi", ["P1", "P2"], prob, recorded, now, now)
    there = now | trained
    told = rf"trained on {there['device']} \({there['precision']}\)"
    with pytest.warns(UserWarning, match=rf"{told}, read on x86_64 \(32-true\): probabilities differ by 0\.010000"):
        extract.require_recorded("wsi", ["P1", "P2"], prob, recorded, there, now)
    with pytest.raises(AttentionError, match=rf"P2 .* {told}: more than 0\.02 apart"):
        extract.require_recorded("wsi", ["P1", "P2"], prob + np.array([0, 0.02]), recorded, there, now)


def test_a_model_that_was_trained_on_another_device_is_still_read(small, monkeypatch, code_replaced):
    from mmmil.training import device

    extract.extract(small, "go", heads="each")
    known = device.circumstances(small.p)
    folder = runs.run(small, "go", -1)
    assert known.items() <= extract.record.run_json(folder)["facts"].items()
    monkeypatch.setattr(device, "circumstances", lambda p: known | {"device": "NVIDIA H100"})
    with pytest.warns(UserWarning, match="read on NVIDIA H100"):
        extract.extract(small, "go", heads="each")


def test_frozen_features_say_where_they_were_made_and_keep_precisions_apart(small, monkeypatch, code_replaced):
    from mmmil.training import device, features

    def made():
        return {path.parent for path in (small.p.results / "features" / "resnet50d" / "bags").rglob("run.json")}

    whole = features.frozen_features(small, "resnet50d", -1)
    first = made()
    assert len(first) == len(small.patients)
    assert all(extract.record.run_json(one)["facts"] == device.circumstances(small.p) for one in first)
    with monkeypatch.context() as without:
        without.setattr(features, "encoder", None)  # found, without the network
        assert (features.frozen_features(small, "resnet50d", -1).instances == whole.instances).all()
    monkeypatch.setattr(device, "precision_of", lambda p: "bf16-mixed")
    features.frozen_features(small, "resnet50d", -1)
    assert len(made()) == 2 * len(first)


def test_features_go_on_at_the_slide_where_a_job_was_killed(small, tmp_path, monkeypatch, code_replaced):
    from mmmil.training import features

    p = small.p.override(results_dir=str(tmp_path))
    there, asked, of_tiles = dataclasses.replace(small, p=p), [], features.of_tiles

    def killed(made, tiles, fabric):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(len(tiles))
        return of_tiles(made, tiles, fabric)

    monkeypatch.setattr(features, "of_tiles", killed)
    with pytest.raises(KeyboardInterrupt):
        features.compute(there, "resnet50d", -1)
    again = []
    monkeypatch.setattr(features, "of_tiles", lambda *given: again.append(1) or of_tiles(*given))
    first, second = (features.compute(there, "resnet50d", -1, Shard(i, 2)) for i in (1, 2))
    assert len(asked) == 3 and len(asked) + len(again) == len(small.patients) == len(first) + len(second)
    folders = features.compute(there, "resnet50d", -1)
    assert len(again) == len(small.patients) - 3 and sorted(folders) == sorted(first + second)
    together = np.concatenate([np.load(folder / "features.npy") for folder in folders])
    assert (together == features.frozen_features(there, "resnet50d", -1).instances).all()


def test_what_cannot_be_asked_for_is_said(small):
    for wrong in ({"heads": "all"}, {"form": "logits"}):
        with pytest.raises(ValueError, match="is not one of"):
            extract.extract(small, "go", **wrong)
    with pytest.raises(AttentionError, match="logistic regression, which has no attention"):
        extract.extract(small, "baseline_genes")


# -- tests over gene sets ----------------------------------------------------------------------------------------------
def attention_table(seed=0, effect=0.0, sets="abcdef"):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [12, 15])
    values = rng.random((27, len(sets)))
    values[labels == 1, 2] += effect
    return pd.DataFrame(values, columns=list(sets)), labels


def test_comparison_of_attention_is_scipys():
    table, labels = attention_table(effect=0.4)
    got = gene_sets.compare(table, labels)
    for name in table:
        u = stats.mannwhitneyu(table.loc[labels == 1, name], table.loc[labels == 0, name])
        assert np.isclose(got.loc[name, "p"], u.pvalue, rtol=1e-12)
        assert np.isclose(got.loc[name, "effect"], 2 * u.statistic / (12 * 15) - 1)
    assert np.allclose(got["fdr"], stats.false_discovery_control(got["p"]))
    assert got.index[0] == "c" and got.loc["c", "effect"] > 0
    fast = gene_sets.effects(table.to_numpy(), labels)
    assert np.allclose(got.loc[list(table), "effect"], fast)


def test_ties_are_scipys_and_no_difference_is_no_finding():
    table, labels = attention_table()
    table = table.round(1).assign(e=0.25)
    got = gene_sets.compare(table, labels)
    for name in "abcdf":
        assert np.isclose(
            got.loc[name, "p"], stats.mannwhitneyu(table[name][labels == 1], table[name][labels == 0]).pvalue
        )
    assert got.loc["e", ["effect", "p", "fdr"]].tolist() == [0, 1, 1]
    assert np.allclose(gene_sets.effects(table.to_numpy(), labels), got.loc[list(table), "effect"])


def test_permutation_p_is_never_zero_and_finds_the_difference():
    table, labels = attention_table(effect=2.0)
    p = gene_sets.permutation_p(table, labels, n=99)
    assert p["c"] == 0.01 and (p > 0).all() and (p.drop("c") > 0.01).all()


def test_permutation_p_is_scipys():
    table, labels = attention_table(effect=0.2)
    ours = gene_sets.permutation_p(table, labels, n=4000)
    zero, one = table[labels == 0].to_numpy(), table[labels == 1].to_numpy()
    theirs = stats.permutation_test(
        (one, zero), lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)), alternative="greater",
        n_resamples=4000, vectorized=True, rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    assert np.abs(ours - theirs).max() < 0.03


@pytest.mark.parametrize("missing", [0, 1])
def test_a_test_set_of_one_class_cannot_be_compared(missing):
    table, _ = attention_table()
    with pytest.raises(ValueError, match=f"class {missing} cannot be compared.*raise test_fraction"):
        gene_sets.compare(table, np.full(27, 1 - missing))


def test_a_single_gene_set_cannot_be_compared(small):
    table, labels = attention_table()
    with pytest.raises(ValueError, match=r"a single gene set \(a\).*raise gene_set_fdr"):
        gene_sets.compare(table[["a"]], labels)
    with pytest.raises(ValueError, match="a single gene set"):
        gene_sets.analyse(small, "dual_genes")


def test_analysed_sets_have_ids_directions_and_agree_with_the_record(small):
    attention, tables = gene_sets.analyse(small, "dual_go")
    assert list(tables) == ["self_genes", "rollout_genes", "layer1_genes", "cross_genes"]
    for source, table in tables.items():
        assert set(table.index) == set(attention.sets) and table["id"].str.fullmatch(r"GO:9\d{6}").all()
        means = attention.over_sets(source).groupby(attention.labels).mean().T
        assert np.allclose(table[["mean_0", "mean_1"]], means.loc[table.index])
        assert set(table.loc[table["effect"] > 0, "more_in"]) <= {"LUSC"}
        assert (table["permutation_p"] > 0).all()
        strict = (table["fdr"] < 0.01) & (table["permutation_p"] < 0.01)
        assert (table["significant"] == strict).all()
    assert gene_sets.counts(small).query("library == 'go'")["n_sets"].tolist() == [9] * 4
    overlap = gene_sets.gsea_overlap(small, "go", tables)
    nes = pd.read_csv(small.gene_tokens(-1, "go").folder / "enrichment.csv", index_col=0)["nes"]
    for source, table in tables.items():
        expected = stats.spearmanr(table["effect"].abs(), nes[table.index].abs())
        assert np.allclose(overlap.loc[source, ["rho", "p"]].astype(float), [expected.statistic, expected.pvalue])
        assert overlap.loc[source, "k"] == 4 and 0 <= overlap.loc[source, "top"] <= 4


def test_without_slides_the_models_of_gene_sets_are_analysed(monkeypatch):
    failed = set()
    monkeypatch.setattr(runs, "failure", lambda study, name, fold: (name, fold) in failed or None)

    def models(**changes):
        return gene_sets.models(SimpleNamespace(p=params.load("nsclc", "demo", **changes), fold_numbers=[0, -1]))

    assert models() == {"go": "dual_go", "kegg": "dual_kegg"}
    assert models(inputs="genes", variants=["go", "kegg", "baseline_genes"]) == {"go": "go", "kegg": "kegg"}
    assert models(variants=["wsi"]) == {}
    failed |= {("dual_go", -1), ("dual_kegg", 0)}  # the final model is what is read
    assert models() == {"kegg": "dual_kegg"}


def test_planted_sets_are_attended_to_where_they_differ(tmp_path, monkeypatch):
    """All sets are tokens, so attention could miss the planted ones: |effect| tells them in self or in cross."""
    planted = {"sim_patients": 60, "sim_effect": 1.5, "sim_image_share": 0.9, "epochs": 20, "ae_epochs": 5}
    s = make(
        tmp_path,
        **SMALL | planted | {"fallback_sets": 1000, "latent_dim": 24, "width": 48, "ae_hidden": 32},
    )
    attention, tables = gene_sets.analyse(s, "dual_go")
    found = gene_sets.planted_auroc(attention, tables, truth.planted_sets(s.p, "go"))
    assert (found["planted"] == 3).all() and (found["others"] == 17).all()
    assert found["by_effect"].max() >= 0.75, found


# -- what the paper reports --------------------------------------------------------------------------------------------
def test_every_reported_term_has_a_state(tmp_path):
    from mmmil.interpretation import reported_terms

    names = ["Nuclear Division (GO:0000280)", "Skin Development (GO:0043588)", "Asthma", "Other (GO:0000001)"]
    table = pd.DataFrame({"effect": [0.5, 0.1], "fdr": [0.001, 0.4], "significant": [True, False]}, index=names[:2])
    found = reported_terms.states_of(["LUAD", "LUSC"], "go", {"self_genes": table}, names[:2], names)
    states = found.set_index("id")["state"]
    assert len(found) == 10 and states["GO:0000280"] == "significant" and states["GO:0043588"] == "not tested"
    assert states["GO:0002396"] == "absent" and set(found["state"]) <= set(reported_terms.STATES)
    sources = {"self_genes": table, "cross_genes": table}
    both = reported_terms.states_of(["LUAD", "LUSC"], "go", sources, names[:2], names)
    assert both.set_index(["source", "id"]).loc[("cross_genes", "GO:0043588"), "state"] == "not significant"
    kegg = reported_terms.states_of(["LUAD", "LUSC"], "kegg", {}, [], names).set_index(["source", "id"])
    assert kegg.loc[("self_genes", "hsa05310"), ["state", "set"]].tolist() == ["not selected", "Asthma"]
    assert reported_terms.states_of(["cats", "dogs"], "go", {}, [], names).empty


def test_a_set_is_known_by_its_id_or_by_any_spelling_of_its_name():
    from mmmil.interpretation import reported_terms

    skin = ("GO:0043588", "skin development")
    names = ["GOBP_SKIN_DEVELOPMENT", "skin development (GO:0043588)", "Skin Development", "other name (GO:0043588)"]
    assert [reported_terms.find(*skin, [name]) for name in names] == names
    assert reported_terms.find(*skin, ["skin development (GO:0000001)", "GOBP_SKIN_EPIDERMIS_DEVELOPMENT"]) is None
    assert reported_terms.find("hsa04110", "Cell cycle", ["KEGG_CELL_CYCLE"]) == "KEGG_CELL_CYCLE"


def test_reported_terms_are_those_of_the_paper():
    from mmmil.interpretation import reported_terms

    tasks = [["grade II", "grade III"], ["LUAD", "LUSC"], ["Luminal A", "TNBC"]]
    numbers = [[len(reported_terms.reported(task, library)) for library in ("go", "kegg")] for task in tasks]
    assert numbers == [[9, 10], [10, 10], [7, 3]]


@pytest.mark.real
def test_reported_terms_in_the_real_files(real_data):
    from mmmil.genes import enrichment
    from mmmil.interpretation import reported_terms

    go = list(enrichment.read_gmt(real_data / "gmt" / "GO_Biological_Process_2023.gmt"))
    kegg = list(enrichment.read_gmt(real_data / "gmt" / "KEGG_2021_Human.gmt"))
    for library, names, absent in (("go", go, {"GO:0002396"}), ("kegg", kegg, {"hsa04382"})):
        found = reported_terms.states_of(["LUAD", "LUSC"], library, {}, [], names)
        assert set(found.loc[found["state"] == "absent", "id"]) >= absent
        assert (found["state"] == "not selected").any()


def test_slides_are_not_drawn_for_gene_models(tmp_path, monkeypatch, code_replaced):
    monkeypatch.setattr(synthetic_slides, "write_slide", lambda path, slide: path.write_bytes(b"no slide"))
    s = make(tmp_path, **SMALL | {"inputs": "genes", "variants": ["go"]})
    _, tables = gene_sets.analyse(s, "go")
    assert list(tables) == ["self_genes", "rollout_genes", "layer1_genes"] and variants.variants(s.p) == ["go"]
