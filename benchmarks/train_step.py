"""A training step of the dual model under the reference recipe and ours: bags a second, peak memory, loss.

    python benchmarks/train_step.py                  on a GPU where there is one, else 2 CPU threads: half an hour
    python benchmarks/train_step.py --no-loss        speed and memory only: some 5 minutes on a CPU
    python benchmarks/train_step.py --no-speed       the loss only: some minutes
    python benchmarks/train_step.py --quick          a few small bags, for a test

The reference recipe is what one writes first: timm's MobileNetV4, nystrom-attention at width 512 with 256 landmarks,
nn.MultiheadAttention across the modalities, float32, contiguous layout, batch norm in training mode, tiles decoded
from PNG files by a DataLoader with worker processes, AdamW at one learning rate. Ours is `mmmil.training.fit`: uint8
tiles in memory (on the GPU where they fit), augmentation, exact attention at width 96, fixed batch norm, channels-last,
bf16 where the device has it, AdamW with a one-cycle schedule. Two defaults of the package that the reference lacks and
that cost no time are off: gene dropout and class weights. Weights are random in both. Both see 64 tiles of 256 px and
300 gene sets of 96 values a patient. Every measurement is a process of its own, the ways take turns, and a step is
timed from the start of one forward pass to the next, so that loading is in it.

The loss is that of 50 steps on smaller bags of two classes that differ in colour and in gene sets. There the reference
is as wide as ours and has its schedule, and ours does not augment, so that the recipes differ in no more than the page
says; a further row is ours with augmentation and gene dropout, its defaults. Writes benchmarks/results/train_step.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

DIM = 96  # a gene token, and the pruned image token
WIDE, ALIKE = (512, 256), (96, 64)  # width and landmarks of the reference, for speed and for the loss
NEEDED = {"cpu": 3.0, "cuda": 8.0}  # times the reference's bags a second
# name -> shown as
WAYS = {
    "original": "reference, Original backbone",
    "reduced": "reference, reduced backbone",
    "ours": "ours",
}
LOSS_WAYS = {
    "original": "reference, Original backbone, width 96",
    "reduced": "reference, reduced backbone, width 96",
    "ours": "ours, no augmentation",
    "shipped": "ours, with augmentation and gene dropout",
}


# -- the reference recipe, written plainly ---------------------------------------------------------------------------
class Layer(nn.Module):
    def __init__(self, width: int, landmarks: int):
        super().__init__()
        from nystrom_attention import NystromAttention

        self.norm = nn.LayerNorm(width)
        self.attention = NystromAttention(width, width // 8, 8, num_landmarks=landmarks, residual=True, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Encoder(nn.Module):
    """Class token, layer, PPEG of images, layer: tokens (B, N, dim) -> all tokens (B, 1 + N, width), class first."""

    def __init__(self, dim: int, ppeg: bool, width: int, landmarks: int):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layers = nn.ModuleList([Layer(width, landmarks), Layer(width, landmarks)])
        self.norm = nn.LayerNorm(width)
        kernels = (7, 5, 3) if ppeg else ()
        self.ppeg = nn.ModuleList(nn.Conv2d(width, width, k, padding=k // 2, groups=width) for k in kernels)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.first(tokens)
        x = self.layers[0](torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        if len(self.ppeg):
            side = int((x.shape[1] - 1) ** 0.5)  # the bags here are squares
            square = x[:, 1:].transpose(1, 2).unflatten(2, (side, side))
            square = square + sum(conv(square) for conv in self.ppeg)
            x = torch.cat([x[:, :1], square.flatten(2).transpose(1, 2)], 1)
        return self.norm(self.layers[1](x))


class Reference(nn.Module):
    """The dual model: tiles (B, N, 3, px, px) float32 and gene sets (B, S, DIM) -> logits (B, 2)."""

    def __init__(self, kind: str, width: int, landmarks: int):
        super().__init__()
        import timm

        net = timm.create_model("mobilenetv4_conv_small_050", pretrained=False)
        if kind == "reduced":
            for stage in (2, 3):
                net.blocks[stage] = net.blocks[stage][:1]
            last = net.blocks[-1][-1]
            last.conv = nn.Conv2d(64, DIM, 1, bias=False)
            last.bn1 = nn.Sequential(nn.BatchNorm2d(DIM), nn.ReLU(inplace=True))
        self.backbone = nn.Sequential(net.conv_stem, net.bn1, net.blocks)
        self.image = Encoder(DIM if kind == "reduced" else 480, True, width, landmarks)
        self.genes = Encoder(DIM, False, width, landmarks)
        self.to_genes, self.to_image = (nn.MultiheadAttention(width, 8, 0.1, batch_first=True) for _ in range(2))
        self.classifier = nn.Sequential(nn.LayerNorm(4 * width), nn.Dropout(0.1), nn.Linear(4 * width, 2))

    def forward(self, tiles: Tensor, genes: Tensor) -> Tensor:
        image = self.image(self.backbone(tiles.flatten(0, 1)).mean((2, 3)).unflatten(0, tiles.shape[:2]))
        gene = self.genes(genes)
        from_genes, _ = self.to_genes(image[:, :1], gene[:, 1:], gene[:, 1:])
        from_image, _ = self.to_image(gene[:, :1], image[:, 1:], image[:, 1:])
        return self.classifier(torch.cat([image[:, :1], gene[:, :1], from_genes, from_image], -1)[:, 0])


class PngBags(torch.utils.data.Dataset):
    """Bags whose tiles are PNG files, decoded when they are asked for."""

    def __init__(self, folder: Path, which: list[int]):
        from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        from torchvision.transforms import Compose, Normalize, ToTensor

        self.folder, self.which = folder, which
        self.genes, self.labels = torch.load(folder / "genes.pt"), torch.load(folder / "labels.pt")
        self.transform = Compose([ToTensor(), Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)])

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        from PIL import Image

        patient = self.which[i]
        paths = sorted((self.folder / str(patient)).glob("*.png"))
        tiles = torch.stack([self.transform(Image.open(path).convert("RGB")) for path in paths])
        return tiles, self.genes[patient], self.labels[patient]


# -- what is measured, in a process of its own -----------------------------------------------------------------------
def make_data(folder: Path, patients: int, n_tiles: int, px: int, sets: int) -> None:
    """Bags of two classes as PNG files and as one array: smooth noise, a tint and a few gene sets differ by class."""
    from PIL import Image

    draw = np.random.default_rng(0)
    labels = np.arange(patients) % 2
    tiles = np.empty((patients, n_tiles, px, px, 3), np.uint8)
    for patient, label in zip(range(patients), labels, strict=True):
        coarse = draw.normal(0, 25, (n_tiles, px // 8, px // 8, 3)).repeat(8, 1).repeat(8, 2)
        fine = draw.normal(0, 10, coarse.shape)
        tint = np.array([190, 140, 180]) + (2 * label - 1) * np.array([6, -6, 0]) + draw.normal(0, 4, 3)
        tiles[patient] = (tint + coarse + fine).clip(0, 255).astype(np.uint8)
        (folder / str(patient)).mkdir()
        for i, tile in enumerate(tiles[patient]):
            Image.fromarray(tile).save(folder / str(patient) / f"{i:04d}.png")
    genes = draw.normal(0, 1, (patients, sets, DIM)).astype(np.float32)
    genes[:, : max(1, sets // 10)] += 0.4 * (2 * labels - 1)[:, None, None]
    np.save(folder / "tiles.npy", tiles)
    torch.save(torch.from_numpy(genes), folder / "genes.pt")
    torch.save(torch.from_numpy(labels), folder / "labels.pt")


class Clock:
    """Seconds, wall and CPU of this process, from the start of one forward pass to the start of the next."""

    def __init__(self, device: torch.device, warm_up: int):
        self.device, self.warm_up, self.at = device, warm_up, []

    def __call__(self, *_) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.at.append((time.perf_counter(), time.process_time()))

    @property
    def steps(self) -> list[list[float]]:
        return np.diff(np.array(self.at), axis=0)[self.warm_up :].tolist()


def peak(device: torch.device) -> int:
    """Peak memory, MiB: of the GPU, or resident on a CPU (of this process; a loader's workers are not counted)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def reference(kind: str, folder: Path, train: list[int], held: list[int], given) -> dict:
    """A plain loop over a DataLoader."""
    device = torch.device(given.device)
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    model, clock = Reference(kind, *(ALIKE if held else WIDE)).to(device), Clock(device, given.warm_up)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, given.lr, given.steps) if held else None
    # Where only time counts, one epoch is all there is, so that the workers never wait for the next to begin.
    patients = train if held else train * -(-given.steps * given.batch // len(train))
    loader = torch.utils.data.DataLoader(
        PngBags(folder, patients), given.batch, shuffle=True, num_workers=given.workers,
        persistent_workers=given.workers > 0, pin_memory=device.type == "cuda",
    )  # fmt: skip
    hook = model.register_forward_pre_hook(clock)
    done = 0
    while done < given.steps:
        for tiles, genes, labels in loader:
            loss = F.cross_entropy(model(tiles.to(device), genes.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            done += 1
            if done == given.steps:
                break
    hook.remove()
    result = {"steps": clock.steps, "peak": peak(device)}
    if held:
        model.eval()
        with torch.no_grad():
            for name, which in (("train", train), ("held", held)):
                rows = torch.utils.data.DataLoader(PngBags(folder, which), given.batch)
                losses = [
                    F.cross_entropy(model(t.to(device), g.to(device)).cpu(), y, reduction="none") for t, g, y in rows
                ]
                result[name] = torch.cat(losses).mean().item()
    return result


def ours(folder: Path, train: list[int], held: list[int], given) -> dict:
    """The package's own training; augmented for speed and by its defaults, not where the loss is compared."""
    from mmmil import params, variants
    from mmmil.models.bag_model import BagModel
    from mmmil.models.fusion import MultimodalMIL
    from mmmil.training import build, fit
    from mmmil.training import device as training_device

    epochs = given.steps // -(-len(train) // given.batch)
    settings = {"epochs": epochs, "batch_size": given.batch, "lr": given.lr}
    settings |= {"seed": given.seed, "device": given.device, "class_weights": False}
    # The package measures batch norm on 256 tiles; 64 keep that out of the peak memory of the bags that are timed.
    settings |= {"weights": "random", "synthetic": True, "apoz_tiles": 256 if held else 64}
    p = params.check({"task": "benchmark", "class_names": ["A", "B"], **settings})
    fabric = training_device.make_fabric(p)
    torch.set_num_threads(given.threads)
    tiles = np.load(folder / "tiles.npy")
    genes, labels = (torch.load(folder / f"{name}.pt") for name in ("genes", "labels"))
    inputs = fit.on_device(fabric, fit.Inputs(torch.from_numpy(tiles), genes), range(len(tiles)))
    torch.manual_seed(given.seed)
    every_tile = np.ones(tiles.shape[:2], bool)
    encoder, _ = build.tile_encoder(p, variants.variant("dual_go"), tiles, every_tile, train, fabric)
    # The reference drops nothing of the genes; the speed does not depend on it.
    dropped = p.gene_dropout if given.measure == "shipped" else 0.0
    dual = MultimodalMIL("dual", DIM, DIM, genes.shape[1])
    model = BagModel(dual, encoder, None, dropped, tile_chunk=build.TILE_CHUNK)
    clock = Clock(fabric.device, given.warm_up)
    model.register_forward_pre_hook(clock)
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    fitted, _ = fit.fit(fabric, model, inputs, labels, train, p, augment=not held or given.measure == "shipped")
    result = {"steps": clock.steps, "peak": peak(fabric.device)}
    for name, which in (("train", train), ("held", held)) if held else ():
        prob, _ = fit.predict(fabric, fitted, inputs, which, given.batch)
        right = np.where(labels[which].numpy() == 1, prob, 1 - prob)
        result[name] = float(-np.log(right.clip(1e-7)).mean())
    return result


def here(way: str, folder: Path, given) -> dict:
    """One way in this process."""
    train, held = list(range(given.train)), list(range(given.train, given.train + given.held))
    given.measure = way
    return (partial(reference, way) if way in ("original", "reduced") else ours)(folder, train, held, given)


def measured(way: str, folder: Path, given, **numbers: int) -> dict:
    """One way in a fresh process; numbers: steps, batch, seed, and how many patients to train on and to look at."""
    numbers = {"seed": 0, "held": 0, **numbers}
    if given.quick:  # a test: the page is what matters, not its figures
        return here(way, folder, argparse.Namespace(**{**vars(given), **numbers}))
    command = [sys.executable, __file__, "--measure", way, "--folder", str(folder), "--device", given.device]
    numbers |= {"lr": given.lr, "threads": given.threads, "workers": given.workers, "warm-up": given.warm_up}
    command += [text for name, value in numbers.items() for text in (f"--{name}", str(value))]
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads), "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# -- the page --------------------------------------------------------------------------------------------------------
def rows_of(lines: list[list]) -> list[str]:
    head, *rest = lines
    return ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rest]]


def speed_table(runs: dict[str, list[dict]], batch: int) -> list[str]:
    """Bags a second, CPU seconds and peak memory of each way, and how ours stands to it."""
    head = ["recipe", "s a step", "fastest, slowest", "CPU s a step", "bags a second", "peak, MiB"]
    head += ["ours: times the bags", "ours: times, by CPU s", "ours: share of the peak"]
    steps = {way: np.array([step for run in way_runs for step in run["steps"]]) for way, way_runs in runs.items()}
    (wall, cpu), top = np.median(steps["ours"], 0), max(run["peak"] for run in runs["ours"])
    table = [head]
    for way, way_runs in runs.items():
        its, peaks = steps[way], max(run["peak"] for run in way_runs)
        mid = np.median(its, 0)
        table.append([
            WAYS[way], f"{mid[0]:.2f}", f"{its[:, 0].min():.2f}, {its[:, 0].max():.2f}", f"{mid[1]:.2f}",
            f"{batch / mid[0]:.2f}", f"{peaks:,}", f"{mid[0] / wall:.1f}", f"{mid[1] / cpu:.1f}", f"{top / peaks:.2f}",
        ])  # fmt: skip
    return rows_of(table)


def verdict(runs: dict[str, list[dict]], device: str) -> str:
    """What the table says of the acceptance line: bags a second, and on a GPU the memory as well."""
    second = {way: np.median([step[0] for run in way_runs for step in run["steps"]]) for way, way_runs in runs.items()}
    top = {way: max(run["peak"] for run in way_runs) for way, way_runs in runs.items()}
    times, share = ({way: by_way[way] / by_way["ours"] for way in ("original", "reduced")} for by_way in (second, top))
    met = min(times.values()) >= NEEDED[device]
    text = (
        f"Ours: {times['reduced']:.1f} times the bags a second of the reference with the reduced "
        f"backbone, {times['original']:.1f} times those with the Original one; at least {NEEDED[device]:.0f} times is "
        f"{'reached' if met else 'NOT reached'} against both."
    )
    if device == "cuda":
        text += f" At most a quarter of the peak memory is {'reached' if min(share.values()) >= 4 else 'NOT reached'}."
    return text


def speed_differs(given) -> str:
    """What the recipes do not share where they are timed."""
    return (
        f"Reference: {WIDE[0]} wide with {WIDE[1]} landmarks, tiles decoded from PNG by {given.workers} workers, batch "
        f"norm in training mode, no augmentation. Ours: {ALIKE[0]} wide with exact attention, tiles in memory, batch "
        "norm fixed, augmentation. Gene dropout and class weights are off in both."
    )


def loss_table(losses: dict[str, list[dict]]) -> list[str]:
    """Loss after the steps: mean over the seeds, its standard deviation, and each seed's."""
    table = [["recipe", "training patients, mean", "SD", "other patients, mean", "SD", "other patients by seed"]]
    for way, way_runs in losses.items():
        row = [LOSS_WAYS[way]]
        for name in ("train", "held"):
            values = np.array([run[name] for run in way_runs])
            row += [f"{values.mean():.3f}", f"{values.std(ddof=1):.3f}" if len(values) > 1 else "one seed"]
        table.append([*row, ", ".join(f"{run['held']:.3f}" for run in way_runs)])
    return rows_of(table)


def about(given) -> list[str]:
    """Device, versions, commit, date and command."""
    from mmmil import record

    device = torch.cuda.get_device_name() if given.device == "cuda" else "no GPU"
    names = ("torch", "torchvision", "timm", "nystrom-attention", "lightning-fabric", "numpy")
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return [
        f"- {record.made_on(*names, device=device)}",
        f"- {given.threads} threads in all ways, load average at the end {load}",
        f"- `python benchmarks/train_step.py {shlex.join(given.command)}`",
    ]


def main() -> None:
    """Make the bags, measure every way in turn, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 8], help="patients a step")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each way")
    parser.add_argument("--steps", type=int, default=6, help="of each process, those of the warm-up included")
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode PNG files for the reference")
    parser.add_argument("--tiles", type=int, default=64, help="a square number")
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--no-loss", action="store_true")
    parser.add_argument("--no-speed", action="store_true", help="a page of the loss alone: give --out as well")
    parser.add_argument("--loss-steps", type=int, default=50)
    parser.add_argument("--loss-seeds", type=int, default=3)
    parser.add_argument("--loss-bags", type=int, nargs=2, default=[16, 64], metavar=("TILES", "PX"))
    parser.add_argument("--quick", action="store_true", help="small sizes, in one process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of train_step.md")
    for name in ("batch", "seed", "train", "held"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=WAYS | LOSS_WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.command = [text for text in sys.argv[1:] if text not in ("--out", str(given.out))]  # names no local folder
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.quick:
        global WIDE
        WIDE = (64, 16)
        given.batches, given.repeats, given.steps, given.warm_up, given.workers = [2], 1, 4, 1, 0
        given.tiles, given.px, given.sets, given.loss_steps, given.loss_seeds, given.loss_bags = 4, 64, 5, 2, 1, [4, 64]
    if given.measure:
        print(json.dumps(here(given.measure, given.folder, given)))
        return
    write(given)


def write(given) -> None:
    """Measure, and write the page."""
    from mmmil import record

    many, held = (4, 4) if given.quick else (20, 32)
    seeds = 0 if given.no_loss else given.loss_seeds
    batches = [] if given.no_speed else given.batches
    total = len(WAYS) * len(batches) * given.repeats + len(LOSS_WAYS) * seeds
    bar = tqdm(total=total, unit="process", file=sys.stderr)
    page = ["# A training step: the reference recipe and ours", ""]
    page += ["The dual model; both recipes and what is measured are described in `benchmarks/train_step.py`.", ""]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if batches:
            make_data(folder, 2 * max(batches), given.tiles, given.px, given.sets)
        for batch in batches:
            runs: dict[str, list[dict]] = {way: [] for way in WAYS}
            for _ in range(given.repeats):
                for way in WAYS:
                    runs[way].append(measured(way, folder, given, steps=given.steps, batch=batch, train=2 * batch))
                    bar.update()
            title = f"{batch} patients a step, {given.tiles} tiles of {given.px} px, {given.sets} gene sets"
            page += [f"## {title}", "", *speed_table(runs, batch), ""]
            page += [verdict(runs, given.device), "", speed_differs(given), ""]
    if seeds:
        n_tiles, px = given.loss_bags
        losses: dict[str, list[dict]] = {way: [] for way in LOSS_WAYS}
        with tempfile.TemporaryDirectory() as name:
            make_data(Path(name), many + held, n_tiles, px, given.sets)
            for seed in range(seeds):
                for way in losses:
                    sizes = {"steps": given.loss_steps, "batch": 2, "seed": seed, "train": many, "held": held}
                    losses[way].append(measured(way, Path(name), given, **sizes))
                    bar.update()
        page += [f"## Loss after {given.loss_steps} steps", "", *loss_table(losses), ""]
        page += [
            f"Mean cross-entropy in evaluation mode, {seeds} seeds of weights and order; {many} training patients, "
            f"{held} others, 2 patients a step, bags of {n_tiles} tiles of {px} px, {given.sets} gene sets. "
            f"Guessing gives {np.log(2):.3f}.",
            "",
            f"The same in all rows: patients, batch, width {ALIKE[0]}, 8 heads, dropout 0.1, AdamW with a one-cycle "
            f"schedule up to {given.lr:g}, random weights. The reference has Nyström attention with {ALIKE[1]} "
            "landmarks, and batch norm by each batch while it trains. Ours has exact attention, batch norm fixed to "
            "what was measured on 256 tiles of the training patients, and the channels that APoZ keeps of 480. The "
            "last row adds what ours does beside by default: colour jitter, which works against the tint that tells "
            "the classes apart here, turned tiles, and a dropout of 0.6 on gene tokens.",
            "",
        ]
    bar.close()
    notes = []
    if batches:
        notes += [f"- medians of {given.repeats} processes of {given.steps - 1 - given.warm_up} timed steps, in turns"]
        notes += ["- CPU s and peak are of the training process, without the workers that decode PNG files for it;"]
        notes += ["  on a loaded machine CPU s compare more fairly than seconds of the clock"]
    if given.device == "cpu":
        notes += ["- nothing here was measured on a GPU; `--device cuda` does it, with bf16"]
    page[4:4] = [*about(given), *notes, ""]
    given.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(page)
    record.write_atomically(given.out / "train_step.md", lambda t: t.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
