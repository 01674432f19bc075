"""A look before anything is fitted: counts, errors that stop a run, findings that do not; what each real file is."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mmmil import check, params
from mmmil.__main__ import app
from mmmil.cohort import build as cohorts
from mmmil.cohort import labels as label_rules
from mmmil.genes import enrichment, expression
from mmmil.simulate import cohort as synthetic
from mmmil.slides import files as slide_files
from mmmil.slides import scale
from mmmil.sources import aliquots, feature_files, gene_names, manifests, sample_sheets
from mmmil.sources.expression import matrix_columns, read_star
from tests import small_features

SMALL = {"sim_patients": 24, "sim_genes": 500, "sim_slide_px": 512}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    p = params.load("lgg", "demo", data_dir=str(folder / "data"), results_dir=str(folder / "results"), **SMALL)
    synthetic.make(p, 1)
    return p


@pytest.fixture
def p(made, tmp_path):
    """The synthetic cohort in a folder of the test's own."""
    shutil.copytree(made.data, tmp_path / "data")
    return made.override(data_dir=str(tmp_path / "data"), results_dir=str(tmp_path / "results"))


def files(p, folder):
    """Files of patients of the cohort, in the order of the patients."""
    column = {"slides": "slide_path", "expression": "expression_path"}[folder]
    return [Path(path) for path in cohorts.build(p).patients[column]]


def test_a_cohort_in_order_is_counted_and_nothing_is_made_of_it(p):
    seen = check.look(p)
    cohort = cohorts.build(p)
    assert seen.errors == [] and seen.counts["patients"] == len(cohort) == 24
    assert sum(seen.counts[f"patients of {name}"] for name in p.class_names) == 24
    assert seen.counts["slides"] == 24 and seen.counts["genes"] > 400 and seen.counts["µm per px of the tiles"]
    assert seen.counts["files"].startswith(f"{2 * 24 + len(p.input_files())}, ")
    assert seen.excluded["n"].sum() == len(cohort.excluded)
    assert {path.name for path in p.results.iterdir()} <= {"expression", "folds"}  # found again by the run


def test_errors_are_gathered_with_file_patient_and_remedy(p):
    slides, counts = files(p, "slides"), files(p, "expression")
    patients = cohorts.build(p).patients.index
    shutil.copy(slides[3], slides[5])
    data = slides[7].read_bytes()
    slides[7].write_bytes(data[: len(data) // 2])
    lines = counts[2].read_text().splitlines(keepends=True)
    counts[2].write_text("".join(lines[:-1]))
    seen = check.look(p)
    told = "\n".join(seen.errors)
    assert f"{slides[5].relative_to(p.data)}, patient {patients[5]}" in told and "download both again" in told
    assert f"slides/{slides[7].name}: the download is truncated" in told
    assert f"expression/{counts[2].name}" in told and len(seen.errors) == 3
    assert str(p.data) not in told and str(p.data) not in str(seen)  # named as the tables name them
    assert seen.verdict == "3 errors, no finding" and seen.verdict in seen._repr_html_()


def test_without_a_cohort_the_fault_alone_is_told(p):
    (p.data / "clinical.tsv").unlink()
    seen = check.look(p)
    assert len(seen.errors) == 1 and "clinical.tsv" in seen.errors[0] and seen.counts == {}


def test_a_finding_stops_nothing(p):
    (p.data / "slides" / "stranger.svs").write_text("x")
    seen = check.look(p)
    (found,) = [finding for finding in seen.findings if finding.check == "files that no table names"]
    assert seen.errors == [] and "slides/stranger.svs" in found.text and found.remedy
    assert found.text in str(seen) and "stranger.svs" in seen._repr_html_()
    assert list(seen.table.columns) == ["check", "file", "place", "text", "remedy"]


def test_features_are_counted_and_looked_at(tmp_path):
    names = [f"P{i}" for i in range(10)]
    small_features.folder(tmp_path / "uni", names)
    small_features.table(tmp_path / "cohort.csv", {name: {} for name in names})
    p = small_features.parameters(tmp_path)
    seen = check.look(p)
    assert seen.errors == [] and seen.findings == [] and seen.counts["files"].startswith("11, ")
    assert seen.counts["features_dir: instances of a patient"] == "median 3 (1 to 7)"
    assert seen.counts["features_dir: width"] == 4 and "slides" not in seen.counts
    small_features.folder(tmp_path / "uni", ["P3"], width=5)
    (error,) = check.look(p).errors
    assert "uni/P3.h5, patient P3: features are 5 wide, and 4 in most files" in error and str(tmp_path) not in error


def test_the_command_ends_with_1_where_something_would_stop_a_run(p, monkeypatch):
    monkeypatch.setattr(params, "load", lambda task, overlay: p)
    done = CliRunner().invoke(app, ["check", "--task", "lgg", "--overlay", "demo"])
    assert done.exit_code == 0 and "patients: 24" in done.output and "no error" in done.output
    slides = files(p, "slides")
    slides[0].write_bytes(b"")
    done = CliRunner().invoke(app, ["check", "--task", "lgg", "--overlay", "demo"])
    assert done.exit_code == 1 and f"slides/{slides[0].name} is empty (0 bytes); download it again" in done.output


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"variants": ["go", "dual-go"]}, "no variant 'dual-go'; did you mean 'dual_go'?"),
        ({"variants": ["go", "dual_kegg"], "kegg_gmt": ""}, "variants: dual_kegg needs the pathways of kegg_gmt"),
        (
            {"notebooks": ["01_dataset.ipynb"]},
            "no such notebook: 01_dataset.ipynb (task lgg); did you mean '01_dataset'?",
        ),
        (
            {"notebooks": ["07_attention_analysis"], "variants": ["go", "wsi"]},
            "notebooks: 07_attention_analysis (task lgg) needs the variant dual_go: train it",
        ),
    ],
)
def test_the_command_looks_at_what_is_to_be_made_of_the_data(p, monkeypatch, changes, told):
    monkeypatch.setattr(params, "load", lambda task, overlay: p.override(**changes))
    done = CliRunner().invoke(app, ["check", "--task", "lgg", "--overlay", "demo"])
    assert done.exit_code == 1 and told in done.output and "1 error" in done.output and "patients: 24" in done.output


# -- real files --------------------------------------------------------------------------------------------------
def grades(path):
    return dict(Counter(label_rules.clinical_values("grade", [path]).values()).most_common(3))


def pam50_or_ihc(path):
    counts = Counter(label_rules.clinical_values("pam50_or_ihc", [path]).values())
    return {name: counts[name] for name in ("Luminal A", "TNBC", "claimed by both: PAM50 LumA and IHC TNBC")}


def slide(path):
    with slide_files.open_slide(path) as opened:
        return opened.dimensions, round(scale.microns_per_pixel(opened, path, {}), 3)


def sheet(path):
    rows = sample_sheets.read_sample_sheets([path])
    kinds = rows["Data Type"].unique().tolist()
    chosen, _ = (
        sample_sheets.choose_slides(rows)
        if sample_sheets.SLIDE in kinds
        else sample_sheets.choose_expression(rows, "htseq")
    )
    return len(rows), len(chosen)


def manifest(path):
    return len(manifests.read_manifest(path))


def matrix(kind, rounded=False):
    def read(path):
        chosen, _ = aliquots.primary_columns(matrix_columns(path), path.name)
        paths = pd.Series(dict.fromkeys(chosen, str(path)))
        made = expression.assemble(paths, kind, counts_level="cpm", round_counts=rounded)
        return made.level.shape

    return read


def width(path):
    return feature_files.read(path).instances.shape[1]


PLAIN = r"a plain (JPEG|PNG) image, not a whole-slide image"
# Pattern -> number of files, how a study reads them, and what that gives: a value, or the message of the refusal.
REAL = {
    "README.md": (1, slide, "no whole-slide image"),
    "slides/CMU-1-Small-Region.svs": (1, slide, ((2220, 2967), 0.499)),
    "slides/hamamatsu_DAPI_fluorescence.ndpi": (1, slide, ((3968, 4864), 0.228)),
    "slides/openslide_small.svs": (1, slide, ((16, 16), 0.499)),
    "slides/openslide_unreadable.svs": (1, slide, ((16, 16), 0.499)),  # its pixels are damaged: tests/slides
    "slides/openslide_boxes.tiff": (1, slide, "states no plausible µm per pixel"),
    "slides/histolab_broken.svs": (1, slide, "no whole-slide image, or damaged"),
    "slides/kidney-48-5.tif": (1, slide, "a plain TIFF image, not a whole-slide image"),
    "images/*.png": (16, slide, PLAIN),
    "tiles/lc25000_lung/*/*.jpeg": (300, slide, PLAIN),
    "tiles/lc25000_lung_groups/*/*.jpeg": (1964, slide, PLAIN),
    "features/hipt_vit256/*.pt": (1763, width, 192),
    "features/hipt_vit256_manifest.csv": (1, manifest, r"column 'id' is there 0 times"),
    "expression/LUAD_paired_counts_ELELAB.tsv.gz": (1, matrix("counts"), (25, 13_044)),
    "expression/LUSC_paired_counts_ELELAB.tsv.gz": (1, matrix("counts"), (35, 13_044)),
    "expression/LGG20_rsem_raw_counts_TCGAWorkflowData.tsv.gz": (1, matrix("counts", rounded=True), (20, 19_937)),
    "expression/LUAD_STAR_counts_60660x32_OmicsKit.tsv.gz": (1, matrix("counts"), (16, 60_616)),
    "expression/LGG20_labels.csv": (1, grades, {"G3": 14, "G2": 4, "empty": 2}),
    "labels/porpoise_mutsig_tcga_gbmlgg_all_clean.csv.zip": (1, matrix("zscore"), (569, 1_544)),
    "labels/porpoise_mutsig_tcga_luad_all_clean.csv.zip": (1, matrix("zscore"), (453, 1_555)),
    "labels/porpoise_mutsig_tcga_lusc_all_clean.csv.zip": (1, matrix("zscore"), (450, 1_556)),
    "labels/tcga_cdr_4cohorts_grade.tsv": (1, grades, {"[Not Available]": 2123, "G3": 265, "G2": 249}),
    "labels/tcgabiolinks_lgg_gbm_subtype_grade.csv": (1, grades, {"G4": 590, "G3": 241, "G2": 216}),
    "labels/slideflow_lung_labels.csv": (1, grades, r"label_rule 'grade' needs one of the columns tumor_grade"),
    "labels/xena_BRCA_clinicalMatrix.tsv": (
        1,
        pam50_or_ihc,
        {"Luminal A": 419, "TNBC": 114, "claimed by both: PAM50 LumA and IHC TNBC": 2},
    ),
    "gdc/gdc_sample_sheet.2024-04-28.LUAD_LUSC_slides.tsv": (1, sheet, (2167, 0)),  # frozen sections, all of them
    "gdc/gdc_sample_sheet.2020-02-13.LUSC_rna.tsv": (1, sheet, (149, 100)),
    "gdc/gdc_sample_sheet.LUSC_htseq_551.tsv": (1, sheet, (551, 501)),
    "gdc/gdc_manifest.2024-04-26.LUAD_LUSC_slides.txt": (1, manifest, 2167),
    "gdc/gdc_manifest_20200213.LUSC_rna.txt": (1, manifest, 149),
    "gdc/MANIFEST.LUSC_htseq_551.txt": (1, manifest, 551),
    "gdc/clinical.LUSC.tsv": (1, grades, {"not reported": 135}),
    "gdc/gdc_fixture.rna_seq.augmented_star_gene_counts.tsv.gz": (1, lambda path: read_star(path).shape, (96, 4)),
    "gmt/GO_Biological_Process_2023.gmt": (1, lambda path: len(enrichment.read_gmt(path)), 5_407),
    "gmt/GO_Cellular_Component_2023.gmt": (1, lambda path: len(enrichment.read_gmt(path)), 474),
    "gmt/GO_Molecular_Function_2023.gmt": (1, lambda path: len(enrichment.read_gmt(path)), 1_147),
    "gmt/KEGG_2021_Human.gmt": (1, lambda path: len(enrichment.read_gmt(path)), 320),
    "reference/gencode_v36_gene_annotation_from_star_counts.csv": (
        1,
        lambda path: gene_names.read_gene_table(path).shape,
        (60_616, 1),
    ),
    "reference/tcga_tss_info_from_CDR.tsv": (1, gene_names.read_gene_table, "a gene_table needs gene_id"),
}


@pytest.mark.real
@pytest.mark.parametrize("pattern", REAL)
def test_every_real_file_is_read_as_what_it_is_or_refused(real_data, pattern):
    n, read, expected = REAL[pattern]
    paths = sorted(real_data.glob(pattern))
    assert len(paths) == n
    for path in paths:
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=expected):
                read(path)
        else:
            assert read(path) == expected


@pytest.mark.real
def test_no_real_file_is_without_an_expectation(real_data):
    known = {path for pattern in REAL for path in real_data.glob(pattern)}
    assert {path for path in real_data.rglob("*") if path.is_file()} == known


@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "n", "checks"),
    [
        ("real_nsclc", 60, {"class is a file": 1, "FFPE perhaps": 1, "depth by class": 1, "kind of values": 2}),
        ("real_nsclc_zscores", 903, {"class is a file": 1, "gene sets": 2, "lowest values by class": 1}),
        ("real_lgg", 478, {"gene sets": 2, "clinical rows without a patient": 1}),
        ("real_slide", 1, {"files that no table names": 1}),
    ],
)
def test_what_is_found_on_the_real_cohorts(real_data, tmp_path, task, n, checks):
    inputs = {} if task == "real_slide" else {"inputs": "genes"}
    seen = check.look(params.load(task, results_dir=str(tmp_path), **inputs))
    assert seen.errors == [] and seen.counts["patients"] == n
    assert Counter(finding.check for finding in seen.findings) == checks


# -- what tells the classes apart --------------------------------------------------------------------------------
def of_matrices(labels, **more):
    """Patients of two matrices, half of them in each, and the parameters that name these."""
    base = {"task": "t", "class_names": ["low", "high"], "data_dir": "/d", "inputs": "genes"}
    base |= {"expression_matrix": ["a.tsv", "x/b.tsv"], "expression_kind": "log2tpm"}
    paths = ["/d/a.tsv"] * (len(labels) // 2) + ["/d/x/b.tsv"] * (len(labels) // 2)
    return pd.DataFrame({"label": labels, "expression_path": paths}), params.check(base | more)


MATRIX = {"label_rule": "matrix", "class_values": [["a.tsv"], ["x/b.tsv"]]}


@pytest.mark.parametrize("rule", [MATRIX, {}])
def test_a_class_that_is_a_file_is_confounded_with_it_whatever_the_label_rule(monkeypatch, rule):
    monkeypatch.setattr(check.by_class, "find", lambda *_: [])
    found = check.confounded(*of_matrices([0, 0, 1, 1], **rule))
    assert list(found["check"]) == ["class is a file"] and list(found) == check.CONFOUNDED
    assert "all patients of low are in a.tsv and all of high in b.tsv" in found["text"].item()
    for other in ([0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [-1, -1, -1, -1]):
        assert check.confounded(*of_matrices(other)).empty
    assert check.confounded(*of_matrices([0, 0, 1, 1], inputs="slides", cohort_table="x.csv", **NO_MATRIX)).empty


NO_MATRIX = {"expression_matrix": [], "expression_kind": "star"}


def test_the_colour_of_the_tiles_is_told_where_it_tells_the_classes_apart(monkeypatch):
    draw, labels = np.random.default_rng(0), [0, 1] * 20
    p = params.load("lgg", "demo", inputs="slides", class_names=["low", "high"])
    patients = pd.DataFrame({"label": labels, "expression_path": ""}, index=[f"P{i}" for i in range(40)])
    tiles = pd.DataFrame({"patient_id": [*patients.index, "left out"], "bag": "bag"})
    means = draw.normal(150, 5, (40, 3))
    monkeypatch.setattr(check.colours, "means", lambda _, bags: means[: len(bags)])
    assert check.confounded(patients, p, tiles).empty and check.confounded(patients, p).empty
    means[:, 1] -= 20 * np.array(labels)
    found = check.confounded(patients, p, tiles)
    assert list(found["check"]) == [check.COLOUR]
    assert "mean green of the tiles alone tells the classes apart with AUC 1.00 (higher in low)" in found["text"].item()
