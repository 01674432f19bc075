"""The inventory: every file of a study with its content; what is replaced, missing or there twice is seen."""

import os
import shutil

import pandas as pd
import pytest

from mmmil import params, record
from mmmil.cohort import build as cohorts
from mmmil.cohort import characteristics, inventory
from mmmil.cohort.build import CohortError
from mmmil.sources import feature_files
from mmmil.sources.slide_files import parts_of
from tests import small_features

N = 12


@pytest.fixture
def p(tmp_path):
    """Parameters of a cohort whose files hold a few bytes each: an inventory opens none of them."""
    data = tmp_path / "data"
    for folder in ("slides", "counts", "coords", "weights"):
        (data / folder).mkdir(parents=True)
    rows = []
    for i in range(N):
        for name in (f"slides/{i}.svs", f"counts/{i}.tsv", f"coords/{i}_patches.h5"):
            (data / name).write_text(f"{name} as it came")
        rows.append((f"P{i:02d}", i % 2, f"slides/{i}.svs", f"counts/{i}.tsv"))
    table = pd.DataFrame(rows, columns=["patient_id", "label", "slide_path", "expression_path"])
    table.to_csv(data / "cohort.csv", index=False)
    for name in ("go.gmt", "kegg.gmt", "mpp.csv", "weights/resnet50d.safetensors"):
        (data / name).write_text(name)
    values = {"task": "t", "class_names": ["a", "b"], "n_folds": 3, "cohort_table": "cohort.csv"}
    values |= {"mpp_table": "mpp.csv", "coords_dir": "coords", "weights_dir": "weights"}
    return params.check({**values, "data_dir": str(data), "results_dir": str(tmp_path / "results")})


def update(p):
    return inventory.update(cohorts.build(p), p)


def digests(table):
    sides = {"who": inventory.WHO, "slides": inventory.SLIDES, "genes": inventory.GENES, "weights": inventory.WEIGHTS}
    return {side: inventory.digest(table, settings) for side, settings in sides.items()}


def changed(p, before):
    after = digests(update(p))
    return {side for side in after if after[side] != before[side]}


def test_every_file_that_is_read_is_there_with_its_patient(p):
    table = update(p)
    assert list(table.columns) == inventory.COLUMNS and inventory.read(p).equals(table)
    counts = table["setting"].value_counts().to_dict()
    assert counts == {
        **dict.fromkeys(["slide_path", "expression_path", "coords_dir"], N),
        **dict.fromkeys(["cohort_table", "mpp_table", "go_gmt", "kegg_gmt", "weights_dir"], 1),
    }
    slide = table[table["path"] == str(p.data / "slides/3.svs")].iloc[0]
    assert (slide["patient_id"], slide["setting"], slide["bytes"]) == (
        "P03",
        "slide_path",
        len("slides/3.svs as it came"),
    )
    assert slide["fingerprint"] == record.file_digest(p.data / "slides/3.svs")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("slides/3.svs", "slides"),
        ("coords/3_patches.h5", "slides"),
        ("mpp.csv", "slides"),
        ("counts/3.tsv", "genes"),
        ("kegg.gmt", "genes"),
        ("weights/resnet50d.safetensors", "weights"),
    ],
)
def test_a_replaced_file_is_seen_and_concerns_its_side_alone(p, name, side):
    before = digests(update(p))
    path = p.data / name
    stat = path.stat()
    path.write_text(path.read_text()[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as `cp -p` leaves it: the same size and time
    assert changed(p, before) == {side}


def test_a_file_of_another_time_or_a_link_to_the_same_content_is_the_same(p):
    before = digests(update(p))
    os.utime(p.data / "slides/3.svs")
    shutil.move(p.data / "counts/3.tsv", p.data / "store")
    (p.data / "counts/3.tsv").symlink_to(p.data / "store")
    assert changed(p, before) == set()


def test_a_missing_file_is_named(p):
    update(p)
    (p.data / "coords/3_patches.h5").unlink()
    assert changed(p, digests(inventory.read(p))) == {"slides"}  # tiling says what is missing
    (p.data / "slides/3.svs").unlink()
    with pytest.raises(CohortError, match=r"patient P03: slide_path: .*3\.svs is not there"):
        update(p)


@pytest.mark.parametrize(("folder", "column"), [("slides/{}.svs", "slide_path"), ("counts/{}.tsv", "expression_path")])
def test_two_patients_with_the_same_content_are_an_error_that_names_both(p, folder, column):
    shutil.copy(p.data / folder.format(3), p.data / folder.format(7))
    with pytest.raises(CohortError, match=rf"patient P07: {column}: the content is that of .*3\.\w+, patient P03"):
        update(p)
    assert not inventory.read(p).size  # nothing is written


def test_only_changed_files_are_read_again(p, monkeypatch):
    update(p)
    record._file_digest.cache_clear()
    record._REMEMBERED.clear()  # as in the process of a job
    (p.data / "counts/3.tsv").write_text("another")
    read = []
    digest = record._file_digest
    monkeypatch.setattr(record, "_file_digest", lambda path, *state: read.append(path) or digest(path, *state))
    cohort = cohorts.build(p)
    read.clear()  # of the split that is found again
    inventory.look(cohort, p)
    assert read == [str(p.data / "counts/3.tsv")]
    record.file_digest(p.data / "counts/5.tsv")  # what a job asks for then is known
    assert len(read) == 1


def test_a_large_file_is_known_by_its_size_and_spaced_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "WHOLE", 1000)
    monkeypatch.setattr(record, "BLOCK", 10)
    path = tmp_path / "large.svs"
    path.write_bytes(bytes(range(256)) * 10)
    first = record.fingerprint(path)
    assert first.startswith("2560-") and record.file_digest(path) != first
    for offset in (0, 2559):  # both ends are looked at
        data = bytearray(bytes(range(256)) * 10)
        data[offset] ^= 1
        path.write_bytes(data)
        assert record.fingerprint(path) != first
    record.remember(record.state(path), first)
    assert record.fingerprint(path) == first and "-" not in record.file_digest(path)  # no digest of the whole file


def test_the_parts_of_a_slide_belong_to_it(tmp_path):
    slide = tmp_path / "a.mrxs"
    (tmp_path / "a").mkdir()
    parts = [tmp_path / "a" / name for name in ("Data0000.dat", "Slidedat.ini")]
    for path in [slide, *parts, tmp_path / "b.dcm", tmp_path / "c.dcm"]:
        path.write_text("x")
    assert parts_of(slide) == parts and parts_of(tmp_path / "a.svs") == []
    assert parts_of(tmp_path / "b.dcm") == [tmp_path / "c.dcm"]
    (tmp_path / "a" / ".DS_Store").write_text("x")
    assert parts_of(slide) == parts
    (tmp_path / "d.vms").write_text("[Virtual Microscope Specimen]\nImageFile=c.dcm\nMapFile=gone.jpg\n")
    assert parts_of(tmp_path / "d.vms") == [tmp_path / "c.dcm"]


def test_a_matrix_is_one_file_whoever_is_in_it_and_however_it_is_named(p, monkeypatch):
    table = pd.DataFrame({"gene": ["A", "B"]} | {f"P{i:02d}": [1, 2] for i in range(N)})
    table.to_csv(p.data / "counts.tsv", sep="\t", index=False)
    cells = pd.read_csv(p.data / "cohort.csv").drop(columns="expression_path")
    cells.to_csv(p.data / "cohort.csv", index=False)
    data, project = p.data, p.data.parent
    monkeypatch.chdir(project)
    monkeypatch.setattr(params, "root", lambda: project)
    matrix = {"expression_matrix": ["counts.tsv"], "expression_kind": "counts", "counts_level": "cpm"}
    for data_dir in (str(data), "data", f"../{project.name}/data"):
        made = update(p.override(**matrix, data_dir=data_dir))
        counts = made["setting"].value_counts()
        assert counts["expression_matrix"] == 1 and "expression_path" not in counts
        assert str(data / "counts.tsv") in set(made["path"])


@pytest.mark.parametrize("damage", [b"", b"PAR1garbage", "cut", "older"])
def test_a_damaged_inventory_or_one_of_an_older_version_is_made_again(p, damage):
    table, path = update(p), p.results / inventory.FILE
    if damage == "older":
        table.drop(columns="changed").to_parquet(path)
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else damage)
    assert not len(inventory.read(p))
    assert update(p).equals(table) and inventory.read(p).equals(table)


def test_what_a_file_system_leaves_beside_weights_is_no_weight(p):
    before = digests(update(p))
    (p.data / "weights" / ".DS_Store").write_text("x")
    (p.data / "coords" / ".nfs0001").write_text("x")
    assert changed(p, before) == set()


def test_a_file_that_cannot_be_read_is_named(p, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    cohort = cohorts.build(p)
    monkeypatch.setattr(record, "fingerprint", denied)
    with pytest.raises(CohortError, match=r"0\.svs: cannot be read \(.*denied\); see to its permissions"):
        inventory.look(cohort, p)


def test_a_file_in_other_capitals_and_a_folder_are_told(p):
    (p.data / "counts/3.tsv").rename(p.data / "counts/3.TSV")
    (p.data / "counts/5.tsv").unlink()
    (p.data / "counts/5.tsv").mkdir()
    with pytest.raises(CohortError, match=r"3\.tsv is not there, but 3\.TSV is; write its name") as error:
        update(p)
    assert "5.tsv is a folder; name the file in it" in str(error.value)


def dicom(path, *series):
    path.write_bytes(bytes(128) + b"DICM" + b"".join(b"\x20\x00\x0e\x00UI\x06\x00" + uid for uid in series))
    return path


def test_a_folder_may_hold_the_dicom_series_of_many_slides(tmp_path):
    first, second = dicom(tmp_path / "1.dcm", b"1.2.3\0"), dicom(tmp_path / "2.dcm", b"1.2.3\0")
    other = dicom(tmp_path / "3.dcm", b"1.2.3\0", b"1.2.4\0")  # refers to the other series first
    assert parts_of(first) == [second] and parts_of(other) == []


def test_slides_of_several_files_are_alike_only_as_a_whole():
    def table(*contents):
        rows = [("slide_path", who, f"{who}{i}", 1, 1, 1, c) for who, all_ in zip("AB", contents, strict=True)
                for i, c in enumerate(all_)]  # fmt: skip
        return pd.DataFrame(rows, columns=inventory.COLUMNS)

    inventory._require_unlike(table(["preview", "pixels of A"], ["preview", "pixels of B"]))
    with pytest.raises(CohortError, match="B0, patient B: slide_path: the content is that of A0, patient A"):
        inventory._require_unlike(table(["preview", "pixels"], ["preview", "pixels"]))


def test_of_a_large_table_every_byte_counts(p, monkeypatch):
    """A slide's fingerprint is of parts of it, and no other file's is."""
    monkeypatch.setattr(record, "WHOLE", 1000)
    monkeypatch.setattr(record, "BLOCK", 10)
    for name in ("counts/3.tsv", "slides/3.svs"):
        (p.data / name).write_bytes(b"1" * 5000)
    before = digests(update(p))
    for name in ("counts/3.tsv", "slides/3.svs"):
        (p.data / name).write_bytes(b"1" * 2530 + b"2" + b"1" * 2469)
    assert changed(p, before) == {"genes"}


# -- features ----------------------------------------------------------------------------------------------------
@pytest.fixture
def of_features(tmp_path):
    names = [f"P{i}" for i in range(10)]
    for folder in ("uni", "more"):
        small_features.folder(tmp_path / folder, names)
    small_features.table(tmp_path / "cohort.csv", {name: {} for name in names})
    return small_features.parameters(tmp_path, encoders={"other": "features:more"})


def test_every_file_of_features_is_there_with_its_patient(of_features):
    table = update(of_features)
    assert table["setting"].value_counts().to_dict() == {"features_dir": 10, "encoders": 10, "cohort_table": 1}
    row = table[table["path"] == str(of_features.data / "more/P3.h5")].iloc[0]
    assert (row["setting"], row["patient_id"]) == ("encoders", "P3")


@pytest.mark.parametrize("folder", ["uni", "more"])
def test_replaced_features_concern_the_slides_side(of_features, folder):
    before = digests(update(of_features))
    feature_files.write(of_features.data / folder / "P3.h5", small_features.bag(99))
    assert changed(of_features, before) == {"slides"}


def test_the_same_features_of_two_patients_are_an_error(of_features):
    shutil.copy(of_features.data / "more/P3.h5", of_features.data / "more/P5.h5")
    with pytest.raises(
        CohortError, match=r"P5.h5, patient P5: encoders: the content is that of .*P3.h5, patient P3; one"
    ):
        update(of_features)


def test_a_further_table_of_characteristics_is_of_the_subgroups_alone(p):
    before = update(p)
    assert "further" not in set(before["setting"]), "none is there, and none is asked for"
    path = p.path(characteristics.FURTHER[0])
    path.parent.mkdir()
    path.write_text("patient,IDH.status\nP00,WT\n")
    first = update(p)
    assert first.loc[first["setting"] == "further", "path"].tolist() == [str(path)]
    path.write_text("patient,IDH.status\nP00,Mutant\n")
    second = update(p)
    assert inventory.digest(first, inventory.SUBGROUPS) != inventory.digest(second, inventory.SUBGROUPS)
    for others in (inventory.WHO, inventory.SLIDES, inventory.GENES):
        assert inventory.digest(before, others) == inventory.digest(second, others)
