"""The Dockerfile's steps, executed one by one in a bare Debian in a folder: an image can be built from it, and works.

`make test-container` needs root, debootstrap and chroot, and no container engine. What a machine needs to reach its
package registries (certificates, pip's configuration) is mounted there while the steps are executed.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.book_stubs import ROOT

NEEDS = [name for name in ("debootstrap", "chroot", "mount") if not shutil.which(name)]
# Read by pip, uv and git to find certificates and registries; a plain network needs none of them.
PASSED = re.compile(
    r"(PIP_.*|.*_CERT|.*_CERT_FILE|.*_CA_BUNDLE|GIT_SSL_CAINFO|SSL_CERT_DIR|https?_proxy|no_proxy)", re.I
)
BROUGHT = (
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
    "/etc/pip.conf",
    "/etc/apt/apt.conf.d",
    "/etc/resolv.conf",
)


def steps():
    """The Dockerfile's instructions, continued lines joined: (name, argument)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", "")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def is_ignored(path):
    """Whether .dockerignore leaves a path out: each of its lines is a pattern of a path or of a folder above it."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    above = [path, *path.parents][:-1]
    return any(
        fnmatch.fnmatch(part.as_posix(), line) or (line.startswith("**/") and fnmatch.fnmatch(part.name, line[3:]))
        for part in above
        for line in lines
    )


def test_the_image_holds_what_is_kept_and_nothing_that_is_made():
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert kept and not [path for path in kept if is_ignored(Path(path))]
    made = [
        "data/x.svs",
        "results/lgg/run.json",
        ".venv/bin/python",
        "mmmil/__pycache__/a.pyc",
        ".git/HEAD",
        "_build/html/a",
    ]
    assert all(is_ignored(Path(path)) for path in made)


def test_the_steps_are_those_that_the_check_executes():
    assert {name for name, _ in steps()} == {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    assert ("COPY", ". .") in steps()


@pytest.mark.container
@pytest.mark.skipif(bool(NEEDS) or os.getuid() != 0, reason=f"needs root and debootstrap ({', '.join(NEEDS)} missing)")
def test_the_steps_make_an_image_in_which_a_notebook_and_the_command_work(tmp_path):
    image, where, env = tmp_path / "image", "/", {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    passed = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    mounted = []

    def mount(*arguments):
        subprocess.run(["mount", *arguments], check=True)
        mounted.append(arguments[-1])

    def inside(command):
        chroot = shutil.which("chroot")  # the image's PATH is its own
        call = [chroot, image, "/bin/sh", "-c", f"cd {where} && {command}"]
        return subprocess.run(call, env=env | passed, capture_output=True, text=True, check=False)

    try:
        for name, argument in steps():
            if name == "FROM":
                suite = re.fullmatch(r"debian:(\w+)-slim", argument)[1]
                subprocess.run(["debootstrap", "--variant=minbase", suite, image], check=True, capture_output=True)
                mount("-t", "proc", "proc", str(image / "proc"))
                for path in filter(os.path.exists, BROUGHT):
                    there = image / path[1:]
                    there.parent.mkdir(parents=True, exist_ok=True)
                    if Path(path).is_dir():
                        there.mkdir(exist_ok=True)
                    else:
                        there.touch()
                    mount("--bind", path, str(there))
            elif name == "WORKDIR":
                where = argument
                (image / where[1:]).mkdir(parents=True)
            elif name == "COPY":
                files = [path for path in ROOT.rglob("*") if path.is_file() and not is_ignored(path.relative_to(ROOT))]
                for path in files:
                    copy = image / where[1:] / path.relative_to(ROOT)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, copy)
            elif name == "ENV":
                key, _, value = argument.partition("=")
                env[key] = value
            elif name == "RUN":
                done = inside(argument)
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            elif name == "CMD":
                done = inside(shlex.join(json.loads(argument)))
                assert done.returncode == 0 and "simulate" in done.stdout, done.stderr
        done = inside("python workflow/run.py --tasks lgg --overlay demo -- --dry-run")
        assert done.returncode == 0 and "notebook" in done.stdout + done.stderr, done.stderr[-2000:]
        notebook = "notebooks/01_dataset.ipynb out.ipynb -f params/lgg.yaml -f params/demo.yaml -k python3 --cwd ."
        done = inside(f"python -m mmmil simulate --task lgg --overlay demo && papermill {notebook}")
        assert done.returncode == 0, done.stderr[-2000:]
    finally:
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=False)
