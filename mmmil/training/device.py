"""Where a model is computed: on a CPU, on a GPU that no other training holds, or on several; and in which precision."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mmmil import params
from mmmil.params import Params
from mmmil.processes import allocation, leases

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CPU_THREADS = 1  # of one training: another number sums in another order, and results would not be bit-identical


class DeviceError(RuntimeError):
    """The device that was asked for is not here; says what to set."""


def make_fabric(p: Params) -> Fabric:
    """The device by the parameters `device` and `precision`; bf16 only where the hardware has it.

    Under `torchrun` every process gets its share of each batch, by distributed data parallel.
    """
    with _without("torchmetrics"):  # of which Fabric wants the version only, and which takes longer to load than itself
        from lightning_fabric import Fabric  # loads torch._dynamo, seconds that only computing a model is worth
        from lightning_fabric.plugins.environments import LightningEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # importing it has set INFO
    torch.set_num_threads(CPU_THREADS)
    cuda, precision = uses_gpu(p), precision_of(p)
    processes, of_a_node = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if processes > 1:
        where = {"strategy": "ddp", "devices": of_a_node, "num_nodes": processes // of_a_node}
    else:
        where = {"devices": [free_gpu(tuple(map(gpu_name, range(torch.cuda.device_count()))))] if cuda else 1}
        where["plugins"] = [LightningEnvironment()]  # one process, however many a cluster's job is said to have
    fabric = Fabric(accelerator="cuda" if cuda else "cpu", precision=precision, **where)
    fabric.launch()
    torch.use_deterministic_algorithms(not cuda)
    # An eighth of a CPU's time, and nothing reads it. (The module makes this name when it is asked for.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return fabric


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Where this holds a package that is not loaded yet cannot be imported."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


def gpu_name(index: int) -> str:
    """Name of a GPU that is the same to every process, whatever part of the machine's GPUs each may see."""
    return str(getattr(torch.cuda.get_device_properties(index), "uuid", index))


def locks() -> Path:
    """Folder of the locks of GPUs: the project's, or where a kept model is applied outside of any, the user's own."""
    try:
        return params.root() / ".snakemake"
    except params.ParameterError:
        return Path(tempfile.gettempdir()) / f"mmmil-{os.getuid()}"


@lru_cache  # one per process, however often it asks
def free_gpu(names: tuple[str, ...], folder: Path | None = None) -> int:
    """Index of the GPU that the fewest other trainings of this project hold, of as many as one may take
    (`allocation.per_gpu`); 0 where all are full. Held until the process ends.

    names: of the GPUs that the process sees.
    """
    folder = folder or locks()
    for place in range(allocation.per_gpu()):
        for index, name in enumerate(names):
            lease = leases.held(folder / f"gpu-{name}-{place}", wait=False)
            with contextlib.suppress(leases.HeldError):
                _until_the_end().enter_context(lease)
                return index
    return 0


@lru_cache
def _until_the_end() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack


def uses_gpu(p: Params) -> bool:
    """Whether `device` means a GPU here. Raises DeviceError where it asks for one and there is none."""
    if p.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device: cuda, but PyTorch sees no GPU here; set device: auto")
    return p.device != "cpu" and torch.cuda.is_available()


def precision_of(p: Params) -> str:
    """The precision by the parameter, or under auto bf16-mixed on a GPU that has it and 32-true elsewhere."""
    if p.precision != "auto":
        return p.precision
    return "bf16-mixed" if uses_gpu(p) and torch.cuda.is_bf16_supported() else "32-true"


def circumstances(p: Params) -> dict[str, str]:
    """Name of the device, and precision: what a result's numbers depend on beside its inputs."""
    gpu = uses_gpu(p)
    device = torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine()
    return {"device": device, "precision": precision_of(p)}


# Parameters of glibc's mallopt(3) with the values that are restored: its defaults.
M_TRIM_THRESHOLD, M_MMAP_MAX = (-1, 128 * 1024), (-4, 65536)


@contextlib.contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """While a CPU trains, memory that is freed stays with the process, and is given back at the end.

    glibc returns every large block to the system at once, so that each step has the pages of all its activations
    made and zeroed anew, about half of its time. Where the C library is another, and on a GPU, which has an allocator
    of its own, nothing is changed. Only the main thread gains by it: glibc keeps no block of this size for the others.
    """
    c = ctypes.CDLL(None) if device.type == "cpu" and hasattr(os, "confstr") else None
    if not (hasattr(c, "mallopt") and hasattr(c, "malloc_trim")):
        yield
        return
    c.mallopt(M_TRIM_THRESHOLD[0], -1)  # -1: never
    c.mallopt(M_MMAP_MAX[0], 0)
    try:
        yield
    finally:
        for name, default in (M_TRIM_THRESHOLD, M_MMAP_MAX):
            c.mallopt(name, default)
        c.malloc_trim(0)
