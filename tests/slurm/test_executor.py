"""The executor on a real Slurm: what is cancelled, lost, killed or unreachable ends as a local run does.

`make test-slurm` runs these. A training of theirs says that it has started and ends when the test lets it: nothing
depends on how fast the machine is.
"""

import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.book_stubs import ROOT
from tests.slurm import cluster as slurm
from tests.slurm.cluster import until

pytestmark = slurm.marks()

SNAKEFILE = """
NAMES = config["names"].split(",")
rule all:
    input: "predictions.csv"
localrules: all
rule train:
    output: "trainings/{name}.csv"
    params: depends=config.get("depends", "1")
    threads: int(config.get("threads", 1))
    resources:
        runtime=int(config.get("runtime", 10)),
        mem_mb=lambda w, attempt: 100 * attempt,
        slurm_partition=lambda w: "nowhere" if w.name == "refused" else "",
        gpu=lambda w: int(w.name == "gpu"),
    shell: "MEMORY={resources.mem_mb} bash train.sh {wildcards.name} {output} {params.depends}"
rule score:
    input: "trainings/{name}.csv"
    output: "scores/{name}.csv"
    shell: "sed s/^/score,/ {input} > {output}"
rule record:
    input: expand("scores/{name}.csv", name=NAMES)
    output: "predictions.csv"
    shell: "cat {input} > {output}"
"""
TRAIN = """
echo "$1 ${SLURM_JOB_ID:-local} ${MMMIL_JOB_END:-} ${SLURM_GPUS_ON_NODE:-}" >> started
[ "$1" != broken ] || { echo it is broken >&2; exit 3; }
[ "$1" != hungry ] || [ $MEMORY -gt 150 ] || kill -9 $$
if [ "$1" = long ] && [ ! -e checkpoint ]; then touch checkpoint; exit 75; fi
while [ ! -e go ] && [ ! -e "go.$1" ]; do sleep 0.1; done
echo "$1,$3" > "$2.part" && mv "$2.part" "$2"
"""


class Batch:
    """A small workflow in a folder, and the Snakemake that runs it."""

    def __init__(self, folder: Path, env: dict[str, str], names: str, **config):
        self.folder, self.names, self.config, self.head = folder, names.split(), config, None
        self.env = env | {"PYTHONPATH": str(ROOT / "workflow")}
        folder.mkdir()
        (folder / "Snakefile").write_text(SNAKEFILE)
        (folder / "train.sh").write_text(TRAIN)

    def start(self, *more: str, executor: str = "mmmil-slurm") -> None:
        waits = ["--seconds-between-status-checks", "1", "--latency-wait", "3", "--mmmil-slurm-lost-after", "5"]
        config = [f"names={','.join(self.names)}", *(f"{name}={value}" for name, value in self.config.items())]
        call = [sys.executable, "-m", "snakemake", "--executor", executor, "--jobs", "20", "--cores", "4", *waits]
        call += ["--rerun-incomplete", "--nolock", "--keep-going", *more, "--config", *config]
        with (self.folder / "said").open("ab") as said:
            self.head = slurm.started(call, said, cwd=self.folder, env=self.env)

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def started(self) -> list[list[str]]:
        """Name, job, end and GPUs of every training that has begun, as often as it has."""
        path = self.folder / "started"
        return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []

    def times(self, name: str) -> int:
        return sum(name == line[0] for line in self.started)

    def until_started(self, count: int) -> None:
        self.until(lambda: len(self.started) >= count, f"{count} trainings started")

    def until(self, condition, what: str, ceiling: float = 900.0):
        def met():
            assert self.head.poll() is None, f"Snakemake ended before {what}:\n{self.said}"
            return condition()

        return until(met, what, ceiling)

    def go(self, name: str = "") -> None:
        (self.folder / (f"go.{name}" if name else "go")).touch()

    def end(self) -> int:
        """Exit status of Snakemake, when it ends by itself."""
        until(lambda: self.head.poll() is not None, "Snakemake's end", 900)
        return self.head.returncode

    def kill(self) -> None:
        if self.head and self.head.poll() is None:
            os.killpg(self.head.pid, signal.SIGKILL)
            self.head.wait()

    @property
    def predictions(self) -> str:
        return (self.folder / "predictions.csv").read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def batch(cluster, tmp_path):
    made = []

    def make(names: str, **config) -> Batch:
        made.append(Batch(tmp_path / f"batch{len(made)}", cluster.env, names, **config))
        return made[-1]

    yield make
    for one in made:
        one.kill()
    cluster.command("scancel", "--me")
    until(lambda: not cluster.jobs("pending,running,completing"), "an empty queue")


@pytest.fixture(scope="module")
def local(cluster, tmp_path_factory):
    """What a local run predicts of some of its trainings."""
    one = Batch(tmp_path_factory.mktemp("local") / "batch", cluster.env, "a b c d long gpu")
    (one.folder / "checkpoint").touch()  # a local run is not submitted again
    one.go()
    one.start(executor="local")
    assert one.end() == 0, one.said
    lines = {line.split(",")[1]: line for line in one.predictions.splitlines(keepends=True)}
    return lambda names: "".join(lines[name] for name in names.split())


def finishes_as(batch: Batch, expected: str) -> bool:
    batch.go()
    assert batch.end() == 0, batch.said
    return batch.predictions == expected


def test_a_cancelled_job_is_submitted_again(cluster, batch, local):
    one = batch("a b")
    one.start()
    one.until_started(2)
    cancelled = dict(line[:2] for line in one.started)["a"]
    cluster.command("scancel", cancelled)
    one.until(lambda: one.times("a") == 2, "another start of a")
    assert f"train name=a: job {cancelled}: it was cancelled; submitted again" in one.said
    assert finishes_as(one, local("a b")) and one.times("b") == 1


def test_a_job_at_its_time_limit_is_submitted_again_and_one_at_a_checkpoint_goes_on(cluster, batch, local):
    one = batch("a long", runtime=1)
    one.start()
    one.until(lambda: one.times("long") == 2, "another start of the one that stopped at a checkpoint")
    assert "stopped at a checkpoint before its time limit, exit status 75; submitted again" in one.said
    ends = {line[1]: int(line[2]) for line in one.started}
    first = int(one.started[0][1])
    assert 0 < ends[str(first)] - time.time() <= 61
    one.go("long")
    one.until(lambda: one.times("a") == 2, "another start of the one at its limit")
    assert re.search(r"train name=a: job \d+: it reached its time limit; submitted again", one.said)
    assert finishes_as(one, local("a long"))


def test_a_lost_node_costs_only_what_ran_there(cluster, batch, local):
    one = batch("a b c", threads=4)  # one on each node
    one.start()
    one.until_started(3)
    node = cluster.command("squeue", "-h", "-j", dict(line[:2] for line in one.started)["a"], "-o", "%N").strip()
    cluster.lose_node(node)
    try:
        one.go("b")  # makes room
        one.until(lambda: one.times("a") == 2, "another start of a")
        assert len({line[1] for line in one.started if line[0] == "a"}) == 1  # Slurm has queued it again itself
        assert finishes_as(one, local("a b c")) and one.times("b") == one.times("c") == 1
        assert "submitted again" not in one.said
    finally:
        cluster.start_node(node)
        cluster.command("scontrol", "update", f"NodeName={node}", "State=RESUME")
        until(lambda: "down" not in cluster.command("sinfo", "-h", "-o", "%t"), "the node")


def test_slurm_may_be_down_for_a_while(cluster, batch, local):
    one = batch("a b c d", threads=4)
    one.start()
    one.until_started(3)  # the fourth waits for a node
    pending = ({"a", "b", "c", "d"} - {line[0] for line in one.started}).pop()
    cluster.kill("slurmctld", signal.SIGTERM)  # it writes down what it knows; jobs of the last seconds would be lost
    cluster.kill("slurmdbd")
    began = time.monotonic()
    first = one.started[0][0]
    one.go(first)  # ends meanwhile, and what comes after it cannot be submitted
    one.until(lambda: "Slurm does not answer" in one.said, "word of it")
    one.until(lambda: (one.folder / f"trainings/{first}.csv").exists(), "the end of a training")
    one.until(lambda: time.monotonic() - began > 40, "forty seconds")
    assert one.times(pending) == 0 and "Error" not in one.said and one.said.count("does not answer") == 1
    cluster.start_slurmdbd()
    cluster.start_slurmctld()
    one.until(lambda: "Slurm answers again" in one.said, "word of its return")
    assert finishes_as(one, local("a b c d"))
    assert sorted(line[0] for line in one.started) == ["a", "b", "c", "d"]


def test_a_job_that_sbatch_took_without_saying_so_is_not_submitted_twice(batch, local, tmp_path):
    (tmp_path / "bin").mkdir()
    once, sbatch = tmp_path / "once", tmp_path / "bin/sbatch"
    lines = [
        f'said=$({shutil.which("sbatch", path=slurm.PATH)} "$@") || exit 1',
        f"[ -e {once} ] && echo $said && exit",
        f"touch {once}; echo Batch job submission failed: Socket timed out on send/recv operation >&2; exit 1",
    ]
    sbatch.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    sbatch.chmod(0o755)
    one = batch("a b")
    one.env["PATH"] = f"{sbatch.parent}:{one.env['PATH']}"
    one.start()
    one.until_started(2)
    assert finishes_as(one, local("a b")) and len(one.started) == 2
    assert one.said.count("is taken over") == 1 and "Socket timed out" in one.said


def test_jobs_of_a_killed_head_are_taken_over(cluster, batch, local):
    one = batch("a b c d", threads=4)
    one.start()
    one.until_started(3)
    one.kill()
    ended = one.started[0][0]
    one.go(ended)  # while nobody looks
    until(lambda: (one.folder / f"trainings/{ended}.csv").exists(), "the end of a training")
    one.start()
    one.until(lambda: one.said.count("is taken over") == 4, "four jobs taken over")
    assert finishes_as(one, local("a b c d"))
    assert sorted(line[0] for line in one.started) == ["a", "b", "c", "d"]


def test_jobs_of_a_killed_head_with_other_settings_make_way(cluster, batch, local):
    one = batch("a")
    one.start()
    one.until_started(1)
    one.kill()
    one.config["depends"] = "2"
    one.start()
    one.until_started(2)
    states = {slurm_id: state for slurm_id, state, _ in cluster.jobs()}
    assert [states[line[1]] for line in one.started] == ["CANCELLED", "RUNNING"]
    assert finishes_as(one, local("a").replace(",1", ",2"))


def test_a_job_of_a_killed_head_that_has_read_older_input_is_not_taken_over(cluster, batch):
    one = batch("a")
    waits = "bash train.sh score.{wildcards.name} t 1; sed s/^/score,/"
    (one.folder / "Snakefile").write_text(SNAKEFILE.replace("sed s/^/score,/", waits))
    one.go("a")
    one.start()
    one.until(lambda: one.times("score.a") == 1, "the second step")
    one.kill()
    (one.folder / "trainings/a.csv").write_text("a,other\n")
    one.start()
    one.until(lambda: one.times("score.a") == 2, "another start of the second step")
    assert "is taken over" not in one.said
    one.go()
    assert one.end() == 0 and one.predictions == "score,a,other\n"


def test_jobs_and_steps_killed_at_random_points(cluster, batch, local):
    chance = random.Random(1)
    one = batch("a b c d")
    one.start("--mmmil-slurm-resubmit", "9")
    one.until_started(4)
    for _ in range(6):
        running = {pid for pid, env in cluster.processes().items() if any(v.startswith("SLURM_JOB_ID=") for v in env)}
        os.kill(chance.choice(sorted(running)), signal.SIGKILL)
        time.sleep(chance.random())
    assert finishes_as(one, local("a b c d"))


def test_ctrl_c_cancels_every_job(cluster, batch):
    one = batch("a b")
    one.start()
    one.until_started(2)
    one.head.send_signal(signal.SIGINT)
    assert one.end() != 0
    until(lambda: not cluster.jobs("pending,running"), "an empty queue")
    states = {slurm_id: state for slurm_id, state, _ in cluster.jobs()}
    assert [states[line[1]] for line in one.started] == ["CANCELLED"] * 2


def test_only_what_may_help_is_tried_again(cluster, batch, local):
    one = batch("gpu hungry broken refused")
    one.go()
    one.start()
    assert one.end() == 1
    assert one.times("broken") == 1 and one.times("refused") == 0 and one.times("hungry") == 2
    assert re.search(r"train name=broken: job \d+: its command failed, exit status 3\s+it is broken", one.said)
    assert "train name=hungry" in one.said and "needed more memory than it had asked for, exit status 137" in one.said
    assert "sbatch refuses it: sbatch: error: invalid partition specified: nowhere" in one.said
    assert {line[0]: line[3] for line in one.started} == {"gpu": "1", "hungry": "", "broken": ""}
    one.names = ["gpu", "hungry"]
    one.start()
    assert one.end() == 0 and one.predictions == local("gpu") + "score,hungry,1\n"


def test_without_accounting_where_slurm_forgets_jobs_at_once(tmp_path_factory, tmp_path, local):
    with slurm.Cluster(tmp_path_factory.mktemp("bare"), accounting=False, min_job_age=2) as bare:
        one = Batch(tmp_path / "batch", bare.env, "a b")
        try:
            one.start()
            one.until_started(2)
            cancelled = dict(line[:2] for line in one.started)["a"]
            os.kill(one.head.pid, signal.SIGSTOP)
            bare.command("scancel", cancelled)
            until(lambda: cancelled not in {job[0] for job in bare.jobs()}, "a job forgotten", 900)
            os.kill(one.head.pid, signal.SIGCONT)
            one.until(lambda: one.times("a") == 2, "another start of a")
            assert "it was cancelled; submitted again" in one.said
            assert finishes_as(one, local("a b")) and one.times("b") == 1
        finally:
            one.kill()
