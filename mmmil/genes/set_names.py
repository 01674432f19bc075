"""Names of gene sets: the id that a name states, and whether two sources mean the same set."""

from __future__ import annotations

import re


def set_id(name: str) -> str:
    """The id in a set's name, `GO:0006915` or `hsa04110`, or '' where it has none (KEGG_2021_Human has names only)."""
    match = re.search(r"GO:\d{7}|hsa\d{5}", name)
    return match.group() if match else ""


def is_set(name: str, number: str, term: str) -> bool:
    """Whether `name` is this set: by the id where it states one, else by its letters.

    `skin development (GO:0043588)`, `hsa04110 Cell cycle`, MSigDB's `GOBP_SKIN_DEVELOPMENT`, `Cell cycle`: all are.
    """
    if stated := set_id(name):
        return stated == number
    return _letters(re.sub(r"^(GO(BP|MF|CC)|KEGG(_MEDICUS)?)_", "", name)) == _letters(term)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
