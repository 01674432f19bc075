"""Studies of a synthetic cohort that is made for a test: the NSCLC demo with other values, in a folder of its own."""

from mmmil import params, study
from mmmil.simulate import cohort as synthetic


def make(folder, workers=1, **values):
    """Simulate the cohort, tile it and return the study; its data and its results lie under `folder`."""
    places = {"data_dir": str(folder / "data"), "results_dir": str(folder / "results")}
    p = params.load("nsclc", "demo", **places | values)
    synthetic.make(p, workers)
    return study.load(p, workers)
