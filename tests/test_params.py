import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from mmmil import params, schema
from mmmil.params import ParameterError

TASKS = ["lgg", "nsclc", "brca"]


@pytest.mark.parametrize("task", TASKS)
def test_task_files_hold_the_papers_scale_and_the_demo_lies_over_them(task):
    paper, demo = params.load(task), params.load(task, "demo")
    assert (paper.tile_px, paper.n_tiles, paper.gene_set_fdr, paper.weights) == (256, 64, 0.01, "imagenet")
    assert not paper.synthetic and demo.synthetic and demo.task == task


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"epocs": 3}, "unknown parameter 'epocs'; did you mean 'epochs'?"),
        ({"fancy": 3}, "unknown parameter 'fancy'; mmmil/schema.py lists all there are"),
        ({"learning_rate": 1e-3}, "it is called lr"),
        ({"train": True}, "papermill: -p train True"),
        ({"epochs": "ten"}, "epochs: "),
        ({"epochs": True}, "epochs: "),
        ({"lr": "1e-4"}, "write 1.0e-4"),
        ({"lr": "0,001"}, "write a decimal point, not a comma"),
        ({"epochs": "20"}, "write it without quotes"),
        ({"tile_px": "256px"}, "write the value alone"),
        ({"n_tiles": "64# as the paper"}, "a comment needs a blank before its #"),
        ({"class_values": ["G2", "G3"]}, "`class_values: [[a], [b]]`"),
        ({"class_values": [["G2"], []]}, "one list of values per class"),
        ({"class_names": ["II", " ii"]}, "a name of its own"),
        ({"class_names": ["II", ""]}, "a name of its own"),
        ({"sample_sheets": ["a.tsv", "a.tsv"]}, "names each file once"),
        ({"clinical": [""]}, "names each file once"),
        ({"variants": ("go",)}, "write [a, b]"),
        ({"data_dir": Path("data")}, "write the path as a text"),
        ({"results_dir": ""}, "a folder of their own"),
        ({"tissue_percent": 0.9}, "tissue_percent is in %"),
        ({"tile_mpp": 20}, "less than or equal to 10"),
        ({"seed": 2**32}, "less than 4294967296"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"width": 97}, "multiple of 8"),
        ({"set_sizes": [600, 500]}, "set_sizes: [600, 500] is not [at least, at most]"),
        ({"selection": "some"}, "nested"),
        ({"expression_kind": "zscore"}, "name it in expression_matrix"),
        ({"expression_matrix": ["x.tsv"]}, "say what the matrix holds"),
        ({"n_permutations": 50}, "cannot give a p below attention_fdr"),
        ({"encoders": {"wsi_x": "vit_small"}}, "'wsi_x' is no name for an encoder"),
        ({"encoders": {"x_go": "vit_small"}}, "'x_go' is no name for an encoder"),
        ({"encoders": {"dual": "vit_small"}}, "'dual' is no name for an encoder"),
        ({"encoders": {"UNI": "vit_small", "uni": "vit_small"}}, "differ in capitals only"),
        ({"mil_features": "ctranspath"}, "name the encoder in encoders"),
        ({"contested": "ihc"}, "it is part of label_rule"),
        ({"epoch_choice": "inner"}, "tuning chooses the number of epochs"),
        ({"tuning": 1}, "no choice: write 0, or at least 2"),
        ({"tuning": 400}, "less than or equal to 100"),
        ({"seed": 2**32 - 1, "model_seeds": 2}, "beyond 2**32: lower seed"),
        ({"set_size_min": 5}, "write set_sizes: [10, 500]"),
        ({"encoders": {"uni": "features:"}}, "uni: 'features:' is no timm model"),
        ({"encoders": {"uni": "hf_hub:a/b"}}, "uni: 'hf_hub:a/b' is no timm model"),
        ({"encoders": {"uni": "features:{tusk}/uni"}}, "tusk"),
        ({"encoders": {"uni": "vit_small"}, "features_dir": "hipt"}, "uni reads pixels"),
        ({"coords_dir": "patches", "features_dir": "hipt"}, "read in place of slides"),
        ({"stain": "macenko", "features_dir": "hipt"}, "stain 'macenko' changes pixels, of which there are none"),
    ],
)
def test_a_wrong_value_is_one_clear_error(values, told):
    with pytest.raises(ParameterError) as error:
        params.load("lgg", "demo", **values)
    assert told in str(error.value)


def test_every_fault_is_told_at_once():
    with pytest.raises(ParameterError) as error:
        params.load("lgg", epocs=1, widht=2, dropout="no")
    assert all(name in str(error.value) for name in ("epocs", "widht", "dropout"))


def test_missing_files_are_named_with_their_parameter():
    with pytest.raises(ParameterError) as error:
        params.load("lgg", data_dir="data/nowhere").require_files()
    assert "clinical: " in str(error.value) and "params/lgg.yaml" in str(error.value)


def test_an_overlay_and_a_task_are_not_taken_for_each_other():
    with pytest.raises(ParameterError, match=r"params/demo.yaml is an overlay"):
        params.load("demo")
    with pytest.raises(ParameterError, match=r"params/lgg.yaml is a task's file"):
        params.load("nsclc", "lgg")


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(ParameterError, match="lgg"):
        params.load("lggg")


def test_a_notebooks_names_override_and_unknown_ones_are_refused(monkeypatch):
    monkeypatch.setattr(params.Params, "require_files", lambda self: self)
    namespace = {"task": "lgg", "overlay": "demo", "epochs": 2, "params": params, "In": [], "_x": 1}
    assert params.effective(namespace).epochs == 2
    with pytest.raises(ParameterError, match="did you mean 'epochs'"):
        params.effective(namespace | {"epoch": 3})


def test_the_parameter_cell_can_be_run_again(monkeypatch):
    monkeypatch.setattr(params.Params, "require_files", lambda self: self)
    namespace = {"task": "lgg", "overlay": "demo", "epochs": 2}
    namespace |= {"p": params.effective(namespace), "names": ["wsi"], "epochs": 3}
    assert params.effective(namespace).epochs == 3


def test_a_stages_values_leave_out_places_and_titles():
    p = params.load("lgg", "demo")
    moved = p.override(results_dir="elsewhere", title="another")
    assert p.stage("cohort", "tiles") == moved.stage("cohort", "tiles")
    assert p.stage("training") != p.override(epochs=99).stage("training")


def test_the_settings_are_few_and_each_has_a_reason():
    fields = params.Params.model_fields
    assert len(fields) <= 95 and len(fields) == sum(len(stage.model_fields) for stage in schema.STAGES.values())
    words = {name: set(re.findall(r"\w{3,}", field.description or "")) for name, field in fields.items()}
    assert not [name for name, its in words.items() if len(its - set(name.split("_"))) < 4]


def html(shown):
    return BeautifulSoup(shown._repr_html_(), "html.parser")


def rows(table):
    return {row.th.get_text(): [td.get_text() for td in row.find_all("td")] for row in table.tbody.find_all("tr")}


def test_a_page_shows_what_differs_from_the_default_and_folds_the_rest():
    shown = params.load("lgg", "demo", class_weights=False).show("training")
    page = html(shown)
    differing, folded = page.find_all("details")
    changed, at_default = rows(differing), rows(folded)
    assert set(changed) == {"epochs", "batch_size", "lr", "class_weights"}
    assert changed["class_weights"][:2] == ["False", "True"]
    assert differing.summary.get_text() == f"4 settings not at their default: {', '.join(changed)}"
    assert set(at_default) == set(schema.Training.model_fields) - set(changed)
    assert folded.summary.get_text() == f"{len(at_default)} settings at their default"
    told = schema.Training.model_fields["tuning"].description
    assert told.replace("`", "") in at_default["tuning"][-1]  # whole, not cut
    assert repr(shown).endswith(f"class_weights: False\n{len(at_default)} settings at their default")


def test_where_nothing_differs_a_page_says_so():
    shown = params.load("lgg").show("attention")
    page = html(shown)
    assert page.p.get_text() == "No setting differs from its default." and len(page.find_all("table")) == 1
    assert repr(shown) == "all 4 settings are at their default"


def test_a_settings_text_is_no_markup():
    shown = params.load("lgg", title="<b>LGG</b>", clinical=["a.tsv", "b.tsv"]).show("cohort")
    assert html(shown).b is None and "<b>LGG</b>" in html(shown).get_text()
    assert "a.tsv, b.tsv" in html(shown).get_text()


def test_a_matrix_beside_slides_alone_is_not_told_to_say_what_it_says():
    p = params.load("lgg", inputs="slides", expression_matrix=["x.tsv"], expression_kind="counts")
    assert p.expression_matrix and not p.has_genes
