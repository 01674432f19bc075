"""A trained model as a folder, applied to patients it has not seen: what was recorded comes out, each patient alone."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mmmil import __main__ as command_line
from mmmil import params
from mmmil.apply import cohort as new_cohort
from mmmil.apply import folder, keep, report, run
from mmmil.apply.cohort import ApplyError
from mmmil.apply.folder import ModelError
from mmmil.training import runs
from tests import small_studies

NAMES = ["go", "wsi", "dual_go"]
SMALL = {
    "sim_patients": 24,
    "sim_slide_px": 512,
    "sim_genes": 500,
    "sim_sets": 10,
    "sim_effect": 2.0,
    "n_folds": 2,
    "n_tiles": 0,
    "tile_px": 64,
    "apoz_tiles": 16,
    "epochs": 1,
    "ae_epochs": 1,
    "ae_hidden": 16,
    "latent_dim": 16,
    "width": 16,
    "fallback_sets": 4,
    "max_sets": 4,
    "kegg_gmt": "",
    "variants": NAMES,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The study, its predictions, and the kept model of each variant."""
    s = small_studies.make(tmp_path_factory.mktemp("study"), **SMALL)
    predictions = runs.predictions(s)
    return s, predictions, {name: keep.keep(s, name) for name in NAMES}


@pytest.fixture
def new(made, tmp_path):
    """A fresh folder with the files of three test patients and a table of them, paths relative; returns the table."""
    s = made[0]
    table = new_cohort.table_of(s.cohort.patients.loc[s.fold_patients(-1)[1][:3]], s.p)
    for column in ("slide_path", "expression_path"):
        (tmp_path / column).mkdir()
        table[column] = [f"{column}/{Path(shutil.copy(path, tmp_path / column)).name}" for path in table[column]]
    table.to_csv(tmp_path / "new.csv", index=False)
    return table


def applied(kept, tmp_path, table=None, **options):
    if table is not None:
        table.to_csv(tmp_path / "new.csv", index=False)
    return run.run(kept, tmp_path / "new.csv", tmp_path / "out", **{"reports": False} | options)


def recorded(made, name):
    of_test = made[1].query("variant == @name and split == 'test'")
    return of_test.set_index("patient_id")["prob"].sort_index()


def most_apart(found, made, name):
    """The largest difference of the predicted patients' probabilities from the recorded ones."""
    there = found["prob"].dropna()
    return (there - recorded(made, name)[there.index]).abs().max()


def without_genes(path, genes):
    """Take some genes, by symbol, out of a STAR file."""
    lines = Path(path).read_text().splitlines(keepends=True)
    Path(path).write_text("".join(line for line in lines if line.split("\t")[1:2] not in [[gene] for gene in genes]))


@pytest.mark.parametrize("name", NAMES)
def test_the_test_patients_as_a_new_cohort_get_what_was_recorded(made, new, tmp_path, name):
    s, _, kept = made
    found = applied(kept[name], tmp_path).set_index("patient_id")
    assert list(found.index) == sorted(new["patient_id"]) and (found["problem"] == "").all()
    assert most_apart(found, made, name) < 1e-6
    folds = found[["prob_fold_0", "prob_fold_1"]]
    assert np.allclose(found["prob_mean"], folds.mean(axis=1)) and np.allclose(found["prob_max"], folds.max(axis=1))
    distances = [column for column in found if column.startswith("distance")]
    assert len(distances) == {"go": 1, "wsi": 1, "dual_go": 2}[name] and found[distances].notna().all(axis=None)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["predicted"] == len(new)
    if name != "go":
        image = folder.read(kept[name]).about["image"]
        assert image["tiles"] >= 16 == min(image["tiles"], 16) and s.p.n_tiles == 0  # the number that was found


def test_no_patient_has_a_say_in_anothers_answer(made, new, tmp_path):
    """Bit for bit, with one patient's files exchanged, and with one patient alone."""
    kept = made[2]["dual_go"]
    before = applied(kept, tmp_path).set_index("patient_id")
    first, other = new["patient_id"][:2]
    changed = new.copy()
    foreign = made[0].cohort.patients.loc[made[0].fold_patients(-1)[0][0]]
    for column in ("slide_path", "expression_path"):
        path = shutil.copy(foreign[column], tmp_path / column / f"other{Path(foreign[column]).suffix}")
        changed.loc[0, column] = str(path)
    after = applied(kept, tmp_path, changed).set_index("patient_id")
    pd.testing.assert_frame_equal(after.drop(first), before.drop(first), check_exact=True)
    assert after.loc[first, "prob"] != before.loc[first, "prob"]
    alone = applied(kept, tmp_path, new.iloc[[1]].drop(columns="label")).set_index("patient_id")
    assert alone.loc[other, "prob"] == before.loc[other, "prob"] and "label" not in alone
    assert not (tmp_path / "out" / "nothing").exists() and len(alone) == 1


def test_a_model_works_elsewhere_without_what_it_was_made_of(made, new, tmp_path):
    s, _, kept = made
    moved = shutil.copytree(kept["go"], tmp_path / "elsewhere")
    away = s.p.results.rename(s.p.results.with_name("away"))
    try:
        found = applied(moved, tmp_path, reports=[new["patient_id"][0]]).set_index("patient_id")
    finally:
        away.rename(s.p.results)
    assert most_apart(found, made, "go") < 1e-6
    assert [path.name for path in (tmp_path / "out" / "reports").iterdir()] == [f"{new['patient_id'][0]}.html"]


def test_a_kept_folder_is_found_again_names_no_patient_and_makes_nothing(made, tmp_path):
    s, _, kept = made
    before = (kept["dual_go"] / folder.MANIFEST).stat().st_mtime_ns
    assert keep.keep(s, "dual_go") == kept["dual_go"] == s.p.results / "kept" / "dual_go"
    assert (kept["dual_go"] / folder.MANIFEST).stat().st_mtime_ns == before
    files = [path for path in kept["dual_go"].rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    texts = b"".join(path.read_bytes() for path in files)
    assert not [patient for patient in s.patients if patient.encode() in texts]
    assert str(s.p.results).encode() not in texts and str(s.p.data).encode() not in texts
    card = (kept["dual_go"] / folder.CARD).read_text()
    assert card.index("synthetic cohort") < card.index("## What it predicts") and "not for any clinical use" in card
    with pytest.raises(runs.NotTrainedError, match="dual_go/0"):
        keep.keep(small_studies.study.Study(s.p.override(epochs=9), s.cohort, s.folds, s.tiles), "dual_go")
    with pytest.raises(ModelError, match="logistic regression"):
        keep.keep(s, "baseline_genes")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="is no kept model; name another folder"):
        keep.keep(s, "go", tmp_path / "mine")


def test_an_older_answer_does_not_stay_beside_a_newer_one(made, new, tmp_path):
    kept = made[2]["go"]
    applied(kept, tmp_path, reports=True)
    out = tmp_path / "out"
    assert len(list((out / "reports").iterdir())) == 3 and (out / "validation.html").is_file()
    again = applied(kept, tmp_path, new.iloc[:1].drop(columns="label"), reports=True)
    assert [path.stem for path in (out / "reports").iterdir()] == list(again["patient_id"])
    assert not list(out.glob("validation.*"))
    with pytest.raises(ApplyError, match="holds nothing of a patient; name another"):
        run.run(kept, tmp_path / "new.csv", kept / "out")


def test_a_model_is_applied_where_there_is_no_project(made, new, tmp_path, monkeypatch):
    def absent():
        raise params.ParameterError("no project folder")

    monkeypatch.setattr(params, "root", absent)
    assert most_apart(applied(made[2]["go"], tmp_path).set_index("patient_id"), made, "go") < 1e-6


def test_one_input_of_two_patients_is_flagged_for_both(made, new, tmp_path):
    shutil.copy(tmp_path / new["expression_path"][0], tmp_path / new["expression_path"][1])
    found = applied(made[2]["go"], tmp_path).set_index("patient_id")
    one, other, third = new["patient_id"]
    assert f"expression is that of {other}, too" in found.loc[one, "flags"]
    assert f"expression is that of {one}, too" in found.loc[other, "flags"] and "too" not in found.loc[third, "flags"]


def test_a_slides_scale_is_its_own(made, new, tmp_path):
    """Of two files of one name in two folders, too; a wrong cell is its patient's, and another scale is flagged."""
    paths = [f"{name}/slide.svs" for name in "abc"]
    for path, before in zip(paths, new["slide_path"], strict=True):
        (tmp_path / path).parent.mkdir()
        (tmp_path / before).rename(tmp_path / path)
    table = new.assign(slide_path=paths, mpp=["1.0", "25 um", "NA"])
    found = applied(made[2]["wsi"], tmp_path, table)
    assert "of another magnification" in found["flags"][0] and "mpp '25 um' is no number" in found["problem"][1]
    assert not found["problem"][0] and not found["problem"][2] and "magnification" not in found["flags"][2]


def test_genes_that_are_missing_are_filled_in_up_to_a_share_and_said(made, new, tmp_path):
    kept = folder.read(made[2]["go"])
    genes = next(iter(json.loads((kept.folder / "final" / "sets.json").read_text())["genes"].values()))
    first, second = (tmp_path / path for path in new["expression_path"][:2])
    without_genes(first, genes[:1])
    everything = list(kept.expression["gene_ids"])
    without_genes(second, everything[: len(everything) // 2])
    found = applied(made[2]["go"], tmp_path).set_index("patient_id")
    one, other, *_ = new["patient_id"]
    assert found.loc[one, "flags"].startswith(f"1 genes missing, taken as the training mean: {genes[0]}")
    assert 0 < abs(found.loc[one, "prob"] - recorded(made, "go")[one]) < 0.2
    assert "lacks" in found.loc[other, "problem"] and "gene_table" in found.loc[other, "problem"]
    assert np.isnan(found.loc[other, "prob"]) and (found["problem"] == "").sum() == len(new) - 1
    assert most_apart(found.drop(one), made, "go") < 1e-6
    for path in new["expression_path"]:
        without_genes(tmp_path / path, everything[: len(everything) // 2])
    with pytest.raises(ApplyError, match=r"none of 3 patients could be predicted(.|\n)*lacks"):
        applied(made[2]["go"], tmp_path)


def test_what_a_patient_lacks_or_has_damaged_is_the_patients_own(made, new, tmp_path):
    slides, counts = (tmp_path / new[column][row] for row, column in enumerate(("slide_path", "expression_path")))
    slides.write_bytes(slides.read_bytes()[: slides.stat().st_size // 2])
    counts.unlink()
    new.loc[len(new)] = new.loc[2].to_dict() | {
        "patient_id": "x",
        "slide_id": "x",
        "slide_path": "x.svs",
        "expression_path": "",
    }
    new.to_csv(tmp_path / "new.csv", index=False)
    done = CliRunner().invoke(
        command_line.app,
        [
            "apply",
            "--model",
            str(made[2]["dual_go"]),
            "--cohort",
            str(tmp_path / "new.csv"),
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert done.exit_code == 1 and f"1 of {len(new)} patients predicted" in done.output
    found = pd.read_csv(tmp_path / "out" / run.PREDICTIONS, keep_default_na=False).set_index("patient_id")
    assert set(found.pop("model_of")) == {made[0].p.cohort} == {"synthetic cohort demo/nsclc"}
    said = [found.loc[patient, "problem"] for patient in new["patient_id"]]
    assert "truncated" in said[0] and "is not there" in said[1] and not said[2] and "no expression" in said[3]
    assert len(list((tmp_path / "out" / "reports").glob("*.html"))) == 1


def test_a_cohort_that_contradicts_the_model_is_refused_with_both_named(made, new, tmp_path, monkeypatch):
    s, _, kept = made
    with pytest.raises(ApplyError, match=r"has no slide_path, and the model .*keep a model of genes alone"):
        applied(kept["dual_go"], tmp_path, new.drop(columns="slide_path"))
    with pytest.raises(ApplyError, match="keep a model of images alone"):
        applied(kept["go"], tmp_path, new.assign(expression_path=""))
    task = params.load("nsclc", "demo", data_dir=s.p.data_dir, kegg_gmt="")
    with pytest.raises(ApplyError, match=r"expression_kind: the task says 'htseq', the model was trained with 'star'"):
        new_cohort.settings(folder.read(kept["go"]), task.override(expression_kind="htseq"), tmp_path, {})
    with pytest.raises(ApplyError, match=r"n_tiles: the task says 9, the model was trained with 0"):
        new_cohort.settings(folder.read(kept["wsi"]), task, tmp_path, {})
    with pytest.raises(ApplyError, match="inputs: the task has genes, the model reads slides and genes"):
        new_cohort.settings(folder.read(kept["dual_go"]), task.override(inputs="genes"), tmp_path, {})
    with pytest.raises(ApplyError, match="write setting=path"):
        new_cohort.places(["epochs=3"])
    with pytest.raises(ApplyError, match=r"gene_table: .*genes\.csv is not there"):
        new_cohort.places(["gene_table=genes.csv"])
    monkeypatch.chdir(tmp_path)
    assert new_cohort.places(["gene_table=new.csv"]) == {"gene_table": str(tmp_path / "new.csv")}
    monkeypatch.undo()
    found = run.run(kept["go"], task, tmp_path / "task", reports=False).set_index("patient_id")
    assert set(found.index) >= set(s.patients)  # the whole cohort by one YAML
    of_folds = made[1].query("variant == 'go' and split == 'val'").set_index("patient_id")  # each fold's own genes
    for fold, own in of_folds.groupby("fold"):
        assert np.abs(found.loc[own.index, f"prob_fold_{fold}"] - own["prob"]).max() < 1e-6
    assert np.abs(found.loc[s.fold_patients(-1)[1], "prob"] - recorded(made, "go")).max() < 1e-6


@pytest.mark.parametrize("what", ["edited", "missing", "none", "newer", "other code"])
def test_a_folder_that_is_not_as_it_was_kept_is_refused(made, new, tmp_path, what):
    kept = shutil.copytree(made[2]["go"], tmp_path / "kept")
    if what == "edited":
        (kept / "fold_0" / "scaling.safetensors").write_bytes(b"x")
        message = r"fold_0/scaling.safetensors is damaged or was edited"
    elif what == "missing":
        (kept / "final" / "model.safetensors").unlink()
        message = "final/model.safetensors is missing"
    elif what == "none":
        (kept / folder.MANIFEST).unlink()
        message = "is no kept model"
    elif what == "newer":
        manifest = json.loads((kept / folder.MANIFEST).read_text())
        (kept / folder.MANIFEST).write_text(json.dumps(manifest | {"format": 9}))
        message = "has format 9, this version reads 3"
    else:  # as if this version computed otherwise than the one that kept it
        about = json.loads((kept / folder.ABOUT).read_text())
        about["models"]["fold_1"]["probe"] += 0.1
        (kept / folder.ABOUT).write_text(json.dumps(about))
        manifest = json.loads((kept / folder.MANIFEST).read_text())
        manifest["files"][folder.ABOUT] = folder.record.file_digest(kept / folder.ABOUT)
        (kept / folder.MANIFEST).write_text(json.dumps(manifest))
        message = r"its model fold_1 gives .* this version computes otherwise"
    with pytest.raises(ModelError, match=message):
        applied(kept, tmp_path)


def test_a_page_stands_alone_and_says_what_it_is(made, new, tmp_path):
    first = new["patient_id"][0]
    new.loc[0, "patient_id"] = "A <b> & /../ patient"
    assert len(report.file_name("病" * 118).encode()) < 150  # file systems take 255 bytes
    applied(made[2]["dual_go"], tmp_path, new, reports=["A <b> & /../ patient"])
    (page,) = (tmp_path / "out" / "reports").iterdir()
    text = page.read_text()
    assert "A &lt;b&gt; &amp; /../ patient" in text and "<b>" not in text and first not in text
    assert "synthetic" in text and "not for any clinical use" in text
    assert text.count("data:image/") == 4
    shown = re.sub(r"data:image/[^\"')]*", "", text.split("</style>")[1])  # the letters of an image may say anything
    assert "http" not in shown.replace("http://www.w3.org", "")
    for part in ("How far this can be trusted", "Where it looked on the slide", "Gene sets it weighed most"):
        assert part in text
    assert (tmp_path / "out" / "validation.html").is_file() and (tmp_path / "out" / "validation.csv").is_file()


def test_features_that_were_brought_along_are_read_as_the_model_read_its_own(made, tmp_path):
    """Bags of several sizes without coordinates, by slide; the gene tokens are those of the study with pixels."""
    s = made[0]
    random = np.random.default_rng(0)
    for name in ("features", "others"):
        (tmp_path / name).mkdir()
    for slide in s.cohort.patients["slide_id"]:
        np.save(tmp_path / "features" / f"{slide}.npy", random.normal(size=(int(random.integers(3, 9)), 8)))
        np.save(tmp_path / "others" / f"{slide}.npy", random.normal(size=(3, 6)))
    p = s.p.override(features_dir=str(tmp_path / "features"), n_tiles=6, variants=["dual_go"])
    brought = small_studies.study.load(p)
    assert brought.patients == s.patients
    predictions = runs.predictions(brought)
    kept = keep.keep(brought, "dual_go", tmp_path / "model")
    image = folder.read(kept).about["image"]
    assert image["kind"] == "features" and image["width"] == 8 and not image["coordinates"]
    table = new_cohort.table_of(brought.cohort.patients.loc[brought.fold_patients(-1)[1]], p)
    table = table.assign(slide_id=list(s.cohort.patients.loc[table["patient_id"], "slide_id"]))
    places = {"features_dir": str(tmp_path / "features")}
    found = applied(kept, tmp_path, table, places=places, reports=table["patient_id"][:1].tolist())
    of_test = predictions.query("split == 'test'").set_index("patient_id")["prob"]
    assert (found.set_index("patient_id")["prob"] - of_test).abs().max() < 1e-6 and found[
        "distance_image"
    ].notna().all()
    assert "there are no pixels to show" in next((tmp_path / "out" / "reports").iterdir()).read_text()
    with pytest.raises(ApplyError, match=r"reads features .*8 numbers an instance.*--place features_dir="):
        applied(kept, tmp_path, table)
    with pytest.raises(ApplyError, match="features are 6 wide, the model reads 8"):
        applied(kept, tmp_path, table, places={"features_dir": str(tmp_path / "others")})
    with pytest.raises(ApplyError, match="features_dir: the task brings features, the model reads pixels"):
        new_cohort.settings(folder.read(made[2]["wsi"]), p, tmp_path, {})
