"""Worker processes work, and end with the process that they work for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from joblib import delayed

from mmmil.processes.pool import parallel

ROOT = Path(__file__).resolve().parents[2]
BUSY = """
import os, pathlib, sys, time
from joblib import delayed
from mmmil.processes.pool import parallel

def work(number):
    (pathlib.Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(float(sys.argv[2]))

parallel(2)(delayed(work)(number) for number in range(2))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_calls(workers):
    assert parallel(workers)(delayed(pow)(number, 2) for number in range(5)) == [0, 1, 4, 9, 16]
    assert list(parallel(workers, return_as="generator")(delayed(abs)(-number) for number in range(3))) == [0, 1, 2]


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who lives is read from /proc")
@pytest.mark.parametrize("seconds", [600, 0], ids=["at work", "idle"])
def test_workers_end_with_a_killed_parent(tmp_path, seconds):
    script, there = tmp_path / "busy.py", tmp_path / "workers"
    there.mkdir()
    script.write_text(BUSY + "time.sleep(600)\n")
    parent = subprocess.Popen(
        [sys.executable, script, there, str(seconds)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        while not (workers := [int(path.name) for path in there.iterdir()]) or len(workers) < 1 + (seconds > 0):
            assert parent.poll() is None
            time.sleep(0.05)
        assert all(map(alive, workers))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 200  # joblib's own idle processes end after 300
        while any(map(alive, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        parent.kill()
