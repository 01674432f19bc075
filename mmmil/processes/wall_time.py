"""The end of the time that a job was given: work stops at a checkpoint before it, and its job is queued again.

A job's script says when its time is up (`MMMIL_JOB_END`, seconds since 1970); elsewhere there is no end.
"""

from __future__ import annotations

import math
import os
import time

END = "MMMIL_JOB_END"
AGAIN = 75  # exit status of a job that is to be queued again, EX_TEMPFAIL of sysexits.h
MARGIN = 60.0  # seconds to leave by


class OutOfTimeError(RuntimeError):
    """The job's time is nearly up; what it has done is kept."""


def left() -> float:
    """Seconds that this job has left; infinite where nobody has said when it ends.

    Raises ValueError for what is no time in seconds: a job that takes it for none would be killed at its end.
    """
    given = os.environ.get(END, "").strip()
    if not given:
        return math.inf
    if not (given.isascii() and given.isdigit() and int(given) < 1e11):  # more are milliseconds
        raise ValueError(f"{END}: {given!r} is no time in whole seconds since 1970, as `date +%s` tells it; unset it?")
    return int(given) - time.time()


def require(seconds: float = 0.0) -> None:
    """Raise OutOfTimeError where less is left than a piece of work of so many seconds takes, and to leave by."""
    if left() < seconds + MARGIN:
        raise OutOfTimeError("the job's time is nearly up: it stops at a checkpoint, to be queued again")
