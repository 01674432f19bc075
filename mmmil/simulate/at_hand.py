"""The synthetic cohort at hand: made where there is none, never put in the place of one of other settings."""

from __future__ import annotations

import json
import sys
from typing import Any

from mmmil.params import Params
from mmmil.processes import leases
from mmmil.simulate.truth import SimulationError

CERTIFICATE = "truth/cohort.json"  # the last file that is made


def require(p: Params) -> None:
    """Have the synthetic cohort of a task in its folder: made now where there is none or half of one.

    Nothing is done for a cohort that is not synthetic. Raises SimulationError where the folder holds the cohort of
    other `sim_*` settings or of another task, and where it holds other files.
    """
    if not p.synthetic or _is_there(p):
        return
    with leases.held(p.data.with_name(f"{p.data.name}.made")):
        if not _is_there(p):  # else another process has made it meanwhile
            from mmmil.simulate import cohort  # half a second of imports

            print(f"making the synthetic cohort {p.run}, {p.sim_patients} patients, once", file=sys.stderr, flush=True)
            cohort.make(p)


def _is_there(p: Params) -> bool:
    made = _settings(p)
    if made is None:
        return False
    wanted = p.stage("simulation") | {"task": p.task}
    differs = [name for name, value in wanted.items() if made.get(name, value) != value]
    if differs:
        told = ", ".join(f"{name} {made[name]}, asked for is {wanted[name]}" for name in differs)
        raise SimulationError(
            f"{p.data} holds the synthetic cohort of other settings ({told}). Give this one a folder of its own: "
            f'data_dir = "data/trial/{{task}}"'
        )
    return True


def _settings(p: Params) -> dict[str, Any] | None:
    """Settings that the cohort in the task's folder was made with; None where there is no whole one."""
    try:
        inputs = json.loads((p.data / CERTIFICATE).read_text())["inputs"]
        return inputs["simulation"] | {"task": inputs["task"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
