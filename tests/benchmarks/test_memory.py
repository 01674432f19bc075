"""Benchmarks of memory and scaling: what they count, where lines cross, and their pages and figures at a tiny size."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmil import plots
from mmmil.models import backbone
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import MultimodalMIL


@pytest.fixture(scope="module")
def benchmarks():
    """The two benchmarks as modules; as scripts they find each other beside them."""
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("memory"), importlib.import_module("scaling")
    sys.path.remove(folder)


def test_kept_bytes_are_those_of_a_case_done_by_hand(benchmarks):
    memory, _ = benchmarks
    linear = nn.Linear(10, 7)
    x = torch.randn(5, 10)
    # x for the weight's gradient (an input, counted once), and tanh's output, for its own; no parameter.
    assert memory.kept_bytes(lambda: torch.tanh(linear(x)), linear, [x]) == 4 * (5 * 10 + 5 * 7)
    assert memory.state_bytes(linear) == 4 * 4 * (10 * 7 + 7)


def test_the_peak_is_that_of_a_case_done_by_hand(benchmarks):
    memory, _ = benchmarks
    x = torch.zeros(1000)
    with memory.Alive(x) as alive:
        y = x + 1
        z = y + 1
        del y
        w = z + 1
        assert alive.now == 4 * 3000
        del z, w
    assert alive.peak == 4 * 3000 and alive.now == 4 * 1000


@pytest.mark.parametrize("bf16", [False, True])
def test_tensors_without_data_count_as_real_ones(benchmarks, bf16):
    memory, _ = benchmarks
    way = memory.Way("ours", "reduced", ours=True, bf16=bf16, chunk=4)
    found = []
    for mode in (FakeTensorMode(), torch.enable_grad()):
        with mode:
            model, x = memory.build(way, "dual", 10), memory.inputs(way, "dual", 10, 1, 6, 64)
            peak = memory.step_peak(model, x, lambda model=model, x=x: memory.loss_of(model, x, way.bf16))
            found.append((memory.kept_by_step(model, x, way), memory.state_bytes(model), peak))
    (kept, states, peak), (real_kept, real_states, real_peak) = found
    assert kept == real_kept > 0 and states == real_states > 0
    assert peak == pytest.approx(real_peak, rel=0.05) and peak > kept  # the peak also holds gradients and states


def kept_outside_inputs(memory, tiles: int, chunk: int) -> int:
    """Bytes that a forward pass keeps beside its pixels, the graph inside the chunks left out."""
    torch.manual_seed(0)
    encoder = backbone.prune(backbone.TileEncoder("reduced", "random"), torch.arange(24))
    model = BagModel(MultimodalMIL("image", 24, width=24, heads=4), encoder, tile_chunk=chunk).train()
    x = torch.zeros(1, tiles, 64, 64, 3, dtype=torch.uint8)
    return memory.kept_bytes(lambda: memory.loss_of(model, [x], False), model, [x]) - x.nbytes


def test_chunks_keep_no_activation_of_the_backbone(benchmarks):
    memory, _ = benchmarks
    with FakeTensorMode():
        few, many = (kept_outside_inputs(memory, n, 8) for n in (32, 256))
        all_few, all_many = (kept_outside_inputs(memory, n, 0) for n in (32, 256))
    tokens = (many - few) / 224  # bytes that the aggregator keeps for a further tile's token
    assert 0 < tokens < 0.02 * (all_many - all_few) / 224
    assert tokens < 40 * 24 * 4  # some dozens of values per channel, and nothing of the tile's pixels


def test_the_peak_does_not_grow_with_the_tiles_in_chunks(benchmarks):
    memory, _ = benchmarks
    peaks = {}
    with FakeTensorMode():
        for chunk in (0, 8):
            way = memory.Way("ours", "reduced", ours=True, chunk=chunk)
            for tiles in (16, 64):
                model, x = memory.build(way, "image", 10), memory.inputs(way, "image", 10, 1, tiles, 64)
                peak = memory.step_peak(model, x, lambda model=model, x=x: memory.loss_of(model, x, False))
                peaks[chunk, tiles] = peak - x[0].nbytes
    assert peaks[8, 64] < 1.2 * peaks[8, 16]
    assert peaks[0, 64] > 3 * peaks[0, 16]  # all at once, it does


@pytest.mark.parametrize("attention", ["exact", "nystrom"])
def test_a_step_keeps_nothing_that_grows_with_the_square_of_the_tiles(benchmarks, attention):
    memory, _ = benchmarks
    kept = []
    for n in (256, 512, 1024):
        with FakeTensorMode():
            model = MultimodalMIL("image", 24, width=24, heads=4, attention=attention, landmarks=8).train()
            x = torch.zeros(1, n, 24)
            kept.append(memory.kept_bytes(lambda model=model, x=x: memory.loss_of(model, [x], False), model, [x]))
    assert (kept[2] - kept[1]) / (kept[1] - kept[0]) == pytest.approx(2, rel=0.1)


def test_the_reference_is_the_librarys_attention_and_learns_every_parameter(benchmarks):
    memory, _ = benchmarks
    model = memory.build(memory.ORIGINAL, "dual", 5, width=16, landmarks=4)
    assert backbone.parameters(model.tile_encoder) == 340_992
    attention = [m for m in model.modules() if isinstance(m, memory.LibraryAttention)]
    assert len(attention) == 4 and {m.num_landmarks for m in attention} == {4}
    x = memory.inputs(memory.ORIGINAL, "dual", 5, 2, 4, 64)
    x[0], x[1] = torch.randn_like(x[0]), torch.randn_like(x[1])
    F.cross_entropy(model(*x)[0], torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.parameters())
    ours = memory.build(memory.chunked(3), "dual", 5)
    assert ours.tile_chunk == 3 and ours(*memory.inputs(memory.AT_ONCE, "dual", 5, 2, 4, 64))[0].shape == (2, 2)


def test_the_batch_of_a_given_memory_lies_on_the_line(benchmarks):
    memory, _ = benchmarks
    table = pd.DataFrame({"bags": [1, 2, 4], "memory_mib": [1124.0, 2148.0, 4196.0]})
    assert memory.line(table) == pytest.approx((100, 1024, 0), abs=1e-9)
    assert memory.batch_at(10 + 100 / 1024, table) == pytest.approx(10)
    table.loc[2, "memory_mib"] *= 1.5
    assert memory.line(table)[2] > 0.05


def test_where_two_lines_cross(benchmarks):
    _, scaling = benchmarks
    sizes = [10, 100, 1000]
    assert scaling.crossing(sizes, [1, 2, 8], [2, 4, 2]) == pytest.approx(10 ** (2 + 1 / 3))
    assert np.isnan(scaling.crossing(sizes, [1, 2, 3], [2, 3, 4]))
    assert np.isnan(scaling.crossing(sizes, [3, 2, 3], [2, 3, 4]))  # cheaper at first, but not for the large ones
    assert scaling.crossing(sizes, [2, 3, 4], [1, 2, 3]) == 10
    assert scaling.crossing_text(sizes, [1, 2, 3], [2, 3, 4], "tiles").startswith("none up to 1,000 tiles")
    assert "every size" in scaling.crossing_text(sizes, [2, 3, 4], [1, 2, 3], "tiles")


def test_on_a_gpu_the_memory_of_the_other_models_is_not_counted(benchmarks, monkeypatch):
    memory, scaling = benchmarks
    there = iter([0, 300 * memory.MIB])  # the first model stays while the second is measured
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(there))
    monkeypatch.setattr(scaling, "build", lambda *_: (None, []))
    monkeypatch.setattr(scaling, "step_peak", lambda *_, **__: 500 * memory.MIB)
    monkeypatch.setattr(scaling, "seconds_of", lambda *_: (1.0, 1.0))
    given = scaling.arguments(["--quick"])
    given.device = "cuda"
    rows = scaling.at_size("tiles", 9, list(scaling.pairs(given)[0]), given)
    assert [row["memory_mib"] for row in rows] == [500, 200]


def test_scaling_in_one_command_and_its_figure(benchmarks, tmp_path):
    _, scaling = benchmarks
    scaling.main(["--quick", "--out", str(tmp_path / "scaling.md")])
    table, text = pd.read_csv(tmp_path / "scaling.csv"), (tmp_path / "scaling.md").read_text()
    assert len(table) == 8 and (table[["seconds", "cpu_seconds", "memory_mib"]] > 0).all(axis=None)
    assert "without the backbone" in text and "gene sets" in text and "commit" in text
    figure = plots.scaling(table)
    assert len(figure.axes) == 4 and all(a.get_xscale() == a.get_yscale() == "log" for a in figure.axes)
    assert [len(a.lines) for a in figure.axes] == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="memory_mib"):
        plots.scaling(table.drop(columns="memory_mib"))


def test_memory_in_one_command_and_its_figure(benchmarks, tmp_path):
    memory, _ = benchmarks
    memory.main(["--quick", "--device", "cpu", "--out", str(tmp_path / "memory.md")])
    table, text = pd.read_csv(tmp_path / "memory.csv"), (tmp_path / "memory.md").read_text()
    assert (table["memory_mib"] > 0).all() and set(table["part"]) == {"fit", "batch", "bag"}
    assert "counted, not measured" in text and "autograd graph" in text
    batch = table[table["part"] == "batch"].set_index("way")["memory_mib"]
    assert batch[memory.ORIGINAL.name] > batch[memory.REDUCED.name] > batch.iloc[-1]
    figure = plots.memory(table)
    assert len(figure.axes) == 2 and all(a.get_xscale() == a.get_yscale() == "log" for a in figure.axes)
    with pytest.raises(ValueError, match="image"):
        plots.memory(table, fusion="image")
    with pytest.raises(ValueError, match="peak_mib"):
        plots.memory(table.drop(columns="peak_mib"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(benchmarks, capsys):
    for module in benchmarks:
        with pytest.raises(SystemExit):
            module.arguments(["--device", "cuda"])
        assert "no GPU" in capsys.readouterr().err
