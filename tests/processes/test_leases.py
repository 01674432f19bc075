"""One process at a time makes a result; who died holds nothing up, and is counted."""

import json
import os
import subprocess
import sys
import time

import pytest

from mmmil import record
from mmmil.processes import leases

DIES = """
import os, sys
from pathlib import Path
from mmmil.processes import leases
with leases.held(Path(sys.argv[1]), wait=False) as lease:
    print(lease.term, flush=True)
    os.kill(os.getpid(), 9)
"""
# Adds one to a number in a file, slowly, under a lease: were two to do it at once, one of them would be lost.
COUNTS = """
import sys, time
from pathlib import Path
from mmmil.processes import leases
leases.LOOK = 0.01
number = Path(sys.argv[1])
for _ in range(20):
    with leases.held(number):
        n = int(number.read_text())
        time.sleep(0.002)
        number.write_text(str(n + 1))
"""


def run(script, place):
    return subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True)


def elsewhere(path, age):
    """Make a lease look like one of another machine, last touched `age` seconds ago."""
    holder = json.loads(path.read_text()) | {"where": "node7 boot container", "job": "4711"}
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age,) * 2)


def test_a_lease_is_held_by_one_and_given_back(tmp_path):
    place = tmp_path / "models" / "key"
    with leases.held(place) as lease:
        assert lease.term == 1 and lease.path.parent == place.parent
        with pytest.raises(leases.HeldError, match=rf"key: process {os.getpid()} on \S+ makes it now"):
            leases.held(place, wait=False).__enter__()
        with leases.held(tmp_path / "models" / "key2") as other:
            assert other.term == 1
    assert not list(place.parent.iterdir())
    with pytest.raises(ZeroDivisionError), leases.held(place):
        _ = 1 / 0
    assert not list(place.parent.iterdir())


def test_who_died_is_followed_at_once_and_counted(tmp_path):
    place = tmp_path / "key"
    assert [run(DIES, place).stdout.strip() for _ in range(3)] == ["1", "2", "3"]
    with leases.held(place, wait=False) as lease:
        assert lease.term == 4 and [path.name for path in tmp_path.iterdir()] == [".key.lease-4"]
    with leases.held(place) as lease:
        assert lease.term == 1


def test_a_number_that_the_system_has_given_to_another_process_is_no_holder(tmp_path):
    place = tmp_path / "key"
    run(DIES, place)
    [path] = tmp_path.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"process": os.getpid()}))
    with leases.held(place, wait=False) as lease:
        assert lease.term == 2


def test_a_holder_on_another_machine_is_there_while_its_file_is_fresh(tmp_path):
    place = tmp_path / "key"
    run(DIES, place)
    [path] = tmp_path.iterdir()
    elsewhere(path, age=leases.STALE / 2)
    with pytest.raises(leases.HeldError, match="on node7, job 4711"):
        leases.held(place, wait=False).__enter__()
    elsewhere(path, age=leases.STALE + 5)
    with leases.held(place, wait=False) as lease:
        assert lease.term == 2


def test_a_holder_keeps_its_file_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.05)
    with leases.held(tmp_path / "key") as lease:
        os.utime(lease.path, (0, 0))
        deadline = time.monotonic() + 60
        while lease.path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.path.stat().st_mtime > 1


def test_a_disk_without_links_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    place = tmp_path / "key"
    with leases.held(place) as lease:
        assert json.loads(lease.path.read_text())["process"] == os.getpid()
        with pytest.raises(leases.HeldError):
            leases.held(place, wait=False).__enter__()
    assert not list(tmp_path.iterdir())


def test_many_processes_never_work_at_once(tmp_path):
    number = tmp_path / "number"
    number.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTS, number]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert number.read_text() == "80" and list(tmp_path.iterdir()) == [number]


def test_the_record_makes_a_result_once_for_all_who_want_it(tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from mmmil import record
from mmmil.processes import leases
leases.LOOK = 0.01
def make(folder):
    with open({str(tmp_path / "made")!r}, "a") as f:
        f.write("made\\n")
    time.sleep(0.5)
    (folder / "x").write_text("1")
print(record.cached(Path(sys.argv[1]), {{"a": 1}}, make, "mmmil.paper").name)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path / "r"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = {process.communicate()[0] for process in processes}
    assert len(told) == 1 and (tmp_path / "made").read_text() == "made\n"
    assert [path.name for path in (tmp_path / "r").iterdir()] == [told.pop().strip()]


def test_the_record_says_at_what_processes_died(tmp_path):
    def make(folder):
        (folder / "x").write_text("1")

    key = record.key({}, "mmmil.paper")
    for _ in range(2):
        run(DIES, tmp_path / key)
    with pytest.raises(record.DiedError, match="2 processes died"):
        record.cached(tmp_path, {}, make, "mmmil.paper", deaths=2)
    for _ in range(2):
        run(DIES, tmp_path / key)
    assert record.cached(tmp_path, {}, make, "mmmil.paper", deaths=3).name == key
