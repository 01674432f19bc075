"""The GDC's files: asked for, downloaded and verified, against a small server that answers as the API does."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmil import params
from mmmil.cohort import labels as label_rules
from mmmil.gdc import __main__ as gdc_commands
from mmmil.gdc import client
from mmmil.sources import aliquots, manifests, sample_sheets
from mmmil.sources.manifests import GDCError, read_manifest

SIZE = 300_000  # bytes of a file: several chunks
UUID = "{:08d}-0000-4000-8000-000000000000"


def content(i, size=SIZE):
    return random.Random(i).randbytes(size)


def md5(data):
    return hashlib.md5(data).hexdigest()


# -- a server that answers as the GDC's API does -------------------------------------------------------------------
def values_at(record, path):
    """What a dotted field of a nested record holds, as a list."""
    found = [record]
    for name in path.split("."):
        found = [part.get(name) for part in found if isinstance(part, dict)]
        found = [x for part in found for x in (part if isinstance(part, list) else [part])]
    return [x for x in found if x is not None]


def lets_through(filters, record):
    inner = filters["content"]
    if filters["op"] == "and":
        return all(lets_through(part, record) for part in inner)
    assert filters["op"] == "in"
    return bool(set(values_at(record, inner["field"])) & set(inner["value"]))


def only(record, fields):
    """A record with the fields asked for and no other, nested as they are."""
    if isinstance(record, list):
        return [only(part, fields) for part in record]
    if not isinstance(record, dict):
        return record
    kept = {}
    for name, value in record.items():
        inner = [f.partition(".")[2] for f in fields if f.partition(".")[0] == name]
        if inner:
            kept[name] = only(value, inner)
    return kept


class Api:
    """State of the server: its records and files, what goes wrong next, and what it was asked."""

    def __init__(self):
        self.files, self.cases, self.data = [], [], {}
        self.faults = {}  # {path: [what happens at the 1st, 2nd ... request]}
        self.unknown_fields = set()
        self.ranges = True
        self.change = lambda answer: answer
        self.asked = []  # (path, Range or body)
        self.met = 0  # requests that were there at the same time

    def asked_for(self, path):
        return [what for where, what in self.asked if where == path]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def fault(self):
        """What goes wrong at this request; True where the answer is given by that."""
        self.api = self.server.api
        planned = self.api.faults.get(self.path, [])
        what = planned.pop(0) if planned else None
        if isinstance(what, int):
            self.answer(what, b'{"message": "told by the server"}')
        elif isinstance(what, tuple):
            self.answer(what[0], b"", Retry_After=what[1])
        elif what == "html":
            self.answer(200, b"<html>maintenance</html>", "text/html")
        else:
            return what
        return True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.api.asked.append((self.path, body))
        if self.fault():
            return
        api, fields = self.api, body["fields"].split(",")
        records = [r for r in getattr(api, self.path[1:]) if lets_through(body["filters"], r)]
        page = records[body["from"] : body["from"] + body["size"]]
        unknown = [f for f in fields if f in api.unknown_fields]
        answer = {
            "data": {
                "hits": [{"id": "x"} | only(r, [f for f in fields if f not in unknown]) for r in page],
                "pagination": {"count": len(page), "total": len(records), "size": body["size"], "from": body["from"]},
            },
            "warnings": {"fields": f"unrecognized values: [{', '.join(unknown)}]"} if unknown else {},
        }
        self.answer(200, json.dumps(api.change(answer)).encode())

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.api.asked.append((self.path, asked))
        what = self.fault()
        if what is True:
            return
        data = self.api.data.get(self.path.removeprefix("/data/"))
        if data is None:
            self.answer(404, b'{"message": "no such file"}')
            return
        if what == "corrupt":
            data = bytes(len(data))
        start, headers, total = 0, {}, len(data)
        if asked and self.api.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= total:
                self.answer(416, b"", Content_Range=f"bytes */{total}")
                return
            off = 1 if what == "shifted" else 0
            headers["Content_Range"] = f"bytes {start + off}-{total - 1}/{total}"
        if what == "meet":
            self.server.meeting.wait(5)
            self.api.met += 1
        rest = data[start:]
        sent = rest[: what[0]] if isinstance(what, list) else rest  # [n]: n bytes, then the connection drops
        self.send_response(206 if headers else 200)
        for name, value in {"Content-Length": str(len(rest)), "Content-Type": "image/tiff", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(sent)
        if isinstance(what, list) and what[1:] == ["stall"]:
            self.wfile.flush()
            self.server.released.wait(20)


@pytest.fixture
def api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.api = Api()
    server.meeting, server.released = threading.Barrier(2), threading.Event()
    server.api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server.api
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Back-off without waiting; what it would have waited."""
    waited = []
    monkeypatch.setattr(client, "pause", lambda seconds, stop: waited.append(seconds))
    return waited


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A project folder of its own; `task(**fields)` changes params/lgg.yaml and returns its parameters."""
    shutil.copytree(params.root() / "params", tmp_path / "params")
    (tmp_path / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path)

    def change(**fields):
        path = tmp_path / "params/lgg.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))
        return params.load("lgg")

    change()
    return change


def file_record(api, i, project="TCGA-LGG", kind="slides", sample="01", **change):
    """One file of the GDC, its bytes on the server."""
    patient = f"TCGA-AB-{i:04d}"
    slide = kind == "slides"
    data = content(i)
    record = {
        "file_id": UUID.format(i),
        "file_name": f"{patient}-{sample}Z-00-DX1.{i}.svs" if slide else f"{i}.rna_seq.augmented_star_gene_counts.tsv",
        "md5sum": md5(data),
        "file_size": len(data),
        "state": "released",
        "access": "open",
        "data_category": "Biospecimen" if slide else "Transcriptome Profiling",
        "data_type": "Slide Image" if slide else "Gene Expression Quantification",
        "experimental_strategy": "Diagnostic Slide" if slide else "RNA-Seq",
        "analysis": {"workflow_type": "not given" if slide else "STAR - Counts"},
        "cases": [
            {
                "submitter_id": patient,
                "project": {"project_id": project},
                "samples": [
                    {"submitter_id": f"{patient}-{sample}{'Z' if slide else 'A'}", "sample_type": "Primary Tumor"}
                ],
            }
        ],
    } | change
    api.files.append(record)
    api.data[record["file_id"]] = data
    return record


def case_record(api, i, project="TCGA-LGG", **change):
    record = {
        "case_id": f"case-{i}",
        "submitter_id": f"TCGA-AB-{i:04d}",
        "project": {"project_id": project},
        "demographic": {"age_at_index": 40 + i, "gender": "female", "sex_at_birth": "female"},
        "diagnoses": [{"tumor_grade": "G2", "diagnosis_is_primary_disease": True}],
    } | change
    api.cases.append(record)
    return record


@pytest.fixture
def lgg(api, task):
    """8 slides and 4 counts files of TCGA-LGG among files of other kinds, and their cases."""
    for i in range(8):
        file_record(api, i)
        case_record(api, i)
    for i in range(10, 14):
        file_record(api, i, kind="expression")
    file_record(api, 20, project="TCGA-GBM")
    file_record(api, 21, experimental_strategy="Tissue Slide")
    file_record(api, 22, access="controlled")
    file_record(api, 23, kind="expression", analysis={"workflow_type": "HTSeq - Counts"})
    case_record(api, 20, project="TCGA-GBM")
    return api


def manifest_of(p, *records):
    """The records' files in the task's manifest."""
    p.data.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(manifests.MANIFEST_COLUMNS)]
    lines += ["\t".join(str(r[k]) for k in ("file_id", "file_name", "md5sum", "file_size", "state")) for r in records]
    (p.data / "gdc_manifest.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def one(api, task):
    """One slide in the manifest: the API, the parameters, where the slide will lie, its bytes, its address."""
    p = task()
    record = file_record(api, 1)
    manifest_of(p, record)
    path = p.data / "slides" / record["file_name"]
    One = namedtuple("One", "api p path data url part")
    return One(api, p, path, content(1), f"/data/{record['file_id']}", path.with_name(path.name + ".part"))


def left_over(p):
    return sorted(path.name for path in p.data.rglob("*.part"))


# -- manifests -----------------------------------------------------------------------------------------------------
HEADER = "id\tfilename\tmd5\tsize\tstate"
ROW = [UUID.format(1), "a.svs", "0" * 32, "5", "released"]


def row(**change):
    return "\t".join(change.get(name, value) for name, value in zip(manifests.MANIFEST_COLUMNS, ROW, strict=True))


def test_manifest_in_any_order_with_more_columns_bom_crlf_and_blank_lines(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(
        b"\xef\xbb\xbfsize\tid\textra\tmd5\tstate\tfilename\r\n7\tab-1\tx\tABCDEF" + b"0" * 26 + b"\ts\tb.svs\r\n\r\n"
    )
    table = read_manifest(path)
    assert table.to_numpy().tolist() == [["ab-1", "b.svs", "abcdef" + "0" * 26, 7, "s"]]
    assert list(table) == manifests.MANIFEST_COLUMNS and table["size"].dtype == "int64"


def test_manifest_of_an_archive_names_folders_and_annotations(tmp_path):
    path = tmp_path / "m.txt"
    folder = UUID.format(1)
    path.write_text(
        "\n".join([HEADER, row(filename=f"{folder}/a.svs"), row(id="\\N", filename=f"{folder}/annotations.txt")])
    )
    assert read_manifest(path)["filename"].tolist() == ["a.svs"]


@pytest.mark.parametrize(
    "lines, told",
    [
        ([HEADER, row(), row(size="1.5", id="b", filename="b")], r"line 3: size '1\.5' is not a whole number"),
        ([HEADER, row(size="-1")], r"line 2: size '-1'"),
        ([HEADER, row(size="٣")], r"line 2: size '٣'"),
        ([HEADER, row(size="9" * 5000)], r"line 2: size '9+\.\.\.'"),
        ([HEADER, row(md5="abc")], r"line 2: md5 'abc' is not 32 hexadecimal digits"),
        ([HEADER, row(id="../x")], r"line 2: id '\.\./x'"),
        ([HEADER, row(id="\\N")], r"line 2: id "),
        ([HEADER, row(), row(filename="b.svs")], r"line 3: id '00000001.*' is on line 2, too"),
        ([HEADER, "", row(), row(id="b")], r"line 4: filename 'a\.svs' is on line 3, too"),
        ([HEADER, "a\tb"], r"line 2: 2 fields where the header has 5"),
        ([HEADER], r"no file is in it"),
        ([HEADER.replace("md5", "MD5sum"), row()], r"line 1: column 'md5' is there 0 times"),
        ([HEADER + "\tid", row() + "\tx"], r"line 1: column 'id' is there 2 times"),
        ([""], r"line 1: column 'id' is there 0 times"),
    ],
)
def test_manifest_that_is_wrong(tmp_path, lines, told):
    path = tmp_path / "m.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(GDCError, match=told) as error:
        read_manifest(path)
    assert str(path) in str(error.value) and re.search("download it|correct", str(error.value))


@pytest.mark.parametrize(
    "name", ["../a.svs", "a/b.svs", "/a.svs", "a\\b.svs", ".a.svs", "..", "", "a..svs", "a.part", "a\x00", "a" * 201]
)
def test_manifest_with_a_file_name_that_escapes(tmp_path, name):
    path = tmp_path / "m.txt"
    path.write_text(f"{HEADER}\n{row(filename=name)}\n")
    with pytest.raises(GDCError, match=r"line 2: filename .* (path separator|control characters)"):
        read_manifest(path)


def test_every_wrong_line_is_told_at_once_and_many_are_counted(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("\n".join([HEADER, *(row(id=f"i{i}", filename=f"f{i}", size="x") for i in range(14))]))
    with pytest.raises(GDCError, match=r"(?s)line 2: .*line 11: .*and 4 more"):
        read_manifest(path)


def test_manifest_that_is_no_text_or_no_file(tmp_path):
    path = tmp_path / "m.txt"
    path.write_bytes(b"\x1f\x8b\xff\x00")
    for wrong, told in ((path, "cannot be read as text"), (tmp_path, "cannot be read"), (tmp_path / "no", "not there")):
        with pytest.raises(GDCError, match=told):
            read_manifest(wrong)


@pytest.mark.real
@pytest.mark.parametrize(
    "name, files, first",
    [
        ("gdc_manifest.2024-04-26.LUAD_LUSC_slides.txt", 2167, ("5a474894-e9db-4c11-9b68-90787486513d", 168039733)),
        ("gdc_manifest_20200213.LUSC_rna.txt", 149, ("0090d3a6-7151-4777-9dcd-2d1182fc8d41", 251862)),
        ("MANIFEST.LUSC_htseq_551.txt", 551, ("0090d3a6-7151-4777-9dcd-2d1182fc8d41", 251862)),
    ],
)
def test_genuine_manifests(real_data, name, files, first):
    table = read_manifest(real_data / "gdc" / name)
    assert len(table) == files and tuple(table.loc[0, ["id", "size"]]) == first
    assert table["id"].is_unique and not table["filename"].str.contains("/").any()


CELL = st.sampled_from(["x", "", "5", "-1", "0" * 32, "a.svs", "../a", "id", "\\N", "é", '"', "#", " "]) | st.text(
    max_size=8
)
GOOD = st.lists(st.integers(0, 10**14), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_manifest_gives_an_error_or_the_right_answer(data):
    """Bytes, or a table with shuffled, duplicated, missing and additional columns and some odd cells."""
    names = manifests.MANIFEST_COLUMNS
    header = data.draw(st.permutations([*names, "more"]) | st.lists(st.sampled_from([*names, "more", ""]), max_size=8))
    sizes = data.draw(GOOD)
    rows = [
        {"id": f"i{i}", "filename": f"f{i}.svs", "md5": md5(b"%d" % i), "size": str(size), "state": "s", "more": "m"}
        for i, size in enumerate(sizes)
    ]
    lines = [[r.get(name, "") for name in header] for r in rows]
    odd = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), CELL), max_size=2))
    for i, j, cell in odd:
        if i < len(lines) and j < len(header):
            lines[i][j] = cell
    garbage = data.draw(st.none() | st.binary(max_size=60))
    text = "\n".join("\t".join(line) for line in [header, *lines]).encode(errors="replace")
    expected = not odd and garbage is None and all(header.count(name) == 1 for name in names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.txt"
        path.write_bytes(text if garbage is None else garbage + data.draw(st.sampled_from([b"", text])))
        try:
            table = read_manifest(path)
        except GDCError as error:
            assert not expected and str(path) in str(error)
            return
    assert list(table) == names and table["size"].dtype == "int64" and (table["size"] >= 0).all()
    assert table["id"].is_unique and table["filename"].is_unique and len(table)
    assert not any(map(manifests.unsafe, table["filename"])) and table["md5"].str.fullmatch("[0-9a-f]{32}").all()
    if expected:
        pd.testing.assert_frame_equal(table, pd.DataFrame(rows)[names].astype({"size": "int64"}))


# -- query ---------------------------------------------------------------------------------------------------------
def test_query_pages_through_the_open_files_of_the_project(lgg, task, monkeypatch, capsys):
    monkeypatch.setattr(client, "PAGE", 3)
    gdc_commands.query("lgg", lgg.url)
    p = task()
    bodies = lgg.asked_for("/files")
    assert [body["from"] for body in bodies] == [0, 3, 6, 0, 3] and {body["size"] for body in bodies} == {3}
    manifest = read_manifest(p.data / "gdc_manifest.txt")
    assert manifest["id"].tolist() == [UUID.format(i) for i in [*range(8), *range(10, 14)]]
    assert manifest["md5"].tolist() == [md5(lgg.data[i]) for i in manifest["id"]] and set(manifest["size"]) == {SIZE}
    for folder, n in (("slides", 8), ("expression", 4)):  # gdc-client takes one folder per call
        assert len(read_manifest(p.data / f"gdc_manifest_{folder}.txt")) == n
    told = capsys.readouterr().out
    assert "slides: 8 files, 0.00 GB" in told and "tumor_grade is stated for 8 of them" in told
    assert f"mmmil.gdc download --task lgg --api {lgg.url}" in told and re.search("gdc-client download -m .* -d", told)
    assert not [path for path in p.data.iterdir() if path.name.startswith(".")]


def test_the_sample_sheet_is_read_as_the_gdcs_own(lgg, task):
    file_record(
        lgg, 5, kind="expression", sample="11", file_id=UUID.format(99), file_name="n.augmented_star_gene_counts.tsv"
    )
    gdc_commands.query("lgg", lgg.url)
    sheet = sample_sheets.read_sample_sheets([task().data / "gdc_sample_sheet.tsv"])
    slides, out = sample_sheets.choose_slides(sheet)
    assert slides.index.tolist() == [f"TCGA-AB-{i:04d}" for i in range(8)] and out == []
    assert slides.loc["TCGA-AB-0003", "File Name"] == "TCGA-AB-0003-01Z-00-DX1.3.svs"
    counts, out = sample_sheets.choose_expression(sheet, "star")
    assert counts.index.tolist() == [f"TCGA-AB-{i:04d}" for i in range(10, 14)]
    assert [patient for patient, _ in out] == ["TCGA-AB-0005"]  # a normal is left out there, and counted
    assert set(sheet["Project ID"]) == {"TCGA-LGG"} and set(sheet["Sample Type"]) == {"Primary Tumor"}


@pytest.mark.real
def test_the_sample_sheet_has_the_columns_of_a_genuine_one(lgg, task, real_data):
    gdc_commands.query("lgg", lgg.url)
    genuine = (real_data / "gdc/gdc_sample_sheet.2024-04-28.LUAD_LUSC_slides.tsv").read_text().partition("\n")[0]
    head = (task().data / "gdc_sample_sheet.tsv").read_text().partition("\n")[0]
    assert head == f"{genuine}\tPreservation Method\tAliquot ID"


def test_the_sample_sheet_tells_the_aliquots_of_one_sample_apart(lgg, task):
    names = {"TCGA-AB-0010-01A-11R-1774-07": "OCT", "TCGA-AB-0010-01A-11R-A278-07": "OCT"}
    names["TCGA-AB-0010-01B-11R-A277-07"] = "FFPE"
    for i, (name, preservation) in enumerate(names.items()):
        record = file_record(lgg, 30 + i, kind="expression")
        analytes = [{"analytes": [{"aliquots": [{"submitter_id": name}]}]}]
        sample = {"submitter_id": name[:16], "sample_type": "Primary Tumor", "portions": analytes}
        record["cases"][0] |= {
            "submitter_id": name[:12],
            "samples": [sample | {"preservation_method": preservation}],
        }
    lgg.files = [record for record in lgg.files if record["file_id"] != UUID.format(10)]  # the patient's other file
    gdc_commands.query("lgg", lgg.url)
    sheet = sample_sheets.read_sample_sheets([task().data / "gdc_sample_sheet.tsv"])
    chosen, excluded = sample_sheets.choose_expression(sheet, "star")
    columns, left_out = aliquots.primary_columns(names)
    assert chosen.loc["TCGA-AB-0010", "aliquot"] == columns["TCGA-AB-0010"] == "TCGA-AB-0010-01A-11R-A278-07"
    assert [why for _, why in excluded] == [
        "expression: FFPE, the patient's frozen aliquot is used",
        "expression: another aliquot of the sample is used",
    ]
    assert len(left_out) == 2 and (sheet["aliquot"][sheet["Data Type"] == sample_sheets.SLIDE] == "").all()


def test_sample_type_of_newer_releases(lgg, task):
    for record in lgg.files:
        sample = record["cases"][0]["samples"][0]
        sample |= {"tumor_descriptor": "Primary", "tissue_type": "Tumor", "sample_type": None}
    gdc_commands.query("lgg", lgg.url)
    sheet = pd.read_csv(task().data / "gdc_sample_sheet.tsv", sep="\t")
    assert set(sheet["Sample Type"]) == {"Primary Tumor"}


@pytest.mark.parametrize("inputs, kinds", [("slides", {"Slide Image"}), ("genes", {"Gene Expression Quantification"})])
def test_only_the_modality_of_the_task_is_asked_for(lgg, task, inputs, kinds):
    p = task(inputs=inputs, sample_sheets=[], clinical=["params/mine.csv"])
    gdc_commands.query("lgg", lgg.url)
    assert set(pd.read_csv(p.data / "gdc_sample_sheet.tsv", sep="\t")["Data Type"]) == kinds
    assert len(lgg.asked_for("/files")) == 1 and (p.data / "clinical.tsv").is_file()


def test_tables_named_csv_have_commas(lgg, task):
    p = task(clinical=["c.csv"])
    gdc_commands.query("lgg", lgg.url)
    assert label_rules.clinical_values("grade", [p.data / "c.csv"])["TCGA-AB-0001"] == "G2"


def test_grade_is_that_of_the_primary_diagnosis_and_contradictions_show(lgg, task):
    def diagnosis(grade, primary=None, kind=None):
        return {"tumor_grade": grade, "diagnosis_is_primary_disease": primary, "classification_of_tumor": kind}

    diagnoses = [
        ("G3", [diagnosis("G2", False), diagnosis("G3", "true")]),
        ("G3", [diagnosis("G3", None, "Primary"), diagnosis("G2", None, "recurrence")]),
        ("G2 / G3", [diagnosis("G3"), diagnosis("G2"), diagnosis("Not Reported")]),
        ("--", [diagnosis(None, True), diagnosis("G2", False)]),
        ("--", None),
    ]
    for case, (_, parts) in zip(lgg.cases, diagnoses, strict=False):
        case["diagnoses"] = parts
    gdc_commands.query("lgg", lgg.url)
    table = pd.read_csv(task().data / "clinical.tsv", sep="\t")
    assert table["tumor_grade"].tolist()[:5] == [grade for grade, _ in diagnoses]
    assert table["case_submitter_id"].tolist() == [f"TCGA-AB-{i:04d}" for i in range(8)]  # not that of TCGA-GBM


def test_gender_where_the_gdc_has_renamed_it_and_its_warning(lgg, task, capsys):
    lgg.unknown_fields = {"demographic.gender"}
    lgg.cases[3]["demographic"] = None
    gdc_commands.query("lgg", lgg.url)
    table = pd.read_csv(task().data / "clinical.tsv", sep="\t", dtype=str)
    assert table["gender"].tolist() == ["female"] * 3 + ["--"] + ["female"] * 4
    assert table["age_at_index"].tolist()[:4] == ["40", "41", "42", "--"]
    assert list(table) == [
        *("case_submitter_id", "project_id", "age_at_index", "gender", "tumor_grade"),
        *("er_status", "pr_status", "her2_status"),
    ]
    assert "unrecognized values: [demographic.gender]" in capsys.readouterr().err


def test_receptors_by_immunohistochemistry(lgg, task):
    def follow_ups(*tests):
        names = ("gene_symbol", "test_result", "molecular_analysis_method", "laboratory_test")
        return {"follow_ups": [{"molecular_tests": [dict(zip(names, t, strict=False))]} for t in tests] + [{}]}

    her2 = ("ERBB2", "Negative", "IHC")
    estrogen = ("Not Applicable", "Positive", None, "Estrogen Receptor")
    receptors = [
        (
            ["Negative"] * 3,
            [("ESR1", "Negative", "IHC"), ("PGR", "Negative", "IHC"), her2, ("ERBB2", "Positive", "FISH")],
        ),
        (["Positive", "--", "Negative"], [estrogen, her2, ("ESR1", "Test Value Reported", "IHC")]),
        (["--", "Positive", "Equivocal"], [("PGR", "Positive", "Unknown"), ("ERBB2", "Equivocal", "IHC")]),
        (["Negative / Positive", "--", "--"], [("ESR1", "Positive", "IHC"), ("ESR1", "Negative", "IHC")]),
        (["--", "--", "--"], [("TP53", "Negative", "IHC"), ("ESR1", "Not Reported", "IHC")]),
    ]
    for case, (_, tests) in zip(lgg.cases, receptors, strict=False):
        case |= follow_ups(*tests)
    p = task(label_rule="ihc", class_values=[["Luminal A"], ["TNBC"]])
    gdc_commands.query("lgg", lgg.url)
    table = pd.read_csv(p.data / "clinical.tsv", sep="\t")
    assert table[["er_status", "pr_status", "her2_status"]].to_numpy().tolist()[:5] == [row for row, _ in receptors]
    subtypes = label_rules.clinical_values("ihc", [p.data / "clinical.tsv"])
    assert subtypes["TCGA-AB-0000"] == "TNBC" and subtypes["TCGA-AB-0001"] == "Luminal A"
    assert {"TNBC", "Luminal A"}.isdisjoint(subtypes[f"TCGA-AB-{i:04d}"] for i in range(2, 8))


def test_no_project_and_a_wrong_one(lgg, task):
    task(gdc_projects=["TCGA-LGG", "TCGA-LGX"])
    with pytest.raises(GDCError, match=r"nothing open of TCGA-LGX; correct gdc_projects in params/lgg\.yaml"):
        gdc_commands.query("lgg", lgg.url)
    task(gdc_projects=[])
    with pytest.raises(GDCError, match="task 'lgg': gdc_projects is empty; name"):
        gdc_commands.query("lgg", lgg.url)


def drop_last(answer):
    answer["data"]["hits"].pop()


def grow(answer):
    answer["data"]["pagination"]["total"] += answer["data"]["pagination"]["from"]


def repeat(answer):
    answer["data"]["hits"][0] = answer["data"]["hits"][1]


def without(*path):
    def change(answer):
        for name in path[:-1]:
            answer = answer[name]
        del answer[path[-1]]

    return change


def set_field(**fields):
    def change(answer):
        answer["data"]["hits"][1].update(fields)

    return change


def warn(answer):
    answer["warnings"] = {"filters": "unrecognized values: [access]"}


@pytest.mark.parametrize(
    "change, told",
    [
        (drop_last, r"/files: 2 hits from 0 on where total says 3; .* run `query` again"),
        (grow, r"/files: 2 hits from 6 on where total says 3"),
        (repeat, r"file_id 0+1-.* comes twice"),
        (without("data", "hits"), r"has not the fields data\.hits and data\.pagination\.total"),
        (without("data", "pagination", "total"), r"has not the fields"),
        (without("data"), r"has not the fields"),
        (without("data", "hits", 1, "file_id"), r"has no field file_id"),
        (without("data", "hits", 1, "md5sum"), r"file 0+1-.*: md5 '' is not 32 hexadecimal digits"),
        (without("data", "hits", 1, "file_size"), r"file 0+1-.*: size ''"),
        (without("data", "hits", 1, "file_name"), r"File Name is missing"),
        (without("data", "hits", 1, "cases"), r"Project ID is missing, Case ID is missing, Sample ID is missing"),
        (set_field(file_name="../../x.svs"), r"filename '\.\./\.\./x\.svs' has a path separator"),
        (set_field(file_name=".bashrc"), r"leading dot"),
        (set_field(file_name=["a"]), r"file_name|filename|File Name"),
        (set_field(file_name="TCGA-AB-0002-01Z-00-DX1.2.svs"), r"another file has its file_name"),
        (set_field(file_size=1.5), r"size '1\.5' is not a whole number"),
        (set_field(access="controlled"), r"access is 'controlled', not 'open'"),
        (set_field(data_type="Aligned Reads"), r"data_type is 'Aligned Reads', not 'Slide Image'"),
        (warn, r"warns of the field filters"),
    ],
)
def test_an_answer_that_is_not_whole_writes_nothing(lgg, task, monkeypatch, change, told):
    monkeypatch.setattr(client, "PAGE", 3)
    lgg.change = lambda answer: (change(answer), answer)[1]
    with pytest.raises(GDCError, match=told) as error:
        gdc_commands.query("lgg", lgg.url)
    assert lgg.url in str(error.value) and not task().data.exists()


def test_a_web_page_in_place_of_an_answer(lgg):
    lgg.faults["/files"] = ["html"]
    with pytest.raises(GDCError, match=r"/files: the answer \(text/html\) has not .* maintenance"):
        gdc_commands.query("lgg", lgg.url)


def test_query_waits_as_long_as_the_server_asks_and_else_ever_longer(lgg, waits):
    lgg.faults["/files"] = [(429, "7"), 500, 502, (503, formatdate(time.time() + 100, usegmt=True)), (429, "soon")]
    gdc_commands.query("lgg", lgg.url)
    assert waits[:3] == [7, 2, 4] and 90 < waits[3] < 101 and waits[4:] == [16]


def test_query_gives_up(lgg, waits):
    lgg.faults["/cases"] = [500] * 99
    with pytest.raises(GDCError, match=r"/cases: HTTP 500, 6 times; see whether the GDC is up"):
        gdc_commands.query("lgg", lgg.url)
    assert waits == [1, 2, 4, 8, 16] and len(lgg.asked_for("/cases")) == 6


def test_a_query_that_is_refused_is_not_repeated(lgg):
    lgg.faults["/files"] = [400] * 3
    with pytest.raises(GDCError, match=r"/files: HTTP 400 \(.*told by the server.*\); the GDC does not understand"):
        gdc_commands.query("lgg", lgg.url)
    assert len(lgg.asked_for("/files")) == 1


@pytest.mark.parametrize("address, told", [("http://127.0.0.1:9", "no connection"), ("gdc", "correct --api")])
def test_no_server(task, address, told):
    with pytest.raises(GDCError, match=told):
        gdc_commands.query("lgg", address)


# -- download ------------------------------------------------------------------------------------------------------
def test_query_download_verify(lgg, task, capsys):
    gdc_commands.query("lgg", lgg.url)
    gdc_commands.download("lgg", lgg.url)
    p = task()
    for record in lgg.files[:12]:
        folder = "slides" if record["file_name"].endswith(".svs") else "expression"
        assert (p.data / folder / record["file_name"]).read_bytes() == lgg.data[record["file_id"]]
    assert len(list((p.data / "slides").iterdir())) == 8 and left_over(p) == []
    asked = len(lgg.asked)
    gdc_commands.download("lgg", lgg.url)
    gdc_commands.verify("lgg")
    told = capsys.readouterr().out
    assert len(lgg.asked) == asked and "12 files, 12 there, 0 missing: nothing to fetch" in told
    assert "12 files, 0 there, 12 missing: 0.00 GB to fetch, " in told
    assert "12 files, 0.00 GB: size and MD5 as in the manifest" in told


def test_the_data_type_of_the_sample_sheet_says_the_folder(lgg, task):
    lgg.files[10]["file_name"] = "counts.bin"
    p = task()
    gdc_commands.query("lgg", lgg.url)
    gdc_commands.download("lgg", lgg.url)
    assert (p.data / "expression/counts.bin").is_file()
    (p.data / "gdc_sample_sheet.tsv").unlink()
    with pytest.raises(GDCError, match=r"filename 'counts\.bin' is neither a slide nor counts"):
        gdc_commands.download("lgg", lgg.url)


def test_a_dropped_connection_goes_on_where_it_was_cut(one, waits):
    one.api.faults[one.url] = [[200_000], [50_000]]
    gdc_commands.download("lgg", one.api.url)
    first, second, third = one.api.asked_for(one.url)
    starts = [int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) for asked in (second, third)]
    assert first is None and 100_000 < starts[0] <= 200_000 and starts[0] <= starts[1] <= starts[0] + 50_000
    assert one.path.read_bytes() == one.data and waits == [1, 2]


def test_a_connection_that_drops_but_makes_progress_is_no_failure(one, monkeypatch, waits):
    monkeypatch.setattr(client, "PROGRESS", 10_000)
    monkeypatch.setattr(client, "CHUNK", 5_000)
    one.api.faults[one.url] = [[20_000]] * 10
    gdc_commands.download("lgg", one.api.url)
    assert one.path.read_bytes() == one.data and len(one.api.asked_for(one.url)) == 11 and waits == []


def test_a_connection_that_always_drops_is_an_error_and_leaves_what_there_is(one):
    one.api.faults[one.url] = [[70_000]] + [[10]] * 99
    with pytest.raises(GDCError, match=r"(?s)1 of 1 files failed.*it broke .* 6 times"):
        gdc_commands.download("lgg", one.api.url)
    assert not one.path.exists() and one.part.read_bytes() == one.data[: one.part.stat().st_size] != b""


def test_a_server_without_range_sends_all_again(one):
    one.api.ranges = False
    one.api.faults[one.url] = [[200_000]]
    gdc_commands.download("lgg", one.api.url)
    first, second = one.api.asked_for(one.url)
    assert first is None and second.startswith("bytes=") and one.path.read_bytes() == one.data


@pytest.mark.parametrize("have", [1, 100_000, SIZE - 1])
def test_a_killed_download_is_resumed(one, capsys, have):
    one.path.parent.mkdir()
    one.part.write_bytes(one.data[:have])
    gdc_commands.download("lgg", one.api.url)
    assert one.api.asked_for(one.url) == [f"bytes={have}-"] and one.path.read_bytes() == one.data
    assert not one.part.exists()


def test_what_was_killed_just_before_its_end_is_not_asked_for_again(one):
    one.path.parent.mkdir()
    one.part.write_bytes(one.data)
    gdc_commands.download("lgg", one.api.url)
    assert one.api.asked == [] and one.path.read_bytes() == one.data


@pytest.mark.parametrize("size, asked", [(100, ["bytes=100-", None]), (SIZE, [None]), (SIZE + 1, [None])])
def test_a_part_of_another_file_is_thrown_away(one, size, asked):
    one.path.parent.mkdir()
    one.part.write_bytes(b"x" * size)
    gdc_commands.download("lgg", one.api.url)
    assert one.path.read_bytes() == one.data and one.api.asked_for(one.url) == asked


def test_a_part_longer_than_what_the_server_has_is_thrown_away(one):
    one.path.parent.mkdir()
    one.part.write_bytes(one.data[:500])
    one.api.data[one.url.removeprefix("/data/")] = one.data[:400]
    with pytest.raises(GDCError, match=r"size 400 bytes, the manifest says 300,000; run `query` again"):
        gdc_commands.download("lgg", one.api.url)
    assert one.api.asked_for(one.url) == ["bytes=500-", None] and not one.part.exists()


def test_a_wrong_checksum_is_fetched_anew_once(one):
    one.api.faults[one.url] = ["corrupt"]
    gdc_commands.download("lgg", one.api.url)
    assert one.api.asked_for(one.url) == [None, None] and one.path.read_bytes() == one.data


def test_a_checksum_that_stays_wrong_fails_and_the_others_are_downloaded(lgg, task):
    gdc_commands.query("lgg", lgg.url)
    bad, gone = lgg.files[2], lgg.files[5]
    lgg.faults[f"/data/{bad['file_id']}"] = ["corrupt"] * 9
    del lgg.data[gone["file_id"]]
    with pytest.raises(GDCError, match=r"(?s)2 of 12 files failed") as error:
        gdc_commands.download("lgg", lgg.url)
    told = str(error.value)
    assert re.search(
        rf"{bad['file_id']}: {bad['file_name']}: MD5 is .*, the manifest says {bad['md5sum']}, twice", told
    )
    assert re.search(rf"{gone['file_id']}: HTTP 404 .*run `query` again", told)
    assert len(lgg.asked_for(f"/data/{bad['file_id']}")) == 2 and len(lgg.asked_for(f"/data/{gone['file_id']}")) == 1
    assert len(list((task().data / "slides").iterdir())) == 6 and left_over(task()) == []


@pytest.mark.parametrize("fault, wait", [((429, "3"), [3]), (500, [1]), ("html", [1]), ((503, "9999"), [600])])
def test_a_passing_fault_is_waited_for(one, waits, fault, wait):
    one.api.faults[one.url] = [fault]
    gdc_commands.download("lgg", one.api.url)
    assert waits == wait and one.path.read_bytes() == one.data


@pytest.mark.parametrize(
    "faults, told",
    [
        ([500] * 9, r"HTTP 500, 6 times"),
        (["html"] * 9, r"a web page in place of the file, 6 times"),
        ([403], r"HTTP 403 .* controlled access"),
        ([204], r"HTTP 204 in place of the file"),
        (["shifted"], r"Content-Range is 'bytes 101-.*', not from 100 of 300000"),
    ],
)
def test_a_fault_that_stays_is_named(one, faults, told):
    one.path.parent.mkdir()
    one.part.write_bytes(one.data[:100])
    one.api.faults[one.url] = faults
    with pytest.raises(GDCError, match=told) as error:
        gdc_commands.download("lgg", one.api.url)
    assert one.url in str(error.value) and one.part.read_bytes() == one.data[:100]


def test_a_file_of_another_size_than_the_manifest_says(one):
    one.api.data[one.url.removeprefix("/data/")] = one.data + b"more"
    with pytest.raises(GDCError, match=r"size 300,004 bytes, the manifest says 300,000; run `query` again"):
        gdc_commands.download("lgg", one.api.url)
    assert not one.path.exists() and not one.part.exists()


def test_a_disk_without_room_is_told_before_anything_is_fetched(one, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, SIZE - 101))
    with pytest.raises(GDCError, match=r"GB to fetch, 0\.00 GB free at .*: too little room; free some"):
        gdc_commands.download("lgg", one.api.url)
    assert one.api.asked == []
    one.path.parent.mkdir()
    one.part.write_bytes(one.data[:101])  # what is there already needs no room
    gdc_commands.download("lgg", one.api.url)
    assert one.path.read_bytes() == one.data


def test_a_disk_that_fills_up_meanwhile_is_told(one, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client, "_rest", full)
    with pytest.raises(GDCError, match=r"1 of 1 files failed:\n  .*svs: .*No space left on device.*see to room"):
        gdc_commands.download("lgg", one.api.url)


def test_a_file_that_is_there_is_skipped_and_with_verify_its_md5_is_checked(one):
    one.path.parent.mkdir()
    one.path.write_bytes(bytes(SIZE))
    gdc_commands.download("lgg", one.api.url)
    assert one.api.asked == []
    gdc_commands.download("lgg", one.api.url, verify=True)
    assert one.path.read_bytes() == one.data
    one.path.write_bytes(one.data[:1000])
    gdc_commands.download("lgg", one.api.url)
    assert one.path.read_bytes() == one.data


def test_what_gdc_client_has_downloaded_is_there(one):
    nested = one.path.parent / one.url.removeprefix("/data/") / one.path.name
    nested.parent.mkdir(parents=True)
    nested.write_bytes(one.data)
    (nested.parent / "logs").mkdir()
    (nested.parent / "annotations.txt").touch()
    (nested.parent / "other.svs.partial").touch()
    gdc_commands.download("lgg", one.api.url)
    gdc_commands.verify("lgg")
    assert one.api.asked == [] and not one.path.exists()


def test_files_are_downloaded_side_by_side(api, task):
    records = [file_record(api, i) for i in (1, 2)]
    manifest_of(task(), *records)
    for record in records:
        api.faults[f"/data/{record['file_id']}"] = ["meet"]  # each waits for the other one's request
    gdc_commands.download("lgg", api.url, workers=2)
    assert api.met == 2 and len(list((task().data / "slides").iterdir())) == 2


def test_another_manifest(one, tmp_path):
    other = one.p.data / "gdc_manifest.txt"
    other = other.rename(tmp_path / "mine.txt")
    with pytest.raises(GDCError, match=r"gdc_manifest\.txt: the manifest is not there; `python -m mmmil\.gdc query`"):
        gdc_commands.download("lgg", one.api.url)
    gdc_commands.download("lgg", one.api.url, manifest=other)
    assert one.path.read_bytes() == one.data


# -- verify --------------------------------------------------------------------------------------------------------
def test_verify_tells_missing_truncated_damaged_and_unknown(api, task, capsys):
    records = [file_record(api, i) for i in range(6)]
    p = task()
    manifest_of(p, *records)
    folder = p.data / "slides"
    folder.mkdir()
    whole, missing, cut, damaged, long, started = [folder / record["file_name"] for record in records]
    whole.write_bytes(content(0))
    cut.write_bytes(content(2)[:1234])
    damaged.write_bytes(bytes(SIZE))
    long.write_bytes(content(4) + b"x")
    started.with_name(started.name + ".part").write_bytes(b"12345")
    (p.data / "expression").mkdir()
    (p.data / "expression/strange.tsv").touch()
    with pytest.raises(
        GDCError, match=r"2 missing, 2 damaged, 1 truncated, 1 unknown; `.*download --task lgg --verify"
    ):
        gdc_commands.verify("lgg")
    table = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert f"slides/{whole.name}" not in table
    for path, told in (
        (missing, "missing not there"),
        (cut, "truncated 1,234 of 300,000 bytes: truncated"),
        (damaged, f"damaged MD5 {md5(bytes(SIZE))} where the manifest says {md5(content(3))}"),
        (long, "damaged 300,001 bytes where the manifest says 300,000"),
        (started, f"missing 5 of 300,000 bytes in {started.name}.part"),
    ):
        assert told in " ".join(table[f"slides/{path.name}"].split())
    assert "unknown" in table["expression/strange.tsv"] and len(table) == 7
    (p.data / "expression/strange.tsv").unlink()
    gdc_commands.download("lgg", api.url, verify=True)
    gdc_commands.verify("lgg")


# -- the command itself --------------------------------------------------------------------------------------------
def test_a_wrong_call_is_one_line_and_imports_nothing_of_http():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mmmil.gdc", "query", "--task", "nowhere"],
        cwd=params.root(),
        capture_output=True,
        text=True,
        check=False,
    )
    imported, told = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE), done.stderr.splitlines()[-1]
    assert done.returncode == 1 and told.startswith("error: ") and "nowhere.yaml does not exist" in told
    assert "Traceback" not in done.stderr and "mmmil.gdc.client" in imported
    assert not {"requests", "tqdm", "urllib3", "torch"} & set(imported)


def test_ctrl_c_leaves_what_the_next_call_goes_on_from(one):
    one.api.faults[one.url] = [[200_000, "stall"]]
    process = subprocess.Popen(
        [sys.executable, "-m", "mmmil.gdc", "download", "--task", "lgg"],
        env={**os.environ, "MMMIL_GDC_API": one.api.url, "PYTHONPATH": str(Path(gdc_commands.__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 20
    while not (one.part.is_file() and one.part.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1 and "Traceback" not in err and "1 files, 0 there, 1 missing" in out
    assert re.search(r"error: interrupted; the \.part files stay: `python -m mmmil\.gdc download --task lgg", err)
    have = one.part.stat().st_size
    gdc_commands.download("lgg", one.api.url)
    assert one.api.asked_for(one.url) == [None, f"bytes={have}-"] and one.path.read_bytes() == one.data


def test_a_fault_of_the_code_is_no_failed_file(tmp_path, monkeypatch):
    def broken(*args):
        raise TypeError("a fault")

    monkeypatch.setattr(client, "fetch", broken)
    jobs = pd.DataFrame([("id", tmp_path / "a.svs", 1, "0" * 32)], columns=["id", "path", "size", "md5"])
    with pytest.raises(TypeError, match="a fault"):
        client.fetch_all("http://nowhere", jobs, 2, print)
