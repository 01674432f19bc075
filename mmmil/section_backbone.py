"""What the section page of the backbone says beside its cohorts' tables: what a backbone costs (Table 2)."""

from __future__ import annotations

from functools import lru_cache

from mmmil.section_text import markdown_table


@lru_cache(maxsize=1)
def table_2() -> str:
    """Table 2 at the paper's settings, counted now on the real modules, and the paper's receipts beside it."""
    from mmmil import costs  # seconds of imports that the other parts do not need

    counted = costs.backbones()
    shown, receipts = costs.table(counted), costs.receipts(counted)
    caption = "Table 2. What a backbone costs: heads left out, float32 safetensors, 1 MAC = 2 FLOPs"
    text = markdown_table(caption, ["backbone", *shown.columns], [[name, *row] for name, *row in shown.itertuples()])
    rows = [
        [name, f"{paper:,}", f"{here:,}", "yes" if equal else "**no**"]
        for name, paper, here, equal in receipts.itertuples()
    ]
    return text + "\n" + markdown_table("Parameters: receipts", ["backbone", "paper", "here", "equal"], rows)
