"""Packed bags: one sealed file of a cohort's pixels, mapped by the trainings, and its copy on a disk of the machine."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmmil import params, record
from mmmil.slides import packed


@pytest.fixture
def p(tmp_path):
    return params.load("lgg", "demo", results_dir=str(tmp_path / "results"))


@pytest.fixture
def bags(tmp_path):
    """HDF5 files of five bags, the third one padded."""
    random, paths = np.random.default_rng(0), []
    for i in range(5):
        path = tmp_path / "tiles" / f"s{i}" / f"key{i}" / "bag.h5"
        path.parent.mkdir(parents=True)
        real = 2 if i == 2 else 3
        with h5py.File(path, "w") as file:
            file["imgs"] = random.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
            file["coords"] = np.full((real, 2), i)
            file["mask"] = np.arange(3) < real
        paths.append(str(path))
    return paths


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setenv(packed.STAGE, str(tmp_path / "disk"))
    return tmp_path / "disk" / f"mmmil-{os.getuid()}"


def pack(p, bags):
    return packed.cohort(p, bags, lambda: bags)


def pixels(bags):
    return np.stack([h5py.File(path)["imgs"][:] for path in bags])


def test_a_cohorts_bags_are_one_file_in_its_order(p, bags):
    folder = pack(p, bags)
    mapped = packed.mapped(folder / packed.PIXELS)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, pixels(bags))
    assert np.load(folder / packed.MASKS).sum(1).tolist() == [3, 3, 2, 3, 3]
    assert np.load(folder / packed.COORDS)[:, 0].tolist() == [0] * 3 + [1] * 3 + [2] * 2 + [3] * 3 + [4] * 3
    assert pack(p, bags[::-1]) != folder and pack(p, bags[:4]) != folder


def test_bags_are_packed_once_and_found_without_their_files(p, bags):
    folder = pack(p, bags)
    expected = pixels(bags)
    for path in bags:
        Path(path).unlink()
    assert packed.cohort(p, bags, lambda: pytest.fail("packed again")) == folder
    np.testing.assert_array_equal(packed.mapped(folder / packed.PIXELS), expected)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_is_made_again(p, bags, damage):
    path = pack(p, bags) / packed.PIXELS
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if damage == "cut" else whole[:-9] + b"X" + whole[-8:])
    assert pack(p, bags) == path.parent and path.read_bytes() == whole


def test_of_tiles_of_which_nobody_knows_where_they_lie_there_are_no_coordinates(p, bags):
    with h5py.File(bags[1], "a") as file:
        del file["coords"]
    assert not (pack(p, bags) / packed.COORDS).exists()


def test_what_is_taken_is_ones_own(p, bags):
    mapped, expected = packed.mapped(pack(p, bags) / packed.PIXELS), pixels(bags)
    taken = packed.taken(mapped, [3, 0])
    np.testing.assert_array_equal(taken, expected[[3, 0]])
    assert taken.flags.writeable and not np.shares_memory(taken, mapped)
    for i, bag in zip([4, 1], packed.each(mapped, [4, 1]), strict=True):
        np.testing.assert_array_equal(bag, expected[i])
    np.testing.assert_array_equal(packed.taken(mapped.reshape(5, -1), [2]), expected[[2]].reshape(1, -1))
    np.testing.assert_array_equal(packed.taken(expected, [2]), expected[[2]])  # of an array in memory, too


def mapped_memory():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssFile"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pages_that_were_read_are_let_go_of(tmp_path):
    size = 4 * 2**20
    packed.write(tmp_path / "x.npy", (np.full(size, i, np.uint8) for i in range(8)), 8)
    mapped = packed.mapped(tmp_path / "x.npy")
    before = mapped_memory()
    assert int(mapped.max()) == 7 and mapped_memory() - before > 7 * size
    packed.release(mapped)
    assert mapped_memory() - before < size
    assert [int(part[0]) for part in packed.each(mapped, range(8))] == list(range(8))
    assert mapped_memory() - before < size


# -- staging -----------------------------------------------------------------------------------------------------
def test_a_copy_on_the_machines_disk_is_read_in_place_of_the_file(p, bags, stage):
    folder = pack(p, bags)
    mapped = packed.mapped(folder / packed.PIXELS)
    (copy,) = [path for path in stage.iterdir() if path.is_dir()]
    assert Path(mapped.filename).parent == copy
    np.testing.assert_array_equal(mapped, pixels(bags))
    written = (copy / packed.PIXELS).stat().st_mtime_ns
    packed.mapped(folder / packed.PIXELS)
    assert (copy / packed.PIXELS).stat().st_mtime_ns == written
    assert record.whole(folder) == folder


def test_a_damaged_copy_is_copied_again(p, bags, stage):
    folder = pack(p, bags)
    path = Path(packed.mapped(folder / packed.PIXELS).filename)
    path.write_bytes(path.read_bytes()[:-9])
    np.testing.assert_array_equal(packed.mapped(folder / packed.PIXELS), pixels(bags))


def test_other_content_under_the_same_key_has_a_copy_of_its_own(p, bags, stage, tmp_path):
    folder = pack(p, bags)
    packed.mapped(folder / packed.PIXELS)
    with h5py.File(bags[0], "a") as file:
        file["imgs"][:] = 0
    other = pack(p.override(results_dir=str(tmp_path / "other")), bags)
    assert other.name == folder.name
    assert (packed.mapped(other / packed.PIXELS)[0] == 0).all() and (packed.mapped(folder / packed.PIXELS)[0] > 0).any()


def take(path, results):
    results.put(packed.taken(packed.mapped(path), [1]).sum())


def test_processes_of_a_machine_share_one_copy(p, bags, stage):
    folder = pack(p, bags)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=take, args=(folder / packed.PIXELS, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert {results.get(timeout=60) for _ in processes} == {pixels(bags)[1].sum()}
    for process in processes:
        process.join()
    assert len([path for path in stage.iterdir() if path.is_dir()]) == 1


def test_a_variable_that_the_job_knows_is_filled_in(p, bags, monkeypatch, tmp_path):
    folder = pack(p, bags)
    monkeypatch.setenv(packed.STAGE, "$OF_THE_JOB/x")
    with pytest.raises(packed.StageError, match=r"\$OF_THE_JOB/x names a variable that is not set"):
        packed.mapped(folder / packed.PIXELS)
    monkeypatch.setenv("OF_THE_JOB", str(tmp_path))
    assert Path(packed.mapped(folder / packed.PIXELS).filename).is_relative_to(tmp_path / "x")


FULL = """
import resource, signal, sys
from pathlib import Path
from mmmil.slides import packed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
packed.mapped(Path(sys.argv[1]))
"""


def test_a_disk_without_room_is_one_clear_error_and_leaves_no_copy(p, bags, stage):
    folder = pack(p, bags)
    code = [sys.executable, "-c", FULL, str(folder / packed.PIXELS)]
    done = subprocess.run(code, capture_output=True, text=True, cwd=params.root())
    assert "StageError: MMMIL_STAGE: " in done.stderr and "name another folder, or unset it" in done.stderr
    packed.mapped(folder / packed.PIXELS)  # with room
    assert len([path for path in stage.iterdir() if path.is_dir()]) == 1
