import pandas as pd
import pytest

from mmmil import params
from mmmil.book import costs as book_costs
from mmmil.models import costs


def test_table_2_on_the_section_page_is_counted_and_equals_the_papers():
    text = book_costs.table_2()
    assert "| MobileNetV4, original | 340,992 | 1.00 | 1.43 | 256 | 82.1 | 480 |" in text
    assert text.count("| yes |") == 3 and "**no**" not in text
    assert all(f"| {name} |" in text for name in costs.SHOWN_AS.values())


def test_a_count_that_is_not_the_papers_is_said(monkeypatch):
    monkeypatch.setitem(costs.RECEIPTS, "uib", 94_225)
    book_costs.table_2.cache_clear()
    try:
        assert "| MobileNetV4, ten UIBs removed | 94,225 | 94,224 | **no** |" in book_costs.table_2()
    finally:
        book_costs.table_2.cache_clear()


def measured(folder):
    """Tables as the benchmarks write them, with made-up figures."""
    folder.mkdir(parents=True)
    steps = [
        {"axis": axis, "size": size, "way": way, "seconds": size / 100, "memory_mib": size}
        for axis in ("tiles", "sets")
        for size in (16, 64)
        for way in ("exact", "nystrom")
    ]
    steps = pd.DataFrame(steps).assign(fastest=lambda t: t["seconds"] * 0.9, slowest=lambda t: t["seconds"] * 1.1)
    steps.to_csv(folder / "scaling.csv", index=False)
    memory = [
        {"part": part, "way": way, "bags": bags, "tiles": tiles, "memory_mib": bags * tiles, "peak_mib": bags * tiles}
        for part, bags, tiles in (("batch", 1, 64), ("batch", 4, 64), ("bag", 1, 256), ("bag", 1, 1024))
        for way in ("reference", "ours")
    ]
    memory = pd.DataFrame(memory).assign(fusion="dual", device="cpu", pixels_mib=lambda t: t["tiles"] * 0.19)
    memory.to_csv(folder / "memory.csv", index=False)


def test_the_benchmarks_figures_are_drawn_where_they_were_run(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "root", lambda: tmp_path)
    text = book_costs.benchmarks(tmp_path / "generated")
    assert text.count("has not been run here") == 2 and "```" not in text
    measured(tmp_path / "benchmarks" / "results")
    text = book_costs.benchmarks(tmp_path / "generated")
    for name in ("memory", "scaling"):
        assert f"```{{figure}} generated/03_{name}.png" in text and f"benchmarks/results/{name}.md" in text
        assert (tmp_path / "generated" / f"03_{name}.png").read_bytes()[1:4] == b"PNG"
    assert len(list((tmp_path / "generated").iterdir())) == 2
    (tmp_path / "benchmarks" / "results" / "scaling.csv").write_text("axis,size\n")
    with pytest.raises(ValueError, match=r"scaling\.csv lacks the columns"):
        book_costs.benchmarks(tmp_path / "generated")
