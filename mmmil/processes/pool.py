"""Several processes for one process's work, which end with it, however it ends."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from joblib import Parallel

STEP = 1.0  # seconds between two looks for whom the work is done


def parallel(workers: int, **how: Any) -> Parallel:
    """joblib's `Parallel` over so many processes; how: its other arguments.

    joblib's own processes outlive a killed parent by five minutes, and a run that is started again waits for them.
    """
    return Parallel(n_jobs=workers, backend="loky", initializer=_end_with, initargs=(os.getpid(),), **how)


def _end_with(process: int) -> None:
    """In a worker: end when the process that it works for is gone."""

    def look() -> None:
        while os.getppid() == process:
            time.sleep(STEP)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
