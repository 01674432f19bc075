"""Whose features are, by the names of files: by slide or patient, in any spelling the same patient or an error."""

import shutil

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmil import params
from mmmil.cohort import build as cohorts
from mmmil.cohort import features, findings
from mmmil.cohort.build import CohortError
from mmmil.params import FEATURES
from tests import small_features

PATIENTS = [f"P{i}" for i in range(10, 20)]
TCGA = [f"TCGA-05-{4000 + i}" for i in range(10)]
UUID = "d4ff32cd-38cf-40ea-8213-45c2b100ac0"


def dx(patient, number=1, sample="01Z", kind="DX", end=""):
    return f"{patient}-{sample}-00-{kind}{number}.{UUID}{end or number}"


@pytest.fixture
def p(tmp_path):
    """An own table of ten patients, each with a file of the patient's name."""
    small_features.folder(tmp_path / "uni", PATIENTS)
    small_features.table(tmp_path / "cohort.csv", {i: {} for i in PATIENTS})
    return small_features.parameters(tmp_path)


def names(cohort, encoder=FEATURES):
    rows = cohort.features[cohort.features["encoder"] == encoder]
    return rows.groupby("patient_id", sort=False)["slide_id"].agg(list).to_dict()


# -- an own table ------------------------------------------------------------------------------------------------
def test_a_file_of_each_patient_is_found_by_the_patients_name(p):
    made = cohorts.build(p)
    assert names(made) == {i: [i] for i in PATIENTS} and list(made.features.columns) == features.COLUMNS
    assert list(made.patients["slide_id"]) == PATIENTS
    assert made.patients.loc["P12", "slide_path"] == str(p.data / "uni/P12.h5") == made.features["path"][2]


def test_slide_ids_name_several_files_which_are_joined_in_their_order(p):
    small_features.folder(p.data / "uni", ["b.svs", "a", "S 3"])
    rows = {i: {} for i in PATIENTS} | {"P12": {"slide_id": "b.svs; a"}, "P13": {"slide_id": "S 3"}}
    small_features.table(p.data / "cohort.csv", rows)
    made = cohorts.build(p)
    assert names(made)["P12"] == ["a", "b"] and names(made)["P13"] == ["S 3"]
    assert made.patients.loc["P12", "slide_id"] == "a"
    (found,) = findings.find(made, p)
    assert found.check == "features not used" and "2 files of the cohort's patients are not used, as P12" in found.text


def test_a_column_that_nobody_reads_is_told(p):
    assert [f for f in findings.find(cohorts.build(p), p) if f.check == "columns that are not read"] == []
    small_features.table(p.data / "cohort.csv", {i: {"fold": "1", "hospital": "x"} for i in PATIENTS})
    (found,) = findings.find(cohorts.build(p), p)
    assert found.check == "columns that are not read" and "nothing reads fold, hospital" in found.text
    assert "slide_id" in found.remedy


def test_a_table_made_for_slides_serves_as_it_is(p):
    small_features.folder(p.data / "uni", ["s1", "s2"])
    rows = {i: {} for i in PATIENTS} | {"P10": {"slide_path": "slides/s1.svs"}, "P11": {"slide_path": "gone/x.svs"}}
    small_features.table(p.data / "cohort.csv", rows)
    assert names(cohorts.build(p))["P10"] == ["s1"]  # the slide's own
    assert names(cohorts.build(p))["P11"] == ["P11"]  # the patient's as a whole
    rows["P10"] = {"slide_id": "s1;s9"}
    small_features.table(p.data / "cohort.csv", rows)
    fault = r"patient P10: features_dir: the slide 's9' has no file in .*uni; add it, .* or set incomplete: exclude"
    with pytest.raises(CohortError, match=fault):
        cohorts.build(p)  # half of a patient is no patient
    made = cohorts.build(p.override(incomplete="exclude"))
    (found,) = [note for note in made.notes if note.check == "named slides without features"]
    assert "P10" not in made.patients.index and "1 patients are left out" in found.text and "'s9' of P10" in found.text


def test_a_patient_without_a_file_is_an_error_or_excluded_and_counted(p):
    (p.data / "uni/P13.h5").unlink()
    with pytest.raises(CohortError, match=r"cohort.csv, patient P13: features_dir: has no slide; add it, or set incom"):
        cohorts.build(p)
    made = cohorts.build(p.override(incomplete="exclude"))
    assert len(made) == 9 and made.excluded["reason"].tolist() == ["incomplete: no slide"]
    assert "P13" not in names(made)


def test_a_file_without_a_patient_is_a_finding(p):
    small_features.folder(p.data / "uni", ["stranger"])
    (p.data / "uni/list.csv").write_text("x")
    (p.data / "uni/.DS_Store").write_text("x")
    found = {finding.check: finding for finding in findings.find(cohorts.build(p), p)}
    assert set(found) == {"features of nobody", "files that are no features"}
    assert "1 of 11 files are of no patient of the cohort, as stranger" in found["features of nobody"].text
    assert "as list.csv" in found["files that are no features"].text


def renamed(old, new):
    return lambda p: (p.data / "uni" / old).rename(p.data / "uni" / new)


def added(*names):
    return lambda p: small_features.folder(p.data / "uni", list(names))


def of_table(**rows):
    return lambda p: small_features.table(p.data / "cohort.csv", {i: {} for i in PATIENTS} | rows)


FAULTS = {
    "two formats": (lambda p: shutil.copy(p.data / "uni/P10.h5", p.data / "uni/P10.pt"), "P10.h5 has the same name"),
    "slide's suffix": (added("P10.svs"), "has the same name; keep one of them"),
    "two spellings": (added("p_10"), "p_10.h5: differs from P10.h5 in its spelling only|P10.h5: differs from p_10.h5"),
    "another case": (renamed("P14.h5", "p14.h5"), "patient P14: 'P14' is 'p14' in .*uni; write both alike"),
    "another slide's": (
        lambda p: (added("S-1")(p), of_table(P10={"slide_id": "s_01"})(p)),
        "patient P10: 's_01' is 'S-1' in .*uni; write both alike",
    ),
    **{
        f"slides separated by {mark!r}": (
            lambda p, mark=mark: (added("x")(p), added("y")(p), of_table(P10={"slide_id": f"x{mark}y"})(p)),
            "patient P10: 'x.*y' is no file of .*uni, and x is; separate slides by ;",
        )
        for mark in (",", ", ", "|", " ")
    },
    "one slide of two": (
        of_table(P10={"slide_id": "x"}, P11={"slide_id": "y;x"}),
        "'y;x' belongs to more than one pat",
    ),
    "another patient's": (of_table(P10={"slide_id": "P11"}), "patient P11: 'P11' in .*uni is patient P10's file too"),
    "another barcode's": (
        lambda p: small_features.table(p.data / "cohort.csv", {"TCGA-05-4245": {"slide_id": dx("TCGA-05-4246")}}),
        "patient TCGA-05-4245: slide_id 'TCGA-05-4246-.*' is of TCGA-05-4246 by its name",
    ),
    "nearly a barcode": (added("TCGA-05-42O4"), "is nearly a TCGA barcode but cannot be read as one"),
    "not there": (lambda p: shutil.rmtree(p.data / "uni"), "features_dir: .*uni is no folder that is there"),
    "in a folder": (
        lambda p: (small_features.folder(p.data / "uni/20x", ["a"]), [f.unlink() for f in p.data.glob("uni/*.h5")]),
        "holds no file of features .*, but its folder 20x has some: name that one",
    ),
    "no features": (
        lambda p: [f.rename(f.with_suffix(".svs")) for f in p.data.glob("uni/*.h5")],
        "holds no file of features .*; it has 10 others, as P10.svs",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_may_be_anothers_is_one_error(p, case):
    spoil, fault = FAULTS[case]
    spoil(p)
    with pytest.raises(CohortError, match=fault):
        cohorts.build(p.override(incomplete="exclude"))


# -- TCGA's names ------------------------------------------------------------------------------------------------
def test_tcga_slides_count_by_the_slide_rule_and_all_of_a_patient(tmp_path):
    other = dx(TCGA[0], 1, end="f")
    names = [dx(i) for i in TCGA[:8]] + [dx(TCGA[0], 2), other, dx(TCGA[1], kind="TS"), dx(TCGA[2], sample="02Z")]
    small_features.folder(tmp_path / "uni", [*names, TCGA[8], f"{TCGA[9]}-01A"])
    folder = features.read(small_features.parameters(tmp_path), FEATURES)
    assert folder.of_patient == {
        **{i: [dx(i)] for i in TCGA[1:8]},
        **{TCGA[0]: [dx(TCGA[0]), dx(TCGA[0], 2)], TCGA[8]: [TCGA[8]], TCGA[9]: [f"{TCGA[9]}-01A"]},
    }
    assert sorted(folder.left_out) == [
        (TCGA[0], "features: another DX1 of the patient is used"),
        (TCGA[1], "features: frozen section (TS), not a diagnostic slide (DX)"),
        (TCGA[2], "features: sample type 02, not a primary tumour"),
    ]


def test_a_table_that_names_no_diagnostic_slide_is_a_finding(tmp_path):
    patients = [f"TCGA-05-42{i}" for i in range(45, 51)]
    names = [dx(patient, kind="TS" if i == 2 else "DX") for i, patient in enumerate(patients)]
    small_features.folder(tmp_path / "uni", names)
    rows = {patient: {"slide_id": name} for patient, name in zip(patients, names, strict=True)}
    small_features.table(tmp_path / "cohort.csv", rows)
    p = small_features.parameters(tmp_path)
    [note] = [note for note in findings.find(cohorts.build(p), p) if note.check == "no diagnostic slide"]
    assert "the slides of TCGA-05-4247 (01, TS) are no DX of a primary tumour" in note.text


def test_a_patient_as_a_whole_beside_slides_is_an_error(tmp_path):
    small_features.folder(tmp_path / "uni", [dx(TCGA[0]), TCGA[0]])
    with pytest.raises(CohortError, match=f"patient {TCGA[0]} has {TCGA[0]}.h5 too, a file of the patient as a whole"):
        features.read(small_features.parameters(tmp_path), FEATURES)


@given(mark=st.sampled_from("-._ "), upper=st.booleans(), end=st.sampled_from(["", "Z-00-DX1", "A"]))
def test_a_barcode_in_any_spelling_is_its_patient(mark, upper, end):
    name = (TCGA[0] + ("-01" + end if end else "")).replace("-", mark)
    folder = features.Folder("e", None, {name if upper else name.lower(): None})
    features._assign(folder)
    assert list(folder.of_patient) == [TCGA[0]]


@given(st.sets(st.sampled_from([*PATIENTS, "p10", "P 11", "P-12", "P10_1", *map(dx, TCGA[:2])]), min_size=1))
def test_every_name_is_one_patients_or_an_error(names):
    folder = features.Folder("e", None, dict.fromkeys(sorted(names)))
    features._assign(folder)
    assert sorted(name for of in folder.of_patient.values() for name in of) == sorted(names)
    wanted = dict.fromkeys([*PATIENTS, *TCGA], ())
    try:
        found = features.choose(folder, wanted, "the table")
    except CohortError as error:
        assert "write both alike" in str(error) and names & {"p10", "P 11", "P-12"}
    else:
        assert all(patient in name for patient, of in found.items() for name in of)


@pytest.fixture
def gdc(tmp_path):
    """No table: patients by the features' barcodes and by a matrix, labels by a clinical table."""
    small_features.folder(tmp_path / "uni", [*map(dx, TCGA), dx(TCGA[0], 2), dx(TCGA[1], sample="11A")], suffix=".npy")
    columns = [f"{i}-01A" for i in [*TCGA[1:], "TCGA-06-5000"]]
    pd.DataFrame(1.5, index=pd.Index(["A", "B"], name="gene"), columns=columns).to_csv(tmp_path / "m.csv")
    grades = {"case_submitter_id": [*TCGA, "TCGA-06-5000"], "tumor_grade": ["G2", "G3"] * 5 + ["G2"]}
    pd.DataFrame(grades).to_csv(tmp_path / "clinical.tsv", sep="\t", index=False)
    values = {"cohort_table": "", "clinical": ["clinical.tsv"], "label_rule": "grade", "class_values": [["G2"], ["G3"]]}
    values |= {"inputs": "both", "expression_matrix": ["m.csv"], "expression_kind": "zscore", "incomplete": "exclude"}
    return small_features.parameters(tmp_path, **values)


def test_without_a_table_the_files_say_who_is_there(gdc):
    made = cohorts.build(gdc)
    assert list(made.patients.index) == TCGA[1:] and set(made.patients["site"]) == {"05"}
    steps = made.flow.set_index("step")[["unit", "entered", "excluded", "left"]].T.to_dict("list")
    assert steps == {
        "features": ["files", 12, 1, 11],
        "expression": ["columns", 10, 0, 10],
        "label": ["patients", 11, 0, 11],
        "incomplete": ["patients", 11, 2, 9],
    }
    reasons = {"incomplete: no expression", "incomplete: no slide", "features: sample type 11, not a primary tumour"}
    assert set(made.excluded["reason"]) == reasons
    alone = cohorts.build(gdc.override(inputs="slides", expression_matrix=[], expression_kind="star"))
    assert names(alone) == {i: [dx(i)] for i in TCGA} | {TCGA[0]: [dx(TCGA[0]), dx(TCGA[0], 2)]}


def test_a_patient_of_a_matrix_in_another_spelling_is_an_error(gdc):
    for path in gdc.data.glob("uni/*"):
        path.unlink()
    small_features.folder(gdc.data / "uni", PATIENTS)
    pd.DataFrame(1.5, index=["A"], columns=[*PATIENTS[1:], "p_10"]).to_csv(gdc.data / "m.csv")
    with pytest.raises(CohortError, match=r"P10.h5, patient P10: is 'p_10' in the matrices or sample sheets; write"):
        cohorts.build(gdc)


# -- folders of encoders -----------------------------------------------------------------------------------------
def test_a_further_folder_has_the_same_slides(gdc):
    small_features.folder(gdc.data / "more", [*map(dx, TCGA[:5]), *TCGA[5:], dx(TCGA[3], 2)])
    p = gdc.override(encoders={"other": "features:more"}, inputs="slides", expression_matrix=[], expression_kind="star")
    made = cohorts.build(p)
    assert names(made, "other") == {i: [dx(i)] for i in TCGA[1:5]} | {i: [i] for i in TCGA[5:]}
    assert made.excluded["reason"].tolist()[-1] == "incomplete: no features of other"  # its second slide is missing
    assert list(made.features["encoder"].unique()) == [FEATURES, "other"]
    found = [finding.text for finding in findings.find(made, p) if finding.check == "features not used"]
    assert len(found) == 1 and "2 files of the cohort's patients are not used" in found[0]
    with pytest.raises(
        CohortError, match=f"patient {TCGA[0]}: encoders: has no features of other; add it, or set incom"
    ):
        cohorts.build(p.override(incomplete="error"))


def test_a_further_folder_by_slide_where_the_first_is_by_patient(gdc):
    for path in gdc.data.glob("uni/*"):
        path.unlink()
    small_features.folder(gdc.data / "uni", [f"{i}-01A" for i in TCGA])
    small_features.folder(gdc.data / "more", [*map(dx, TCGA), dx(TCGA[3], 2)])
    made = cohorts.build(gdc.override(encoders={"other": "features:more"}))
    assert names(made, "other") == {i: [dx(i)] for i in TCGA[1:]} | {TCGA[3]: [dx(TCGA[3]), dx(TCGA[3], 2)]}


def test_a_folder_beside_pixels_is_matched_by_slide_then_by_patient(tmp_path):
    small_features.folder(tmp_path / "more", ["s10", *PATIENTS[1:]])
    (tmp_path / "slides").mkdir()
    for i in PATIENTS:
        (tmp_path / f"slides/s{i[1:]}.svs").write_text(i)
    rows = {i: {"slide_path": f"slides/s{i[1:]}.svs", "slide_id": f"own name of {i}"} for i in PATIENTS}
    small_features.table(tmp_path / "cohort.csv", rows)
    values = {"features_dir": "", "encoders": {"other": "features:more"}}
    made = cohorts.build(small_features.parameters(tmp_path, **values))
    assert names(made, "other") == {"P10": ["s10"]} | {i: [i] for i in PATIENTS[1:]}
    assert made.patients.loc["P10", "slide_path"].endswith("s10.svs")


# -- real files --------------------------------------------------------------------------------------------------
@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "per_class", "files"), [("real_lgg", [188, 227], 736), ("real_nsclc_zscores", [430, 432], 958)]
)
def test_the_real_patients_who_have_features_expression_and_a_label(real_data, tmp_path, task, per_class, files):
    values = {"inputs": "both", "features_dir": "features/hipt_vit256", "incomplete": "exclude", "variants": []}
    p = params.load(task, results_dir=str(tmp_path), notebooks=[], **values)
    made = cohorts.build(p)
    assert made.labels.value_counts().sort_index().tolist() == per_class and len(made.features) == files
    steps = made.flow.set_index("step")
    assert steps.loc["features", ["entered", "excluded", "left"]].tolist() == [1763, 11, 1752]
    told = {finding.check for finding in findings.find(made, p)} - {"clinical rows without a patient"}
    assert told == ({"class is a file"} if p.label_rule == "matrix" else set())
