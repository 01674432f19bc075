import datetime
import json
import os
import shutil
import sys
import time

import numpy as np
import pytest

from mmmil import record

CODE = "mmmil.training.augmentation"  # any module: what is made here is made by the tests


def test_a_result_is_made_once_and_found_again(tmp_path):
    made = []

    def make(folder):
        made.append(1)
        (folder / "x.txt").write_text("one")
        return {"fact": 3}

    first = record.cached(tmp_path, {"a": 1}, make, CODE)
    assert record.cached(tmp_path, {"a": 1}, make, CODE) == first and made == [1]
    assert record.cached(tmp_path, {"a": 2}, make, CODE) != first and made == [1, 1]
    kept = record.run_json(first)
    assert kept["facts"] == {"fact": 3} and kept["inputs"] == record.with_code({"a": 1}, CODE)


@pytest.mark.parametrize("damage", ["change", "remove", "run"])
def test_a_damaged_result_is_noticed_and_made_again(tmp_path, damage):
    folder = record.cached(tmp_path, {"a": 1}, lambda f: (f / "x.txt").write_text("whole") and None, CODE)
    if damage == "change":
        (folder / "x.txt").write_text("half!")
    elif damage == "remove":
        (folder / "x.txt").unlink()
    else:
        (folder / "run.json").write_text('{"files": ')
    again = record.cached(tmp_path, {"a": 1}, lambda f: (f / "x.txt").write_text("whole") and None, CODE)
    assert again == folder and (folder / "x.txt").read_text() == "whole"
    assert json.loads((folder / "run.json").read_text())["inputs"] == record.with_code({"a": 1}, CODE)


def age(folder):
    """Have a result's seal be younger than its files by more than a tick, as where they took a while to write."""
    run = json.loads((folder / "run.json").read_text())
    time.sleep(2 * record.TICK / 1e9)
    (folder / "run.json").write_text(json.dumps(run))


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read for their digest."""
    names, whole = [], record.file_digest
    monkeypatch.setattr(record, "file_digest", lambda path: names.append(path.name) or whole(path))
    return names


def make(folder):
    (folder / "x.bin").write_bytes(b"0123456789")


def test_a_sealed_result_is_found_without_reading_it(tmp_path, read, code_replaced):
    folder = record.cached(tmp_path, {"a": 1}, make, CODE)
    age(folder)
    read.clear()
    assert record.cached(tmp_path, {"a": 1}, make, CODE) == folder and read == []
    moved = tmp_path / "moved"
    tmp_path.joinpath(folder.name).rename(moved)  # its files keep their state
    assert record.whole(moved) == moved and read == []


def test_a_result_whose_state_changed_is_read_once_and_sealed_again(tmp_path, read, code_replaced):
    folder = record.cached(tmp_path, {"a": 1}, make, CODE)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    time.sleep(2 * record.TICK / 1e9)
    read.clear()
    assert record.whole(copy) == copy and read == ["x.bin"]
    assert record.whole(copy) == copy and read == ["x.bin"]
    assert record.run_json(copy)["files"] == record.run_json(folder)["files"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "flipped in the past"])
def test_a_sealed_result_is_damaged_where_its_state_changed_and_its_content_too(tmp_path, damage):
    folder = record.cached(tmp_path, {"a": 1}, make, CODE)
    age(folder)
    path = folder / "x.bin"
    stat = path.stat()
    path.write_bytes(b"01234" if damage == "cut" else b"01234X6789")
    if damage == "flipped in the past":  # the time of the entry cannot be set
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert record.whole(folder) is None and not folder.exists()


def test_what_changed_within_a_tick_of_the_clock_is_noticed(tmp_path):
    """A seal of the very moment in which its files were written does not vouch for them."""
    folder = record.cached(tmp_path, {"a": 1}, make, CODE)
    run = json.loads((folder / "run.json").read_text())
    (folder / "x.bin").write_bytes(b"01234X6789")
    run["states"] = {"x.bin": list(record.state(folder / "x.bin")[1:])}  # as if the times were the same
    (folder / "run.json").write_text(json.dumps(run))
    assert record.whole(folder) is None


def test_nothing_stays_of_a_result_that_failed(tmp_path):
    def make(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        record.cached(tmp_path, {"a": 1}, make, CODE)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_old_or_new_never_half(tmp_path):
    path = tmp_path / "table.csv"
    record.write_atomically(path, lambda t: t.write_text("old"))

    def half(temporary):
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError):
        record.write_atomically(path, half)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert record.digest({"a": 1, "b": [2, 3]}) == record.digest({"b": [2, 3], "a": 1})
    assert record.digest({"a": 1}) != record.digest({"a": 2})


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    import platform
    import subprocess
    import sys

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = platform.node()
    inputs = {"a": 1}
    key = record.key(inputs, CODE)
    (tmp_path / f".{host}.{dead.pid}.{key}").mkdir()
    (tmp_path / f".{host}.{dead.pid}.{key}" / "half.h5").write_text("half")
    (tmp_path / f".{host}.1.{key}").mkdir()  # process 1 lives
    (tmp_path / f".elsewhere.{dead.pid}.{key}").mkdir()  # another machine's process may live
    (tmp_path / f".{host}.{dead.pid}.t.csv").write_text("half")
    record.cached(tmp_path, inputs, lambda folder: (folder / "x").write_text("whole") and None, CODE)
    record.write_atomically(tmp_path / "t.csv", lambda path: path.write_text("whole"))
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("."))
    assert left == sorted([f".{host}.1.{key}", f".elsewhere.{dead.pid}.{key}"])
    assert (tmp_path / key / "x").read_text() == (tmp_path / "t.csv").read_text() == "whole"


def test_where_a_benchmark_was_made_names_day_commit_machine_and_versions(monkeypatch):
    monkeypatch.setattr(record.allocation, "cores", lambda: 3)
    told = record.made_on("numpy", device="NVIDIA H200")
    assert told.startswith(str(datetime.date.today())) and f"commit `{record.commit()}`, " in told
    assert f", 3 cores, NVIDIA H200, Python 3.{sys.version_info.minor}." in told
    assert told.endswith(f", numpy {np.__version__}")
