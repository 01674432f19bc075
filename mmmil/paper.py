"""The paper's map."""

from __future__ import annotations

import re

TABLES = {"03": (3, 4), "04": (5, 6, 7, 8), "05": (9, 10), "06": (11,)}  # the paper's tables, by section

CAPTIONS = {
    3: "Table 3. Reducing the backbone, whole-slide images only",
    4: "Table 4. Against CLAM and TransMIL, whole-slide images only",
    5: "Table 5. Images, GO sets, and both",
    6: "Table 6. Images, KEGG pathways, and both",
    7: "Table 7. Ways of joining images and GO sets",
    8: "Table 8. Ways of joining images and KEGG pathways",
    9: "Table 9. End to end against frozen features, with GO sets",
    10: "Table 10. End to end against frozen features, with KEGG pathways",
    11: "Table 11. Single genes against gene sets",
}


def paper_table(value: str) -> int | None:
    """3 for '3', 'Table 3' and 'S1': the supplement's nine tables repeat 3 to 11 on the test patients."""
    match = re.search(r"(S?)(\d+)", value, re.IGNORECASE)
    return int(match.group(2)) + (2 if match.group(1) else 0) if match else None


# The model that the paper proposes, table by table; it is compared with every other row of its table.
PROPOSED = {
    "3": ("wsi",),
    "4": ("wsi",),
    "5": ("dual_go",),
    "6": ("dual_kegg",),
    "7": ("dual_go",),
    "8": ("dual_kegg",),
    "9": ("dual_go",),
    "10": ("dual_kegg",),
    "11": ("dual_go", "dual_kegg"),
}

# Not in the paper: each of these against logistic regression on a modality that it reads.
AGAINST_BASELINES = ("wsi", "go", "kegg", "dual_go", "dual_kegg")
