"""The synthetic cohort at hand: made where there is none, left alone where it is there, refused where it is another."""

import pytest

from mmmil import check, params, study
from mmmil.simulate import at_hand, cohort
from mmmil.simulate.truth import SimulationError
from tests import small_notebooks


def parameters(folder, **values):
    places = {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")}
    return params.load("lgg", "demo", **small_notebooks.TINY | {"sim_patients": 24} | places | values)


def test_a_cohort_is_made_once_by_whoever_looks_first(tmp_path, capsys):
    p = parameters(tmp_path)
    assert not check.look(p).errors and cohort.is_made(p)
    assert "making the synthetic cohort demo/lgg, 24 patients" in capsys.readouterr().err
    certificate = p.data / at_hand.CERTIFICATE
    made = certificate.stat().st_mtime_ns
    assert len(study.load(p).patients) > 20
    assert certificate.stat().st_mtime_ns == made and "making" not in capsys.readouterr().err
    # The cohort at hand serves every seed: it is another one that `seed` would make, and none is put in its place.
    at_hand.require(p.override(seed=3))
    with pytest.raises(SimulationError, match=r"sim_effect 1.5, asked for is 0.5\). Give this one .* data_dir = "):
        study.load(p.override(sim_effect=0.5))
    assert certificate.stat().st_mtime_ns == made
    at_hand.require(parameters(tmp_path, synthetic=False, sim_effect=0.5))  # not synthetic: nobody's business


def test_what_the_certificate_is_asked_for_is_what_decides_a_cohort(tmp_path):
    p = parameters(tmp_path)
    asked = {"simulation": p.stage("simulation"), "task": p.task}
    assert asked.items() <= cohort.inputs(p).items()


def test_files_of_another_kind_are_left_as_they_are(tmp_path):
    p = parameters(tmp_path)
    p.data.mkdir()
    (p.data / "clinical.tsv").write_text("mine")
    with pytest.raises(SimulationError, match=r"files that mmmil\.simulate did not make"):
        study.load(p)
    assert (p.data / "clinical.tsv").read_text() == "mine"
