"""What to write in place of a value of the wrong type, where YAML, papermill or a notebook made it what it is."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from typing import Any

# Names that are no settings: of earlier versions, of other programs, of a notebook. What to write in their place.
GONE = {
    "learning_rate": "it is called lr",
    "train": "only the notebooks that read trainings have it, in their parameters cell; papermill: -p train True",
    "mil_features": "name the encoder in encoders, which gives clam_<name> and transmil_<name>",
    "token_scaling": "latents are always scaled per set on training patients, and the model standardises its tokens",
    "epoch_choice": "tuning chooses the number of epochs, with a schedule of its own for each: tuning: 8",
    "compile": "nothing takes its place: leave it out",
    "set_size_min": "write set_sizes: [10, 500], at least and at most",
    "set_size_max": "write set_sizes: [10, 500], at least and at most",
    "contested": "it is part of label_rule: pam50_or_ihc, pam50_before_ihc or ihc_before_pam50",
}


def remedy(error: Mapping[str, Any]) -> str:
    """The end of the message for one of pydantic's errors, with what to write; '' where that says nothing more."""
    kind, value, name = error["type"], error["input"], error["loc"][0] if error["loc"] else ""
    if value is None:
        return '; write "" for none' if kind == "string_type" else "; leave the line out for the default"
    if isinstance(value, bool) and kind in ("string_type", "literal_error"):
        return "; YAML reads NO, yes, on and off as true or false: put it in quotes"
    if isinstance(value, int | float | datetime.date) and kind in ("string_type", "literal_error"):
        return "; put it in quotes"
    if isinstance(value, str) and kind == "list_type" and len(error["loc"]) > 1:
        return f"; each class has a list of its own: `{name}: [[a], [b]]`"
    if isinstance(value, str) and kind == "list_type":
        example = f"{name}: [a, b]"
        return f"; a list is written `{example}` in YAML, and given to papermill by -y '{example}'"
    if isinstance(value, str) and kind in ("int_type", "float_type", "bool_type"):
        return _no_text(value)
    if isinstance(value, os.PathLike) and kind == "string_type":
        return "; write the path as a text"
    if isinstance(value, tuple) and kind == "list_type":
        return "; write [a, b]"
    return "; write the number itself" if hasattr(value, "dtype") else ""  # numpy's


def _no_text(value: str) -> str:
    """What to write in place of a text where a number, true or false is wanted."""
    if re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value):
        return "; YAML reads 1e-4 as text, write 1.0e-4 with point and sign"
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", value):
        return "; write a decimal point, not a comma"
    if re.fullmatch(r"[-+]?[0-9.]+|true|false", value, re.IGNORECASE):
        return "; write it without quotes"
    return "; a comment needs a blank before its #" if "#" in value else "; write the value alone"
