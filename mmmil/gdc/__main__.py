"""A task's open files of the GDC: which there are, downloading them, verifying them. `python -m mmmil.gdc --help`."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer

from mmmil import params
from mmmil.gdc.client import fetch_all, hits, unfinished
from mmmil.gdc.records import CASE_FIELDS, FILE_FIELDS, RECEPTORS, clinical_row, file_tables
from mmmil.record import write_atomically
from mmmil.sources import sample_sheets
from mmmil.sources.manifests import UNFINISHED, GDCError, listed, md5_of, read_manifest

if TYPE_CHECKING:
    from tqdm import tqdm

API = "https://api.gdc.cancer.gov"
MANIFEST, SHEET, CLINICAL = "gdc_manifest.txt", "gdc_sample_sheet.tsv", "clinical.tsv"
# {folder: the fields that its files have at the GDC}
KINDS = {
    "slides": {"data_type": sample_sheets.SLIDE, "experimental_strategy": "Diagnostic Slide"},
    "expression": {"data_type": sample_sheets.EXPRESSION, "analysis.workflow_type": "STAR - Counts"},
}
BY_IHC = ("ihc", "pam50_or_ihc", "pam50_before_ihc", "ihc_before_pam50")
READS = {"grade": ["tumor_grade"], **{rule: [*RECEPTORS] for rule in BY_IHC}}  # by label_rule


# -- where files lie -----------------------------------------------------------------------------------------------
def jobs(p: params.Params, manifest: Path) -> pd.DataFrame:
    """The manifest's files with `path`: in slides/ or expression/, or in the folder by id that gdc-client makes."""
    table = read_manifest(manifest)
    sheets = [path for path in map(p.path, p.sample_sheets or [SHEET]) if path.is_file()]
    types = {}
    if sheets:
        sheet = sample_sheets.read_sample_sheets(sheets)
        types = dict(zip(sheet["File ID"], sheet["Data Type"], strict=True))
    folders = {fields["data_type"]: folder for folder, fields in KINDS.items()}
    paths, faults = [], []
    for row in table.itertuples():
        folder = folders.get(types.get(row.id, ""))
        if not folder and row.filename.endswith(".svs"):
            folder = "slides"
        if not folder and row.filename.endswith((".tsv", ".tsv.gz", ".counts", ".counts.gz")):
            folder = "expression"
        if not folder:
            faults.append(f"{manifest}, file {row.id}: filename '{row.filename}' is neither a slide nor counts")
        flat = p.data / (folder or "") / row.filename
        nested = flat.parent / row.id / row.filename
        paths.append(nested if nested.is_file() and not flat.is_file() else flat)
    if faults:
        raise GDCError(f"the manifest cannot be used:\n{listed(faults)}\nremove these rows, or name their sample sheet")
    return table.assign(path=paths)


def require_room(missing: pd.DataFrame, folder: Path) -> str:
    """What there is to fetch and where, with free GB per disk; GDCError where a disk has too little."""
    needs: dict[int, int] = {}
    places: dict[int, Path] = {}
    for row in missing.itertuples():
        place = next(path for path in row.path.parents if path.is_dir())  # slides/ may be a link to another disk
        device = place.stat().st_dev
        needs[device] = needs.get(device, 0) + row.size - unfinished(row.path, row.size)[1]
        places.setdefault(device, place)
    lines = []
    for device, need in needs.items():
        free = shutil.disk_usage(places[device]).free
        lines.append(f"{need / 1e9:,.2f} GB to fetch, {free / 1e9:,.2f} GB free at {places[device]}")
        if need > free:
            raise GDCError(f"{lines[-1]}: too little room; free some, or let {folder} lie on a larger disk (data_dir)")
    return "; ".join(lines) or "nothing to fetch"


def differences(table: pd.DataFrame, folder: Path, advance: Callable[[int], object]) -> pd.DataFrame:
    """Columns file, status (missing, truncated, damaged, unknown), detail: where files and manifest differ.

    `advance` is called with the bytes looked at. A file with the wrong size is not read.
    """
    rows = []
    for row in table.itertuples():
        part, have = unfinished(row.path, row.size)
        name, size = row.path.relative_to(folder), row.path.stat().st_size if row.path.is_file() else -1
        if size < 0:
            rows.append((name, "missing", f"{have:,} of {row.size:,} bytes in {part.name}" if have else "not there"))
        elif size < row.size:
            rows.append((name, "truncated", f"{size:,} of {row.size:,} bytes: truncated"))
        elif size > row.size:
            rows.append((name, "damaged", f"{size:,} bytes where the manifest says {row.size:,}"))
        elif (md5 := md5_of(row.path)) != row.md5:
            rows.append((name, "damaged", f"MD5 {md5} where the manifest says {row.md5}"))
        advance(row.size)
    known = set(table["path"]) | {row.path.parent / row.id / row.filename for row in table.itertuples()}
    for path in sorted(path for kind in KINDS for depth in ("*", "*/*") for path in (folder / kind).glob(depth)):
        of_gdc_client = path.name == "annotations.txt" or path.parent.name == "logs"
        if path.is_file() and path not in known and path.suffix not in UNFINISHED and not of_gdc_client:
            rows.append((path.relative_to(folder), "unknown", "not in the manifest"))
    return pd.DataFrame(rows, columns=["file", "status", "detail"])


# -- command line --------------------------------------------------------------------------------------------------
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Task = Annotated[str, typer.Option(help="a file of params/")]
Api = Annotated[str, typer.Option(envvar="MMMIL_GDC_API", help="address of the GDC's API")]
Manifest = Annotated[Path | None, typer.Option(help=f"a gdc-client manifest; none: {MANIFEST} that `query` wrote")]


def _command(name: str, task: str, api: str, manifest: Path | None = None) -> str:
    more = ["--api", api] if api != API else []
    more += ["--manifest", str(manifest)] if manifest else []
    return "python -m mmmil.gdc " + shlex.join([name, "--task", task, *more])


def _bar(total: int) -> tqdm:
    from tqdm import tqdm

    return tqdm(total=total, unit="B", unit_scale=True, mininterval=1)


@app.command()
def query(task: Task, api: Api = API) -> None:
    """Ask the GDC which open files the task has: sample sheet, manifest and clinical table, in its data_dir."""
    p = params.load(task)
    if not p.gdc_projects:
        raise GDCError(f"task '{task}': gdc_projects is empty; name the projects, as gdc_projects: [TCGA-LGG]")
    sheets, manifests = [], {}
    for folder in ["slides"] * p.has_slides + ["expression"] * p.has_genes:
        wanted = {"cases.project.project_id": p.gdc_projects, "access": "open", **KINDS[folder]}
        records = hits(api, "files", _all_of(wanted), FILE_FIELDS, "file_id")
        sheet, manifests[folder] = file_tables(records, KINDS[folder]["data_type"], f"{api}/files")
        _require_projects(p, sheet["Project ID"] if records else (), f"{api}/files: {folder}")
        sheets.append(sheet)
    cases = hits(api, "cases", _all_of({"project.project_id": p.gdc_projects}), CASE_FIELDS, "case_id")
    clinical = pd.DataFrame([clinical_row(case) for case in cases])
    _require_projects(p, clinical["project_id"] if cases else (), f"{api}/cases")
    write = {
        p.path(_ours(p.sample_sheets, SHEET)): pd.concat(sheets),
        p.data / MANIFEST: pd.concat(manifests.values()),
        p.path(_ours(p.clinical, CLINICAL)): clinical,
    }
    # gdc-client knows one folder per call: with files of both kinds each gets its own manifest.
    for folder, table in manifests.items():
        write[p.data / MANIFEST.replace(".txt", f"_{folder}.txt")] = table
        print(f"{folder}: {len(table)} files, {table['size'].sum() / 1e9:,.2f} GB")
    for path, table in write.items():
        sep = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","  # as tcga.read_table tells them apart
        text = table.to_csv(sep=sep, index=False)
        if path.is_file() and path.read_text() != text:
            backup = path.replace(path.with_name(f"{path.name}.old"))
            print(f"{path.name} was there and differs: kept as {backup.name}")
        write_atomically(path, lambda t, text=text: t.write_text(text))
    print(f"clinical: {len(clinical)} cases")
    for field in READS.get(p.label_rule, []):
        print(f"  {field} is stated for {(clinical[field] != '--').sum()} of them")
    print("written:", *write, sep="\n  ")
    print(f"next:\n  {_command('download', task, api)}\nor, with the GDC's own client:")
    for folder in manifests:
        manifest = p.data / MANIFEST.replace(".txt", f"_{folder}.txt")
        print("  " + shlex.join(["gdc-client", "download", "-m", str(manifest), "-d", str(p.data / folder)]))


def _ours(names: list[str], default: str) -> str:
    """The first of the named files that lies in data_dir; those in params/ are somebody's own."""
    return next((name for name in names if not name.startswith("params/")), default)


def _all_of(wanted: dict) -> dict:
    values = {field: value if isinstance(value, list) else [value] for field, value in wanted.items()}
    return {
        "op": "and",
        "content": [{"op": "in", "content": {"field": f, "value": value}} for f, value in values.items()],
    }


def _require_projects(p: params.Params, projects: Iterable[str], where: str) -> None:
    lacking = [project for project in p.gdc_projects if project not in set(projects)]
    if lacking:
        raise GDCError(
            f"{where}: the GDC has nothing open of {', '.join(lacking)}; correct gdc_projects in params/{p.task}.yaml "
            "(written as TCGA-LGG), or set `inputs` to the modality that there is"
        )


@app.command()
def download(
    task: Task,
    api: Api = API,
    manifest: Manifest = None,
    workers: Annotated[int, typer.Option(min=1, max=32, help="files at once")] = 4,
    verify: Annotated[bool, typer.Option("--verify", help="check the MD5 of files that are there, too")] = False,
) -> None:
    """Download the manifest's files into slides/ and expression/; a second call goes on where the first was cut."""
    p = params.load(task)
    table = jobs(p, manifest or p.data / MANIFEST)
    p.data.mkdir(parents=True, exist_ok=True)
    if verify:
        print("reading the files that are there for their MD5")
    whole = [
        row.path.is_file() and row.path.stat().st_size == row.size and (not verify or md5_of(row.path) == row.md5)
        for row in table.itertuples()
    ]
    missing = table[[not there for there in whole]]
    print(f"{len(table)} files, {sum(whole)} there, {len(missing)} missing: {require_room(missing, p.data)}")
    with _bar(int(missing["size"].sum())) as bar:
        bar.update(sum(unfinished(row.path, row.size)[1] for row in missing.itertuples()))
        try:
            failed = fetch_all(api, missing, workers, bar.update)
        except KeyboardInterrupt:
            remedy = _command("download", task, api, manifest)
            raise GDCError(f"interrupted; the .part files stay: `{remedy}` goes on from them") from None
    if failed:
        raise GDCError(f"{len(failed)} of {len(missing)} files failed:\n" + "\n".join(f"  {text}" for text in failed))
    print(f"{len(missing)} files downloaded, size and MD5 as in the manifest")


@app.command()
def verify(task: Task, api: Api = API, manifest: Manifest = None) -> None:
    """Compare the files with the manifest, size and MD5: what is missing, truncated, damaged or unknown."""
    p = params.load(task)
    table = jobs(p, manifest or p.data / MANIFEST)
    with _bar(int(table["size"].sum())) as bar:
        differing = differences(table, p.data, bar.update)
    if len(differing):
        counts = ", ".join(f"{n} {status}" for status, n in differing["status"].value_counts().items())
        print(differing.to_string(index=False))
        remedy = _command("download", task, api, manifest)
        raise GDCError(f"{p.data}: {counts}; `{remedy} --verify` fetches anew, remove unknown files or add them")
    print(f"{len(table)} files, {table['size'].sum() / 1e9:,.2f} GB: size and MD5 as in the manifest")


def main() -> None:
    """Run a command; what is wrong ends it with one message that says what to do, and no traceback."""
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
