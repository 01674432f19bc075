"""Pretrained networks and the files of their weights: published ones or one's own, never a silent random start."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmmil import record

FILE = "model.safetensors"  # the name that timm's weights have on the hub
HUB_TIMEOUT = 5  # seconds until the hub counts as out of reach; its own client tries again for a minute


class WeightsError(RuntimeError):
    """Pretrained weights are not to be had; says what is wrong with which file and how to get them."""


def pretrained(name: str, weights: str = "imagenet", weights_dir: str = "", num_classes: int | None = None) -> Any:
    """A timm model or CTransPath with its published weights, from `weights_dir` or timm's cache, or random ones.

    weights: imagenet stands for the published ones, which are CTransPath's own on histology. num_classes 0: no head.
    Raises WeightsError without a usable file: never a silent random start.
    """
    net = _untrained(name)
    if weights != "random":
        from_file = weights_dir or name == "ctranspath"
        load_weights(net, name, _own_file(name, weights_dir) if from_file else published_file(name))
    if num_classes is not None and num_classes != net.num_classes:
        net.reset_classifier(num_classes)
    return net


def _untrained(name: str) -> Any:  # what a network of timm offers depends on its name
    # timm loads torchvision, and that torch._dynamo: seconds that only making a network is worth.
    if name == "ctranspath":
        from mmmil.models.ctranspath import CTransPath

        return CTransPath()
    import timm

    return timm.create_model(name, pretrained=False)


def published_file(name: str) -> Path:
    """The file of a timm model's published weights in the hub's cache, fetched into it where it is not there yet.

    A file that is there needs no network. Raises WeightsError within seconds where the hub cannot be reached.
    """
    import huggingface_hub
    import requests
    from huggingface_hub import constants

    hub_id = _hub_id(name)
    cached = huggingface_hub.try_to_load_from_cache(hub_id, FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        requests.head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
        return Path(huggingface_hub.hf_hub_download(hub_id, FILE))
    except Exception as error:  # hub, network and file errors come as many types
        message = str(error).split("\n")[0]
        raise WeightsError(
            f"ImageNet weights of {name} are not in timm's cache and not to be had ({type(error).__name__}: "
            f"{message[:160]}). {_remedy(name)}"
        ) from error


def _hub_id(name: str) -> str:
    """Name of a timm model's published weights on the hub."""
    import timm

    published = timm.get_pretrained_cfg(name)
    assert published is not None and published.hf_hub_id, name
    return published.hf_hub_id


def _remedy(name: str) -> str:
    """How to get the weights of a model."""
    if name == "ctranspath":
        return (
            "Get ctranspath.pth from https://github.com/Xiyue-Wang/TransPath (it asks for a form), save it as "
            "<weights_dir>/ctranspath.pth and set weights_dir; or leave out the variants with CTransPath"
        )
    return (
        f"Either fetch {_hub_id(name)} once on a machine with network into timm's cache, "
        f"or save its model.safetensors as <weights_dir>/{name}.safetensors and set weights_dir"
    )


def weights_file(name: str, weights_dir: str) -> Path | None:
    """A model's file in `weights_dir`, `<name>.safetensors` before `<name>.pth`; None where there is none."""
    paths = [Path(weights_dir) / f"{name}{suffix}" for suffix in (".safetensors", ".pth")] if weights_dir else []
    return next((path for path in paths if path.is_file()), None)


def weights_key(name: str, weights: str, weights_dir: str) -> str:
    """What a result that starts from these weights depends on: the kind, and the checksum of a file of one's own."""
    path = weights_file(name, weights_dir) if weights != "random" else None
    return f"{weights} {record.file_digest(path)}" if path else weights


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
        if wrong := first_difference(state, net.state_dict()):
            raise ValueError(f"is of another architecture than {name}: {wrong}")
    except ValueError as error:
        raise WeightsError(f"{path} {error}. {_remedy(name)}") from error
    net.load_state_dict(state, strict=True)


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
