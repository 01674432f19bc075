"""Features of tiles: written and read back they give the same predictions; bags of any size; what is in their keys."""

import dataclasses

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from mmmil import params, study, variants
from mmmil.interpretation import attribution, extract, heatmaps, nulls
from mmmil.models import weights
from mmmil.params import FEATURES, ParameterError
from mmmil.training import build, device, features, fit, runs
from mmmil.training.inputs import inputs_of
from tests.small_studies import make

SMALL = {"sim_patients": 24, "sim_genes": 500, "sim_sets": 20, "sim_slide_px": 512, "kegg_gmt": "", "n_folds": 2}
SMALL |= {"tile_px": 64, "n_tiles": 4, "epochs": 2, "ae_epochs": 2, "fallback_sets": 6, "width": 16, "latent_dim": 8}
SMALL |= {"n_permutations": 100, "null_models": 1, "null_draws": 100}
AGAIN = {"clam_tiny": "clam", "transmil_tiny": "transmil", "tiny_go": "dual_go"}  # computed: read back


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """A study whose tiles are read by frozen networks, as in a task without features of its own."""
    encoders = {"tiny": "random:mobilenetv3_small_050"}
    return make(tmp_path_factory.mktemp("features"), encoders=encoders, **SMALL)


@pytest.fixture(scope="module")
def brought(computed, tmp_path_factory):
    """The same patients with the features that the network gave, as files."""
    folder = tmp_path_factory.mktemp("tiny")
    written = features.export(computed, "tiny", folder)
    assert [path.stem for path in written] == list(computed.cohort.patients["slide_id"])
    return study.load(computed.p.override(features_dir=str(folder), encoders={}, n_tiles=0))


@pytest.fixture(scope="module")
def ragged(brought, tmp_path_factory):
    """The same again, 1 to 4 tiles each and without coordinates."""
    folder = tmp_path_factory.mktemp("ragged")
    for i, row in enumerate(brought.cohort.features.itertuples()):
        with h5py.File(row.path) as file:
            np.save(folder / f"{row.slide_id}.npy", file["features"][: i % 4 + 1])
    return study.load(brought.p.override(features_dir=str(folder)))


def probabilities(s, name):
    return pd.read_parquet(runs.run(s, name, -1) / "predictions.parquet").set_index("patient_id")["prob"]


@pytest.mark.parametrize("name", AGAIN)
def test_features_written_and_read_back_give_the_same_predictions_bit_for_bit(computed, brought, name):
    assert brought.features(FEATURES).has_coords and brought.patients == computed.patients
    first, again = probabilities(computed, name), probabilities(brought, AGAIN[name])
    assert (first == again).all() and first.std() > 0


def test_so_do_bags_with_padding(computed, tmp_path):
    padded = study.load(computed.p.override(n_tiles=24, few_tiles="pad"))
    assert not padded.tile_masks.all()
    features.export(padded, "tiny", tmp_path)
    again = study.load(computed.p.override(features_dir=str(tmp_path), encoders={}, n_tiles=0))
    assert (again.features(FEATURES).sizes == padded.tile_masks.sum(1)).all()
    assert (probabilities(padded, "clam_tiny") == probabilities(again, "clam")).all()


def test_no_patient_of_a_batch_changes_another_and_padding_is_not_seen(ragged):
    v = variants.variant("dual_go")
    inputs, genes = inputs_of(ragged, v, -1)
    assert not inputs.positions and inputs.image_dim == ragged.features(FEATURES).dim
    model = build.build(ragged.p, v, genes, None, inputs.image_dim, inputs.positions).eval()
    assert model.aggregator.image_encoder.pos_layer is None
    which = [ragged.patients.index(i) for i in ragged.fold_patients(-1)[1]]
    given = inputs.take(torch.tensor(which))
    assert given["tiles"].shape == (len(which), 4, inputs.image_dim) and (given["tiles"][~given["mask"]] == 0).all()
    assert (inputs.real(which) == given["mask"]).all() and inputs.real(which[:1]) is None
    fabric = device.make_fabric(ragged.p)
    alone, att = fit.predict(fabric, fabric.setup(model), inputs, which, batch=1)
    together, same = fit.predict(fabric, fabric.setup(model), inputs, which, batch=8)
    assert np.allclose(alone, together, atol=1e-6)
    for source in att:
        assert np.allclose(att[source], same[source], atol=1e-6), source


@pytest.mark.parametrize("name", ["dual_go", "co_go", "clam", "transmil"])
def test_attention_over_bags_of_any_size_ends_where_the_bag_does(ragged, name):
    found = extract.extract(ragged, name)
    sizes = ragged.features(FEATURES).sizes[[ragged.patients.index(i) for i in found.patients]]
    beyond = np.arange(sizes.max()) >= sizes[:, None]
    for source, att in found.weights.items():
        assert np.allclose(att.sum(1), 1, atol=1e-5)
        if source.endswith("_image"):
            assert (att[beyond] == 0).all() and (att[~beyond] != 0).all()
    if name != "transmil":  # Nyström's attention has no scores
        over = "co_attention" if name == "co_go" else "self_image"
        scores = extract.extract(ragged, name, "each", "scores").weights[over]
        assert (np.isnan(scores) == beyond[:, None]).all()


def test_what_asks_for_attention_copes_with_bags_of_any_size(ragged, capsys):
    tokens = attribution.tokens(ragged, "dual_go")
    assert (tokens.number("tiles") == tokens.real.sum(1).numpy()).all() and len(set(tokens.number("tiles"))) > 1
    assert np.allclose(attribution.whole(tokens), probabilities(ragged, "dual_go"), atol=1e-6)
    assert set(attribution.rankings(tokens, "tiles")) == {
        "self_image",
        "cross_image",
        "layer1_image",
        "rollout_image",
        "gradient",
    }
    assert nulls.untrained(ragged, "dual_go", 2)["cross_genes"].shape == (2, tokens.genes.shape[1])
    assert nulls.size_matched(ragged, "co_go", 2)["self_genes"].shape == (2, tokens.genes.shape[1])
    assert heatmaps.write_all(ragged).empty
    assert "no heatmaps: task 'nsclc' has features in the place of slides" in capsys.readouterr().out
    with pytest.raises(heatmaps.HeatmapError, match="features in the place of slides: there is nothing to map"):
        heatmaps.place_of(ragged, ragged.patients[0])


def keys(s, **changes):
    changed = dataclasses.replace(s, p=s.p.override(**changes))
    return {name: runs.place(changed, name, -1) for name in ("wsi", "dual_go", "baseline_image", "go")}


def differ(one, other):
    return {name for name in one if one[name] != other[name]}


def test_a_training_depends_on_its_files_of_features_and_on_no_setting_of_a_backbone(ragged):
    before = keys(ragged)
    backbone = {"kept_channels": 48, "apoz_tiles": 16, "batch_norm": "batch", "augment": False, "weights": "imagenet"}
    assert not differ(before, keys(ragged, **backbone, tissue_percent=50.0))
    assert differ(before, keys(ragged, n_tiles=2)) == {"wsi", "dual_go", "baseline_image"}
    path = ragged.cohort.features["path"][3]
    values = np.load(path)
    np.save(path, values + 1)
    assert differ(before, keys(ragged)) == {"wsi", "dual_go", "baseline_image"}
    np.save(path, values)
    assert not differ(before, keys(ragged))


def test_the_seed_of_a_sample_is_in_the_key_of_what_reads_it(ragged):
    capped = dataclasses.replace(ragged, p=ragged.p.override(n_tiles=2))
    assert (capped.p.n_tiles, capped.p.seed) == (2, 0)
    v = variants.variant("baseline_image")
    other = dataclasses.replace(capped, p=capped.p.override(seed=1))
    assert runs._image_inputs(capped, v, -1) != runs._image_inputs(other, v, -1)
    assert runs._image_inputs(ragged, v, -1).keys() == {"features"}


def test_baselines_read_the_mean_of_the_features_and_the_fusion_of_both(ragged):
    for name in ("baseline_image", "baseline_late"):
        found = probabilities(ragged, name)
        assert found.between(0, 1).all() and found.std() > 0


def test_a_folder_is_not_exported_again(ragged, tmp_path):
    with pytest.raises(ParameterError, match="its files are there already"):
        features.export(ragged, FEATURES, tmp_path)


def test_the_file_of_an_encoders_weights_is_in_the_key_of_what_reads_it_wherever_it_lies(tmp_path, monkeypatch):
    p = params.load("nsclc", "demo", encoders={"lite": "tf_efficientnet_lite0", "net": "resnet18"})
    of = {name: runs._settings(p, variants.variant(f"wsi_{name}"))["weights"] for name in p.encoders}
    assert of["net"] == "resnet18 imagenet"
    (tmp_path / "lite.pth").write_bytes(b"another release of the package")
    monkeypatch.setattr(weights, "packaged_file", lambda name: tmp_path / "lite.pth")
    assert runs._settings(p, variants.variant("wsi_lite"))["weights"] != of["lite"]
