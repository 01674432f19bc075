"""The audits that compute with models, on one small study: tokens of kept models, trainings with one thing changed, the
table of the batch and the page that finds it again.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmmil import params, study, variants
from mmmil.cohort import build as cohorts
from mmmil.evaluation import audits, leakage, retrained, token_models
from mmmil.training import build, device, runs
from tests.small_studies import make

SMALL = {"sim_patients": 24, "sim_genes": 500, "sim_sets": 20, "sim_slide_px": 512, "kegg_gmt": "", "n_folds": 2}
SMALL |= {"tile_px": 64, "n_tiles": 6, "epochs": 2, "ae_epochs": 2, "fallback_sets": 6, "width": 16, "latent_dim": 8}
SMALL |= {"single_genes": 64, "seed": 2}  # so few patients of this seed can be dealt by site
NAMES = ["wsi", "go", "dual_go", "baseline_genes", "baseline_image", "baseline_late"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    s = make(tmp_path_factory.mktemp("audits"), variants=NAMES, **SMALL)
    runs.predictions(s)
    return s


@pytest.fixture(scope="module")
def table(small):
    return audits.every(small)


# -- tokens of kept models ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["dual_go", "go", "wsi"])
def test_tokens_with_nothing_ablated_give_the_records_probabilities(small, name):
    t = token_models.read(small, name, 0)
    train, held_out = small.fold_patients(0)
    assert t.patients == [*train, *held_out] and t.train == len(train)
    kept = runs.read(runs.run(small, name, 0)).set_index("patient_id")["prob"]
    assert t.ablated[token_models.WHOLE] == pytest.approx(kept[held_out].to_numpy(), abs=1e-6)
    assert (len(t.ablated) == 3) == (name == "dual_go")  # a model of one modality has nothing to ablate
    assert (t.image is None) == (name == "go") and (t.genes is None) == (name == "wsi")


def test_an_ablated_modality_is_its_training_mean_for_everybody(small):
    t = token_models.read(small, "dual_go", 0)
    v, fabric = variants.variant("dual_go"), device.make_fabric(small.p)
    model, inputs = build.load_model(small, v, 0, runs.run(small, "dual_go", 0), fabric)
    model.eval()
    train, held_out = (torch.tensor([small.patients.index(i) for i in ids]) for ids in small.fold_patients(0))
    with torch.no_grad():
        given = inputs.take(held_out)
        tokens = [model.module.gene_tokens(inputs.genes[which]) for which in (train, held_out)]
        mean = tokens[0].mean(0).expand_as(tokens[1])
        image = model.module.image_tokens(given["tiles"])
        logits, _ = model.module.aggregator(image, mean, None)
    expected = logits.double().softmax(-1)[:, 1].numpy()
    assert t.ablated[token_models.NO_GENES] == pytest.approx(expected, abs=1e-5)
    assert np.abs(t.ablated[token_models.NO_GENES] - t.ablated[token_models.WHOLE]).max() > 1e-6


def tokens(n=60, train=40, seed=0, **changes):
    """Tokens that tell the class in their first number, image more clearly than genes."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    image, genes = rng.normal(0, 1, (n, 5)), rng.normal(0, 1, (n, 3, 4))
    image[:, 0] += 4 * label
    genes[:, 0, 0] += 2 * label
    given = {"patients": [f"P{i}" for i in range(n)], "train": train, "image": image, "genes": genes, "ablated": {}}
    return token_models.Tokens(**given | changes), label


def test_trivial_models_find_what_tokens_hold():
    t, label = tokens()
    found = token_models.trivial(t, label[:40], 0)
    assert list(found) == [*token_models.LOGISTIC.values(), token_models.LATE, token_models.MLP]
    for name, prob in found.items():
        called = (prob >= 0.5) == (label[40:] == 1)
        assert prob.shape == (20,) and called.mean() > (0.6 if "gene" in name else 0.85), name
    alone = token_models.trivial(dataclasses.replace(t, genes=None), label[:40], 0)
    assert list(alone) == [token_models.LOGISTIC["image"], token_models.MLP]


def test_sites_are_called_as_by_the_regression_on_all_numbers():
    t, _ = tokens()
    sites = pd.Series(np.array(["AA", "BB", "CC"])[np.arange(60) % 3], index=t.patients)
    for k in range(3):
        t.image[:, 1 + k] += 3 * (np.arange(60) % 3 == k)
    called = token_models.sites_of(t, sites)["image"]
    scaler = StandardScaler().fit(t.image[:40])
    plain = LogisticRegression(C=token_models.STRENGTHS["image"], class_weight="balanced", max_iter=2000)
    plain.fit(scaler.transform(t.image[:40]), sites[:40])
    assert (called == plain.predict(scaler.transform(t.image[40:]))).all() and (called == sites[40:]).mean() > 0.5
    few = token_models.sites_of(t, sites.where(sites != "CC", ""))["image"]
    assert set(few) == {"AA", "BB", ""} and ((few == "") == (sites[40:] == "CC")).all()


def test_sites_with_few_patients_are_not_asked_for_and_none_where_folds_share_none(small):
    sites = token_models.asked_sites(small)
    counts = small.cohort.patients["site"][small.folds >= 0].value_counts()
    assert set(sites) - {""} == set(counts.index[counts >= token_models.LEAST_OF_SITE])
    by_site = dataclasses.replace(small, p=small.p.override(fold_groups="site"))
    assert (token_models.asked_sites(by_site) == "").all()


# -- trainings with one thing changed ----------------------------------------------------------------------------
def test_the_changes_are_what_they_say(small):
    changes = list(retrained.changes(small))
    assert [change.audit for change in changes] == ["labels", "folds", "tiles", "stain"]
    for change in changes:
        assert sorted(change.studies) == [0, 1] and not change.note
        for other in change.studies.values():
            assert other.patients == small.patients and (other.folds.equals(small.folds) or change.audit == "folds")
    labels, folds = changes[0], changes[1]
    for fold, other in labels.studies.items():
        mixed = leakage.shuffled(small.labels, small.folds, [small.p.seed, 0, fold])
        assert other.labels.equals(mixed) and not other.labels.equals(small.labels)
    sites = small.cohort.patients["site"]
    dealt = folds.studies[0].folds
    assert all(len(set(dealt[sites == site])) == 1 for site in sites.unique())
    assert {change.studies[0].p.n_tiles for change in changes if change.audit == "tiles"} == {4}
    assert changes[-1].studies[0].p.stain == retrained.STAIN and changes[-1].variants == ("wsi",)


def test_only_real_slides_have_a_short_list_unless_the_page_is_asked_for_by_name():
    assert retrained.grid(params.load("lgg", "demo")) == ([4], [])
    assert retrained.grid(params.load("lgg")) == ([16], ["random", "spread"])
    whole, choices = retrained.grid(params.load("lgg", notebooks=["08_audits"]))
    assert whole == [8, 16, 32, 64, 128] and choices == ["random", "spread", "tissue"]
    assert retrained.grid(params.load("real_lgg")) == ([8, 16, 32, 64, 0], [])


def test_the_other_way_round_where_the_task_is_so_already(small):
    by_site = small.p.override(fold_groups="site", stain="macenko")
    s = dataclasses.replace(small, p=by_site, folds=cohorts.folds_of(small.cohort.patients, by_site))
    folds = retrained._folds(s, "dual_go")
    assert folds.studies[0].p.fold_groups == "none" and folds.studies[0].folds.equals(small.folds)
    assert retrained._stain(s, "wsi").studies[0].p.stain == "none"


@pytest.mark.parametrize(("sites", "told"), [(["AA"], "fold_groups"), (["AA", "BB"], "groups")])
def test_sites_that_cannot_be_dealt_are_told(small, sites, told):
    patients = small.cohort.patients
    few = patients.assign(site=np.resize(sites, len(patients)))
    s = dataclasses.replace(small, cohort=dataclasses.replace(small.cohort, patients=few))
    folds = retrained._folds(s, "dual_go")
    assert told in folds.note and not folds.studies


def test_the_table_holds_every_audit_beside_the_model_as_it_is(small, table):
    assert list(table.columns) == retrained.COLUMNS and set(table["audit"]) == set(audits.SHOWN_AS)
    as_it_is = table[table["changed"].isin([retrained.AS_IT_IS, token_models.WHOLE])]
    assert as_it_is["over_unchanged"].isna().all()
    of_joint = as_it_is[as_it_is["variant"] == "dual_go"]
    assert len(of_joint) == 3 and np.ptp(of_joint["roc_auc"]) < 1e-9
    paired = table[table["audit"].isin(["tiles", "stain"])].set_index(["audit", "changed"])
    own = paired.loc[("stain", retrained.AS_IT_IS), "roc_auc"]
    others = paired.drop(index=retrained.AS_IT_IS, level="changed")
    assert (others["roc_auc"] - own).to_numpy() == pytest.approx(others["over_unchanged"].to_numpy())
    free = table[table["audit"].isin(["labels", "folds"])]
    assert free["over_unchanged"].isna().all() and (free["note"] == "").all()
    assert table["roc_auc"].between(0, 1).all() and (table["low"] <= table["high"]).all()


def test_shuffled_labels_choose_other_gene_sets(small, table):
    change = next(retrained.changes(small))
    for fold, other in change.studies.items():
        mixed, own = (s.gene_tokens(fold, "go").folder for s in (other, small))
        assert mixed.name != own.name
    found = retrained.predictions(change, "dual_go")
    held_out = small.folds.index[small.folds >= 0]
    assert sorted(found.index) == sorted(held_out)
    assert (found["label"] == [change.studies[f].labels[i] for i, f in found["fold"].items()]).all()


def test_nothing_is_trained_again(small, table, monkeypatch, code_replaced):
    monkeypatch.setattr(runs, "_trained", lambda *_: pytest.fail("trained again"))
    quiet = study.load(small.p, train=False)
    pd.testing.assert_frame_equal(audits.every(quiet), table)


def test_a_model_that_failed_leaves_the_next_one(small, monkeypatch, code_replaced):
    monkeypatch.setattr(runs, "failure", lambda s, name, *_: {"variant": name} if name == "dual_go" else None)
    assert retrained.models(small) == ("go", "wsi")
    monkeypatch.setattr(runs, "failure", lambda s, name, *_: {"variant": name})
    with pytest.raises(ValueError, match="of each proposed model a training failed"):
        retrained.models(small)


# -- the page ----------------------------------------------------------------------------------------------------
def test_the_page_finds_all_of_it_and_trains_nothing(small, table, tmp_path):
    papermill = pytest.importorskip("papermill")
    from mmmil.book import pages

    default = params.load("nsclc", "demo").model_dump()
    given = {k: v for k, v in small.p.model_dump().items() if v != default[k]}
    executed = tmp_path / "08_audits.ipynb"
    papermill.execute_notebook(
        params.root() / "notebooks" / "08_audits.ipynb",
        executed,
        {"task": "nsclc", "overlay": "demo", **given},
        kernel_name="python3",
        cwd=params.root(),
        progress_bar=False,
    )
    text = executed.read_text()
    assert pages.check_executed(executed) and text.count('"image/png"') == 7 and text.count("**Refuted if**") == 8
