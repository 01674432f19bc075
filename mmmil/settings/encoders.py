"""Names and sources of further encoders (`encoders`), and what models are named after them (`mmmil.variants`)."""

from __future__ import annotations

import re

from mmmil.settings import paths

FEATURES = "features_dir"  # what the encoder of features that stand in the place of slides is called
# An encoder gives models their names (mmmil.variants), which must not be those of others.
TAKEN = {FEATURES, *("original", "uib", "reduced", "resnet50d", "ctranspath", "features", "colour")}
TAKEN |= {
    *("dual", "self", "co", "baseline", "torchmil", "faithful", "raw", "wsi", "clam", "transmil", "go", "kegg", "genes")
}
ENCODER = re.compile(
    r"(?!(wsi|clam|transmil|torchmil|baseline)_)(?!.*_(go|kegg)$)[a-z][a-z0-9_]*", re.IGNORECASE | re.ASCII
)


def is_name(name: str) -> bool:
    """Whether an encoder may be called so."""
    return bool(ENCODER.fullmatch(name)) and name not in TAKEN


def folder_of(source: str) -> str:
    """The folder that an encoder's source names; '' where it is a network."""
    kind, _, folder = source.partition(":")
    return folder if kind == "features" else ""


def require(encoders: dict[str, str]) -> None:
    """Raise ValueError for a name that is none, or that differs from another in capitals only, and for a source that is
    none; encoders: name -> source.
    """
    if len({name.casefold() for name in encoders}) < len(encoders):
        raise ValueError("two names differ in capitals only, and would be one folder on some disks")
    for name, source in encoders.items():
        if not is_name(name):
            raise ValueError(
                f"{name!r} is no name for an encoder: take letters, digits and '_', none of a model's own, and no "
                "wsi_, clam_ or transmil_ before it, no _go or _kegg behind"
            )
        kind, _, rest = source.rpartition(":")
        if kind not in ("", "hf-hub", "random", "features") or not rest.strip():
            raise ValueError(
                f"{name}: {source!r} is no timm model, hf-hub:owner/name, random:<timm model> or features:<folder>"
            )
        paths.filled(folder_of(source), task="", run="", real="")
