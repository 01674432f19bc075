"""The whole road on small synthetic cohorts: planted truth is found, a null cohort gives chance, runs repeat."""

import shutil

import numpy as np
import pandas as pd
import pytest

from mmmil import params, record, study, variants
from mmmil.evaluation import metrics
from mmmil.genes import tokens as gene_tokens
from mmmil.interpretation import extract, gene_sets
from mmmil.simulate import cohort as synthetic
from mmmil.simulate import truth as planted_truth
from mmmil.training import features, runs

SMALL = {
    "sim_patients": 36,
    "sim_slide_px": 512,
    "sim_genes": 600,
    "sim_sets": 20,
    "sim_image_share": 0.9,
    "sim_effect": 1.5,
    "n_folds": 3,
    "n_tiles": 4,
    "tile_px": 64,
    "apoz_tiles": 32,
    "epochs": 10,
    "ae_epochs": 5,
    "ae_hidden": 32,
    "latent_dim": 24,
    "width": 48,
    "single_genes": 64,
}
CHEAP = ["wsi", "go", "dual_go", "dual_genes", "resnet50d_go", "baseline_genes", "baseline_image"]


def make(folder, **values):
    p = params.load(
        "nsclc",
        "demo",
        **SMALL
        | {"variants": CHEAP, "data_dir": str(folder / "data"), "results_dir": str(folder / "results")}
        | values,
    )
    synthetic.make(p, 2)
    return study.load(p, workers=2)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    s = make(tmp_path_factory.mktemp("planted"))
    return s, runs.predictions(s)


def aucs(predictions):
    folds = metrics.per_fold(predictions)["roc_auc"].xs("val", level="split")
    return folds.groupby(level="variant").mean()


def test_the_planted_cohort_is_told_apart_by_the_dual_model(planted):
    found = aucs(planted[1])
    assert found["dual_go"] > 0.75, found
    assert found["baseline_genes"] > 0.6, found


def test_every_variant_predicts_every_patient_once(planted):
    s, predictions = planted
    assert list(predictions.columns) == runs.PREDICTIONS
    assert set(predictions["variant"]) == set(CHEAP)
    for _, own in predictions.groupby("variant"):
        assert sorted(own["patient_id"]) == sorted(s.patients)
        assert set(own.loc[own["split"] == "test", "patient_id"]) == set(s.folds.index[s.folds == -1])
    assert predictions["prob"].between(0, 1).all()


def test_nothing_is_trained_twice(planted, monkeypatch, code_replaced):
    from mmmil.training import train

    s, predictions = planted
    monkeypatch.setattr(train, "train", lambda *a: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(runs.predictions(s), predictions)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        runs.run(study.Study(s.p.override(epochs=11), s.cohort, s.folds, s.tiles), "go", 0)


def test_a_setting_of_the_image_side_does_not_retrain_the_gene_models(planted):
    s, _ = planted
    other = study.Study(s.p.override(augment=False, kept_channels=48), s.cohort, s.folds, s.tiles)
    assert runs.run(other, "go", 0) == runs.run(s, "go", 0)


def test_a_training_repeats_bit_for_bit(planted):
    s, predictions = planted
    shutil.rmtree(runs.run(s, "dual_go", 0))
    again = pd.read_parquet(runs.run(s, "dual_go", 0) / "predictions.parquet")
    before = predictions.query("variant == 'dual_go' and fold == 0")
    assert (again["prob"].to_numpy() == before["prob"].to_numpy()).all()


def test_frozen_features_do_not_move_the_generator(planted):
    s, predictions = planted
    shutil.rmtree(runs.run(s, "resnet50d_go", 0))
    shutil.rmtree(s.p.results / "features")
    afresh = pd.read_parquet(runs.run(s, "resnet50d_go", 0) / "predictions.parquet")
    before = predictions.query("variant == 'resnet50d_go' and fold == 0")
    assert (afresh["prob"].to_numpy() == before["prob"].to_numpy()).all()


def test_features_of_resnet50d_read_back_give_the_same_predictions_bit_for_bit(planted, tmp_path):
    s = planted[0]
    quick = study.Study(s.p.override(epochs=2), s.cohort, s.folds, s.tiles)
    features.export(quick, "resnet50d", tmp_path)
    again = study.load(
        quick.p.override(features_dir=str(tmp_path), n_tiles=0, variants=["clam", "transmil", "dual_go"])
    )
    for name, same in {"clam": "clam", "transmil": "transmil", "resnet50d_go": "dual_go"}.items():
        read = [record.read_parquet(runs.run(*of, 0) / "predictions.parquet") for of in ((quick, name), (again, same))]
        assert (read[0][["patient_id", "prob"]] == read[1][["patient_id", "prob"]]).all(axis=None), name


def test_each_of_the_18_is_trained_kept_loaded_and_asked_for_its_attention(planted):
    """One interface for all: what a loaded model predicts is what is on record."""
    from mmmil.training import build, device, fit

    s = planted[0]
    quick = study.Study(s.p.override(epochs=1, apoz_tiles=16), s.cohort, s.folds, s.tiles)
    names = [name for name, v in variants.VARIANTS.items() if v.fusion != "logistic" and not v.optional]
    assert len(names) == 18
    fabric = device.make_fabric(quick.p)
    for name in names:
        v, folder = variants.variant(name), runs.run(quick, name, -1)
        own = record.read_parquet(folder / "predictions.parquet")
        model, inputs = build.load_model(quick, v, -1, folder, fabric)
        which = [s.patients.index(patient) for patient in own["patient_id"]]
        prob, _ = fit.predict(fabric, model, inputs, which, batch=3)
        assert np.allclose(prob, own["prob"], atol=1e-6), name
        found = extract.extract(quick, name)
        assert found.weights, name
        for source, weights in found.weights.items():
            over = quick.p.n_tiles if source.endswith("image") else len(found.sets)
            assert weights.shape == (len(own), over), (name, source)
            assert np.allclose(weights.sum(1), 1, atol=1e-5), (name, source)


@pytest.mark.parametrize("name", ["go", "dual_go"])
def test_the_encoder_half_is_trained_with_the_model(planted, tmp_path, name):
    from mmmil.training import build, device, fit

    s, _ = planted
    other = study.Study(s.p.override(gene_encoder="trained", epochs=2), s.cohort, s.folds, s.tiles)
    v, folder = variants.variant(name), runs.run(other, name, 0)
    assert folder != runs.run(study.Study(s.p.override(epochs=2), s.cohort, s.folds, s.tiles), name, 0)
    fabric = device.make_fabric(other.p)
    model, inputs = build.load_model(other, v, 0, folder, fabric)
    own = pd.read_parquet(folder / "predictions.parquet")
    which = [s.patients.index(patient) for patient in own["patient_id"]]
    prob, _ = fit.predict(fabric, model, inputs, which, batch=3)
    assert np.allclose(prob, own["prob"], atol=1e-6)
    _, untrained = s.gene_tokens(0, "go"), other.gene_encoder_inputs(s.gene_tokens(0, "go"))[1]
    trained = model.module.gene_set_encoder if hasattr(model, "module") else model.gene_set_encoder
    assert not np.allclose(trained.hidden.weight.detach(), untrained.hidden.weight.detach(), atol=1e-4)
    assert np.array_equal(trained.index, untrained.index)


def test_a_single_gene_vector_has_no_encoder_to_train(planted):
    s, _ = planted
    other = study.Study(s.p.override(gene_encoder="trained"), s.cohort, s.folds, s.tiles)
    assert runs.run(other, "dual_genes", 0) == runs.run(s, "dual_genes", 0)


def test_attention_is_that_of_the_recorded_prediction(planted):
    s, predictions = planted
    attention, tables = gene_sets.analyse(s, "dual_go")
    recorded = predictions.query("variant == 'dual_go' and split == 'test'").set_index("patient_id")["prob"]
    assert np.allclose(attention.prob, recorded[attention.patients], atol=1e-6)
    assert attention.weights["self_image"].shape == (len(attention.patients), s.p.n_tiles)
    assert set(tables) == {"self_genes", "layer1_genes", "rollout_genes", "cross_genes"}
    assert np.allclose(attention.weights["cross_genes"].sum(1), 1, atol=1e-5)
    for table in tables.values():
        assert (table["permutation_p"] > 0).all() and set(table.index) == set(attention.sets)


def test_planted_tiles_and_sets_are_where_the_truth_says(planted):
    s, _ = planted
    patient = s.cohort.patients.query("label == 1").index[0]
    from mmmil.slides import bag_files

    coords, _ = bag_files.load_coords(s.bag_paths[patient])
    share = planted_truth.planted_share(s.p.data, s.cohort.patients.loc[patient, "slide_id"], coords, s.p.tile_px)
    assert share.shape == (s.p.n_tiles,) and ((share >= 0) & (share <= 1)).all()
    truth = pd.read_csv(s.p.data / "truth" / "sets.csv").query("library == 'go'").set_index("name")["planted"]
    table = gene_tokens.enrichment_table(s.p, s.expression, s.labels, s.folds, -1, "go")
    assert table["pval"][truth[truth].index].median() < table["pval"][truth[~truth].index].median()


def test_padded_and_stained_bags_are_trained_on_and_padding_gets_no_attention(planted, tmp_path):
    s, _ = planted
    more = {"n_tiles": 28, "few_tiles": "pad", "stain": "reinhard", "epochs": 1}
    padded = study.load(s.p.override(**more, results_dir=str(tmp_path)), workers=2)
    masks = padded.tile_masks
    assert set(padded.patients) >= set(s.patients) and (~masks).any() and masks.any(1).all()
    assert (padded.bags(0)[~masks] == 255).all()
    other = study.load(s.p.override(**more | {"stain": "none"}, results_dir=str(tmp_path)), workers=2)
    assert padded.bag_keys(0) != padded.bag_keys(1) and other.bag_keys(0) == other.bag_keys(1)
    assert not np.array_equal(padded.bags(0), other.bags(0))
    for name in ("wsi", "resnet50d_go", "baseline_image"):
        table = pd.read_parquet(runs.run(padded, name, -1) / "predictions.parquet")
        assert sorted(table["patient_id"]) == sorted(padded.fold_patients(-1)[1]) and table["prob"].between(0, 1).all()
    attention = extract.extract(padded, "wsi").weights["self_image"]
    own = masks[[padded.patients.index(patient) for patient in padded.fold_patients(-1)[1]]]
    assert attention.shape == own.shape and (attention[~own] == 0).all() and (attention[own] > 0).all()


def test_a_null_cohort_gives_chance_in_every_variant(tmp_path_factory):
    s = make(tmp_path_factory.mktemp("null"), sim_null=True, sim_patients=60, epochs=6)
    found = aucs(runs.predictions(s))
    # 48 patients, 24 of each class: the standard error of an AUC is 0.084, the bounds are three of them.
    assert set(found.index) == set(CHEAP)
    assert found.between(0.25, 0.75).all(), found
    assert abs(found.mean() - 0.5) < 0.2, found


@pytest.mark.parametrize("what", ["slide", "counts"])
def test_a_damaged_file_is_named_before_any_training(planted, tmp_path, monkeypatch, what):
    s, _ = planted
    shutil.copytree(s.p.data, tmp_path / "data")
    p = s.p.override(data_dir=str(tmp_path / "data"), results_dir=str(tmp_path / "results"))
    row = s.cohort.patients.iloc[3]
    path = tmp_path / "data" / {"slide": "slides", "counts": "expression"}[what]
    path = path / (row["slide_path"] if what == "slide" else row["expression_path"]).rsplit("/", 1)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError) as error:
        study.load(p).expression  # noqa: B018
    assert path.name in str(error.value)


def test_notebooks_run_and_no_failed_one_becomes_a_page(planted, tmp_path):
    """On the trained cohort: what the batch engine does, in one kernel after the other. Pages 03, 06 and 09 are made in
    tests/workflow/test_extending.py.
    """
    papermill = pytest.importorskip("papermill")
    from mmmil.book import pages

    s, _ = planted
    given = {k: v for k, v in s.p.model_dump().items() if v != params.load("nsclc", "demo").model_dump()[k]}
    for name in (
        "00_method",
        "01_dataset",
        "02_preprocessing",
        "04_multimodal_ablations",
        "05_end_to_end_vs_frozen",
        "07_attention_analysis",
        "10_apply",
    ):
        source = params.root() / "notebooks" / f"{name}.ipynb"
        executed = tmp_path / source.name
        train = {"train": True} if "train = False" in source.read_text() else {}
        papermill.execute_notebook(
            source,
            executed,
            {"task": "nsclc", "overlay": "demo", **given, **train},
            kernel_name="python3",
            cwd=params.root(),
            progress_bar=False,
        )
        text = executed.read_text()
        assert pages.check_executed(executed)
        assert "Synthetic cohort" in text and text.count('"image/png"') >= 1


def test_a_parameter_nobody_knows_stops_a_notebook(tmp_path):
    papermill = pytest.importorskip("papermill")
    from mmmil.book import pages

    source, executed = params.root() / "notebooks" / "01_dataset.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean 'epochs'"):
        papermill.execute_notebook(
            source, executed, {"epocs": 3}, kernel_name="python3", cwd=params.root(), progress_bar=False
        )
    with pytest.raises(pages.PageError):
        pages.check_executed(executed)
