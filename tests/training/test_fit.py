"""The training engine: goes on after a kill bit for bit, the same in two processes, and says what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmil import params
from mmmil.models.bag_model import BagModel
from mmmil.models.clam import CLAM
from mmmil.models.fusion import MultimodalMIL
from mmmil.processes import allocation
from mmmil.slides import packed
from mmmil.slides.features import Bags
from mmmil.training import augmentation, device, fit
from mmmil.training.fit import Inputs, TrainingError

ROOT = Path(__file__).resolve().parents[2]
# A training as small as can be, in a process of its own. Arguments: checkpoint, where the weights go, the step at
# which the process kills itself (-1: none), dropout, tiles through the backbone at once (0: all).
SCRIPT = """
import os, signal, sys
import torch
from mmmil.training import device, fit
sys.path.insert(0, {tests!r})
from tests.training.test_fit import parameters, small
checkpoint, out = sys.argv[1:3]
last, dropout, chunk = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
steps, loss = [], fit._loss
def counted(*given):
    steps.append(0)
    if len(steps) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*given)
fit._loss, fit.CHECKPOINT_EVERY = counted, float(os.environ.get("EVERY", 0))
p = parameters()
fabric = device.make_fabric(p)
model, inputs, labels = small(dropout, chunk)
_, history = fit.fit(fabric, model, inputs, labels, list(range(22)), p, True, checkpoint=fit.Path(checkpoint))
if fabric.global_rank == 0:
    torch.save(dict(model.state_dict(), history=torch.tensor(history["loss"])), out)
"""


def parameters(**more):
    base = {"task": "t", "class_names": ["A", "B"], "epochs": 4, "batch_size": 5, "lr": 1e-3, "device": "cpu"}
    return params.check({**base, **more})


def small(dropout=0.1, chunk=0):
    """A model of pixels and gene tokens, and inputs of 24 patients: batches of 5, the last of 2."""
    from mmmil.models import backbone

    torch.manual_seed(3)
    encoder = backbone.prune(backbone.TileEncoder("reduced", "random"), torch.arange(16))
    aggregator = MultimodalMIL("dual", 16, 6, 5, width=16, heads=2, dropout=dropout)
    tiles = torch.randint(0, 256, (24, 3, 32, 32, 3), dtype=torch.uint8)
    inputs = Inputs(tiles, torch.randn(24, 5, 6), patients=[f"P{i:02d}" for i in range(24)])
    return BagModel(aggregator, encoder, gene_dropout=dropout, tile_chunk=chunk), inputs, torch.arange(24) % 2


def run(tmp_path, name, last=-1, dropout=0.1, processes=1, chunk=0):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(ROOT)))
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    given = [str(tmp_path / f"{name}.checkpoint"), str(tmp_path / f"{name}.pt"), str(last), str(dropout), str(chunk)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        [sys.executable, *launcher, str(script), *given], env=environment, capture_output=True, text=True
    )


def weights(tmp_path, name):
    return torch.load(tmp_path / f"{name}.pt", weights_only=True)


def test_a_killed_training_goes_on_bit_for_bit(tmp_path):
    assert run(tmp_path, "whole").returncode == 0
    assert run(tmp_path, "cut", last=13).returncode < 0  # the third of the third epoch's five steps
    assert (tmp_path / "cut.checkpoint").is_file() and not (tmp_path / "cut.pt").exists()
    done = torch.load(tmp_path / "cut.checkpoint", weights_only=True)
    assert len(done["history"]) == 2
    assert run(tmp_path, "cut").returncode == 0
    whole, cut = weights(tmp_path, "whole"), weights(tmp_path, "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_training_whose_time_is_up_stops_at_a_checkpoint_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    assert run(tmp_path, "whole").returncode == 0
    monkeypatch.setenv("MMMIL_JOB_END", "0")  # no epoch fits: each call gets one further
    ended = run(tmp_path, "cut")
    assert ended.returncode == 1 and "OutOfTimeError" in ended.stderr and not (tmp_path / "cut.pt").exists()
    assert len(torch.load(tmp_path / "cut.checkpoint", weights_only=True)["history"]) == 1
    run(tmp_path, "cut")
    assert len(torch.load(tmp_path / "cut.checkpoint", weights_only=True)["history"]) == 2
    monkeypatch.delenv("MMMIL_JOB_END")
    assert run(tmp_path, "cut").returncode == 0
    whole, cut = weights(tmp_path, "whole"), weights(tmp_path, "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_checkpoints_are_seconds_apart_but_for_the_one_before_the_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setenv("EVERY", "1e9")
    assert run(tmp_path, "cut", last=13).returncode < 0
    assert not (tmp_path / "cut.checkpoint").exists()
    monkeypatch.setenv("MMMIL_JOB_END", "0")
    assert "OutOfTimeError" in run(tmp_path, "cut").stderr
    assert len(torch.load(tmp_path / "cut.checkpoint", weights_only=True)["history"]) == 1


def test_two_processes_give_the_loss_of_one(tmp_path):
    assert run(tmp_path, "one", dropout=0.0).returncode == 0
    # Tiles in chunks as well: each process computes the backbone again for its gradients.
    made = run(tmp_path, "two", dropout=0.0, processes=2, chunk=4)  # dropout draws in each process for itself
    assert made.returncode == 0, made.stderr[-2000:]
    one, two = (weights(tmp_path, name)["history"] for name in ("one", "two"))
    assert len(one) == 4 and one[0] != one[-1]
    assert torch.allclose(one, two, atol=1e-5, rtol=0)


def fitted(model, inputs, labels, p, **more):
    return fit.fit(device.make_fabric(p), model, inputs, labels, list(range(20)), p, **more)


def test_a_loss_that_is_not_finite_names_the_patients():
    model, inputs, labels = small()
    inputs.genes[7] = torch.nan
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 0, step \d \(patients .*P07"):
        fitted(model, inputs, labels, parameters())


ON_A_CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ON_A_CPU)])
def test_too_little_memory_names_the_parameters_to_lower(monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(fit, "_loss", full)
    with pytest.raises(TrainingError, match=r"5 patients of 3 tiles: lower batch_size \(now 5\)"):
        fitted(*small(), parameters())


def test_a_larger_bag_than_those_of_the_training_is_named_where_memory_is_not_enough(monkeypatch):
    def full(*_):
        raise RuntimeError(ON_A_CPU)

    bags = Bags(["a", "b", "c"], np.zeros((8, 2), np.float32), np.array([0, 1, 7, 8]), None, None, None)
    monkeypatch.setattr(Bags, "__getitem__", full)
    told = r"for 2 patients, padded to the 6 features of b: lower batch_size \(now 2\), or n_tiles"
    with pytest.raises(TrainingError, match=told):
        fit.predict(
            device.make_fabric(parameters()), torch.nn.Identity(), Inputs(bags, patients=bags.patients), [0, 1], 2
        )


def test_any_other_error_is_left_as_it_is(monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(fit, "_loss", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fitted(*small(), parameters())


def test_bf16_on_a_cpu_trains_to_nearly_the_same_loss():
    _, full = fitted(*small(0.0), parameters(epochs=2))
    _, half = fitted(*small(0.0), parameters(epochs=2, precision="bf16-mixed"))
    assert np.isfinite(half["loss"]).all() and not np.array_equal(half["loss"], full["loss"])
    assert np.allclose(half["loss"], full["loss"], atol=0.05)


# In a process of its own: what other tests freed would lie ready for the tensor, and nothing would grow.
MEMORY = """
import os, torch
from mmmil.training import device
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before = resident()
with device.freed_memory_kept(torch.device("cpu")):
    torch.ones(1 << 27)  # 512 MiB, freed at once
    kept = resident() - before
print(kept, resident() - before)
"""


def test_freed_memory_is_given_back_after_training():
    if not Path("/proc/self/statm").is_file():
        pytest.skip("resident memory is read from Linux's /proc")
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    kept, after = map(int, done.stdout.split())
    assert kept > 1 << 28  # of glibc; another C library has no such setting
    assert after < 1 << 27


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "x.checkpoint"
    path.write_bytes(b"PK not a checkpoint")
    with pytest.raises(TrainingError, match=r"x\.checkpoint: the checkpoint is damaged .*remove it"):
        fitted(*small(), parameters(), checkpoint=path)


def test_a_bag_without_tiles_is_named():
    from mmmil.training import inputs as training_inputs

    with pytest.raises(TrainingError, match=r"1 bags have no tile \(B\)"):
        training_inputs.require_tiles(np.array([[True, False], [False, False]]), ["A", "B"])


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_schedule_is_that_of_the_epochs_that_are_trained(monkeypatch, epochs):
    rates = []

    class Watched(torch.optim.lr_scheduler.OneCycleLR):
        def step(self, *given):
            rates.append(self.optimizer.param_groups[0]["lr"])  # of the step that was just taken
            super().step(*given)

    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", Watched)
    fitted(*small(), parameters(epochs=epochs))
    steps = rates[1:]  # the first is before the training
    assert len(steps) == 4 * epochs and max(steps) > 5e-4 and steps[-1] < 1e-6  # up to 1e-3, and all the way down


def test_instances_add_their_loss():
    torch.manual_seed(0)
    p, model = parameters(epochs=30, batch_size=10, lr=1e-2), BagModel(CLAM(6, 16, 8, dropout=0.0, k_sample=2))
    features, labels = torch.randn(24, 5, 6), torch.arange(24) % 2
    features[labels == 1, 0] += 3
    _, history = fitted(model, Inputs(features), labels, p)
    assert history["loss"].iloc[-1] < 0.6 * history["loss"].iloc[0]
    for classifier in model.aggregator.instance_classifiers:
        assert classifier.weight.grad.abs().sum() > 0


def test_tiles_of_a_mapped_file_are_those_in_memory(tmp_path):
    model, inputs, labels = small()
    packed.write(tmp_path / "tiles.npy", inputs.tiles.numpy(), len(inputs.tiles))
    p = parameters(epochs=1)
    _, held = fitted(model, inputs, labels, p, augment=True)
    again, _, _ = small()
    mapped = packed.mapped(tmp_path / "tiles.npy")
    assert mapped.shape == inputs.tiles.shape and mapped.dtype == np.uint8
    _, streamed = fitted(again, Inputs(mapped, inputs.genes), labels, p, augment=True)
    assert held["loss"].tolist() == streamed["loss"].tolist()


def test_draws_are_those_of_the_batch_whatever_the_share():
    draws = augmentation.draw(5, torch.Generator().manual_seed(0))
    part = draws[1::2]
    assert torch.equal(part.turn, draws.turn[[1, 3]]) and torch.equal(part.colour, draws.colour[[1, 3]])
    gain, shift = draws.colour.unbind(1)
    assert ((gain - 1).abs() <= 0.05).all() and (shift.abs() <= 0.025).all() and gain.std() > 0
    tiles = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(1, 2, 4, 4, 3).expand(8, -1, -1, -1, -1)
    views = augmentation.turned(tiles, torch.arange(8))
    assert len({view.numpy().tobytes() for view in views}) == 8
    assert torch.equal(views[0], tiles[0]) and torch.equal(views[1], torch.rot90(tiles[0], 1, (1, 2)))


HOLD = (
    "from mmmil.training import device;"
    " print(device.free_gpu(('a', 'b'), __import__('pathlib').Path('.')), flush=True); input()"
)


def test_each_training_of_a_machine_takes_a_gpu_of_its_own(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": environment}
    first = subprocess.Popen([sys.executable, "-c", HOLD], **pipes)
    try:
        assert first.stdout.readline() == "0\n"
        device.free_gpu.cache_clear()
        assert device.free_gpu(("a", "b"), tmp_path) == 1
        assert device.free_gpu(("a", "b"), tmp_path) == 1  # the same for every model of a process
        assert device.free_gpu(("b", "a"), tmp_path) == 0  # all are held: they share
    finally:
        first.communicate("\n")
    assert device.free_gpu(("c", "a"), tmp_path) == 0 and device.free_gpu(("b", "a", "c"), tmp_path) == 1


def test_small_models_may_share_a_gpu_and_are_spread_over_all(tmp_path, monkeypatch):
    monkeypatch.setenv(allocation.PER_GPU, "2")
    taken = []
    for _ in range(5):
        device.free_gpu.cache_clear()
        taken.append(device.free_gpu(("a", "b"), tmp_path))
    assert taken == [0, 1, 0, 1, 0]  # the fifth finds all full
    device._until_the_end().close()
    assert not list(tmp_path.iterdir())
    device.free_gpu.cache_clear()


def test_locks_of_gpus_need_no_project(tmp_path, monkeypatch):
    """A kept model is applied where mmmil is installed and no project is."""
    assert device.locks() == params.root() / ".snakemake"

    def no_project():
        raise params.ParameterError("no project folder")

    monkeypatch.setattr(params, "root", no_project)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert device.locks().parent == tmp_path
