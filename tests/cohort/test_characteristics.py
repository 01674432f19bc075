"""What tables say of patients beside the class: found under their names, first come, contradictions said by nobody."""

import numpy as np
import pandas as pd
import pytest

from mmmil import params
from mmmil.cohort import build, characteristics
from mmmil.sources.tables import CohortError

IDS = ["TCGA-AA-0001", "TCGA-AA-0002", "TCGA-BB-0003"]


@pytest.fixture
def read(tmp_path):
    """Characteristics of IDS by some tables, the first of them named in `clinical`."""

    def of(*tables: dict, further=(), suffix=".csv"):
        names = []
        for i, columns in enumerate([*tables, *further]):
            names.append(f"table{i}{suffix}")
            pd.DataFrame(columns).to_csv(tmp_path / names[-1], index=False, sep="\t" if suffix == ".tsv" else ",")
        p = params.load("lgg", "demo", data_dir=str(tmp_path), clinical=names[: len(tables)])
        patients = pd.DataFrame({"site": ["AA", "AA", "BB"]}, index=IDS)
        return characteristics.of(p, patients, [*names[len(tables) :], "not_there.csv"])

    return of


def test_what_is_called_otherwise_is_the_same(read):
    gdc = read({"case_submitter_id": IDS, "gender": ["female", "male", "--"], "age_at_index": ["40", "50.5", "'--"]})
    cdr = read({"bcr_patient_barcode": IDS, "Gender": ["FEMALE", "Male", ""], "age": ["40", "50.5", "[Not Available]"]})
    pd.testing.assert_frame_equal(gdc, cdr)
    assert gdc["sex"].tolist() == ["female", "male", ""] and gdc["site"].tolist() == ["AA", "AA", "BB"]
    assert gdc["age"].tolist()[:2] == [40, 50.5] and np.isnan(gdc["age"].iloc[2]) and "IDH" not in gdc


def test_days_are_years(read):
    found = read({"case_submitter_id": IDS, "age_at_diagnosis": ["14610", "18262", ""]})
    assert found["age"].iloc[0] == pytest.approx(40, abs=0.01) and found["age"].iloc[1] == pytest.approx(50, abs=0.01)


def test_years_under_the_name_of_days_stay_years_and_a_code_is_no_age(read):
    found = read({"case_submitter_id": IDS, "age_at_diagnosis": ["40", "50.5", ""]})
    assert found["age"].tolist()[:2] == [40, 50.5]
    assert read({"case_submitter_id": IDS, "age": ["40", "999", "-1"]})["age"].isna().tolist() == [False, True, True]


def test_a_bare_number_says_what_the_columns_name_says(read):
    """1 is a man in one code book and a woman in another; no mutation of IDH1 is no wild type of IDH."""
    assert "sex" not in read({"case_submitter_id": IDS, "gender": ["1", "2", "1"]})
    found = read({"case_submitter_id": IDS, "is_female": ["1.0", "0.0", "2"], "idh1_mut": ["1", "0.0", ""]})
    assert found["sex"].tolist() == ["female", "male", ""] and found["IDH"].tolist() == ["mutant", "", ""]


def test_the_first_table_that_says_anything_has_it(read):
    first = {"case_submitter_id": IDS, "gender": ["female", "", ""]}
    second = {"patient": [*IDS[:2], "TCGA-ZZ-9999"], "Gender": ["male", "male", "male"]}
    second |= {"IDH.status": ["Mutant", "WT", "Mutant"], "X1p.19q.codeletion": ["codel", "non-codel", "codel"]}
    found = read(first, further=[second])
    assert found["sex"].tolist() == ["female", "male", ""] and found["IDH"].tolist() == ["mutant", "wild type", ""]
    assert found["1p/19q"].tolist() == ["co-deleted", "not co-deleted", ""] and list(found.index) == IDS


def test_rows_that_contradict_each_other_say_nothing(read):
    rows = [IDS[0], f"{IDS[0]}-01A", IDS[1], IDS[1]]
    found = read({"sample": rows, "patient_id": rows, "gender": ["male", "female", "male", ""]}, suffix=".tsv")
    assert found["sex"].tolist() == ["", "male", ""]


def test_tables_that_say_nothing_leave_the_site(read):
    assert list(read({"case_submitter_id": IDS, "tumor_grade": ["G2", "G3", "G2"]})) == ["site"]
    assert list(read({"aliquots": IDS, "gender": ["male"] * 3})) == ["site"]  # nobody's


def test_a_clinical_table_that_is_not_there_is_an_error(tmp_path):
    p = params.load("lgg", "demo", data_dir=str(tmp_path), clinical=["gone.csv"])
    with pytest.raises(CohortError, match=r"gone\.csv: the file is not there"):
        characteristics.of(p, pd.DataFrame({"site": ["AA"] * 3}, index=IDS))


@pytest.mark.real
def test_real_gliomas_have_all_of_them(real_data):
    p = params.load("real_lgg")
    found = characteristics.of(p, build.build(p).patients)
    assert list(found) == ["site", "sex", "age", "IDH", "1p/19q"]
    assert set(found["IDH"]) <= {"mutant", "wild type", ""} and found["age"].between(14, 90).mean() > 0.95
    alone = characteristics.of(p, build.build(p).patients, [])
    known = (alone["IDH"] != "") & (found["IDH"] != "")
    assert (alone["IDH"] == found["IDH"])[known].mean() > 0.9  # the matrix knows IDH1 alone
