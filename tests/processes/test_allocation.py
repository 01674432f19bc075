"""The cores that a process may use: of the affinity, the batch system and the control groups the fewest."""

import os

import pytest

from mmmil.processes import allocation


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 16 cores without limits; returns a function that sets them."""
    monkeypatch.setattr(allocation, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(allocation, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)

    def limit(groups: str = "", **files: str) -> None:
        (tmp_path / "cgroup").write_text(groups)
        for name, text in files.items():
            path = (
                tmp_path / "mount" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs_", "cpu.cfs_")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return limit


def test_without_limits_all_that_the_affinity_allows(machine, monkeypatch):
    assert allocation.cores() == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert allocation.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert allocation.cores() == 7


@pytest.mark.parametrize("given, cores", [("4", 4), ("64", 16), ("", 16), ("two", 16), ("0", 1)])
def test_a_job_of_the_cluster_has_what_it_asked_for(machine, monkeypatch, given, cores):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert allocation.cores() == cores


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 16), ("300000 100000", 3), ("350000 100000", 3), ("50000 100000", 1), ("", 16)]
)
def test_the_quota_of_a_container(machine, text, cores):
    machine("0::/\n", cpu_max=text)
    assert allocation.cores() == cores


def test_the_quota_of_a_group_is_that_of_its_tightest_parent(machine):
    machine("0::/user/job\n", user__job__cpu_max="800000 100000", user__cpu_max="600000 100000", cpu_max="max 100000")
    assert allocation.cores() == 6


def test_control_groups_of_version_one(machine):
    files = {"cpu__job__cfs_quota_us": "500000", "cpu__job__cfs_period_us": "100000"}
    machine("4:memory:/job\n3:cpu,cpuacct:/job\n", **files)
    assert allocation.cores() == 5
    machine("3:cpu,cpuacct:/job\n", cpu__job__cfs_quota_us="-1")
    assert allocation.cores() == 16


def test_no_more_processes_than_cores(machine, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert [allocation.workers(asked) for asked in (0, 1, 3, 20)] == [3, 1, 3, 3]


def test_this_machine_has_at_least_one():
    assert 1 <= allocation.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("given", ["0", "two", "-1", "1.5", "", "²"])
def test_case_what_is_no_number_of_trainings_for_a_gpu(given, monkeypatch):
    monkeypatch.setenv(allocation.PER_GPU, given)
    with pytest.raises(ValueError, match=r"MMMIL_PER_GPU: .* write 1 or more"):
        allocation.per_gpu()


def test_trainings_that_share_a_gpu(monkeypatch):
    monkeypatch.delenv(allocation.PER_GPU, raising=False)
    assert allocation.per_gpu() == 1
    monkeypatch.setenv(allocation.PER_GPU, "4")
    assert allocation.per_gpu() == 4
