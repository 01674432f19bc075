"""Gene sets: reading them, testing them, choosing among them."""

import gzip

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from mmmil.genes import enrichment
from mmmil.genes.enrichment import EnrichmentError, enrich, overlap, read_gmt, recovered, select
from mmmil.sources.gene_names import id_type

GENES = [f"GENE{i}" if i % 7 else f"C{i}orf{i}" for i in range(1000)]


def write(path, text, zipped=False):
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return path


@pytest.fixture
def ranking():
    return pd.Series(np.random.default_rng(0).normal(size=len(GENES)), index=GENES)


@pytest.fixture
def sets():
    draw = np.random.default_rng(1)
    return {f"set {i}": draw.choice(GENES, draw.integers(10, 60), replace=False).tolist() for i in range(40)}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_read_gmt(tmp_path, end, zipped):
    text = f"A (GO:1)\t\tKRT5\tTP63\t\tKRT5{end}{end}B\thttp://b\tNAPSA\t{end}"
    path = write(tmp_path / "sets.gmt.gz", text, zipped)
    assert read_gmt(path) == {"A (GO:1)": ["KRT5", "TP63"], "B": ["NAPSA"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no gene set in it"),
        ("\n\n", "no gene set in it"),
        ("A\t\tKRT5\nB\t\tTP63\nA\t\tNAPSA\n", "line 3: the set 'A' is listed twice"),
        ("A\t\tKRT5\nB\tdescription\t\n", "line 2: no set name or no genes"),
        ("A KRT5 TP63\n", "line 1: .*tab-separated"),
        ("A,,KRT5,TP63\n", "line 1: .*tab-separated"),
        (
            "A\t\tKRT5\nB\t\tKRT5,TP63\n",
            "line 2: 'KRT5,TP63' in the set 'B' is more than one gene; separate",
        ),
        ("A\t\tKRT5 TP63\n", "line 1: 'KRT5 TP63' .*separate genes by tabs"),
        ("A\t\tKRT5;TP63;NAPSA\n", "line 1: 'KRT5;TP63;NAPSA' .*separate genes by tabs"),
        ("A\t\tKRT5 /// KRT6A\n", "line 1: .*separate genes by tabs"),
        ("A\tKRT5\tTP63\nB\tTP63\tKRT5\n", r"its second column holds genes \(first: KRT5\)"),
    ],
)
def test_read_gmt_refusals(tmp_path, text, message):
    with pytest.raises(EnrichmentError, match=message):
        read_gmt(write(tmp_path / "sets.gmt", text))


@pytest.mark.parametrize(
    "genes",
    [
        "KRT5,1.0\tTP63,0.5",
        "KRT5,1.0\tTP63,-2e-3\tKRT5,3",
        " KRT5 \t\t'TP63'\t",
        '"KRT5"\t"TP63"',
        "KRT5|3852\tTP63|8626",
        "KRT5\u00a0\tTP63",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_genes_as_programs_write_them(tmp_path, genes, end):
    text = f"A\tna\t{genes}{end}{end}B\tline\u2028separator\x0b\tNAPSA{end}"
    assert read_gmt(write(tmp_path / "sets.gmt", text)) == {"A": ["KRT5", "TP63"], "B": ["NAPSA"]}


def test_ensembl_ids_of_a_set_are_the_datas(tmp_path):
    text = "A\t\tENSG00000186081.12\tensg00000073282\n"
    assert read_gmt(write(tmp_path / "sets.gmt", text)) == {"A": ["ENSG00000186081", "ENSG00000073282"]}


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "sets", "genes"),
    [
        ("GO_Biological_Process_2023", 5407, 14_698),
        ("GO_Cellular_Component_2023", 474, 10_972),
        ("GO_Molecular_Function_2023", 1147, 12_126),
        ("KEGG_2021_Human", 320, 8_078),
    ],
)
def test_real_gene_sets(real_data, name, sets, genes):
    path = real_data / "gmt" / f"{name}.gmt"
    read = read_gmt(path)
    assert len(read) == sets and len(set().union(*read.values())) == genes
    for line in path.read_text().splitlines():  # not a gene is lost or changed
        label, _, *members = line.rstrip("\t").split("\t")
        assert read[label.strip()] == list(dict.fromkeys(members))


def test_read_gmt_missing(tmp_path):
    with pytest.raises(EnrichmentError, match="not there"):
        read_gmt(tmp_path / "no.gmt")


def test_a_gmt_file_that_is_cut_damaged_or_no_text_is_one_error(tmp_path):
    path = write(tmp_path / "sets.gmt.gz", "A\t\tKRT5\tTP63\n" * 50, zipped=True)
    whole = path.read_bytes()
    for cut in (3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(EnrichmentError, match=r"sets.gmt.gz: .*truncated or damaged .*download it again"):
            read_gmt(path)
    path.write_bytes(whole[:-8] + b"\0" * 8)  # the checksum of other contents
    with pytest.raises(EnrichmentError, match="truncated or damaged"):
        read_gmt(path)
    for text in ("A\t\tKRT5\xe9\n".encode("latin-1"), "A\t\tKRT5\n".encode("utf-16")):
        for raw in (text, gzip.compress(text)):
            path.write_bytes(raw)
            with pytest.raises(EnrichmentError, match=r"sets.gmt.gz: no text in UTF-8"):
                read_gmt(path)


def test_planted_set_is_found(ranking, sets):
    sets["planted up"] = GENES[:40]
    sets["planted down"] = GENES[40:80]
    ranking.iloc[:40] += 1.5
    ranking.iloc[40:80] -= 1.5
    table = enrich(ranking, sets)
    assert set(table.index[:2]) == {"planted up", "planted down"}
    assert table.loc["planted up", "nes"] > 0 > table.loc["planted down", "nes"]
    assert table.columns.tolist() == enrichment.COLUMNS and table.loc["planted up", "size"] == 40
    assert set(table.loc["planted up", "leading_edge"].split(";")) <= set(GENES[:40])
    assert select(table, 0.01, 20) == (table.index[:2].tolist(), True)
    assert table["pval"].is_monotonic_increasing


def test_nothing_is_found_in_noise(ranking, sets):
    table = enrich(ranking, sets)
    assert (table["fdr"] > 0.01).all()
    names, passed = select(table, 0.01, 20)
    assert names == table.index[:20].tolist() and not passed


def test_fdr_is_benjamini_hochberg_over_all_chunks(ranking, sets, monkeypatch):
    whole = enrich(ranking, sets)
    monkeypatch.setattr(enrichment, "CHUNK", 7)
    chunked = enrich(ranking, sets)
    for table in (whole, chunked):
        assert table["fdr"].to_numpy() == pytest.approx(false_discovery_control(table["pval"]))
    assert set(chunked.index) == set(whole.index)
    assert np.allclose(chunked["es"].reindex(whole.index), whole["es"])
    assert np.abs(np.log10(chunked["pval"].reindex(whole.index) / whole["pval"])).max() < 0.3


def test_no_call_of_gseapy_holds_more_than_a_chunk_of_sets(ranking, sets, monkeypatch):
    monkeypatch.setattr(enrichment, "CHUNK", 7)
    called, prerank = [], enrichment._prerank
    monkeypatch.setattr(enrichment, "_prerank", lambda v, s, *rest: called.append(len(s)) or prerank(v, s, *rest))
    assert len(enrich(ranking, sets)) == sum(called) == 40
    assert called == [7] * 5 + [5]


def test_same_table_in_any_order_with_any_threads(ranking, sets):
    table = enrich(ranking, sets, seed=3)
    turned = {name: sets[name][::-1] for name in reversed(sets)}
    assert enrich(ranking.sample(frac=1, random_state=0), turned, seed=3, threads=2).equals(table)


def test_a_set_that_fgsea_gives_no_p_for_is_not_selected(sets):
    """Nearly all genes are up, so random sets of this size score above 0, and this one below it has no null."""
    draw = np.random.default_rng(0)
    ranking = pd.Series(draw.exponential(2, len(GENES)) + 0.01, index=GENES)
    low = ranking.nsmallest(int(0.8 * len(GENES))).index.tolist()
    table = enrich(ranking, sets | {"below": low}, size_max=len(GENES))
    assert table.index[-1] == "below" and table.loc["below", ["nes", "pval", "fdr"]].isna().all()
    known = table.drop("below")
    assert known.notna().all(axis=None) and np.allclose(known["fdr"], false_discovery_control(known["pval"]))
    assert "below" not in select(table, fallback=len(table))[0]


def test_ties_are_ordered_by_symbol():
    tied = pd.Series([0.0, 1.0, 1.0, 2.0, np.nan], index=["d", "c", "b", "a", "e"])
    assert enrichment.rank(tied).index.tolist() == ["a", "b", "c", "d"]


def test_sizes_count_genes_in_the_ranking(ranking):
    sets = {"large enough": GENES[:10], "too small": [*GENES[:9], "X1", "X2", "X3"], "too large": GENES[:51]}
    table = enrich(ranking, sets, size_min=10, size_max=50)
    assert table.index.tolist() == ["large enough"]
    # C7orf7 would be lost if symbols were put in capitals
    assert set(enrichment.within(sets, GENES, 10, 50)["large enough"]) == set(GENES[:10])


@pytest.mark.parametrize(
    ("ids", "kind"),
    [(["ENSG00000141510", "ENSG00000186081.12"], "Ensembl"), (["7157", "3852"], "Entrez"), (["TP53"], "symbols")],
)
def test_ids_of_another_kind(ids, kind):
    ranking = pd.Series(np.linspace(-1, 1, 20), index=[f"KRT{i}" for i in range(20)])
    assert kind in id_type(ids)
    with pytest.raises(EnrichmentError, match=f"the sets hold .*{kind}.*the data gene symbols .KRT0|KRT19"):
        enrich(ranking, {"set": ids})


def test_refusals(ranking, sets):
    with pytest.raises(EnrichmentError, match="1 symbols occur twice"):
        enrich(pd.concat([ranking, ranking[:1]]), sets)
    with pytest.raises(EnrichmentError, match="infinite"):
        enrich(ranking.replace(ranking.iloc[0], np.inf), sets)
    with pytest.raises(EnrichmentError, match="none of 40 gene sets has 100 to 200 genes"):
        enrich(ranking, sets, size_min=100, size_max=200)


def test_select(ranking):
    table = pd.DataFrame({"fdr": [0.001, 0.002, 0.5, 0.6]}, index=list("abcd"))
    assert select(table, 0.01) == (["a", "b"], True)
    assert select(table, 0.01, max_sets=1) == (["a"], True)
    assert select(table, 0.0015, fallback=3) == (["a", "b", "c"], False)
    assert select(table, 1e-9, fallback=3, max_sets=2) == (["a", "b"], False)
    with pytest.raises(EnrichmentError, match="1 gene sets were tested"):
        select(table[:1])


def test_a_sets_genes_stand_in_the_order_in_which_its_enrichment_meets_them():
    ranked = enrichment.rank(pd.Series({"A": 3.0, "B": -2.0, "C": 0.5, "D": 1.0, "E": -4.0}))
    assert enrichment.leading_first(["B", "C", "A"], ranked, nes=1.7) == ["A", "C", "B"]
    assert enrichment.leading_first(["B", "C", "A", "E"], ranked, nes=-1.7) == ["E", "B", "C", "A"]


def test_overlap_is_the_jaccard_index_of_every_two_sets():
    draw = np.random.default_rng(2)
    a = {f"a{i}": draw.choice(GENES[:60], draw.integers(1, 40), replace=False).tolist() for i in range(12)}
    b = {f"b{i}": draw.choice(GENES[30:90], draw.integers(1, 40), replace=False).tolist() for i in range(7)}
    b |= {"same as a0": a["a0"][::-1] + a["a0"][:3], "elsewhere": ["X1", "X2"], "empty": []}
    table = overlap(a, b)
    assert table.index.tolist() == list(a) and table.columns.tolist() == list(b)
    for one in a:
        for other in b:
            x, y = set(a[one]), set(b[other])
            assert table.loc[one, other] == pytest.approx(len(x & y) / len(x | y))
    assert table.loc["a0", "same as a0"] == 1 and (table[["elsewhere", "empty"]] == 0).all(axis=None)
    assert overlap(b, a).equals(table.T.rename_axis(index="set", columns=None))
    assert overlap({"empty": []}, {"none": []}).loc["empty", "none"] == 0


def test_recovered():
    table = pd.DataFrame({"fdr": [0.001, 0.002, 0.009, 0.01, 0.6]}, index=list("abcde"))
    found = recovered(table, ["a", "c", "e", "not tested"], 0.01)
    assert found == {"planted": 4, "found": 2, "false": 1, "power": 0.5, "false_share": 1 / 3}
    assert {type(value) for value in found.values()} == {int, float}
    assert recovered(table, ["a"], 1e-9) == {"planted": 1, "found": 0, "false": 0, "power": 0.0, "false_share": 0.0}
    nothing = recovered(table, [], 0.01)
    assert nothing["planted"] == 0 and nothing["false_share"] == 1 and np.isnan(nothing["power"])
