"""Seconds for the whole paper: 18 variants, five folds and a final model each, three tasks - 324 trainings.

    python benchmarks/whole_paper.py                             this machine: some minutes on 2 CPU cores
    python benchmarks/whole_paper.py --device cuda --parallel 4  a GPU, four trainings at a time
    python benchmarks/whole_paper.py --quick                     small bags, for a test

Nothing is trained to its end. Of every variant of another shape some steps of `mmmil.training.fit`, the prediction of a
batch and the preparation of the tile encoder are measured at the paper's size (64 tiles of 256 px, gene sets of 96
values) on random tensors, and multiplied: epochs and batch size are the schema's defaults, patients those of the paper.
GO and KEGG sets are taken to be as many, so they share a measurement. Added are the features of the frozen encoders,
computed once a task, and the reading of the bags. On a GPU the random cohort has 941 patients, all resident as uint8.
Slides, genes and the book are not in it. Writes benchmarks/results/whole_paper.md.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm
from train_step import Clock, peak, rows_of

TASKS = {"LGG": 467, "NSCLC": 941, "BRCA": 510}  # patients in the paper
FEATURES = {"resnet50d": 2048, "ctranspath": 768}
GOAL = 3600.0  # s on one H200
TESTED, FOLDS = 0.2, 5


def shape_of(v) -> tuple:
    """What a variant's cost depends on: variants of one shape are measured once."""
    return v.backbone, "sets" if v.genes in ("go", "kegg") else v.genes, v.fusion


def neural() -> list:
    from mmmil.variants import BASELINES, VARIANTS

    return [v for name, v in VARIANTS.items() if name not in BASELINES and not v.optional]


def settings(given):
    """The schema's defaults, but for the device; random weights cost what any others do."""
    from mmmil import params

    values = {"device": given.device, "n_tiles": given.tiles, "tile_px": given.px}
    if given.batch:
        values["batch_size"] = given.batch
    return params.check({"task": "t", "class_names": ["A", "B"], "synthetic": True, "weights": "random", **values})


def cost(v, given, fabric, tiles: torch.Tensor) -> dict[str, float]:
    """Seconds of one variant: a step (median), the preparation of a training, the prediction of a patient."""
    from mmmil.training import build, fit
    from mmmil.training import inputs as training_inputs

    p = settings(given).override(epochs=1)
    n, labels = len(tiles), torch.arange(len(tiles)) % 2
    genes, held = None, tiles
    if v.uses_genes:
        shape = (given.sets, p.latent_dim) if v.genes in ("go", "kegg") else (1, p.single_genes)
        genes = torch.randn(n, *shape)
    if v.uses_slides and not v.is_trained_end_to_end(p):
        held = torch.randn(n, given.tiles, FEATURES[v.encoder(p)])
    inputs = fit.on_device(fabric, fit.Inputs(held if v.uses_slides else None, genes), range(n))
    start, encoder = time.perf_counter(), None
    if v.is_trained_end_to_end(p):
        few = -(-p.apoz_tiles // given.tiles)
        pixels = tiles[:few].cpu().numpy()
        few = len(pixels)
        encoder, _ = build.tile_encoder(p, v, pixels, np.ones((few, given.tiles), bool), list(range(few)), fabric)
    tokens = None if genes is None else training_inputs.Genes(SimpleNamespace(tokens=genes[:1].numpy()))
    model = build.build(p, v, tokens, encoder, held.shape[-1] if v.uses_slides else 0)
    prepared = time.perf_counter() - start
    clock = Clock(fabric.device, given.warm_up)
    hook = model.register_forward_pre_hook(clock)
    train = [i % n for i in range(p.batch_size * (given.steps + given.warm_up + 1))]
    fitted, _ = fit.fit(fabric, model, inputs, labels, train, p, v.is_trained_end_to_end(p))
    hook.remove()
    which, passes = train[: p.batch_size], []
    for _ in range(1 + min(given.steps, 3)):
        start = time.perf_counter()
        fit.predict(fabric, fitted, inputs, which, p.batch_size)
        passes.append((time.perf_counter() - start) / len(which))
    predicted = float(np.median(passes[1:]))  # the first loads kernels
    return {"step": float(np.median([wall for wall, _ in clock.steps])), "prepare": prepared, "predict": predicted}


def features(name: str, given, fabric, bag: torch.Tensor) -> float:
    """Seconds for the features of one patient by a frozen encoder."""
    from mmmil.models import backbone

    encoder = backbone.FrozenEncoder(name, "random").to(fabric.device)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.inference_mode(), fabric.autocast():
            encoder(backbone.to_input(bag[None].to(fabric.device), encoder.mean, encoder.std)).float().cpu()
        seconds.append(time.perf_counter() - start)
    return min(seconds)  # the first warms up


def reading(bag: torch.Tensor) -> float:
    """Seconds to read one patient's bag from a packed file that is mapped and in the system's cache."""
    from mmmil.slides import packed

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / packed.PIXELS
        packed.write(path, [bag.cpu().numpy()], 1)
        bags = packed.mapped(path)
        start = time.perf_counter()
        packed.taken(bags, [0])
        return time.perf_counter() - start


def measure(rank: int, given, folder: Path, barrier=None) -> None:
    """All measurements of one of `--parallel` processes, which wait for each other before every variant."""
    from mmmil.training import device

    fabric = device.make_fabric(settings(given))
    torch.set_num_threads(given.threads)
    torch.manual_seed(rank)
    shape = (given.patients, given.tiles, given.px, given.px, 3)
    tiles = torch.randint(0, 256, shape, dtype=torch.uint8, device=fabric.device)
    measured: dict = {"costs": {}, "features": {}}
    distinct = {shape_of(v): v for v in reversed(neural())}
    for key, v in tqdm(list(reversed(distinct.items())), desc="variants", unit="variant", disable=rank > 0):
        if barrier is not None:
            barrier.wait()
        measured["costs"][key] = cost(v, given, fabric, tiles)
    for name in FEATURES:
        measured["features"][name] = features(name, given, fabric, tiles[0])
    measured["reading"], measured["peak"] = reading(tiles[0]), peak(fabric.device)
    torch.save(measured, folder / f"{rank}.pt")


def together(given) -> dict:
    """The measurements, each the median of the processes that ran at the same time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.parallel == 1:
            measure(0, given, folder)
        else:
            context = torch.multiprocessing.get_context("spawn")
            barrier = context.Barrier(given.parallel)
            started = [
                context.Process(target=measure, args=(rank, given, folder, barrier)) for rank in range(given.parallel)
            ]
            for process in started:
                process.start()
            for process in started:
                process.join()
                if process.exitcode:
                    barrier.abort()  # the others would wait for ever
            if any(process.exitcode for process in started):
                sys.exit("a process failed; lower --parallel where the device's memory was not enough")
        by_rank = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(given.parallel)]
    costs = {
        key: {name: float(np.median([m["costs"][key][name] for m in by_rank])) for name in its_costs}
        for key, its_costs in by_rank[0]["costs"].items()
    }
    names = {name: float(np.median([m["features"][name] for m in by_rank])) for name in FEATURES}
    read = float(np.median([m["reading"] for m in by_rank]))
    return {"costs": costs, "features": names, "reading": read, "peak": sum(m["peak"] for m in by_rank)}


def seconds(costs: dict[str, float], patients: int, epochs: int, batch: int, parallel: int) -> float:
    """Six trainings of a variant on a task: five folds on 64 % of the patients, the final model on 80 %."""
    development = patients - round(TESTED * patients)
    fold = development - development // FOLDS
    steps = epochs * (FOLDS * math.ceil(fold / batch) + math.ceil(development / batch))
    return (steps * costs["step"] + (FOLDS + 1) * costs["prepare"] + patients * costs["predict"]) / parallel


def page(given, measured: dict) -> str:
    """The results page."""
    from mmmil import record

    p, lines, total = settings(given), [], dict.fromkeys(TASKS, 0.0)
    by_kind = {"end to end": 0.0, "on frozen features or genes alone": 0.0}
    for v in neural():
        costs = measured["costs"][shape_of(v)]
        its = {task: seconds(costs, n, p.epochs, p.batch_size, given.parallel) for task, n in TASKS.items()}
        for task, its_seconds in its.items():
            total[task] += its_seconds
        kind = "end to end" if v.is_trained_end_to_end(p) else "on frozen features or genes alone"
        by_kind[kind] += sum(its.values())
        cells = [f"{costs['step']:.3f}", f"{costs['prepare']:.1f}", f"{costs['predict']:.3f}"]
        lines.append([v.name, *cells, *its.values()])
    once = {
        **{f"features of {name}, once a task": measured["features"][name] for name in FEATURES},
        "reading the bags, once a task": measured["reading"],
    }
    for name, of_a_patient in once.items():
        its = {task: of_a_patient * n for task, n in TASKS.items()}
        for task, its_seconds in its.items():
            total[task] += its_seconds
        by_kind[name] = sum(its.values())
        lines.append([name, "", "", f"{of_a_patient:.3f}", *its.values()])
    lines.append(["**all**", "", "", "", *total.values()])
    whole = sum(total.values())
    head = ["variant", "s a step", "preparing, s", "s a patient once", *(f"{task}, min" for task in TASKS)]
    table = [[*head, "all tasks, min", "share"]]
    for name, *three, a, b, c in lines:
        both = a + b + c
        table.append([name, *three, *(f"{x / 60:.1f}" for x in (a, b, c, both)), f"{100 * both / whole:.1f} %"])
    cuda = given.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else "no GPU"
    made_on = record.made_on("torch", "timm", "lightning-fabric", "numpy", device=device)
    most = max(by_kind, key=by_kind.get)
    about = [
        f"- {made_on}",
        f"- {given.threads} threads a training, {given.parallel} trainings at a time, load average {given.load:.1f} at "
        f"the start, without this, and {os.getloadavg()[0]:.1f} at the end",
        f"- `python benchmarks/whole_paper.py {shlex.join(given.command)}`",
        f"- {given.tiles} tiles of {given.px} px, {given.sets} GO and as many KEGG sets, {p.epochs} epochs, "
        f"{p.batch_size} patients a step, {p.precision} precision; medians of {given.steps} steps on {given.patients} "
        f"random patients, peak memory {measured['peak']:,} MiB",
    ]
    goal = (
        f"The goal is under one hour on one H200: {'reached' if whole < GOAL else 'NOT reached'} on this device, by "
        "steps measured here; no training was run to its end."
        if cuda
        else "The goal is under one hour on one H200. That was not measured: this page is of a CPU, and says nothing "
        "of a GPU. `--device cuda` measures it."
    )
    limit = (
        f"What limits it: {100 * by_kind[most] / whole:.0f} % of the time goes to "
        f"{'trainings ' if most in list(by_kind)[:2] else ''}{most}"
        f"{', which pass every tile through the backbone and back in every epoch' if most == 'end to end' else ''}."
    )
    text = ["# The whole paper: 324 trainings", "", "`benchmarks/whole_paper.py` says what is measured and what added."]
    text += ["", *about, "", f"**{whole / 3600:.2f} hours** for all. {goal}", "", limit, "", *rows_of(table), ""]
    return "\n".join(text)


def main() -> None:
    """Measure, multiply, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--parallel", type=int, default=1, help="trainings at a time on the device")
    parser.add_argument("--patients", type=int, default=0, help="in memory; 0: 941 on a GPU, 16 on a CPU")
    parser.add_argument("--steps", type=int, default=0, help="timed of every variant; 0: 20 on a GPU, 3 on a CPU")
    parser.add_argument("--warm-up", type=int, default=0, help="steps before; 0: 5 on a GPU, 1 on a CPU")
    parser.add_argument("--batch", type=int, default=0, help="patients a step; 0: the schema's default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--sets", type=int, default=300, help="gene sets of either kind")
    parser.add_argument("--quick", action="store_true", help="small bags and one step")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of whole_paper.md")
    given = parser.parse_args()
    given.command = [text for text in sys.argv[1:] if text not in ("--out", str(given.out))]  # names no local folder
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    cuda = given.device == "cuda"
    if given.quick:
        given.tiles, given.px, given.sets, given.steps, given.patients, given.batch = 4, 32, 5, 1, 4, 2
    given.patients = given.patients or (max(TASKS.values()) if cuda else 16)
    given.steps, given.warm_up = given.steps or (20 if cuda else 3), given.warm_up or (5 if cuda else 1)
    from mmmil import record

    given.load = os.getloadavg()[0]
    text = page(given, together(given))
    given.out.mkdir(parents=True, exist_ok=True)
    record.write_atomically(given.out / "whole_paper.md", lambda t: t.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
