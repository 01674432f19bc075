"""The GDC over HTTP: records in pages and files, asked patiently, resumed, checked and never half there."""

from __future__ import annotations

import contextlib
import email.utils
import json
import queue
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmmil.sources.manifests import GDCError, md5_of

if TYPE_CHECKING:
    import requests

ATTEMPTS = 6  # of one request, without progress between them
LONGEST_WAIT = 600.0  # s; a server that asks for more is asked again after this
TIMEOUT = (10, 60)  # s to connect, s between two bytes
CHUNK = 1 << 16  # bytes; what a dropped connection loses at most
PROGRESS = 1 << 20  # bytes after which a dropped connection is no failed attempt
PAGE = 500  # records of one answer


class Again(Exception):
    """An answer that may be better next time; `after`: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float | None = None):
        super().__init__(reason)
        self.after = after


# -- requests ------------------------------------------------------------------------------------------------------
def say(text: str) -> None:
    """A line for the user, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def pause(seconds: float, stop: threading.Event) -> None:
    """Wait, but no longer than until `stop` is set."""
    stop.wait(seconds)


def patiently(ask: Callable[..., Any], url: str, stop: threading.Event) -> Any:
    """What `ask()` returns; asked again after a dropped connection or Again, with ever longer waits.

    Raises GDCError after ATTEMPTS, or at once where asking again is of no use.
    """
    import requests

    dropped = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    for attempt in range(ATTEMPTS):
        after = None
        try:
            return ask()
        except Again as error:
            reason, after = str(error), error.after
        except dropped as error:
            reason = f"no connection, or it broke ({type(error).__name__})"
        except requests.RequestException as error:
            raise GDCError(f"{url}: cannot be asked ({error}); correct --api or MMMIL_GDC_API") from None
        if attempt + 1 < ATTEMPTS and not stop.is_set():
            wait = min(2.0**attempt if after is None else after, LONGEST_WAIT)
            say(f"{url}: {reason}; again in {wait:.0f} s")
            pause(wait, stop)
        if stop.is_set():
            raise GDCError(f"{url}: stopped; run the same command to go on")
    raise GDCError(f"{url}: {reason}, {ATTEMPTS} times; see whether the GDC is up and the network is, and run it again")


def _seconds(header: str | None) -> float | None:
    """Retry-After is a number of seconds or a date."""
    if not header:
        return None
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, float(header))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    return None


def _refuse(response: requests.Response, url: str) -> None:
    """Again for what passes (429, 5xx), GDCError for other errors of HTTP."""
    status = f"HTTP {response.status_code}"
    if response.status_code == 429 or response.status_code >= 500:
        raise Again(status, _seconds(response.headers.get("Retry-After")))
    if response.status_code >= 400:
        remedy = {
            400: "the GDC does not understand the query; report it",
            403: "the file is under controlled access; ask for open files only",
            404: "the GDC does not know this id or address; run `query` again, or correct --api",
        }.get(response.status_code, "correct --api, or ask from another network")
        raise GDCError(f"{url}: {status} ({' '.join(response.text.split())[:200]}); {remedy}")


def _page(session: requests.Session, url: str, body: dict) -> dict:
    with session.post(url, json=body, timeout=TIMEOUT) as response:
        _refuse(response, url)
        kind = response.headers.get("Content-Type", "no type")
        try:
            answer = response.json()
            if not isinstance(answer["data"]["hits"], list) or not isinstance(answer["data"]["pagination"], dict):
                raise TypeError
            if type(answer["data"]["pagination"]["total"]) is not int:
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise GDCError(
                f"{url}: the answer ({kind}) has not the fields data.hits and data.pagination.total of the GDC's API; "
                "a maintenance or login page stands in its place, or --api is wrong: open the address, try later"
            ) from None
    warnings = answer.get("warnings") or {}
    if "filters" in warnings:
        raise GDCError(f"{url}: the GDC warns of the field filters: {warnings['filters']}; report that its API changed")
    if warnings and not body["from"]:
        say(f"{url}: the GDC warns: {json.dumps(warnings)}")  # a field that it no longer has is '--' in the tables
    return answer["data"]


def hits(api: str, endpoint: str, filters: dict, fields: list[str], key: str) -> list[dict]:
    """Every record of /files or /cases that the filters let through, page by page; `key`: its field that is unique.

    Raises GDCError where a page is short, a record comes twice or the total changes in between.
    """
    import requests

    url = f"{api.rstrip('/')}/{endpoint}"
    body = {"filters": filters, "fields": ",".join(fields), "format": "JSON", "size": PAGE, "sort": f"{key}:asc"}
    records: dict[str, dict] = {}
    again = "the GDC may have changed meanwhile: run `query` again"
    with requests.Session() as session:
        while True:
            start = len(records)
            page = patiently(lambda start=start: _page(session, url, {**body, "from": start}), url, threading.Event())
            total = page["pagination"]["total"]
            wanted = min(PAGE, total - start)
            if len(page["hits"]) != wanted:
                raise GDCError(f"{url}: {len(page['hits'])} hits from {start} on where total says {wanted}; {again}")
            for hit in page["hits"]:
                name = hit.get(key) if isinstance(hit, dict) else None
                if not isinstance(name, str) or not name:
                    raise GDCError(f"{url}: a hit from {start} on has no field {key}; the API has changed, report it")
                if name in records:
                    raise GDCError(f"{url}: {key} {name} comes twice; {again}")
                records[name] = hit
            if len(records) == total:
                return list(records.values())


# -- files ---------------------------------------------------------------------------------------------------------
def unfinished(path: Path, size: int) -> tuple[Path, int]:
    """The `.part` of a file and how many of its bytes are of use."""
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    return part, have if have <= size else 0


def _rest(
    session: requests.Session, url: str, path: Path, size: int, advance: Callable[[int], None], stop: threading.Event
) -> bool:
    """Ask for what is missing of `<path>.part` and append it; True where it is whole, False to be asked at once."""
    import requests

    part, have = unfinished(path, size)
    if have == size and part.is_file():
        return True
    headers = {"Accept-Encoding": "identity"}  # bytes as they are: Range and size count them
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # what is here is no part of what is there
            part.unlink(missing_ok=True)
            advance(-have)
            raise Again("HTTP 416, no such part of the file")
        _refuse(response, url)
        if "text/html" in response.headers.get("Content-Type", ""):
            raise Again("a web page in place of the file")
        start = have
        if response.status_code == 206:
            stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not stated or int(stated[1]) != have or stated[2] not in ("*", str(size)):
                header = response.headers.get("Content-Range")
                raise GDCError(f"{url}: Content-Range is {header!r}, not from {have} of {size}; run `query` again")
        elif response.status_code == 200:  # no Range here: from the beginning
            start = 0
            advance(-have)
        else:
            raise GDCError(f"{url}: HTTP {response.status_code} in place of the file; correct --api, or try later")
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and start + int(length) != size:
            raise GDCError(f"{url}: size {start + int(length):,} bytes, the manifest says {size:,}; run `query` again")
        have = start
        try:
            with part.open("ab" if start else "wb") as handle:
                for chunk in response.iter_content(CHUNK):
                    if have + len(chunk) > size:
                        part.unlink()
                        raise GDCError(f"{url}: size above the {size:,} bytes of the manifest; run `query` again")
                    handle.write(chunk)
                    have += len(chunk)
                    advance(len(chunk))
                    if stop.is_set():
                        raise GDCError(f"{url}: stopped; run the same command to go on")
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if have - start < PROGRESS:
                raise
    if have < size and have - start < PROGRESS:
        raise Again(f"the connection ended at {have:,} of {size:,} bytes")
    return have == size


def fetch(
    api: str, file_id: str, path: Path, size: int, md5: str, advance: Callable[[int], None], stop: threading.Event
) -> None:
    """Download one file to `path`: under `<path>.part` until its size and MD5 are those stated.

    `advance` is called with the bytes gained (or lost). A wrong MD5 is fetched anew once. Raises GDCError.
    """
    import requests

    url = f"{api.rstrip('/')}/data/{file_id}"
    path.parent.mkdir(parents=True, exist_ok=True)
    part, have = unfinished(path, size)
    if not have:
        part.unlink(missing_ok=True)
    for _ in range(2):
        with requests.Session() as session:
            while not patiently(lambda s=session: _rest(s, url, path, size, advance, stop), url, stop):
                pass
        digest = md5_of(part)
        if digest == md5:
            part.replace(path)
            return
        part.unlink()
        advance(-size)
    raise GDCError(
        f"{url}: {path.name}: MD5 is {digest}, the manifest says {md5}, twice; nothing is kept. "
        "Run `query` for the current manifest, then `download`"
    )


def fetch_all(api: str, jobs: pd.DataFrame, workers: int, advance: Callable[[int], None]) -> list[str]:
    """Download jobs (columns id, path, size, md5) with some threads; returns what failed, one text per file.

    Ctrl-C leaves the `.part` files, from which the next call goes on, and is raised again; so is a fault of the code.
    """
    stop, failed = threading.Event(), []
    todo: queue.SimpleQueue = queue.SimpleQueue()
    finished: queue.SimpleQueue = queue.SimpleQueue()
    for job in jobs.itertuples():
        todo.put(job)

    def work() -> None:
        fault = None
        try:
            while not stop.is_set():
                job = todo.get_nowait()
                try:
                    fetch(api, job.id, job.path, job.size, job.md5, advance, stop)
                except GDCError as error:
                    failed.append(str(error))
                except OSError as error:  # of the disk, or of the network: one file's
                    failed.append(f"{job.path}: {error!r}; see to room and rights in its folder, and run it again")
        except queue.Empty:
            pass
        except BaseException as error:  # a thread's own would be told to nobody: raised by whoever waits for it
            fault = error
        finished.put(fault)

    # Daemons, so that Ctrl-C need not wait for a server that has gone silent; not joined until then, since up to
    # Python 3.12 an interrupted join takes a thread for ended.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(max(1, workers), max(1, len(jobs))))]
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            with contextlib.suppress(queue.Empty):
                fault = finished.get(timeout=0.2)
                if fault:
                    raise fault
                left -= 1
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join(0.5)
        raise
    return failed
