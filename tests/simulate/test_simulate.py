"""The synthetic cohort: files that real tools accept, truth that agrees with them, and no harm to other files."""

import gzip
import hashlib
import json
import logging

import numpy as np
import openslide
import pandas as pd
import pytest

from mmmil import params
from mmmil.simulate import cohort as synthetic
from mmmil.simulate import genes as synthetic_genes
from mmmil.simulate import patients as synthetic_patients
from mmmil.simulate import slides as synthetic_slides
from mmmil.simulate import truth as planted_truth

logging.getLogger("histolab").setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:histolab.*")


def small(folder, task="lgg", **values):
    # What these tests measure is set here, not by the demo's sizes.
    sizes = {"sim_patients": 24, "sim_slide_px": 1024, "sim_effect": 1.0, "sim_image_share": 0.5, "n_tiles": 16}
    return params.load(task, "demo", **sizes | {"data_dir": str(folder)} | values)


def contents(folder):
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    p = small(tmp_path_factory.mktemp("simulated") / "lgg")
    synthetic.make(p, workers=1)
    return p


@pytest.fixture(scope="module")
def truth(cohort):
    return pd.read_csv(cohort.data / "truth/patients.csv")


def valid_tiles(path, tile_px):
    from histolab.slide import Slide
    from histolab.tiler import GridTiler

    tiler = GridTiler((tile_px, tile_px), level=0, check_tissue=True, tissue_percent=90)
    return list(tiler._tiles_generator(Slide(str(path), processed_path="")))


def slide_path(p, row):
    return p.data / "slides" / f"{row.slide_id}.svs"


def test_openslide_takes_every_slide_for_aperio(cohort, truth):
    for row in truth.itertuples():
        with openslide.OpenSlide(slide_path(cohort, row)) as image:
            assert image.properties["openslide.vendor"] == "aperio"
            assert image.level_dimensions == ((1024, 1024), (256, 256), (64, 64))
            assert [round(d) for d in image.level_downsamples] == [1, 4, 16]
            mpp = image.properties.get("openslide.mpp-x")
            power = image.properties.get("openslide.objective-power")
            assert (mpp, power) == (("0.5", "20") if row.has_mpp else (None, None))
    assert (~truth["has_mpp"]).sum() == 1
    assert truth["pen"].sum() >= 2


def test_levels_show_the_same_picture(cohort, truth):
    with openslide.OpenSlide(slide_path(cohort, truth.iloc[0])) as image:
        level0 = np.asarray(image.read_region((0, 0), 0, (1024, 1024)).convert("RGB"), float)
        level1 = np.asarray(image.read_region((0, 0), 1, (256, 256)).convert("RGB"), float)
    difference = level0.reshape(256, 4, 256, 4, 3).mean((1, 3)) - level1
    assert np.abs(difference).mean() < 6  # JPEG's
    assert np.abs(difference.mean((0, 1))).max() < 0.5


def test_histolab_accepts_the_tissue_but_not_the_small_piece(cohort, truth):
    plenty = truth[~truth["little_tissue"]]
    for row in [*plenty[plenty["pen"]].head(2).itertuples(), *plenty[~plenty["pen"]].head(4).itertuples()]:
        assert len(valid_tiles(slide_path(cohort, row), 64)) >= 80
    little = truth[truth["little_tissue"]]
    assert len(little) == 1
    assert len(valid_tiles(slide_path(cohort, little.iloc[0]), 64)) < cohort.n_tiles


def test_tiles_of_256_px_on_a_larger_slide_of_uneven_side(tmp_path):
    path = tmp_path / "large.svs"
    large = synthetic_slides.Slide(key=("large", 1), side=2100, planted_share=0.5)
    synthetic_slides.write_slide(path, large)
    assert len(valid_tiles(path, 256)) >= 16
    with openslide.OpenSlide(path) as image:
        assert image.level_dimensions == ((2100, 2100), (525, 525), (131, 131))


def test_planted_blocks_are_in_tissue_and_have_larger_nuclei(cohort):
    slide = synthetic_slides.Slide(key=("nuclei", 1), side=1024, planted_share=0.5)
    planted = slide.planted()
    assert 0 < planted.sum() < planted.size / 2
    large = synthetic_slides.nuclei(slide, planted, "planted", range(8))
    normal = synthetic_slides.nuclei(slide, planted, "normal", range(8))
    radius = [np.sqrt(cells[:, 2] * cells[:, 3]).mean() for cells in (large, normal)]
    assert radius[0] > 1.4 * radius[1]
    assert len(large) / planted.sum() > 1.2 * len(normal) / (~planted).sum()


def test_class_shows_where_the_truth_says(cohort, truth):
    regions = pd.read_csv(cohort.data / "truth/regions.csv")
    blocks = truth["slide_id"].map(regions["slide_id"].value_counts()).fillna(0)
    normal = truth[~truth["little_tissue"]]
    grouped = blocks[normal.index].groupby([normal["shows_in"], normal["label"]]).mean()
    for shows in ("both", "image"):
        assert grouped[shows, 0] == 0 < grouped[shows, 1]
    assert grouped["genes", 0] == pytest.approx(grouped["genes", 1], rel=0.2)
    assert grouped["genes", 1] == pytest.approx(grouped["both", 1] / 2, rel=0.2)
    assert (truth["shows_in"] == "image").sum() == (truth["shows_in"] == "genes").sum() == 4


def test_planted_share_is_the_overlap_with_planted_blocks(cohort, truth):
    regions = pd.read_csv(cohort.data / "truth/regions.csv")
    slide_id = regions["slide_id"].iloc[0]
    covered = np.zeros((2048, 2048), bool)
    for x, y, size in regions.loc[regions["slide_id"] == slide_id, ["x", "y", "size"]].to_numpy():
        covered[y : y + size, x : x + size] = True
    coords = np.random.default_rng(0).integers(0, 1024, (200, 2))
    for size in (64, 300):
        expected = [covered[y : y + size, x : x + size].mean() for x, y in coords]
        shares = planted_truth.planted_share(cohort.data, slide_id, coords, size)
        np.testing.assert_allclose(shares, expected, atol=1e-9)
    clean = truth[~truth["slide_id"].isin(regions["slide_id"])].iloc[0]
    assert not planted_truth.planted_share(cohort.data, clean.slide_id, coords, 64).any()
    assert planted_truth.planted_share(cohort.data, slide_id, np.zeros((0, 2)), 64).shape == (0,)
    with pytest.raises(planted_truth.SimulationError, match="is not in"):
        planted_truth.planted_share(cohort.data, "TCGA-0G-none", coords, 64)


def star_lines(p):
    path = sorted((p.data / "expression").iterdir())[0]
    assert path.name.endswith(".rna_seq.augmented_star_gene_counts.tsv")
    return path.read_text().splitlines()


def test_star_file_has_the_columns_of_the_gdc(cohort):
    lines = star_lines(cohort)
    assert lines[0] == "# gene-model: GENCODE v36"
    assert lines[1].split("\t") == synthetic_genes.HEADER
    rows = [line.split("\t") for line in lines[2:]]
    assert {len(row) for row in rows} == {9}
    names = ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"]
    assert [row[0] for row in rows[:4]] == names
    genes = pd.DataFrame(rows[4:], columns=synthetic_genes.HEADER)
    assert len(genes) == cohort.sim_genes and genes["gene_id"].is_unique
    assert genes["gene_name"].duplicated().any()
    assert genes["gene_id"].str.endswith("_PAR_Y").sum() >= 2
    assert (genes["gene_type"] == "protein_coding").mean() > 0.6
    counts = genes["unstranded"].astype(int)
    assert (counts == genes["stranded_first"].astype(int) + genes["stranded_second"].astype(int)).all()
    tpm = genes["tpm_unstranded"].astype(float)
    assert tpm.sum() == pytest.approx(1e6, rel=1e-4)
    per_base = counts / pd.read_csv(cohort.data / "truth/genes.csv")["length"]
    np.testing.assert_allclose(tpm, per_base / per_base.sum() * 1e6, atol=1e-4)


@pytest.mark.real
def test_star_file_is_laid_out_as_the_gdc_fixture(cohort, real_data):
    with gzip.open(real_data / "gdc/gdc_fixture.rna_seq.augmented_star_gene_counts.tsv.gz", "rt") as file:
        fixture = file.read().splitlines()
    lines = star_lines(cohort)
    assert lines[:2] == fixture[:2]
    for ours, theirs in zip(lines[2:6], fixture[2:6], strict=True):
        ours, theirs = ours.split("\t"), theirs.split("\t")
        assert [a if not a.isdigit() else "n" for a in ours] == [b if not b.isdigit() else "n" for b in theirs]


@pytest.mark.real
def test_sample_sheet_has_the_columns_of_the_gdc(cohort, real_data):
    real = pd.read_csv(real_data / "gdc/gdc_sample_sheet.2024-04-28.LUAD_LUSC_slides.tsv", sep="\t", nrows=5)
    ours = pd.read_csv(cohort.data / "gdc_sample_sheet.tsv", sep="\t")
    assert list(ours.columns) == list(real.columns)


def test_sheets_name_every_file(cohort, truth):
    sheet = pd.read_csv(cohort.data / "gdc_sample_sheet.tsv", sep="\t")
    assert sheet["File ID"].is_unique and set(sheet["Project ID"]) == {"TCGA-LGG"}
    for kind, folder in (("Slide Image", "slides"), ("Gene Expression Quantification", "expression")):
        rows = sheet[sheet["Data Type"] == kind]
        there = {f.name for f in (cohort.data / folder).iterdir()}
        assert there < set(rows["File Name"]) and len(there) == len(truth)
        assert set(rows.loc[rows["File Name"].isin(there), "Case ID"]) == set(truth["patient_id"])
    clinical = pd.read_csv(cohort.data / "clinical.tsv", sep="\t").set_index("case_submitter_id")
    grade = clinical["tumor_grade"][truth["patient_id"]].to_numpy()
    assert (grade == np.where(truth["label"] == 1, "G3", "G2")).all()


def test_what_a_gdc_sheet_lists_besides_is_left_out_with_its_reason(cohort, truth):
    from mmmil.cohort import build as cohorts

    made = cohorts.build(cohort)
    assert sorted(made.patients.index) == sorted(truth["patient_id"])
    assert (made.labels[truth["patient_id"]].to_numpy() == truth["label"]).all()
    told = " ".join(made.excluded["reason"].unique())
    for what in (
        "frozen section (TS)",
        "Solid Tissue Normal",
        "other than DX1",
        "vial B (often FFPE)",
        "grade is",
        "no expr",
    ):
        assert what in told


@pytest.mark.parametrize(("task", "share"), [("brca", 0.3), ("nsclc", 0.5)])
def test_clinical_tables_of_the_other_tasks(tmp_path, task, share):
    p = small(tmp_path, task)
    table = synthetic_patients.patients(p)
    assert table["label"].mean() == pytest.approx(share, abs=0.02)
    clinical = synthetic_patients.clinical(p, table)
    assert len(clinical) == len(table) + len(synthetic_patients.strangers(p))
    clinical = clinical.iloc[: len(table)]
    if task == "nsclc":
        project = np.where(table["label"] == 1, "TCGA-LUSC", "TCGA-LUAD")
        assert (clinical["project_id"] == project).all()
    else:
        positive = clinical[["er_status", "pr_status"]].eq("Positive").any(axis=1)
        assert (positive == (table["label"] == 0)).all() and (clinical["her2_status"] == "Negative").all()


def test_sets_and_genes_agree(cohort):
    genes = pd.read_csv(cohort.data / "truth/genes.csv").drop_duplicates("symbol").set_index("symbol")
    sets = pd.read_csv(cohort.data / "truth/sets.csv")
    for library, pattern, n in (("go", r"\(GO:\d{7}\)$", 60), ("kegg", r"\(hsa\d{5}\)$", 30)):
        lines = [line.split("\t") for line in (cohort.data / f"{library}.gmt").read_text().splitlines()]
        rows = sets[sets["library"] == library]
        assert [line[0] for line in lines] == list(rows["name"]) and len(rows) == n
        assert rows["name"].str.contains(pattern).all() and rows["name"].is_unique
        assert rows["planted"].mean() == pytest.approx(0.15, abs=0.03)
        for (_, _, *members), row in zip(lines, rows.itertuples(), strict=True):
            assert 12 <= len(members) <= 60 and len(set(members)) == len(members)
            effect = genes["log2fc"][members]
            if row.planted:
                assert (effect == row.direction * cohort.sim_effect).all()
            else:
                assert (effect != 0).mean() < 0.1


def test_counts_carry_the_planted_difference(cohort, truth):
    genes = pd.read_csv(cohort.data / "truth/genes.csv")
    sheet = pd.read_csv(cohort.data / "gdc_sample_sheet.tsv", sep="\t").set_index("Case ID")
    files = sheet.loc[[(cohort.data / "expression" / name).is_file() for name in sheet["File Name"]], "File Name"]
    level, means = [], []
    for patient in truth["patient_id"]:
        table = pd.read_csv(cohort.data / "expression" / files[patient], sep="\t", comment="#").iloc[4:]
        level.append(np.log2(table["tpm_unstranded"].to_numpy() + 1))
        means.append(table["unstranded"].mean())
    level = np.array(level)
    shown = truth["shows_in"] != "image"
    difference = level[shown & (truth["label"] == 1)].mean(0) - level[shown & (truth["label"] == 0)].mean(0)
    for sign in (-1, 1):
        assert sign * difference[genes["log2fc"] == sign].mean() > 0.6
    assert abs(difference[genes["log2fc"] == 0].mean()) < 0.15
    assert 300 < np.median(means) < 2500


def test_the_same_whatever_the_number_of_workers_and_nothing_twice(tmp_path):
    size = {"sim_slide_px": 512, "sim_genes": 500, "sim_sets": 10}
    first = contents(synthetic.make(small(tmp_path / "first", **size), workers=2))
    again = small(tmp_path / "again", **size)
    synthetic.make(again, workers=1)
    assert contents(again.data) == first
    other = synthetic_slides.Slide(key=("slide", "lgg", 1, 0), side=512)
    assert not np.array_equal(
        other.outline, synthetic.slide(again, 0, synthetic_patients.patients(again).iloc[0]).outline
    )
    times = {f: f.stat().st_mtime_ns for f in again.data.rglob("*")}
    synthetic.make(again)
    assert {f: f.stat().st_mtime_ns for f in again.data.rglob("*")} == times
    # A lost file is made again, alone.
    lost = next((again.data / "slides").iterdir())
    lost.unlink()
    synthetic.make(again, workers=1)
    assert contents(again.data) == first
    assert sum(f.stat().st_mtime_ns != t for f, t in times.items() if f.suffix in (".svs",)) == 1


def test_null_cohort_replaces_another_and_resumes(tmp_path, monkeypatch, code_replaced):
    p = small(tmp_path / "lgg", sim_slide_px=512, sim_genes=500, sim_sets=10)
    synthetic.make(p, workers=1)
    null = p.override(sim_null=True)
    write, calls = synthetic_slides.write_slide, []

    def cut(path, slide):
        calls.append(path)
        if len(calls) == 5:
            path.write_text("half a slide")
            raise KeyboardInterrupt
        write(path, slide)

    monkeypatch.setattr(synthetic_slides, "write_slide", cut)
    with pytest.raises(KeyboardInterrupt):
        synthetic.make(null, workers=1)
    assert json.loads((p.data / "truth/cohort.json").read_text())["inputs"]["simulation"]["sim_null"] is False
    synthetic.make(null, workers=1)
    assert len(calls) == 5 + 24 - 4  # four were finished before the cut
    assert [f.name for f in tmp_path.iterdir()] == ["lgg"]
    assert len(list((p.data / "slides").glob("*"))) == 24
    assert pd.read_csv(p.data / "truth/regions.csv").empty
    assert not pd.read_csv(p.data / "truth/sets.csv")["planted"].any()
    assert not pd.read_csv(p.data / "truth/genes.csv")["log2fc"].any()
    table = pd.read_csv(p.data / "truth/patients.csv")
    assert set(table["shows_in"].fillna("none")) == {"none"} and table["label"].mean() == 0.5
    assert not planted_truth.planted_share(p.data, table["slide_id"][0], np.zeros((3, 2)), 64).any()


def test_foreign_files_are_never_touched(tmp_path):
    p = small(tmp_path / "lgg", sim_slide_px=512, sim_genes=500, sim_sets=10)
    (p.data / "slides").mkdir(parents=True)
    theirs = p.data / "slides/TCGA-HT-7470-01Z-00-DX4.svs"
    theirs.write_text("a real slide")
    with pytest.raises(planted_truth.SimulationError, match=r"did not make.*TCGA-HT-7470"):
        synthetic.make(p)
    theirs.rename(tmp_path / theirs.name)
    synthetic.make(p, workers=1)  # folders without files are no obstacle
    (p.data / "notes.txt").write_text("mine")
    with pytest.raises(planted_truth.SimulationError, match=r"notes\.txt"):
        synthetic.make(p.override(seed=1), workers=1)
    assert (p.data / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"synthetic": False, "weights": "imagenet"}, "not synthetic"),
        ({"sim_slide_px": 512, "tile_px": 256, "n_tiles": 64}, "sim_slide_px"),
        ({"sim_genes": 500, "sim_sets": 500}, "sim_genes .* too small for sim_sets"),
        ({"label_rule": "table", "class_values": []}, "cannot be simulated"),
    ],
)
def test_impossible_cohorts_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        synthetic.make(small(tmp_path / "lgg").override(**values))
    assert not (tmp_path / "lgg").exists()
