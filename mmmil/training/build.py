"""The model of a variant, untrained or read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmmil.models import backbone, baselines, registry
from mmmil.models.bag_model import BagModel
from mmmil.models.fusion import LinearSkip
from mmmil.models.standardise import Standardise
from mmmil.params import Params
from mmmil.slides.features import Bags
from mmmil.training.fit import Inputs
from mmmil.training.inputs import Genes, inputs_of
from mmmil.variants import Variant

if TYPE_CHECKING:
    from mmmil.study import Study

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Tiles that pass the backbone at once; more are taken in turns and computed again for their gradient, so that memory
# does not grow with the bag (`benchmarks/memory.py`).
TILE_CHUNK = 1024


def build(
    p: Params,
    v: Variant,
    genes: Genes | None = None,
    tile_encoder: nn.Module | None = None,
    image_dim: int = 0,
    positions: bool = True,
) -> BagModel:
    """The untrained model of a variant; its sizes come from the gene tokens and the tile encoder.

    positions: False for tiles of which nobody knows where they lie.
    """
    shape = genes.tokens.tokens.shape[1:] if genes else (0, 0)
    return _assembled(p, v, shape, genes.encoder if genes else None, tile_encoder, image_dim, positions)


def _assembled(
    p: Params,
    v: Variant,
    gene_shape: tuple[int, int],
    gene_encoder: nn.Module | None,
    tile_encoder: nn.Module | None,
    image_dim: int,
    positions: bool,
) -> BagModel:
    image_dim = tile_encoder.channels if tile_encoder else image_dim
    n_sets, gene_dim = gene_shape
    return BagModel(
        registry.make(v, p, image_dim, gene_dim, n_sets, positions),
        tile_encoder,
        gene_encoder,
        0.0 if v.faithful else p.gene_dropout,
        tile_chunk=TILE_CHUNK if p.batch_norm == "fixed" else 0,  # a batch's statistics are of all its tiles
        fixed_norm=p.batch_norm == "fixed",
        image_scale=Standardise(image_dim) if v.uses_slides else None,
        gene_scale=Standardise(n_sets, gene_dim) if v.uses_genes else None,
    )


@torch.no_grad()
def measure_scale(model: BagModel, p: Params, inputs: Inputs, train: list[int]) -> None:
    """Give a model that has not taken a step the statistics of its training tokens (`standardise.Standardise`).

    train: indices of the training patients. Of a trained backbone they are those of its first weights on `apoz_tiles`
    tiles; what training makes of them goes through the same numbers.
    """
    model.eval()
    if model.gene_scale is not None:
        assert inputs.genes is not None
        model.gene_scale.measure(model.unscaled_gene_tokens(inputs.genes[train].cpu()))
    if model.image_scale is None:
        return
    if model.tile_encoder is not None:
        masks = np.ones(inputs.tiles.shape[:2], bool) if inputs.mask is None else inputs.mask.numpy()
        pixels = torch.from_numpy(sampled(inputs.tiles, masks, train, p)).split(64)
        device = next(model.tile_encoder.parameters()).device
        parts = [model.unscaled_image_tokens(part[None].to(device))[0].cpu() for part in pixels]
        model.image_scale.measure(torch.cat(parts))
    elif isinstance(inputs.tiles, Bags):
        bags = inputs.tiles
        model.image_scale.measure(torch.from_numpy(np.concatenate([bags.instances[bags.of(i)] for i in train])))
    else:
        model.image_scale.measure(inputs.take(torch.tensor(train))["tiles"].cpu().flatten(0, 1))


@torch.no_grad()
def start_skip(model: BagModel, inputs: Inputs, labels: Tensor, train: list[int]) -> None:
    """Let a model that has not taken a step start from logistic regressions on its own tokens (`fusion.LinearSkip`).

    One is fitted to the training patients' mean tile and one to their gene tokens; their logits are joined as in the
    late fusion of the baselines. labels: (P,) of all patients. To be called when the tokens' scale is measured; of a
    trained backbone the tokens are those of its first weights. A model without a skip is left as it is.
    """
    skip = getattr(model.aggregator, "linear_skip", None)
    if not isinstance(skip, LinearSkip):  # a reader's own aggregator may call anything so
        return
    model.eval()
    read: list[list[Tensor]] = []
    for i in train:
        given, tiles, genes = inputs.take(torch.tensor([i])), None, None
        mask = given.get("mask")
        if model.image_scale is not None:
            encoder = model.tile_encoder
            device = torch.device("cpu") if encoder is None else next(encoder.parameters()).device
            where = None if mask is None else mask.to(device)
            tiles = model.image_scale(model.unscaled_image_tokens(given["tiles"].to(device), where).cpu())
        if model.gene_scale is not None:
            genes = model.gene_tokens(given["genes"].cpu())
        read.append(skip.read(tiles, genes, None if mask is None else mask.cpu()))
    strengths = [baselines.FEATURES] * (model.image_scale is not None)
    strengths += [baselines.GENES] * (model.gene_scale is not None)
    x = [torch.cat(parts).double().numpy() for parts in zip(*read, strict=True)]
    weights, bias = baselines.joined(list(zip(x, strengths, strict=True)), labels[train].numpy())
    skip.start(torch.from_numpy(weights).float(), bias)


def sampled(tiles: Tensor | np.ndarray, masks: np.ndarray, train: list[int], p: Params) -> np.ndarray:
    """Pixels (n, px, px, 3) uint8 of `apoz_tiles` real tiles of training patients at most, drawn by the seed.

    tiles (P, N, px, px, 3) uint8, masks (P, N) bool.
    """
    patient, tile = np.nonzero(masks[train])
    picked = np.random.default_rng(p.seed).choice(len(tile), min(p.apoz_tiles, len(tile)), replace=False)
    held = [tiles[train[patient[i]]][tile[i]] for i in np.sort(picked)]
    return np.stack([one.cpu().numpy() if isinstance(one, Tensor) else one for one in held])


def tile_encoder(
    p: Params, v: Variant, tiles: np.ndarray, masks: np.ndarray, train: list[int], fabric: Fabric
) -> tuple[backbone.TileEncoder, pd.DataFrame | None]:
    """The variant's tile encoder with the statistics of training tiles; the reduced one is pruned by APoZ on them.

    tiles (P, N, px, px, 3) uint8, masks (P, N), train: indices of the training patients. Returns the encoder with a
    table of every channel's APoZ and whether it was kept (None where nothing is pruned).
    """
    encoder = backbone.TileEncoder(v.backbone, p.weights, p.weights_folder).to(memory_format=torch.channels_last)
    if v.backbone != "reduced" and p.batch_norm == "batch" and p.weights != "random":
        return encoder, None
    pixels = sampled(tiles, masks, train, p)
    encoder.to(fabric.device)
    batches = [
        backbone.to_input(torch.from_numpy(chunk).to(fabric.device), encoder.mean, encoder.std)
        for chunk in np.array_split(pixels, max(1, len(pixels) // 64))
    ]
    # Random weights have no statistics of their own yet, and ImageNet's are not those of tissue.
    backbone.measure_batch_norm(encoder, batches)
    if v.backbone != "reduced":
        return encoder, None
    shares = backbone.apoz(encoder, batches)
    kept = backbone.lowest_apoz(shares, p.kept_channels)
    table = pd.DataFrame({"apoz": shares.numpy(), "kept": np.isin(np.arange(len(shares)), kept.numpy())})
    return backbone.prune(encoder, kept), table


def start_seed(p: Params, fold: int) -> int:
    """Seed from which a fold's training draws its first weights and then everything else."""
    return 1000 * p.seed + fold + 1


def load_model(study: Study, v: Variant, fold: int, folder: Path, fabric: Fabric) -> tuple[nn.Module, Inputs]:
    """A trained model of a finished training's folder, set up on the device, with the inputs it reads.

    Its tile encoder is laid out as in training: in bf16 another kernel rounds to other probabilities.
    """
    inputs, genes = inputs_of(study, v, fold)
    shape = genes.tokens.tokens.shape[1:] if genes else (0, 0)
    gene_encoder, weights = genes.encoder if genes else None, folder / "model.safetensors"
    model = restored(study.p, v, weights, shape, gene_encoder, inputs.image_dim, fabric, inputs.positions)
    return model, inputs


def restored(
    p: Params,
    v: Variant,
    weights: Path,
    gene_shape: tuple[int, int],
    gene_encoder: nn.Module | None,
    image_dim: int,
    fabric: Fabric,
    positions: bool = True,
) -> nn.Module:
    """A trained model from the file of its weights, set up on the device.

    gene_shape: tokens and their length, (0, 0) without genes; gene_encoder: the encoder half that the model trained
    itself, or None; image_dim: width of a frozen encoder's features, of no matter where there is none;
    positions: whether it is known where tiles lie.
    """
    encoder = None
    if v.is_trained_end_to_end(p):
        encoder = backbone.TileEncoder(v.backbone, "random")
        if v.backbone == "reduced":
            backbone.prune(encoder, torch.arange(p.kept_channels))
        encoder.to(memory_format=torch.channels_last)
    model = _assembled(p, v, gene_shape, gene_encoder, encoder, image_dim, positions)
    model.load_state_dict(load_file(weights), strict=True)
    return fabric.setup(model)
