from mmmil import costs, section_backbone


def test_table_2_on_the_section_page_is_counted_and_its_receipts_hold():
    text = section_backbone.table_2()
    assert "| MobileNetV4, original | 340,992 | 1.00 | 1.43 | 256 | 82.1 | 480 |" in text
    assert text.count("| yes |") == 3 and "**no**" not in text
    assert all(f"| {name} |" in text for name in costs.SHOWN_AS.values())


def test_a_count_that_is_not_the_papers_is_said(monkeypatch):
    monkeypatch.setitem(costs.RECEIPTS, "uib", 94_225)
    section_backbone.table_2.cache_clear()
    try:
        assert "| MobileNetV4, ten UIBs removed | 94,225 | 94,224 | **no** |" in section_backbone.table_2()
    finally:
        section_backbone.table_2.cache_clear()
