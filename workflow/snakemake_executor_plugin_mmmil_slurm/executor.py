"""Rules' shell commands as Slurm jobs: submitted, found again, watched, and submitted again where that may help."""

import shutil
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from snakemake.io import is_flagged
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_mmmil_slurm import outcome, slurm, submission

# No `annotations` of the future in this file: Snakemake reads the types of ExecutorSettings.
common_settings = CommonSettings(
    non_local_exec=True, implies_no_shared_fs=False, job_deploy_sources=False, pass_envvar_declarations_to_cmd=False
)
SOON = 60  # seconds; a job that asks to go on after less than these has hardly got further


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Settings of the executor: --mmmil-slurm-resubmit 5, or `mmmil-slurm-resubmit: 5` in a profile."""

    resubmit: int = field(
        default=3,
        metadata={"help": "How often a job is submitted again that was short of memory or time, lost or cancelled."},
    )
    gpu_flag: str = field(
        default="--gres=gpu:{n}", metadata={"help": "How the site's sbatch is asked for n GPUs, as '--gpus={n}'."}
    )
    within: str = field(
        default="", metadata={"help": "What starts a job's command on its node, as 'apptainer exec --nv mmmil.sif'."}
    )
    lost_after: int = field(
        default=90, metadata={"help": "Seconds after which a job that Slurm no longer lists, without a mark, is lost."}
    )


@dataclass
class Task:
    """A job of the workflow and where it stands; it waits to be submitted while it has no id."""

    name: str
    comment: str
    slurm_id: str | None = None
    asked_before: bool = False  # it may have been taken, though sbatch could not say so
    not_mine: set[str] = field(default_factory=set)  # jobs of its name that were cancelled
    refused: str = ""
    resubmitted: int = 0
    missed: list[float] = field(default_factory=list)  # answers in which it was no longer active, unexplained

    def file(self, suffix: str) -> Path:
        return submission.FOLDER / f"{self.name}.{suffix}"

    @property
    def mark(self) -> outcome.Mark | None:
        return outcome.read_mark(self.file("status"))


class Executor(RemoteExecutor):
    """Submits each job's shell command itself: Snakemake is not started in the jobs."""

    def __post_init__(self) -> None:
        if missing := [name for name in ("sbatch", "squeue", "scancel") if not shutil.which(name)]:
            raise WorkflowError(f"{', '.join(missing)}: not found; start the batch where Slurm's commands are")
        self.root = Path.cwd()
        self.prefix = submission.prefix(self.root)
        self.tasks: dict[object, Task] = {}  # of jobs that are not over
        self.queue: dict[str, list[slurm.Queued]] | None = None  # by name, as Slurm last answered
        self.silent = self.stopped = False
        self.submit_after, self.delay = 0.0, 0.0  # sbatch is left alone for a while where it does not get through
        self.busy = threading.Lock()  # Snakemake hands over jobs in one thread and has them watched in another
        submission.FOLDER.mkdir(parents=True, exist_ok=True)

    # -- submission --------------------------------------------------------------------------------------------------
    def run_job(self, job) -> None:
        if job.is_group() or not job.is_shell or job.is_shadow:
            raise WorkflowError(f"{job.name}: this executor takes single rules with a `shell:` command only")
        wildcards = " ".join(f"{name}={value}" for name, value in sorted(job.wildcards_dict.items()))
        name = submission.name(self.root, job.rule.name, job.output, job.shellcmd, job.params)
        task = self.tasks[job] = Task(name, f"{job.rule.name} {wildcards}".strip())
        with self.busy:
            if self.queue is None and not self.silent:
                self.ask()
            self.workflow.async_run(self.start(job, task))
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=task.slurm_id))

    async def start(self, job, task: Task) -> None:
        """Find or submit a waiting job; it goes on waiting where Slurm does not answer or other jobs have to end first.

        These write the same files: jobs of an earlier run with other settings, or that have read older input.
        """
        if self.stopped or self.queue is None or time.monotonic() < self.submit_after or self.found(job, task):
            return
        makes = task.name.rpartition("-")[0]
        of_same = [queued for name, jobs in self.queue.items() if name.rpartition("-")[0] == makes for queued in jobs]
        try:
            if rivals := [queued.slurm_id for queued in of_same if queued.is_active]:
                task.not_mine.update(rivals)
                return slurm.cancel(rivals)
            await job.prepare()  # removes its output, so only when nothing writes it
            task.slurm_id = self.submit(job, task)
        except slurm.Refused as error:
            task.refused = f"sbatch refuses it: {error}"
        except WorkflowError as error:
            task.refused = str(error)
        except slurm.Unreachable as error:
            self.delay = min(300.0, 2 * self.delay or 10.0)
            self.submit_after = time.monotonic() + self.delay
            self.tell_silence(error)
        else:
            task.asked_before, task.missed, self.delay = False, [], 0.0
            self.logger.info(f"{task.comment}: job {task.slurm_id} of Slurm")

    def found(self, job, task: Task) -> bool:
        """Whether the job has been submitted already: by an sbatch that could not say so, or by a run killed since.

        A job of an earlier run counts where nothing that it reads has been written since.
        """
        mark = task.mark
        active = [queued.slurm_id for queued in self.queue.get(task.name, []) if queued.is_active]
        active = [slurm_id for slurm_id in active if slurm_id not in task.not_mine]
        is_made = mark is not None and mark.status == 0
        if not task.asked_before:
            if task.resubmitted or not task.file("sh").exists():
                return False
            submitted = task.file("sh").stat().st_mtime
            read = [Path(f) for f in job.input if not is_flagged(f, "ancient")]
            if any(not path.exists() or path.stat().st_mtime > submitted for path in read):
                return False
            is_made = is_made and all(Path(f).exists() for f in job.output if f not in job.touch_output)
        task.slurm_id = active[-1] if active else mark.slurm_id if is_made else None
        if task.slurm_id:
            self.logger.warning(f"{task.comment}: job {task.slurm_id}, submitted before, is taken over")
        return task.slurm_id is not None

    def submit(self, job, task: Task) -> str:
        """The id of the job, submitted. Raises slurm.Refused and slurm.Unreachable."""
        task.file("status").unlink(missing_ok=True)
        minutes, mark = job.resources.get("runtime"), task.file("status")
        command = submission.within(job.shellcmd, self.executor_settings.within)
        text = submission.script(task.comment, self.root, mark, command, job.threads, minutes)
        submission.write(task.file("sh"), text)
        named = ["--job-name", task.name, "--comment", task.comment, "--chdir", str(self.root), "--requeue"]
        said = ["--output", str(self.root / task.file("out")), "--open-mode=append", "--export=ALL"]
        resources = dict(job.resources.items())
        task.asked_before = True
        asked = submission.flags(resources, job.threads, self.executor_settings.gpu_flag)
        return slurm.submit([*named, *said, *asked, str(task.file("sh"))])

    # -- watching ----------------------------------------------------------------------------------------------------
    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        if not active_jobs:
            return
        with self.busy:
            answered = self.ask()
        for info in active_jobs:
            task = self.tasks[info.job]
            with self.busy:
                is_over = self.is_over(info, task, answered)
                if not is_over and answered and task.slurm_id is None:
                    await self.start(info.job, task)
            if not is_over:
                yield info

    def is_over(self, info: SubmittedJobInfo, task: Task, answered: bool) -> bool:
        """See how a job stands and report it where it is over; one to be submitted again loses its id."""
        if task.refused:
            return self.fail(info, task, task.refused)
        if task.slurm_id is None:
            return False
        mark = task.mark if task.mark and task.mark.slurm_id == task.slurm_id else None
        of_name = (self.queue or {}).get(task.name, [])
        queued = next((job for job in of_name if job.slurm_id == task.slurm_id), None)
        if extra := [job.slurm_id for job in of_name if job.is_active and job is not queued and queued]:
            self.cancel_quietly(extra)  # taken after all, long after sbatch had given up
        if mark and mark.status == 0:
            if queued and queued.state == "PENDING":  # to run once more: Slurm had lost its node, which went on
                self.cancel_quietly([task.slurm_id])
            self.report_job_success(info)
            return True
        if not answered:
            return False
        if queued and queued.is_active:
            task.missed = []
            return False
        ended = outcome.ending(mark, queued.state if queued else None, task.file("out"))
        if ended is None:  # a shared disk may show its mark late, and Slurm a job that was just submitted
            task.missed.append(time.monotonic())
            patience = max(self.executor_settings.lost_after, self.workflow.execution_settings.latency_wait)
            if len(task.missed) < 3 or task.missed[-1] - task.missed[0] < patience:
                return False
            ended = outcome.NODE
        return self.is_failed(info, task, ended, mark)

    def is_failed(self, info: SubmittedJobInfo, task: Task, ended: str, mark: outcome.Mark | None) -> bool:
        """Whether a job that ended without success has failed for good; where not, it waits to be submitted again."""
        status = f", exit status {mark.status}" if mark else ""
        why = f"job {task.slurm_id}: {outcome.WORDS[ended]}{status}"
        counts = ended != outcome.GOES_ON or mark.seconds < SOON
        if ended == outcome.CODE:
            return self.fail(info, task, why)
        if counts and task.resubmitted >= self.executor_settings.resubmit:
            return self.fail(info, task, f"{why}; it was submitted {task.resubmitted + 1} times")
        task.resubmitted += counts
        if ended == outcome.NODE:
            self.cancel_quietly([task.slurm_id])  # should Slurm still know it
        if ended in (outcome.MEMORY, outcome.TIME):
            info.job.attempt += 1  # resources that are functions of the attempt grow
        task.slurm_id = None
        self.logger.warning(f"{task.comment}: {why}; submitted again")
        return False

    def fail(self, info: SubmittedJobInfo, task: Task, why: str) -> bool:
        task.file("status").unlink(missing_ok=True)
        out = task.file("out")
        logs = [str(out)] if out.exists() else []
        said = out.read_text(errors="replace").splitlines()[-20:] if logs else []
        del self.tasks[info.job]
        self.report_job_error(info, msg="\n".join([f"{task.comment}: {why}", *said, ""]), aux_logs=logs)
        return True

    def handle_job_success(self, job) -> None:
        """Its output has been checked and noted by Snakemake: now nobody needs the mark any more."""
        task = self.tasks.pop(job)
        for suffix in ("sh", "out", "status"):
            task.file(suffix).unlink(missing_ok=True)

    def handle_job_error(self, job) -> None:
        self.tasks.pop(job, None)

    # -- Slurm -------------------------------------------------------------------------------------------------------
    def ask(self) -> bool:
        """Ask Slurm for the queue; whether it answered."""
        try:
            self.queue = slurm.queue(self.prefix)
        except (slurm.Unreachable, slurm.Refused) as error:
            self.tell_silence(error)
            return False
        if self.silent and time.monotonic() >= self.submit_after:
            self.logger.warning("Slurm answers again")
            self.silent = False
        return True

    def tell_silence(self, error: Exception) -> None:
        if not self.silent:
            self.logger.warning(f"Slurm does not answer, jobs that run go on, and this run waits: {error}")
        self.silent = True

    # -- the end of a run ----------------------------------------------------------------------------------------------
    def cancel(self) -> None:
        self.stopped = True
        self.cancel_jobs([])
        self.shutdown()  # waits for what is being looked at
        self.cancel_jobs([])

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs of this run; those that are being looked at are not among the active ones."""
        ids = [task.slurm_id for task in list(self.tasks.values()) if task.slurm_id]
        if ids and not self.cancel_quietly(ids):
            self.logger.warning("Slurm does not answer: its jobs go on, and the next run takes them over")

    def cancel_quietly(self, slurm_ids: list[str]) -> bool:
        try:
            slurm.cancel(slurm_ids)
        except (slurm.Unreachable, slurm.Refused):
            return False
        return True
