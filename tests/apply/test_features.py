"""Models of features made beforehand, kept and applied: what was recorded comes out, with what stands in the folder."""

import shutil

import pandas as pd
import pytest

from mmmil import study
from mmmil.apply import keep, run
from mmmil.apply.cohort import ApplyError
from mmmil.training import runs
from tests import small_features

PATIENTS = [f"P{i:02d}" for i in range(14)]
NAMES = ["wsi", "clam_other"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The study, its predictions of the test patients, and a table of these without any slide."""
    folder = tmp_path_factory.mktemp("features")
    small_features.folder(folder / "uni", PATIENTS, width=6)
    small_features.folder(folder / "of other", PATIENTS, ".npy", width=4)
    small_features.table(folder / "cohort.csv", {name: {} for name in PATIENTS})
    settings = {"variants": NAMES, "epochs": 1, "n_tiles": 3, "width": 16, "test_fraction": 0.2}
    s = study.load(small_features.parameters(folder, encoders={"other": "features:of other"}, **settings))
    recorded = runs.predictions(s).query("split == 'test'")
    pd.DataFrame({"patient_id": sorted(set(recorded["patient_id"]))}).to_csv(folder / "new.csv", index=False)
    return s, recorded, folder / "new.csv"


@pytest.mark.parametrize("name", NAMES)
def test_what_was_recorded_comes_out_of_the_features_alone(made, tmp_path, name):
    """Of an encoder of `encoders`, too, which asks for no slides; n_tiles' sample is the training's."""
    s, recorded, table = made
    kept = keep.keep(s, name)
    places = {"features_dir": "of other" if name == "clam_other" else "uni"}
    found = run.run(kept, table, tmp_path, reports=False, places=places).set_index("patient_id")["prob"]
    assert (found - recorded.query("variant == @name").set_index("patient_id")["prob"]).abs().max() < 1e-6
    wrong = {"features_dir": "uni" if name == "clam_other" else "of other"}
    with pytest.raises(ApplyError, match=r"none of .* could be predicted(.|\n)*wide, the model reads"):
        run.run(kept, table, tmp_path, reports=False, places=wrong)
    with pytest.raises(ApplyError, match="name the folder of these patients' features"):
        run.run(kept, table, tmp_path, reports=False)


def test_files_of_one_patient_change_no_others_answer(made, tmp_path):
    s, _, table = made
    shutil.copytree(table.parent / "uni", tmp_path / "mixed")
    first, second, *_ = names = list(pd.read_csv(table)["patient_id"])
    kept = keep.keep(s, "wsi")
    before = run.run(kept, table, tmp_path / "out", reports=False, places={"features_dir": "uni"})
    (tmp_path / "mixed" / f"{first}.h5").write_bytes(b"none")
    places = {"features_dir": str(tmp_path / "mixed")}
    after = run.run(kept, table, tmp_path / "out", reports=False, places=places)
    assert "cut short or no .h5 file" in after["problem"][0] and list(after["patient_id"]) == names
    pd.testing.assert_series_equal(after["prob"][1:], before["prob"][1:], check_exact=True)
    (tmp_path / "mixed" / f"{second}.h5").unlink()
    assert "no slide" in run.run(kept, table, tmp_path / "out", reports=False, places=places)["problem"][1]
