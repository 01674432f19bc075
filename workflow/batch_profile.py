"""The profile of a run: Snakemake's settings for a machine or a cluster, with a cluster's own laid over them.

What only a site can say, account and partition above all, lies outside the project: in the folder that MMMIL_PROFILE
names, or else in ~/.config/mmmil/profile, as a config.yaml like those of workflow/profiles.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from mmmil import record

PROFILES = Path(__file__).resolve().parent / "profiles"
OWN = Path("~/.config/mmmil/profile")


class ProfileError(ValueError):
    """A profile that is not there, or is none."""


def load(profile: str) -> tuple[Path, dict]:
    """The folder of a profile and its settings; profile: the name of one in workflow/profiles, or a folder's path.

    Where it is one of a cluster (its executor is not Snakemake's own), the user's is laid over it, setting by setting
    and rule by rule; the folder is then one in .snakemake. Raises ProfileError.
    """
    folder = PROFILES / profile if (PROFILES / profile).is_dir() else Path(profile).expanduser()
    settings = _read(folder)
    named = os.environ.get("MMMIL_PROFILE")
    own = Path(named or OWN).expanduser()
    if not is_cluster(settings) or not (named or own.is_dir()):
        return folder, settings
    settings = _laid_over(settings, _read(own))
    folder = Path(".snakemake/profiles") / record.digest(settings)[:16]  # a run that goes on reads its own
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(settings, sort_keys=False)
    record.write_atomically(folder / "config.yaml", lambda path: path.write_text(text))
    return folder, settings


def is_cluster(settings: dict) -> bool:
    """Whether jobs run elsewhere than on this machine."""
    return settings.get("executor", "local") != "local"


def _read(folder: Path) -> dict:
    path = folder / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text())
    except OSError:
        known = ", ".join(sorted(place.name for place in PROFILES.iterdir()))
        raise ProfileError(f"no {path}: a profile is one of {known}, or a folder with a config.yaml") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{path} is no YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ProfileError(f"{path} holds no settings; write them as `name: value`")
    return settings


def _laid_over(below: dict, above: dict) -> dict:
    both = [name for name in below if isinstance(below[name], dict) and isinstance(above.get(name), dict)]
    return below | above | {name: _laid_over(below[name], above[name]) for name in both}
