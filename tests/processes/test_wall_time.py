"""A job stops before its time is up, at a checkpoint, and says that it is to be queued again."""

import math
import subprocess
import sys
import time

import pytest

from mmmil.processes import wall_time


def test_nobody_said_when_it_ends(monkeypatch):
    monkeypatch.delenv(wall_time.END, raising=False)
    assert wall_time.left() == math.inf
    wall_time.require(1e9)
    monkeypatch.setenv(wall_time.END, "")
    assert wall_time.left() == math.inf


@pytest.mark.parametrize("given", ["Unknown", "2026-11-27T23:00:00", "12:00:00", "1795820400000", "1e9", "-60", "inf"])
def test_case_what_squeue_and_others_call_a_time_is_no_seconds(given, monkeypatch):
    monkeypatch.setenv(wall_time.END, given)
    with pytest.raises(ValueError, match=r"MMMIL_JOB_END: .* since 1970"):
        wall_time.left()


def test_work_that_does_not_fit_is_not_begun(monkeypatch):
    monkeypatch.setenv(wall_time.END, str(int(time.time()) + 3600))
    assert 3500 < wall_time.left() <= 3600
    wall_time.require(3000)
    with pytest.raises(wall_time.OutOfTimeError, match="nearly up"):
        wall_time.require(3600)


def test_the_command_line_has_a_status_for_it():
    script = (
        "import sys; from mmmil import __main__ as m; from mmmil.processes import wall_time\n"
        "def out(): raise wall_time.OutOfTimeError('nearly up')\n"
        "m.app = out; m.main()"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == wall_time.AGAIN == 75 and ended.stderr == "nearly up\n"
