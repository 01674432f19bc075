"""Rows of the variant table that a task has by its inputs and its encoders."""

import pytest

from mmmil import variants
from mmmil.params import ParameterError, check

TASK = {"task": "t", "class_names": ["a", "b"]}
PIXELS = {"wsi_original", "wsi_uib", "resnet50d_go", "resnet50d_kegg", "ctranspath_go", "ctranspath_kegg"}


def names(**values):
    return variants.variants(check(TASK | values))


def test_every_row_is_possible_but_for_what_the_inputs_lack():
    asked_for = [name for name, v in variants.VARIANTS.items() if v.optional]
    assert len(names()) == len(variants.VARIANTS) - len(asked_for)
    assert names(inputs="genes") == ["go", "kegg", "baseline_genes"]
    assert names(inputs="genes", kegg_gmt="") == ["go", "baseline_genes"]
    with pytest.raises(ParameterError, match="wsi needs slides or genes that inputs='genes' does not give"):
        names(inputs="genes", variants=["wsi"])


def test_a_table_that_there_is_not_has_no_rows_but_an_error():
    for wrong in ("Table 7", "S5", "12", 7):
        with pytest.raises(ParameterError, match=r"no table .*give its number as a text, one of 1, 2, 3"):
            variants.in_table(check(TASK), wrong)


def test_an_encoder_gives_rows_to_tables_4_9_and_10_by_its_name():
    more = [name for name in names(encoders={"uni": "hf-hub:MahmoodLab/uni"}) if name not in names()]
    assert more == ["wsi_uni", "clam_uni", "transmil_uni", "uni_go", "uni_kegg"]
    p = check(TASK | {"encoders": {"uni": "hf-hub:MahmoodLab/uni"}})
    assert [n for n in variants.in_table(p, "4") if n in more] == more[:3]
    assert "uni_go" in variants.in_table(p, "9") and "uni_kegg" in variants.in_table(p, "10")
    for name in more:
        v = variants.variant(name)
        assert v.name == name and v.encoder(p) == "uni" and v.reads_features(p)
        assert not v.is_trained_end_to_end(p) and "uni" in v.shown_as
    assert not set(more) & set(names(inputs="genes", encoders={"uni": "hf-hub:MahmoodLab/uni"}))


def test_a_name_that_no_encoder_has_is_refused():
    with pytest.raises(ParameterError, match="daul_go needs the encoder daul: name it in encoders"):
        names(variants=["daul_go"])
    with pytest.raises(ParameterError, match="no variant 'daul'"):
        names(variants=["daul"])


def test_features_stand_in_the_place_of_pixels():
    p = check(TASK | {"features_dir": "hipt"})
    assert not p.has_pixels and p.has_slides
    assert set(names()) - set(names(features_dir="hipt")) == PIXELS
    for name in ("wsi", "clam", "transmil", "dual_go", "co_kegg", "dual_genes", "baseline_image", "baseline_late"):
        v = variants.variant(name)
        assert v.reads_features(p) and v.encoder(p) == "features_dir" and not v.is_trained_end_to_end(p)
    with pytest.raises(ParameterError, match="wsi_uib needs pixels, and features_dir is read in their place"):
        names(features_dir="hipt", variants=["wsi_uib"])
    both = check(TASK | {"features_dir": "hipt", "encoders": {"uni": "features:uni"}})
    assert variants.variant("uni_go").encoder(both) == "uni" and "uni_go" in variants.variants(both)
    assert list(both.feature_folders) == ["features_dir", "uni"]


def test_random_weights_are_no_frozen_encoder_of_real_slides():
    paper = {"clam", "transmil", "resnet50d_go", "resnet50d_kegg", "ctranspath_go", "ctranspath_kegg"}
    assert set(names()) - set(names(weights="random")) == paper
    assert names(weights="random", synthetic=True) == names()
    with pytest.raises(ParameterError, match="clam needs pretrained weights, since a frozen encoder of random ones"):
        names(weights="random", variants=["clam"])
    assert names(weights="random", variants=["wsi", "clam_e"], encoders={"e": "random:resnet18"}) == ["wsi", "clam_e"]
    assert "clam" in names(weights="random", features_dir="hipt")


def test_a_named_encoder_has_its_published_weights():
    p = check(
        TASK | {"weights": "random", "encoders": {"a": "hf-hub:owner/a", "b": "random:resnet18", "c": "resnet18"}}
    )
    found = [variants.network(p, name) for name in ("resnet50d", "a", "b", "c")]
    assert found == [
        ("resnet50d", "random"),
        ("hf-hub:owner/a", "imagenet"),
        ("resnet18", "random"),
        ("resnet18", "imagenet"),
    ]


def test_baselines_stand_beside_models_that_read_as_much():
    p = check(TASK)
    assert [n for n in variants.in_table(p, "4") if n in variants.BASELINES] == ["baseline_image"]
    assert [n for n in variants.in_table(p, "7") if n in variants.BASELINES] == variants.BASELINES
    assert variants.variants(p)[-3:] == variants.BASELINES


def test_a_training_of_a_variant_that_the_task_cannot_have_is_refused_before_any_work():
    p = check(TASK | {"inputs": "genes"})
    variants.require("go", p)
    for name, told in (("wsi", "slides or genes"), ("duel_go", "slides or genes"), ("duel", "no variant 'duel'")):
        with pytest.raises(ParameterError, match=told):
            variants.require(name, p)


def test_a_registered_class_does_not_take_the_place_of_an_encoders_row(monkeypatch):
    own = variants.Variant("uni_go", "mine", "reduced", "go", "uni_go", ("own",))
    monkeypatch.setitem(variants.OWN, "uni_go", own)
    assert "uni_go" not in names()
    with pytest.raises(ParameterError, match="a row of theirs is called uni_go"):
        names(encoders={"uni": "hf-hub:MahmoodLab/uni"})
