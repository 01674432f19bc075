"""A small task on a cluster by its command and profile, with a job cancelled, the head killed, or workers killed at
random: it ends as an undisturbed run here does."""

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.book_stubs import ROOT
from tests.slurm import cluster as slurm
from tests.slurm.cluster import until

pytestmark = slurm.marks()
KILLS = int(os.environ.get("MMMIL_KILLS", "3"))  # of workers, at random moments; more of them take minutes
TASK = {
    **{"task": "tiny", "title": "A tiny task", "class_names": ["A", "B"], "overlay": "", "data_dir": "data/{task}"},
    **{"synthetic": True, "label_rule": "grade", "class_values": [["G2"], ["G3"]], "mpp_table": "mpp.csv"},
    **{"sample_sheets": ["gdc_sample_sheet.tsv"], "clinical": ["clinical.tsv"], "incomplete": "exclude"},
    **{"notebooks": ["09_summary"], "variants": ["dual_go", "baseline_genes"], "weights": "random"},
    **{"sim_patients": 24, "sim_slide_px": 512, "sim_genes": 600, "sim_sets": 20, "n_tiles": 4, "tile_px": 64},
    **{"n_folds": 2, "epochs": 2, "ae_epochs": 2, "ae_hidden": 16, "latent_dim": 24, "width": 24, "apoz_tiles": 16},
    **{"null_repeats": 1, "single_genes": 32},
}
# What a site says of itself; this one has nodes of four cores.
SITE = {
    **{"cores": 2, "latency-wait": 5, "seconds-between-status-checks": 1, "mmmil-slurm-lost-after": 10},
    "default-resources": {"slurm_partition": "main", "mem_mb": 1000, "cpus_per_task": 1, "runtime": 30},
}


def copy(folder):
    """A copy of the project with the task, which ends with the record: no notebook and no book."""
    ignored = ("data", "results", "logs", "executed", "generated", "_build", ".*", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    (folder / "params/tiny.yaml").write_text(yaml.safe_dump(TASK))
    toc = (folder / "_toc.yml").read_text()
    page = "          - file: book/executed/lgg/09_summary\n"
    assert page in toc
    (folder / "_toc.yml").write_text(toc.replace(page, page + page.replace("lgg", "tiny")))
    return folder


def start(folder, env, *options):
    call = [sys.executable, "workflow/run.py", "--tasks", "tiny", "--overlay", "", *options]
    with (folder / "said").open("ab") as said:
        return slurm.started([*call, "--", "--omit-from", "notebook"], said, cwd=folder, env=env)


def predictions(folder):
    table = pd.read_parquet(folder / "results/tiny/predictions.parquet")
    return table.sort_values(["variant", "fold", "split", "patient_id"]).reset_index(drop=True)


def run_on_slurm(there, folder):
    """Run the task on Slurm with a training cancelled and the head killed; what was told, and how trainings ended."""
    for name in ("site", "slurm"):
        (folder / name).mkdir()
    (folder / "site/config.yaml").write_text(yaml.safe_dump(SITE))
    with slurm.Cluster(folder / "slurm") as cluster:
        env = cluster.env | {"MMMIL_PROFILE": str(folder / "site")}

        def told():
            return (there / "said").read_text()

        def trainings(states):
            assert head.poll() is None, told()
            return [job for job, _, comment in cluster.jobs(states) if comment.startswith("train")]

        head = start(there, env, "--profile", "slurm")
        try:
            cluster.command("scancel", until(lambda: trainings("running"), "a training", 3600)[0])
            until(lambda: "it was cancelled; submitted again" in told(), "word of it", 3600)
            until(lambda: trainings("pending,running"), "its successor", 3600)
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
            head = start(there, env, "--profile", "slurm")
            assert head.wait() == 0, told()
        finally:
            if head.poll() is None:
                os.killpg(head.pid, signal.SIGKILL)
        return told(), [state for _, state, comment in cluster.jobs() if comment.startswith("train")]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The project's copy in which the task ran on this machine, undisturbed."""
    folder = copy(tmp_path_factory.mktemp("undisturbed") / "here")
    run = start(folder, dict(os.environ), "--cores", "2")
    try:
        assert run.wait() == 0, (folder / "said").read_text()
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    return folder


def test_a_task_on_slurm_predicts_what_it_predicts_here(tmp_path, here):
    there = copy(tmp_path / "there")
    told, states = run_on_slurm(there, tmp_path)
    assert "is taken over" in told
    # One more job than trainings were asked for: the one that was cancelled.
    assert states.count("CANCELLED") == 1 and states.count("COMPLETED") == len(states) - 1
    pd.testing.assert_frame_equal(predictions(here), predictions(there), check_exact=True)
    assert predictions(here)["variant"].nunique() == 2


# -- workers that are killed -------------------------------------------------------------------------------------
def run_with_kills(folder, env, options, workers, seed):
    """Run the task while workers are killed at random moments; start it again, as a user would, until it is whole.

    workers: a function that lists them now. A run that is whole before the last kill is thrown away and begun anew.
    """
    chance, left = random.Random(seed), KILLS
    while True:
        head = start(folder, env, *options)
        try:
            while head.poll() is None:
                time.sleep(chance.uniform(0.2, 3))
                if left and (found := workers()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(found), signal.SIGKILL)
                        left -= 1
        finally:
            if head.poll() is None:
                os.killpg(head.pid, signal.SIGKILL)
        whole = head.returncode == 0 and pd.read_csv(folder / "results/tiny/failures.csv").empty
        if whole and not left:
            return
        if whole:
            shutil.rmtree(folder / "results")


def local_workers(folder):
    """Processes of the package in a folder: those that were started, and the warm server's copies that they ask for."""
    servers, found = set(), {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if (process / "cwd").resolve() == folder:
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    parents = {}
    for pid, said in found.items():
        servers |= {pid} if "--serve" in said else set()
        with contextlib.suppress(OSError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    # A copy has its server's command line, and the server for its parent.
    return sorted(pid for pid, said in found.items() if "-m mmmil" in said or parents.get(pid) in servers)


def test_workers_killed_here_change_no_prediction(tmp_path, here):
    there = copy(tmp_path / "there")
    run_with_kills(there, dict(os.environ), ["--cores", "2"], lambda: local_workers(there), 1)
    pd.testing.assert_frame_equal(predictions(here), predictions(there), check_exact=True)


def test_workers_killed_on_slurm_change_no_prediction(tmp_path, here):
    there = copy(tmp_path / "there")
    for name in ("site", "slurm"):
        (tmp_path / name).mkdir()
    (tmp_path / "site/config.yaml").write_text(yaml.safe_dump(SITE))
    with slurm.Cluster(tmp_path / "slurm") as cluster:

        def workers():
            processes = cluster.processes()
            return sorted(pid for pid, env in processes.items() if any(v.startswith("SLURM_JOB_ID=") for v in env))

        env = cluster.env | {"MMMIL_PROFILE": str(tmp_path / "site")}
        run_with_kills(there, env, ["--profile", "slurm"], workers, 2)
    pd.testing.assert_frame_equal(predictions(here), predictions(there), check_exact=True)
