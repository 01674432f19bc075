"""Snakemake's executor `mmmil-slurm`: shell commands as Slurm jobs, which a killed and restarted Snakemake finds again.

Snakemake finds it by its name where `workflow/` is on PYTHONPATH, which `workflow/run.py` sees to. It needs sbatch,
squeue and scancel, a disk that all nodes share, and no accounting.
"""

from snakemake_executor_plugin_mmmil_slurm.executor import Executor, ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
