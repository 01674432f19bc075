"""One patient on the way through the model: what is done by hand is what the model does, and what was recorded."""

from dataclasses import replace
from math import log

import pytest
import torch

from mmmil.interpretation import one_patient
from mmmil.study import load
from mmmil.training import runs
from tests import small_features
from tests.models.test_aggregators import small_dual
from tests.small_studies import make

SMALL = {"variants": ["dual_go"], "sim_patients": 24, "sim_genes": 500, "sim_sets": 20, "sim_slide_px": 512}
SMALL |= {"n_folds": 2, "n_tiles": 4, "epochs": 1, "ae_epochs": 2, "kegg_gmt": "", "fallback_sets": 6, "width": 24}
SMALL |= {"apoz_tiles": 16, "latent_dim": 24, "ae_hidden": 16}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make(tmp_path_factory.mktemp("one"), **SMALL)


@pytest.fixture(scope="module")
def one(study):
    return one_patient.held_out(study, "dual_go", 0)


def test_the_patient_was_held_out_and_the_answer_is_the_recorded_one(study, one):
    assert one.patient not in study.fold_patients(0)[0] and one.row == study.patients.index(one.patient)
    assert one.trained and one.tolerance == one_patient.ALONE
    recorded = runs.read(runs.run(study, "dual_go", 0)).set_index("patient_id")["prob"]
    assert one.recorded == recorded[one.patient]
    assert one_patient.probability(one) == pytest.approx(one.recorded, abs=one.tolerance)
    assert one.patient in one.described and study.p.class_names[one.label] in one.described


def test_step_by_step_is_in_one_call(one):
    fusion = one.model.aggregator
    tiles, genes = one.model.image_tokens(one.given["tiles"]), one.model.gene_tokens(one.given["genes"])
    image, tile_tokens, _ = fusion.image_encoder(tiles)
    sets, set_tokens, _ = fusion.gene_encoder(genes, fusion.set_embedding)
    vectors = {"image": image, "genes": sets}
    vectors["image_from_genes"], _ = fusion.image_to_genes(image, set_tokens)
    vectors["genes_from_image"], _ = fusion.genes_to_image(sets, tile_tokens)
    logits = one.model(**one.given)[0][0]
    added = one_patient.contributions(fusion, vectors, tiles, genes)
    assert added.sum() == pytest.approx(float(logits[1] - logits[0]), abs=1e-4)
    assert list(added.index) == [*vectors, "bias", "skip, mean tile", "skip, gene tokens"]
    assert added.abs().max() > 0 and not image.requires_grad


def test_contributions_without_a_skip():
    torch.manual_seed(0)
    model = small_dual("exact").eval()
    tiles = torch.randn(1, 5, model.image_encoder._fc1[0].in_features)
    genes = torch.randn(1, model.set_embedding.shape[0], model.gene_encoder._fc1[0].in_features)
    model.requires_grad_(False)
    encoded, (logits, _) = model.encode(tiles, genes), model(tiles, genes)
    added = one_patient.contributions(model, encoded.vectors, tiles, genes)
    assert added.sum() == pytest.approx(float(logits[0, 1] - logits[0, 0]), abs=1e-5) and len(added) == 5


@pytest.mark.parametrize("kind", ["exact", "nystrom", "published"])
def test_matrices_are_those_that_the_model_computes_with(kind):
    torch.manual_seed(0)
    model = small_dual(kind).eval()
    tiles = torch.randn(2, 5, model.image_encoder._fc1[0].in_features)
    genes = torch.randn(2, model.set_embedding.shape[0], model.gene_encoder._fc1[0].in_features)
    before, att = model(tiles, genes)
    with one_patient.reading_matrices(model) as read:
        during, _ = model(tiles, genes)
    after, _ = model(tiles, genes)
    assert torch.equal(before, during) and torch.equal(before, after)
    assert set(read) == {"layer1_image", "layer2_image", "layer1_genes", "layer2_genes"}
    row = read["layer2_image"][:, :, 0, 1:]
    if kind == "published":  # five tokens lie on a square of nine places, and copies count for their token
        assert row.shape[-1] == 9
        row = torch.cat([row[..., :4] + row[..., 5:], row[..., 4:5]], -1)
    assert torch.allclose(row, att["self_image"], atol=1e-6)
    assert torch.allclose(read["layer2_genes"][:, :, 0, 1:], att["self_genes"], atol=1e-6)
    if kind == "exact":
        assert all(torch.allclose(a.sum(-1), torch.ones(()), atol=1e-5) for a in read.values())
    with torch.no_grad():
        read.clear()
        model(tiles, genes)
    assert not read, "nothing is read when it is closed"


def test_a_start_knows_nothing_and_is_the_same_each_time(study, one):
    few = study.fold_patients(0)[0][:4]
    model, again = one_patient.untrained(one, few), one_patient.untrained(one, few)
    assert model.training and all(p.requires_grad for p in model.parameters())
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name
    loss = torch.nn.functional.cross_entropy(model(**one.take(few))[0], torch.tensor([0, 1, 1, 0]))
    assert loss.item() == pytest.approx(log(2), abs=1e-6)
    loss.backward()
    assert model.aggregator.linear_skip.linear.weight.grad.abs().max() > 0


def test_padding_is_not_shown(one):
    mask = torch.ones(len(one.study.patients), one.inputs.tiles.shape[1], dtype=torch.bool)
    mask[one.row, 1] = False
    padded = replace(one, inputs=replace(one.inputs, mask=mask))
    assert set(padded.given) == {"tiles", "genes"} and padded.given["tiles"].shape[:2] == (1, 3)
    assert torch.equal(padded.given["tiles"][0], one.given["tiles"][0][mask[one.row]])


def test_features_of_any_number_stand_in_the_place_of_pixels(study, tmp_path):
    slides = study.cohort.patients["slide_id"]
    places = {"features_dir": str(small_features.folder(tmp_path / "hipt", list(slides), width=6))}
    brought = load(study.p.override(**places))
    one = one_patient.held_out(brought, "dual_go", 0)
    number = 1 + list(slides).index(slides[one.patient]) % 7
    assert one.given["tiles"].shape == (1, number, 6) and "mask" not in one.given
    assert one_patient.probability(one) == pytest.approx(one.recorded, abs=one.tolerance)
    few = brought.fold_patients(0)[0][:4]
    one_patient.untrained(one, few)(**one.take(few))[0].sum().backward()


def test_where_the_training_failed_the_model_is_the_untrained_one_and_says_so(study):
    runs.note_failure(study, "dual_go", 1, None, "ValueError: none", "log")
    failed = one_patient.held_out(study, "dual_go", 1)
    assert not failed.trained and "failed" in failed.described
    assert failed.recorded == one_patient.probability(failed) == pytest.approx(0.5)
