"""A cohort's expression and gene sets before anything is fitted: right values, errors with names, findings."""

import gzip
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.cohort import build
from mmmil.genes import choice, expression, findings, profiles, raw
from mmmil.genes.enrichment import EnrichmentError
from mmmil.genes.expression import ExpressionError
from mmmil.sources.expression import STAR_COLUMNS, matrix_columns
from mmmil.sources.findings import table
from tests.sources.test_gene_names import SUMMARY

GENES = [f"GENE{i:04d}" for i in range(200)]
PATIENTS = [f"P{i:02d}" for i in range(24)]
LABELS = [0, 1] * 12


@pytest.fixture(scope="module")
def clean():
    """Counts (genes, patients) of 24 libraries of about 1e6 reads."""
    draw = np.random.default_rng(0)
    base = draw.gamma(1.0, 1.0, len(GENES)) * 5000
    counts = draw.poisson(base * np.exp(draw.normal(0, 0.3, (len(PATIENTS), len(GENES)))))
    return pd.DataFrame(counts.T, index=GENES, columns=PATIENTS)


@pytest.fixture
def cohort(tmp_path):
    """Write one matrix per class, and return the cohort's patients and parameters."""

    def write(matrix, kind="counts", genes=None, go=None, **more):
        names = {}
        for label, name in enumerate(("a.tsv", "b.tsv")):
            own = matrix.loc[:, [LABELS[PATIENTS.index(patient)] == label for patient in matrix]]
            own.rename_axis("gene").to_csv(tmp_path / name, sep="\t")
            names |= dict.fromkeys(own, str(tmp_path / name))
        patients = pd.DataFrame({"label": LABELS, "expression_path": ""}, index=PATIENTS).loc[list(matrix)]
        patients["expression_path"] = pd.Series(names)
        if go is None:
            symbols = GENES if genes is None else genes
            go = "".join(f"SET{k}\tx\t" + "\t".join(symbols[15 * k : 15 * k + 15]) + "\n" for k in range(10))
        (tmp_path / "go.gmt").write_text(go)
        base = {"task": "t", "class_names": ["low", "high"], "data_dir": str(tmp_path), "inputs": "genes"}
        base |= {"results_dir": str(tmp_path / "results"), "kegg_gmt": "", "expression_kind": kind}
        base |= {"expression_matrix": ["a.tsv", "b.tsv"], "counts_level": "cpm"}
        return patients, params.check({**base, **more})

    return write


def checks(found):
    return [finding.check for finding in found]


def test_a_clean_cohort_has_no_finding(cohort, clean):
    assert findings.find(*cohort(clean)) == []
    found = findings.find(*cohort(clean // 10))
    assert checks(found) == ["depth"] and "fewer than a million" in found[0].text


# -- rows that are no genes (case 5) -----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["counts", "log2tpm", "zscore"])
def test_case_5_summary_rows_leave_the_levels_of_true_genes_as_they_are(cohort, clean, kind):
    log2 = np.log2(clean / clean.sum() * 1e6 + 1)
    scores = log2.sub(log2.mean(axis=1), axis=0).div(log2.std(axis=1), axis=0)
    values = {"counts": clean, "log2tpm": log2, "zscore": scores}[kind]
    draw = np.random.default_rng(5)
    extra = {name: clean.sum() * draw.uniform(0.2, 3.0, clean.shape[1]) for name in [*SUMMARY, "ERCC-00002"]}
    extra = pd.DataFrame(extra).T.astype(int)
    plain = expression.load(*cohort(values, kind))
    made = expression.load(*cohort(pd.concat([values.iloc[:50], extra, values.iloc[50:]]), kind))
    assert made.genes["symbol"].tolist() == plain.genes["symbol"].tolist()
    np.testing.assert_array_equal(made.level, plain.level)
    assert made.dropped == {"summary rows": 2 * len(SUMMARY), "spike-ins": 2}  # of two matrices
    if kind == "counts":
        np.testing.assert_array_equal(made.counts, plain.counts)
        np.testing.assert_array_equal(made.libraries["reads"], clean.sum())


def star_file(path, counts, more=""):
    lines = ["# gene-model: GENCODE v36", "\t".join(STAR_COLUMNS)]
    lines += [f"N_{n}\t\t\t9\t9\t9\t\t\t" for n in ("unmapped", "multimapping", "noFeature", "ambiguous")]
    tpm = counts / counts.sum() * 1e6
    lines += [f"ENSG{i:011d}.1\t{s}\tprotein_coding\t{n}\t{n}\t0\t{t:.4f}\t{t:.4f}\t{t:.4f}"
              for i, (s, n, t) in enumerate(zip(counts.index, counts, tpm, strict=True))]  # fmt: skip
    path.write_text("\n".join(lines) + "\n" + more)
    return str(path)


def htseq_file(path, counts, names):
    path.write_text("".join(f"{g}\t{n}\n" for g, n in counts.items()) + "".join(f"{n}\t9\n" for n in names))
    return str(path)


HTSEQ = ["__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique"]


@pytest.mark.parametrize("names", [HTSEQ, [n.upper() for n in HTSEQ], [n[2:] for n in HTSEQ], [*HTSEQ, "Total"]])
def test_summary_rows_of_a_patients_file_in_any_spelling(tmp_path, clean, names):
    paths = {p: htseq_file(tmp_path / f"{p}.htseq.counts", clean[p], names) for p in PATIENTS[:2]}
    made = expression.assemble(pd.Series(paths), "htseq", counts_level="cpm")
    np.testing.assert_array_equal(made.counts, clean[PATIENTS[:2]].T)
    assert made.dropped == {"summary rows": len(names)}


def test_a_file_of_the_other_program_is_named_as_such(tmp_path, clean):
    star = star_file(tmp_path / "s.tsv", clean["P00"])
    htseq = htseq_file(tmp_path / "h.htseq.counts", clean["P00"], HTSEQ)
    for path, stated, right in ((star, "htseq", "star"), (htseq, "star", "htseq")):
        with pytest.raises(ExpressionError, match=f"holds {right} counts, not {stated}; set expression_kind: {right}"):
            expression.assemble(pd.Series({"P00": path}), stated, counts_level="cpm")


def test_tpm_of_a_star_file_contradict_its_counts(tmp_path, clean):
    path = tmp_path / "s.tsv"
    star_file(path, clean["P00"])
    text = path.read_text()
    gene = re.search(r"^ENSG00000000003.*$", text, re.M)[0].split("\t")
    path.write_text(text.replace("\t".join(gene), "\t".join([*gene[:3], "0", "0", "0", *gene[6:]])))
    with pytest.raises(ExpressionError, match=r"gene ENSG00000000003\.1 has the count 0 and [\d.]+ TPM"):
        expression.read_star(path)
    path.write_text(text.replace("\t".join(gene), "\t".join([*gene[:6], "90000", *gene[7:]])))
    with pytest.raises(ExpressionError, match="more than a million, so they are none"):
        expression.read_star(path)


# -- depth (case 14) ---------------------------------------------------------------------------------------------
def empty_but(clean, patient, **genes):
    matrix = clean.copy()
    matrix[patient] = 0
    for gene, n in genes.items():
        matrix.loc[gene, patient] = n
    return matrix.fillna(0).astype(int)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({}, r"column P03, patient P03: every count is 0"),
        ({"GENE0100": 40}, r"b\.tsv, column P03, patient P03: 40 reads"),
        ({"GENE0100": 3}, r"patient P03: 3 reads"),
        ({"GENE0100": 9000}, r"below a hundredth of the cohort's median of [\d,]+ reads"),
    ],
)
def test_case_14_a_library_that_is_no_measurement_names_the_patient(cohort, clean, genes, message):
    with pytest.raises(ExpressionError, match="(?s)" + message):
        expression.load(*cohort(empty_but(clean, "P03", **genes)))


def test_every_patient_without_a_measurement_is_named(cohort, clean):
    with pytest.raises(ExpressionError, match=r"(?s)of 2 patients.*P03: every count is 0.*P08: 40 reads"):
        expression.load(*cohort(empty_but(empty_but(clean, "P03"), "P08", GENE0001=40)))


def test_shallow_deep_and_unequal_libraries_are_findings(cohort, clean):
    factor = pd.Series(1.0, index=PATIENTS)
    factor["P03"], factor["P08"] = 0.05, 20
    found = findings.find(*cohort((clean * factor).astype(int)))
    depth = [f for f in found if f.check == "depth" and f.place]
    assert [f.place for f in depth] == ["patient P03", "patient P08"] and depth[0].file.endswith("b.tsv")
    assert "0.047 times" in depth[0].text
    by_class = (clean * np.where(np.array(LABELS) == 1, 2, 1)).astype(int)
    found = findings.find(*cohort(by_class))
    assert checks(found).count("depth by class") == 1
    assert re.search(
        r"high has (1\.9|2|2\.1) times the reads of low .*AUC", found[checks(found).index("depth by class")].text
    )


@pytest.mark.parametrize(("kind", "value"), [("log2tpm", 0.0), ("zscore", -0.3)])
def test_levels_that_are_no_measurement_name_the_patient(cohort, clean, kind, value):
    log2 = np.log2(clean / clean.sum() * 1e6 + 1)
    values = log2 if kind == "log2tpm" else log2.sub(log2.mean(axis=1), axis=0).div(log2.std(axis=1), axis=0)
    values["P03"] = value
    with pytest.raises(ExpressionError, match=r"b\.tsv, column P03, patient P03: every value is the same"):
        expression.load(*cohort(values, kind))
    values.loc[GENES[:60], "P03"] = np.linspace(1, 2, 60)
    found = findings.find(*cohort(values, kind))
    assert ("depth", "patient P03") in [(f.check, f.place) for f in found]


# -- identical content -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["counts", "log2tpm", "zscore"])
def test_one_profile_under_two_patients_is_an_error(cohort, clean, kind):
    log2 = np.log2(clean / clean.sum() * 1e6 + 1)
    scores = log2.sub(log2.mean(axis=1), axis=0).div(log2.std(axis=1), axis=0)
    values = {"counts": clean, "log2tpm": log2, "zscore": scores}[kind].copy()
    values["P07"] = values["P02"]
    message = r"patient P07 \(.*b\.tsv, column P07\) has the same values as patient P02 \(.*a\.tsv, column P02\)"
    with pytest.raises(ExpressionError, match=message):
        expression.load(*cohort(values, kind))


def test_one_file_under_two_patients_is_an_error(tmp_path, clean):
    one, other = (star_file(tmp_path / f"{p}.tsv", clean[p]) for p in PATIENTS[:2])
    shutil.copy(one, tmp_path / "copy.tsv")
    paths = pd.Series({"A": one, "B": other, "C": str(tmp_path / "copy.tsv")})
    with pytest.raises(ExpressionError, match=r"patient C \(.*copy\.tsv\) has the same values as patient A"):
        expression.assemble(paths, "star")


@pytest.mark.parametrize("change", [lambda c: c * 2, lambda c: c // 3, lambda c: c + 1])
def test_a_copy_that_was_scaled_or_rounded_is_a_finding(cohort, clean, change):
    matrix = clean.copy()
    matrix["P07"] = change(matrix["P02"])
    found = [f for f in findings.find(*cohort(matrix)) if f.check == "same profile"]
    assert [f.place for f in found] == ["patient P02"] and "patient P07" in found[0].text


def test_a_patient_whose_rows_are_out_of_order_is_a_finding(cohort, clean):
    matrix = clean.copy()
    matrix["P07"] = matrix["P07"].to_numpy()[::-1]
    found = [f for f in findings.find(*cohort(matrix)) if f.check == "unlike all others"]
    assert [f.place for f in found] == ["patient P07"]


def test_a_matrix_whose_rows_are_out_of_order_is_a_finding(cohort, clean, tmp_path):
    patients, p = cohort(clean)
    table = pd.read_csv(tmp_path / "b.tsv", sep="\t", index_col=0)
    table.set_axis(np.roll(table.index, 1)).rename_axis("gene").to_csv(tmp_path / "b.tsv", sep="\t")
    found = [f for f in findings.find(patients, p) if f.check == "unlike all others" and not f.place]
    assert {f.file for f in found} == {str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")}
    assert "with those of the other files" in found[0].text


def test_a_patient_among_zscores_whose_values_are_none_is_a_finding(cohort, clean):
    log2 = np.log2(clean + 1)
    z = log2.sub(log2.mean(axis=1), axis=0).div(log2.std(axis=1), axis=0)
    z[PATIENTS[3]] = log2[PATIENTS[3]]
    found = [f for f in findings.find(*cohort(z, "zscore")) if "near 0" in f.text]
    assert [f.place for f in found] == [f"patient {PATIENTS[3]}"]


def test_likeness_is_spearmans():
    from scipy.stats import spearmanr

    level = np.random.default_rng(3).normal(size=(5, 80)).round(1)
    level[:, :40] -= 100  # the half with the lower mean is left out
    np.testing.assert_allclose(profiles.likeness(level), spearmanr(level[:, 40:].T).statistic, atol=1e-12)


# -- names -------------------------------------------------------------------------------------------------------
def test_gene_names_that_are_dates_go_and_their_reads_stay_in_the_library(cohort, clean):
    dates = dict(zip(GENES[-5:], ["1-Mar", "2-Sep", "Mar-01", "2001-03-01", "1. Dez"], strict=True))
    plain = expression.load(*cohort(clean))
    patients, p = cohort(clean.rename(dates))
    made = expression.load(patients, p)
    assert made.dropped == {"names that are dates or numbers": 5} and len(made.genes) == 195
    np.testing.assert_array_equal(made.level, plain.level[:, :195])  # as if the genes were known
    found = [f for f in findings.find(patients, p) if f.check == "gene names"]
    assert len(found) == 1 and found[0].place == "1-Mar, 2-Sep, Mar-01, 2001-03-01, 1. Dez"


def test_a_table_of_transcripts_is_a_finding(cohort, clean):
    found = findings.find(*cohort(clean.set_axis([GENES[i if i < 150 else i - 150] for i in range(200)])))
    assert checks(found) == ["gene names"] and "50 rows have the name of another one" in found[0].text


def test_rows_without_a_symbol_go_and_their_reads_stay_in_the_library(cohort, clean):
    names = dict(zip(GENES[-6:], ["NA", "NA.1", "?|7157", "#N/A", "#NAME?", "---"], strict=True))
    plain, made = expression.load(*cohort(clean)), expression.load(*cohort(clean.rename(names)))
    assert made.dropped == {"no symbol": 6}
    np.testing.assert_array_equal(made.level, plain.level[:, :194])


def test_names_with_blanks_and_quotes_are_the_genes(cohort, clean):
    made = expression.load(*cohort(clean.rename(lambda g: f"' {g} '" if g < "GENE0100" else f"{g} ")))
    assert made.genes["symbol"].tolist() == GENES


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda i: f"ENSG{i:011d}.1", r"no gene in common: .* gene symbols \(GENE0000.* Ensembl ids \(ENSG0"),
        (
            lambda i: f"gene{i:04d}",
            r"no gene in common: 200 names are the same but for capitals \(GENE0000 in.*gene0000 in",
        ),
        (lambda i: GENES[i] if i < 5 else f"X{i}", r"5 genes in common: .* such as GENE0005.* of the second alone X5"),
    ],
)
def test_matrices_that_name_genes_differently(cohort, clean, tmp_path, rename, message):
    patients, p = cohort(clean)
    other = clean.loc[:, [label == 1 for label in LABELS]]
    other.set_axis([rename(i) for i in range(len(GENES))]).rename_axis("gene").to_csv(tmp_path / "b.tsv", sep="\t")
    with pytest.raises(ExpressionError, match=rf"a\.tsv, .*b\.tsv: have {message}.*; name genes alike in both"):
        expression.load(patients, p)


def test_matrices_of_two_scales(cohort, clean, tmp_path):
    tpm = clean / clean.sum() * 1e6
    tpm.iloc[:9] = 0
    patients, p = cohort(np.log2(tpm + 1), "log2tpm")
    np.log2(tpm + 0.001).loc[:, np.array(LABELS) == 1].rename_axis("gene").to_csv(tmp_path / "b.tsv", sep="\t")
    with pytest.raises(
        ExpressionError, match=r"b\.tsv, .*a\.tsv: the lowest value of the one is -9\.966, of the other 0"
    ):
        expression.load(patients, p)
    clean.loc[:, np.array(LABELS) == 1].rename_axis("gene").to_csv(tmp_path / "b.tsv", sep="\t")
    with pytest.raises(ExpressionError, match=r"b\.tsv: gene .* cannot be log2 TPM"):
        expression.load(patients, p)
    for rounding in (False, True):
        patients, p = cohort(clean, round_counts=rounding)
        np.log2(tpm + 1).loc[:, np.array(LABELS) == 1].rename_axis("gene").to_csv(tmp_path / "b.tsv", sep="\t")
        with pytest.raises(ExpressionError, match=r"b\.tsv: gene .* is no count"):
            expression.load(patients, p)


def test_a_gene_table_that_lacks_many_genes_is_a_finding(cohort, clean, tmp_path):
    lines = [f"ENSG{i:011d},GENE{i:04d},{1000 + i}" for i in range(120)]
    (tmp_path / "genes.csv").write_text("\n".join(["gene_id,symbol,length", *lines]) + "\n")
    patients, p = cohort(
        clean.set_axis([f"ENSG{i:011d}" for i in range(200)]), gene_table="genes.csv", counts_level="tpm"
    )
    found = [f for f in findings.find(patients, p) if f.check == "gene table"]
    assert (
        len(found) == 1
        and "80 of the data's 200 genes" in found[0].text
        and found[0].place.startswith("ENSG00000000120")
    )


# -- gene sets ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            [g.capitalize() for g in GENES],
            r"150 names are the same but for capitals \(Gene0000 in the sets, GENE0000",
        ),
        (
            [f"ENSG{i:011d}" for i in range(200)],
            r"the sets hold Ensembl ids \(ENSG00000000000.* data gene symbols \(GENE0",
        ),
        ([str(i) for i in range(200)], r"the sets hold Entrez ids \(0, 1.* the data gene symbols"),
        ([*GENES[:12], *(f"X{i}" for i in range(188))], r"12 of the file's 150 genes.* gene symbols such as X0"),
    ],
)
def test_sets_that_the_data_hardly_hold_are_an_error_with_the_reason(cohort, clean, names, reason):
    patients, p = cohort(clean, genes=names)
    with pytest.raises(
        EnrichmentError, match=rf"go\.gmt, a\.tsv, b\.tsv: [01] of the gene sets.*{reason}.*; name a GMT"
    ):
        findings.find(patients, p)
    with pytest.raises(EnrichmentError, match=reason):  # the road that every study takes
        choice.require_sets(p, expression.load(patients, p), ["go"])


def test_sets_of_which_the_data_hold_less_than_half_are_a_finding(cohort, clean):
    names = [g if i % 15 < 11 and i < 60 else f"X{i}" for i, g in enumerate(GENES)]
    patients, p = cohort(clean, genes=names)
    found = [f for f in findings.find(patients, p) if f.check == "gene sets"]
    assert len(found) == 1 and "44 of the sets' 150 genes (29%), and 4 of 10 sets" in found[0].text
    look = findings.look(patients, p)
    assert look.covered["go"].shares == (44 / 150, 0.4)


def test_two_libraries_of_one_content_and_sets_with_dates_are_findings(cohort, clean, tmp_path):
    names = ["1-Mar", "2-Sep", *GENES[2:]]
    patients, p = cohort(clean, genes=names, kegg_gmt="kegg.gmt")
    (tmp_path / "kegg.gmt").write_bytes((tmp_path / "go.gmt").read_bytes())
    found = [f for f in findings.find(patients, p) if f.check == "gene sets"]
    assert "go_gmt and kegg_gmt have the same content" in found[0].text and len(found) == 3
    assert "2 genes are dates" in found[1].text and found[1].place == "1-Mar, 2-Sep"


def test_summary_holds_what_page_01_shows(cohort, clean):
    patients, p = cohort(pd.concat([clean, clean.sum().to_frame("Total").T]))
    shown = findings.summary(findings.look(patients, p)).set_index("what")["value"].to_dict()
    reads = clean.sum()
    assert shown["patients"] == 24 and shown["genes"] == 200 and shown["left out: summary rows"] == 2
    assert shown["reads of a patient, min"] == reads.min() and shown["reads of a patient, max"] == reads.max()
    assert shown["go: sets of usable size"] == "10 of 10 (100%)"


def test_findings_name_the_files_where_they_are_now(cohort, clean, tmp_path):
    """What is found again was read from the same bytes in another place."""
    counts = (clean * 0.4 + clean % 3 / 10 + 0.05) * 10
    patients, p = cohort(counts, round_counts=True)
    first = findings.find(patients, p)
    (tmp_path / "moved").mkdir()
    for name in ("a.tsv", "b.tsv"):
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    patients["expression_path"] = patients["expression_path"].str.replace(str(tmp_path), str(tmp_path / "moved"))
    again = findings.find(patients, p)
    assert checks(again) == checks(first) and "kind of values" in checks(first)
    assert all("/moved/" in f.file for f in again if f.file)


def test_a_cohort_without_genes_has_no_findings(cohort, clean):
    patients, _ = cohort(clean)
    assert findings.find(patients, params.check({"task": "t", "class_names": ["a", "b"], "inputs": "slides"})) == []


# -- real files --------------------------------------------------------------------------------------------------
def tumours(path):
    from mmmil.sources import aliquots

    return pd.Series(dict.fromkeys(aliquots.primary_columns(matrix_columns(path))[0], str(path)))


REAL = {  # file -> (kind, rounding), (patients, genes, median depth), what is dropped
    "expression/LUAD_paired_counts_ELELAB.tsv.gz": (("counts", False), (25, 13_044), {}),
    "expression/LUSC_paired_counts_ELELAB.tsv.gz": (("counts", False), (35, 13_044), {}),
    "expression/LGG20_rsem_raw_counts_TCGAWorkflowData.tsv.gz": (
        ("counts", True),
        (20, 19_937),
        {"repeated gene names": 1_075, "no symbol": 9, "repeated symbols": 1},
    ),
    "expression/LUAD_STAR_counts_60660x32_OmicsKit.tsv.gz": (("counts", False), (16, 60_616), {"_PAR_Y copies": 44}),
    "labels/porpoise_mutsig_tcga_gbmlgg_all_clean.csv.zip": (("zscore", False), (569, 1_544), {}),
    "labels/porpoise_mutsig_tcga_luad_all_clean.csv.zip": (("zscore", False), (453, 1_555), {}),
    "labels/porpoise_mutsig_tcga_lusc_all_clean.csv.zip": (("zscore", False), (450, 1_556), {}),
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_each_real_expression_file_is_read_as_what_it_is(real_data, name):
    (kind, rounding), shape, dropped = REAL[name]
    paths = tumours(real_data / name)
    made = expression.assemble(paths, kind, counts_level="cpm", round_counts=rounding)
    made.dropped.pop(raw.ROUNDED, None)
    assert made.level.shape == shape and made.dropped == dropped


@pytest.mark.real
@pytest.mark.parametrize("stated", ["counts", "log2tpm", "zscore"])
@pytest.mark.parametrize("name", REAL)
def test_each_real_expression_file_is_refused_as_anything_else(real_data, name, stated):
    if stated != REAL[name][0][0]:
        message = {"counts": "z-scores, not counts|set expression_kind: zscore", "zscore": "holds no negative value"}
        with pytest.raises(ExpressionError, match=message.get(stated, "cannot be log2 TPM|z-scores, not log2tpm")):
            expression.assemble(tumours(real_data / name), stated, counts_level="cpm", round_counts=True)


@pytest.mark.real
def test_the_star_matrix_with_the_symbols_of_gencode(real_data):
    paths = tumours(real_data / "expression/LUAD_STAR_counts_60660x32_OmicsKit.tsv.gz")
    genes = real_data / "reference/gencode_v36_gene_annotation_from_star_counts.csv"
    made = expression.assemble(paths, "counts", counts_level="cpm", gene_table=genes)
    assert made.counts.shape == (16, 59_427) and made.genes["symbol"].is_unique
    assert made.dropped == {"_PAR_Y copies": 44, "repeated symbols": 60_616 - 59_427}
    assert made.libraries["reads"].between(23e6, 85e6).all()


@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("real_nsclc", {"depth by class": 1, "kind of values": 2}),
        ("real_lgg", {"gene sets": 2}),
        ("real_nsclc_zscores", {"gene sets": 2, "lowest values by class": 1}),
    ],
)
def test_findings_on_the_real_cohorts(real_data, tmp_path, task, expected):
    """The counts were normalised, each cancer to its own depth; the z-scores are of a tenth of the genes."""
    p = params.load(task, inputs="genes", results_dir=str(tmp_path))
    found = table(findings.find(build.build(p).patients, p))
    assert found["check"].value_counts().to_dict() == expected


@pytest.mark.real
def test_the_gdcs_own_star_file_is_whole(real_data):
    path = real_data / "gdc/gdc_fixture.rna_seq.augmented_star_gene_counts.tsv.gz"
    made = expression.assemble(pd.Series({"P": str(path)}), "star")
    assert made.dropped == {"summary rows": 4, "_PAR_Y copies": 1}
    assert made.libraries["tpm"].item() == pytest.approx(1e6, rel=1e-4)
    with gzip.open(path, "rt") as handle:
        assert sum(line.startswith("ENSG") for line in handle) == made.counts.shape[1] + 1
