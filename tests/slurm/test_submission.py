"""What the executor submits and how it reads an ending: names, scripts, flags, states. These need no Slurm."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.book_stubs import ROOT

sys.path.append(str(ROOT / "workflow"))
from snakemake_executor_plugin_mmmil_slurm import outcome, slurm, submission


def put(folder, name, text):
    """A command of that name, first on a path of its own."""
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)
    return folder


@pytest.fixture
def commands(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return lambda name, text: put(tmp_path / "bin", name, text)


def run_script(folder, command, minutes=10):
    script = submission.script("a rule", folder, Path("mark"), command, 2, minutes)
    (folder / "job.sh").write_text(script)
    env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", folder / "job.sh"], env=env, capture_output=True, text=True, cwd="/")
    return done, outcome.read_mark(folder / "mark")


def test_a_script_leaves_the_status_of_its_command(tmp_path, commands):
    commands("squeue", "exit 1")
    done, mark = run_script(tmp_path, "pwd; echo $OMP_NUM_THREADS $((MMMIL_JOB_END - $(date +%s)))")
    folder, said = done.stdout.splitlines()
    assert (done.returncode, mark.status, mark.slurm_id, folder) == (0, 0, "7", str(tmp_path))
    threads, left = said.split()
    assert threads == "2" and 590 < int(left) <= 600
    for command, status in (
        ("exit 75", 75),
        ("false | true; echo on", 1),
        ("echo $UNSET", 1),
        ("kill -9 $BASHPID", 137),
    ):
        (tmp_path / "mark").unlink()
        done, mark = run_script(tmp_path, command)
        assert done.returncode == mark.status == status and "on" not in done.stdout, command


def test_a_script_asks_slurm_for_its_end(tmp_path, commands):
    commands("squeue", "echo 2030-01-02T03:04:05")
    done, _ = run_script(tmp_path, "date -d @$MMMIL_JOB_END +%Y-%m-%dT%H:%M:%S", minutes=None)
    assert done.stdout.strip() == "2030-01-02T03:04:05"
    (tmp_path / "mark").unlink()
    commands("squeue", "echo N/A")
    assert run_script(tmp_path, "echo ${MMMIL_JOB_END:-none}", minutes=None)[0].stdout.strip() == "none"


def test_a_job_that_has_ended_well_does_nothing_when_slurm_starts_it_anew(tmp_path, commands):
    commands("squeue", "exit 1")
    (tmp_path / "mark").write_text("0 7 12\n")
    assert run_script(tmp_path, "echo again")[0].stdout == ""
    for other in ("0 6 12\n", "1 7 12\n", ""):
        (tmp_path / "mark").write_text(other)
        assert run_script(tmp_path, "echo again")[0].stdout == "again\n"


def test_a_name_says_what_is_made_and_how():
    def parts(root="/a", outputs=("x",), command="make", params=("1",)):
        return submission.name(Path(root), "rule", outputs, command, params).split("-")

    assert parts() == parts() and len("-".join(parts())) < 60
    assert [a == b for a, b in zip(parts(), parts(command="do"), strict=True)] == [True, True, True, False]
    assert [a == b for a, b in zip(parts(), parts(params=("2",)), strict=True)] == [True, True, True, False]
    assert [a == b for a, b in zip(parts(), parts(outputs=("y",)), strict=True)] == [True, True, False, True]
    assert [a == b for a, b in zip(parts(), parts(root="/b"), strict=True)] == [True, False, True, True]


def test_what_sbatch_is_asked_for():
    resources = {"runtime": 90, "mem_mb": 2000, "cpus_per_task": 4, "gpu": 2, "slurm_account": "lab"}
    assert submission.flags(resources, 1, "--gres=gpu:{n}") == [
        *("--account=lab", "--time=90", "--mem=2000", "--ntasks=1", "--cpus-per-task=4", "--gres=gpu:2")
    ]
    assert submission.flags({"gpu": 0}, 3, "--gpus={n}") == ["--ntasks=1", "--cpus-per-task=3"]
    extra = {"gpu": 1, "slurm_extra": "--constraint='a100&nvlink' --qos=long"}
    assert submission.flags(extra, 1, "--gpus={n}")[-3:] == ["--gpus=1", "--constraint=a100&nvlink", "--qos=long"]


@pytest.mark.parametrize(
    ("status", "state", "said", "ended"),
    [
        (0, None, "", outcome.DONE),
        (0, "TIMEOUT", "", outcome.DONE),
        (75, "COMPLETED", "", outcome.GOES_ON),
        (75, "FAILED", "", outcome.GOES_ON),
        (1, "FAILED", "", outcome.CODE),
        (1, None, "", outcome.CODE),
        (137, "FAILED", "", outcome.MEMORY),
        (137, "TIMEOUT", "", outcome.TIME),
        (143, "CANCELLED", "", outcome.CANCELLED),
        (None, "OUT_OF_MEMORY", "", outcome.MEMORY),
        (None, "NODE_FAIL", "", outcome.NODE),
        (None, "COMPLETED", "", None),
        (None, None, "", None),
        (None, None, "slurmstepd: error: *** JOB 5 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***", outcome.CANCELLED),
        (None, None, "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", outcome.TIME),
        (None, None, "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.batch.", outcome.MEMORY),
        (None, None, "our own log says CANCELLED AT noon, oom", None),
    ],
)
def test_how_a_job_ended(tmp_path, status, state, said, ended):
    (tmp_path / "out").write_text(f"first line\n{said}\n")
    mark = None if status is None else outcome.Mark(status, "5", 100)
    assert outcome.ending(mark, state, tmp_path / "out") == ended


def test_a_mark_that_is_not_whole_is_none(tmp_path):
    assert outcome.read_mark(tmp_path / "mark") is None
    for text in ("", "0", "x 5 1"):
        (tmp_path / "mark").write_text(text)
        assert outcome.read_mark(tmp_path / "mark") is None
    (tmp_path / "mark").write_text("75 5 100\n")
    assert outcome.read_mark(tmp_path / "mark") == outcome.Mark(75, "5", 100)


def test_the_queue_by_name(commands):
    lines = ["12|RUNNING|None|mmmil-a-1-1", "9|CANCELLED by 0|None|mmmil-a-1-1", "10|PENDING|Priority|other"]
    lines += ["11|PENDING|Resources|mmmil-a-2-1", "13|PENDING|launch failed requeued held|mmmil-a-2-1"]
    commands("squeue", "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines))
    found = slurm.queue("mmmil-a-")
    assert [(q.slurm_id, q.state, q.is_active) for q in found.pop("mmmil-a-1-1")] == [
        ("9", "CANCELLED", False),
        ("12", "RUNNING", True),
    ]
    assert {name: [q.state for q in jobs] for name, jobs in found.items()} == {"mmmil-a-2-1": ["PENDING", "NODE_FAIL"]}


def test_slurm_that_is_away_is_told_from_slurm_that_says_no(commands):
    commands("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(slurm.Unreachable):
        slurm.queue("")
    for said in (
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Resource temporarily unavailable",
        "Batch job submission failed: Protocol authentication error",
    ):
        commands("sbatch", f"echo 'sbatch: error: {said}' >&2; exit 1")
        with pytest.raises(slurm.Unreachable):
            slurm.submit([])
    for said in ("invalid partition specified: x", "Batch job submission failed: Invalid account or account/partition"):
        commands("sbatch", f"echo 'sbatch: error: {said}' >&2; exit 1")
        with pytest.raises(slurm.Refused, match=said[:20]):
            slurm.submit([])
    commands("sbatch", "echo a line of the site; echo '123;cluster'")
    assert slurm.submit([]) == "123"


def test_what_jobs_get_of_the_environment(monkeypatch):
    for name in ("SLURM_CONF", "SLURM_MEM_PER_NODE", "SQUEUE_STATES", "PYTHONPATH", "PATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert {"SLURM_CONF", "SLURM_MEM_PER_NODE", "PATH"} <= set(slurm.environment())
    assert not {"SQUEUE_STATES", "PYTHONPATH"} & set(slurm.environment())
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # a head inside a job
    assert not {"SLURM_JOB_ID", "SLURM_MEM_PER_NODE"} & set(slurm.environment())
    assert "SLURM_CONF" in slurm.environment()


def test_a_command_is_started_by_what_the_site_names(tmp_path, commands):
    """In a container, say: with the same variables, and the same status whichever of its parts fails."""
    commands("container", 'echo "in $1"; shift; exec "$@"')
    commands("squeue", "exit 1")
    command = 'echo "it\'s $OMP_NUM_THREADS"; false | true; echo on'
    assert submission.within(command, " ") == command
    done, mark = run_script(tmp_path, submission.within(command, "container image.sif"))
    assert done.stdout.splitlines() == ["in image.sif", "it's 2"] and mark.status == 1
