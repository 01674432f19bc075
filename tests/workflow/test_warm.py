"""Jobs that start as copies of a server, and those for which there is none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
sys.path.insert(0, str(WORKFLOW))

import warm  # noqa: E402

SCRIPT = """
import json, os, signal, sys, time
if sys.argv[1] == "tell":
    print(json.dumps([sys.argv, os.getcwd(), os.environ["TOLD"], "numpy" in sys.modules, sys.path[0]]))
    print(sys.stdin.read().upper(), file=sys.stderr)
elif sys.argv[1] == "exit":
    sys.exit(int(sys.argv[2]))
elif sys.argv[1] == "raise":
    import atexit
    atexit.register(print, "at exit")
    raise {"interrupt": KeyboardInterrupt, "text": SystemExit("said"), "error": ValueError("wrong")}[sys.argv[2]]
elif sys.argv[1] == "die":
    os.kill(os.getpid(), int(sys.argv[2]))
elif sys.argv[1] == "wait":
    def ended(number, frame):
        os.write(1, b"ended by %d" % number)
        os._exit(7)
    signal.signal(signal.SIGTERM, ended)
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def env():
    """The environment of a job while a server is there."""
    with warm.server(dict(os.environ), ["numpy"]) as given:
        until(lambda: Path(given[warm.ADDRESS]).exists())
        yield given


@pytest.fixture
def script(tmp_path):
    (tmp_path / "job.py").write_text(SCRIPT)
    return tmp_path / "job.py"


@pytest.fixture
def owned():
    """A process that holds a server, the server's number, and its address."""
    call = f"""
import os, sys, time
sys.path.insert(0, {str(WORKFLOW)!r})
import warm
with warm.server(dict(os.environ), []) as env:
    print(env[warm.ADDRESS], flush=True)
    time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, text=True)
    address = owner.stdout.readline().strip()
    until(Path(address).exists)
    [server] = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/cmdline") if address in _read(p)]
    yield owner, server, address
    owner.kill()
    owner.wait()


def until(is_so, seconds=600):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.05)


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def started(script, env, *arguments):
    return subprocess.Popen(
        [*warm.COMMAND, str(script), *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_copy_has_the_arguments_folder_environment_and_streams_and_the_libraries(env, script, tmp_path):
    call = [*warm.COMMAND, "job.py", "tell", "a b"]
    done = subprocess.run(
        call, env=env | {"TOLD": "é"}, cwd=tmp_path, input="said", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [["job.py", "tell", "a b"], str(tmp_path), "é", True, str(tmp_path)]
    assert done.stderr == "SAID\n"


def test_the_package_is_read_by_each_job_and_not_by_the_server(env, tmp_path):
    (tmp_path / "mmmil").mkdir()
    for said in ("one", "two"):
        (tmp_path / "mmmil" / "__init__.py").write_text("")
        (tmp_path / "mmmil" / "__main__.py").write_text(f"print('{said}')\n")
        done = subprocess.run(
            [*warm.COMMAND, "-m", "mmmil"], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{said}\n"


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_comes_back(env, script, status):
    assert subprocess.run([*warm.COMMAND, str(script), "exit", str(status)], env=env).returncode == status


@pytest.mark.parametrize(
    ("what", "status", "told"), [("interrupt", 130, ""), ("text", 1, "said"), ("error", 1, "wrong")]
)
def test_whatever_ends_a_copy_what_is_registered_for_its_end_is_done(env, script, what, status, told):
    call = [*warm.COMMAND, str(script), "raise", what]
    done = subprocess.run(call, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "at exit\n") and told in done.stderr


def test_a_copy_that_a_signal_ends_reads_as_a_shell_says_it(env, script):
    call = [*warm.COMMAND, str(script), "die", str(int(signal.SIGKILL))]
    assert subprocess.run(call, env=env).returncode == 137


def test_signals_are_passed_on(env, script):
    job = started(script, env, "wait")
    copy = int(job.stdout.readline())
    assert copy != job.pid
    job.terminate()
    assert job.communicate()[0] == f"ended by {int(signal.SIGTERM)}" and job.returncode == 7


def test_a_copy_ends_with_whoever_asked_for_it_and_the_others_go_on(env, script):
    jobs = [started(script, env, "wait") for _ in range(2)]
    copies = [int(job.stdout.readline()) for job in jobs]
    jobs[0].kill()
    until(lambda: not is_there(copies[0]))
    assert is_there(copies[1])
    jobs[1].terminate()
    assert jobs[1].wait() == 7


@pytest.mark.parametrize("address", ["", "/nowhere/socket"])
def test_where_no_server_is_the_process_starts_cold(script, tmp_path, address):
    env = dict(os.environ) | {warm.ADDRESS: address, "TOLD": "x"}
    call = [*warm.COMMAND, str(script), "tell"]
    done = subprocess.run(call, env=env, cwd=tmp_path, input="", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[str(script), "tell"], str(tmp_path), "x", False, str(tmp_path)]


@pytest.mark.parametrize("address", ["", "there"])
def test_a_hangup_that_nohup_has_ignored_stays_ignored(env, script, address):
    given = dict(os.environ) | {warm.ADDRESS: env[warm.ADDRESS] if address else ""}
    job = subprocess.Popen(
        ["nohup", *warm.COMMAND, str(script), "wait"],
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    job.stdout.readline()
    job.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert job.poll() is None
    job.terminate()
    assert job.wait() == 7


def test_when_the_server_is_killed_its_jobs_end_as_if_killed_and_new_ones_start_cold(script, owned):
    _, server, address = owned
    env = dict(os.environ) | {warm.ADDRESS: address, "TOLD": ""}
    job = started(script, env, "wait")
    copy = int(job.stdout.readline())
    os.kill(server, signal.SIGKILL)
    assert job.wait() == 137
    os.kill(copy, signal.SIGKILL)  # it went on, as a job of a killed run does
    assert json.loads(subprocess.run([*warm.COMMAND, str(script), "tell"], env=env, input="", text=True,
                                     capture_output=True, check=True).stdout)[3] is False  # fmt: skip


def test_the_server_goes_when_its_owner_is_killed_and_its_jobs_are_done(script, owned):
    owner, server, address = owned
    job = started(script, dict(os.environ) | {warm.ADDRESS: address}, "wait")
    job.stdout.readline()
    owner.kill()
    owner.wait()
    time.sleep(0.5)
    assert is_there(server)
    job.terminate()
    assert job.wait() == 7
    until(lambda: not is_there(server))


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return ""
