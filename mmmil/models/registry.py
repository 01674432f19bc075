"""The aggregators that have a name: the paper's and its baselines', and those that a notebook registers.

An aggregator turns the tokens of a patient into two logits. A class of a notebook's own, called with tiles, genes and
mask, becomes a variant by being registered: it is trained by the same engine on the same folds, kept in the record
under a key that holds its source, and shown in a table under its name beside the paper's::

    @registry.register("mean_tokens", "mean of the tokens", backbone="reduced", genes="go")
    class MeanTokens(nn.Module):
        def __init__(self, image_dim, gene_dim): ...
        def forward(self, tiles, genes, mask): ...  # (B, N, image_dim), (B, S, gene_dim), (B, N) -> logits (B, 2)

What the class does not read is None: tiles and mask without a backbone, genes without gene tokens.

The networks are imported where they are made: that a name is known must not cost torch's seconds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from mmmil import source_code, variants
from mmmil.params import Params
from mmmil.variants import Variant

if TYPE_CHECKING:
    from torch import nn

Backbone = Literal["", "original", "uib", "reduced", "resnet50d", "ctranspath", "features"]
GeneTokens = Literal["", "go", "kegg", "genes"]

# What the paper states of its encoders, by naming TransMIL: its width, its attention and no part beside it (Proposed
# Method). Its tokens carry no name of their set and lose no values while training, either.
AS_STATED: dict[str, Any] = {
    "width": 512,
    "attention": "published",
    "landmarks": 256,
    "set_embedding": False,
    "linear_skip": False,
}

_registered: dict[str, type[nn.Module]] = {}


class RegistryError(ValueError):
    """A class cannot be registered, or cannot be called as an aggregator is; says why."""


def register(
    name: str, shown_as: str = "", *, backbone: Backbone = "", genes: GeneTokens = ""
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: the class is the aggregator of a variant `name` from now on, in this process.

    shown_as: what tables call it; backbone: the tile encoder whose tokens it reads, trained with it (original, uib,
    reduced) or frozen (resnet50d, ctranspath, features); genes: the gene tokens that it reads; '' for none.

    The class is made with those of image_dim, gene_dim, n_sets (their sizes) and p (all parameters) that its __init__
    names, and called with tiles (B, N, image_dim), genes (B, S, gene_dim) and mask (B, N), True where a tile is real;
    None for what it does not read. It returns logits (B, 2), and beside them, if it likes, attention: a mapping
    name -> (B, H, N or S). A notebook may register its class again: the old one is forgotten, its results stay in the
    record.

    Raises RegistryError for a name that the package has given to a model or to a way of joining tokens, for a class
    that reads nothing, for a backbone or gene tokens that there are not, for a class that wants the size of what it
    does not read, and for one that cannot be called with tiles, genes and mask.
    """
    if not name.isidentifier():
        raise RegistryError(f"{name!r} is no name for a model: use letters, digits and '_'")
    if name in variants.VARIANTS or name in {v.fusion for v in variants.VARIANTS.values()}:
        # A way of joining is asked for by its name: under it, the class would take the place of the paper's own.
        raise RegistryError(f"{name} is a name of the paper's models: register the class under another one")
    for setting, value, known in (("backbone", backbone, Backbone), ("genes", genes, GeneTokens)):
        if value not in get_args(known):
            raise RegistryError(f"{name}: {setting} {value!r} is not one of {', '.join(filter(None, get_args(known)))}")
    if not backbone and not genes:
        raise RegistryError(f"{name} reads nothing: say which backbone, which genes, or both")

    def add(aggregator: type[nn.Module]) -> type[nn.Module]:
        source_code.own_digest(aggregator)  # a class without a source is refused now rather than after its training
        _wanted(aggregator)
        _require_read(aggregator, name, ["image_dim"] * (not backbone) + ["gene_dim", "n_sets"] * (not genes))
        _require_callable(aggregator)
        _registered[name] = aggregator
        variants.OWN[name] = Variant(name, shown_as or name, backbone, genes, name, ("own",))
        return aggregator

    return add


def source(v: Variant) -> str | None:
    """Hash of the source of a registered aggregator and of all that it names; None for one of the package."""
    return source_code.own_digest(_registered[v.fusion]) if v.fusion in _registered else None


def make(v: Variant, p: Params, image_dim: int, gene_dim: int, n_sets: int, positions: bool = True) -> nn.Module:
    """The untrained aggregator of a variant, for tokens of these sizes; 0 for what it does not read.

    positions: whether the order of tiles says where they lie. Without it ours and TransMIL have no PPEG.
    """
    if v.fusion in _registered:
        sizes = {"image_dim": image_dim, "gene_dim": gene_dim, "n_sets": n_sets, "p": p}
        aggregator = _registered[v.fusion]
        own = aggregator(**{size: sizes[size] for size in _wanted(aggregator)})
        own.register_forward_pre_hook(_masked)
        return own
    if v.fusion == "clam":
        from mmmil.models.clam import CLAM

        return CLAM(image_dim)
    if v.fusion == "transmil":
        from mmmil.models.transmil import TransMIL

        return TransMIL(image_dim, positions=positions)
    if v.fusion.startswith("torchmil_"):
        from mmmil.models.torchmil_adapter import TorchMIL

        return TorchMIL(v.fusion, image_dim)
    if v.fusion == "co":
        from mmmil.models.mcat import MCAT

        return MCAT(image_dim, [gene_dim], shared=True)
    from mmmil.models.fusion import MultimodalMIL

    shape = AS_STATED if v.faithful else {name: getattr(p, name) for name in AS_STATED}
    return MultimodalMIL(
        v.fusion, image_dim, gene_dim, n_sets, dropout=p.dropout, positions=positions, raw_keys=v.raw_keys, **shape
    )


def _wanted(aggregator: type[nn.Module]) -> list[str]:
    """Which of the sizes the class's __init__ names. Raises RegistryError where it wants something else."""
    known = ("image_dim", "gene_dim", "n_sets", "p")
    names = inspect.signature(aggregator).parameters
    unknown = [n for n, parameter in names.items() if n not in known and parameter.default is inspect.Parameter.empty]
    unknown = [n for n in unknown if names[n].kind not in (names[n].VAR_POSITIONAL, names[n].VAR_KEYWORD)]
    if unknown:
        raise RegistryError(
            f"{aggregator.__name__}.__init__ wants {', '.join(unknown)}, which nobody gives it: it is made with those "
            f"of {', '.join(known)} that it names"
        )
    return [name for name in known if name in names]


def _require_read(aggregator: type[nn.Module], name: str, unread: list[str]) -> None:
    """Raise RegistryError for a class that cannot be made without the size of tokens that it is not given."""
    parameters = inspect.signature(aggregator).parameters
    sizes = [size for size in unread if size in parameters and parameters[size].default is inspect.Parameter.empty]
    if sizes:
        setting = 'backbone="reduced"' if sizes[0] == "image_dim" else 'genes="go"'
        raise RegistryError(
            f"{aggregator.__name__}.__init__ wants {', '.join(sizes)}, and {name} is registered without such tokens: "
            f'register("{name}", {setting}), say, or leave the size out, or give it a default'
        )


def _require_callable(aggregator: type[nn.Module]) -> None:
    """Raise RegistryError where forward does not take tiles, genes and mask: told now rather than while training."""
    try:
        inspect.signature(aggregator.forward).bind("self", "tiles", "genes", "mask")
    except TypeError as error:
        raise RegistryError(
            f"{aggregator.__name__}.forward cannot be called: {error}; write forward(self, tiles, genes, mask), also "
            "where it does not use all of them"
        ) from None


def _masked(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tiles, genes and mask, a whole one where no bag is padded: a class that a cohort of full bags has accepted must
    not meet its first mask in another one.
    """
    tiles, genes, mask = given
    return tiles, genes, (tiles.new_ones(tiles.shape[:2]).bool() if mask is None and tiles is not None else mask)
