"""The status page: what each step cost, on which device and at which commit, and which trainings failed."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping

from mmmil import params, record
from mmmil.book.pages import EXECUTED, SYNTHETIC, check_executed, executed_pages, not_shown, shown_of
from mmmil.book.text import markdown_table, nothing, title, wide_table
from mmmil.results import read_results

PACKAGES = "torch timm histolab openslide-python pydeseq2 gseapy scikit-learn numpy pandas papermill jupyter-book"
LOG_LINES = 12  # of a failed training's log, shown from its end


def status(tasks: Mapping[str, params.Params]) -> str:
    """Run times, memory, commit and device from every run.json, and the versions of this environment.

    Results of earlier parameters count too, as long as they lie there; a dash where a step notes no device.
    """
    rows = []
    for p in tasks.values():
        runs: dict[str, list[dict]] = {}
        for path in sorted(p.results.rglob(record.RUN)):
            runs.setdefault(path.relative_to(p.results).parts[0], []).append(json.loads(path.read_text()))
        for step, step_runs in runs.items():
            devices = sorted({run["facts"]["device"] for run in step_runs if "device" in run.get("facts", {})})
            commits = sorted({str(run.get("commit", "unknown")) for run in step_runs})
            seconds, memory = (
                sum(r.get("seconds", 0) for r in step_runs),
                max(r.get("peak_memory_mib") or 0 for r in step_runs),  # not every system tells it
            )
            last = max(run.get("finished", "") for run in step_runs)[:16].replace("T", " ")
            rows.append(
                [
                    title(p) + SYNTHETIC * p.synthetic,
                    step,
                    len(step_runs),
                    f"{seconds:.0f}",
                    memory,
                    ", ".join(devices) or "–",
                    ", ".join(commits),
                    last,
                ]
            )
    head = [
        "cohort",
        "step",
        "results",
        "seconds, summed",
        "peak MiB",
        "device",
        "commit",
        "last finished (UTC)",
    ]
    caption = "Results that lie here, and what they cost"
    text = wide_table(caption, head, rows, "status") if rows else nothing("result")
    times = []
    for page in executed_pages(shown_of(tasks)):
        about = check_executed(params.root() / page)["metadata"]["papermill"]
        times.append(
            [f"`{page.parent.relative_to(EXECUTED).as_posix()}/{page.stem}`", f"{about.get('duration') or 0:.0f}"]
        )
    if times:
        text += "\n" + markdown_table("Notebooks", ["page", "seconds"], times)
    if others := not_shown(tasks):
        text += f"\nNot in this copy, which shows one run of a task: {', '.join(f'`{run}`' for run in others)}.\n"
    versions = [
        ["Python", platform.python_version()],
        ["system", f"{platform.system()} {platform.machine()}"],
    ]
    versions += [[package, importlib.metadata.version(package)] for package in PACKAGES.split()]
    return text + "\n" + markdown_table("Versions", ["package", "version"], versions) + "\n" + failures(tasks)


def failures(tasks: Mapping[str, params.Params]) -> str:
    """Trainings that failed, with the end of their logs: where every cell that says "failed" leads to."""
    text = "(failed-trainings)=\n## Failed trainings\n\n"
    columns = ["variant", "fold", "error", "log"]
    read = {task: read_results(p, "failures", columns) for task, p in tasks.items()}
    tables = {task: table for task, table in read.items() if table is not None and len(table)}
    if not tables:
        return text + "None.\n"
    text += "Their rows are missing from the record. `make book` tries them again.\n\n"
    for task, table in tables.items():
        for row in table.fillna("").itertuples():
            log = "\n".join(str(row.log).strip().splitlines()[-LOG_LINES:])
            text += f"**{title(tasks[task])}: `{row.variant}/{row.fold}`**\n\n~~~~text\n{log}\n~~~~\n\n"
    return text
