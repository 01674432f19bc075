"""Profiles by name or path, and what a cluster's user lays over them."""

import pytest
import yaml

from tests import book_stubs

ROOT = book_stubs.ROOT


@pytest.fixture
def profile(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "workflow"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MMMIL_PROFILE", raising=False)
    import batch_profile

    return batch_profile


def write(folder, **settings):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_a_profile_by_its_name_or_its_path(profile, tmp_path):
    assert profile.load("local")[0] == ROOT / "workflow/profiles/local"
    assert profile.is_cluster(profile.load("slurm")[1]) and not profile.is_cluster(profile.load("local")[1])
    own = write(tmp_path / "mine", executor="another", jobs=3)
    assert profile.load(str(own)) == (own, {"executor": "another", "jobs": 3})


@pytest.mark.parametrize("named", [True, False])
def test_what_a_site_says_is_laid_over_a_cluster_and_not_over_a_laptop(profile, tmp_path, monkeypatch, named):
    values = {"jobs": 9, "default-resources": {"slurm_account": "lab"}, "set-resources": {"tiles": {"runtime": 1}}}
    site = write(tmp_path / ("site" if named else "home/.config/mmmil/profile"), **values)
    if named:
        monkeypatch.setenv("MMMIL_PROFILE", str(site))
    below = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    folder, settings = profile.load("slurm")
    assert settings == yaml.safe_load((folder / "config.yaml").read_text())
    assert folder.parent.parent.name == ".snakemake"
    assert settings["jobs"] == 9 and settings["executor"] == below["executor"]
    assert settings["default-resources"] == below["default-resources"] | {"slurm_account": "lab"}
    assert settings["set-resources"]["tiles"] == below["set-resources"]["tiles"] | {"runtime": 1}
    assert settings["set-resources"]["genes"] == below["set-resources"]["genes"]
    assert profile.load("local")[0] == ROOT / "workflow/profiles/local"


def test_a_profile_that_is_none_is_told(profile, tmp_path, monkeypatch):
    with pytest.raises(profile.ProfileError, match="a profile is one of local, slurm, or a folder"):
        profile.load("slrum")
    monkeypatch.setenv("MMMIL_PROFILE", str(tmp_path / "nowhere"))
    with pytest.raises(profile.ProfileError, match=r"nowhere.config\.yaml"):
        profile.load("slurm")
    (write(tmp_path / "list") / "config.yaml").write_text("- jobs\n")
    with pytest.raises(profile.ProfileError, match="holds no settings"):
        profile.load(str(tmp_path / "list"))


def test_a_cluster_is_known_by_its_executor_and_not_by_its_name(profile, tmp_path):
    import run

    own = write(tmp_path / "mine", executor="another", jobs=3, cores=12)
    call = run.command(["lgg"], "", None, str(own))
    assert call[call.index("--cores") + 1] == "12" and "--resources" not in call
    assert "--resources" in run.command(["lgg"], "", 2, str(write(tmp_path / "slurm", executor="local")))
    call = run.command(["lgg"], "", 5, "slurm")
    assert call[call.index("--cores") + 1] == "5" and "--resources" not in call
    call = run.command(["lgg"], "", 5, "local")
    assert call[call.index("--cores") + 1] == "5" and call[call.index("--resources") + 1].startswith("gpu=")
