"""Processes that start warm: on one machine, libraries are imported once for all jobs of a run.

torch and what draws and fits take five CPU seconds to import, which is more than the work of many a job. run.py starts
a server that has imported them, and `python workflow/warm.py -m mmmil ...` asks it for a copy of itself (a fork) with
this command line, environment, folder and these streams, and stands in for it: signals are passed on, the status comes
back. The package itself is none of what the server imports: a job computes with the code that is there when it starts.
Where there is no server (a cluster's job, a notebook by hand) this becomes the plain process.

Kernels of notebooks start in the same way, by a kernel spec in the server's folder. Only the server imports anything
beyond the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ADDRESS = "MMMIL_WARM"  # in the environment of every job: the server's socket
# What jobs and notebooks import; all that is not there is left to them.
LIBRARIES = [
    *("torch", "torch._dynamo", "timm", "lightning_fabric", "safetensors.torch", "nystrom_attention"),
    *("pandas", "pyarrow.parquet", "scipy.stats", "sklearn.linear_model", "sklearn.model_selection", "h5py"),
    *("pydeseq2.dds", "pydeseq2.ds", "gseapy", "histolab.slide", "skimage.morphology", "cv2", "openslide"),
    *("seaborn", "typer", "tqdm", "joblib", "IPython", "jupyter_client", "zmq.eventloop.zmqstream"),
    *("papermill.cli", "papermill.execute"),
]
# What these load where it can be had, in seconds, and nobody here reads: execute.py and training.device say more.
UNWANTED = ["rfc3987_syntax", "torchmetrics"]
COMMAND = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]  # the quickest start that Python has
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LONGEST = 1 << 22  # bytes of a request: a command line and an environment
INLINE = "module://matplotlib_inline.backend_inline"


# -- who asks ----------------------------------------------------------------------------------------------------
def run(arguments: list[str]) -> int:
    """Run `python` with these arguments, `-m module ...` or `file.py ...`, in a copy of the server; the status as a
    shell has it. Does not return where there is no server.
    """
    connection, received, process = socket.socket(socket.AF_UNIX), [], 0
    try:
        connection.connect(os.environ.get(ADDRESS, ""))
        for number in PASSED_ON:  # before there is anyone to pass them on to, so that none is lost
            if signal.getsignal(number) != signal.SIG_IGN:  # which nohup asks for
                signal.signal(number, lambda number, _: _send(process, number) if process else received.append(number))
        request = json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(request)
        process = int.from_bytes(_exactly(connection, 4), "big")
    except (OSError, EOFError):  # nothing has been started
        for number in received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os.execv(sys.executable, [sys.executable, *arguments])
    for number in received:
        _send(process, number)
    # A kernel ends with whoever has started it, which is this process's parent and not the server.
    parent = os.getppid() if "JPY_PARENT_PID" in os.environ else 0
    while not select.select([connection], [], [], 1.0)[0]:
        if parent and os.getppid() != parent:
            return 1
    try:
        status = int.from_bytes(_exactly(connection, 4), "big", signed=True)
    except (OSError, EOFError):  # the server was killed; what it started may go on, and holds its leases
        return 128 + signal.SIGKILL
    return status if status >= 0 else 128 - status


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


# -- the server --------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def server(environment: dict[str, str], libraries: Sequence[str] = LIBRARIES) -> Iterator[dict[str, str]]:
    """A server in this environment, as long as this holds, and the environment of its jobs.

    Jobs that start before its imports are done start cold. What still works when this ends, or is killed, goes on;
    nothing more is started.
    """
    import subprocess

    folder = Path(tempfile.mkdtemp(prefix="mmmil-"))  # short: a socket's name has 108 characters at most
    kernel = folder / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [*COMMAND, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    address = folder / "socket"
    ours, its = socket.socketpair()  # it ends with this process
    call = [sys.executable, __file__, "--serve", str(address), str(its.fileno()), *libraries]
    process = subprocess.Popen(
        call, env=environment, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()], process_group=0
    )
    its.close()
    try:
        yield environment | {ADDRESS: str(address), "JUPYTER_PATH": str(folder)}
    finally:
        if not address.exists():  # nothing is started yet
            process.kill()
        ours.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Asked:
    """What a process was asked to be: command line, folder, environment, and the descriptors of its three streams."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]


def serve(address: str, owner: socket.socket, libraries: Sequence[str]) -> Asked | None:
    """Start a copy for everyone who asks, until the owner is gone and no copy is left.

    Returns None then, and in a copy what it was asked to be.
    """
    _import(libraries)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    wake, woken = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    of_process: dict[int, socket.socket] = {}
    accepting = True
    while accepting or of_process:
        watched = [woken, *of_process.values(), *[listener, owner] * accepting]
        for ready in select.select(watched, [], [])[0]:
            if ready is owner:
                accepting = False
                listener.close()
                break
            if ready is listener:
                connection, _ = listener.accept()
                try:
                    connection.settimeout(30)
                    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
                    size = int.from_bytes(head, "big")
                    asked = Asked(*json.loads(_exactly(connection, min(size, LONGEST))), streams)
                    connection.settimeout(None)
                except (OSError, EOFError, ValueError):  # whoever asked is gone
                    connection.close()
                    continue
                if process := os.fork():
                    for stream in streams:
                        os.close(stream)
                    of_process[process] = connection
                    with contextlib.suppress(OSError):
                        connection.sendall(process.to_bytes(4, "big"))
                    continue
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
                for held in (listener, owner, wake, woken, connection, *of_process.values()):
                    held.close()
                return asked
            if ready is woken:
                woken.recv(4096)
                while of_process:
                    process, status = os.waitpid(-1, os.WNOHANG)
                    if not process:
                        break
                    with of_process.pop(process) as connection, contextlib.suppress(OSError):
                        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
                break
            for process, connection in of_process.items():  # killed: nobody is told any more
                if connection is ready and not _is_there(connection):
                    _send(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                    of_process.pop(process).close()
                    break
    return None


def _is_there(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _import(libraries: Sequence[str]) -> None:
    import importlib

    hidden = dict.fromkeys(UNWANTED)
    sys.modules.update(hidden)  # type: ignore[arg-type]  # what is None cannot be imported
    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in hidden:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # what all have in common is not looked through, and so not copied, by each


def _become(asked: Asked) -> None:
    """In a copy of the server: be the process that was asked for."""
    os.setpgid(0, 0)  # a terminal's interrupt reaches whoever asked, who passes it on
    for number, stream in enumerate(asked.streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(asked.folder)
    os.environ.clear()
    os.environ.update(asked.environment)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    program, *_ = arguments = asked.arguments
    if arguments[:2] == ["-m", "ipykernel_launcher"]:  # which says so before matplotlib is imported
        os.environ.setdefault("MPLBACKEND", INLINE)
    matplotlib, backend = sys.modules.get("matplotlib"), os.environ.get("MPLBACKEND")
    if matplotlib and backend:
        matplotlib.rcParams["backend"] = backend
    if program == "-m":
        sys.argv, sys.path[0] = arguments[1:], asked.folder
        _end(lambda: runpy.run_module(arguments[1], run_name="__main__", alter_sys=True))
    else:
        sys.argv, sys.path[0] = list(arguments), str(Path(program).resolve().parent)
        _end(lambda: runpy.run_path(program, run_name="__main__"))


def _end(work: Callable[[], object]) -> NoReturn:
    """Do the work and end with its status, without taking apart what the server has imported: every page of its memory
    would be copied first, which takes longer than the imports.
    """
    try:
        work()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the end of any process does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1:2] != ["--serve"]:
        sys.exit(run(sys.argv[1:]))
    asked = serve(sys.argv[2], socket.socket(fileno=int(sys.argv[3])), sys.argv[4:])
    if asked:
        _become(asked)
    else:
        shutil.rmtree(Path(sys.argv[2]).parent, ignore_errors=True)
        os._exit(0)  # as its copies end: see `_end`
