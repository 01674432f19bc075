"""The command line that Snakemake drives."""

import subprocess
import sys

import pytest

from mmmil import params


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mmmil", *arguments], cwd=params.root(), capture_output=True, text=True, check=False
    )


def test_every_command_is_listed():
    listed = run("--help").stdout
    for command in ("simulate", "tiles", "genes", "train", "record", "keep", "apply", "publish", "sections", "toc"):
        assert command in listed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tiles", "--task", "nowhere"), "nowhere.yaml does not exist; there are"),
        (("simulate", "--task", "lgg"), "is not synthetic"),
        (("publish", "nothing.ipynb", "page.ipynb"), "is not a readable notebook"),
    ],
)
def test_a_wrong_call_is_one_line_that_says_what_to_do(arguments, told):
    done = run(*arguments)
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr
