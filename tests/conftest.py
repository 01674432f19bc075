"""Shared fixtures: the real data folder where there is one, and one CPU thread everywhere."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest  # noqa: E402  (after the threads are capped)

from mmmil import params, source_code  # noqa: E402


@pytest.fixture(scope="session")
def real_data():
    folder = (params.root() / params.real_data()).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MMMIL_REAL_DATA")
    return folder


@pytest.fixture
def code_replaced(monkeypatch):
    """For a test that puts something of its own in the place of an object of the package, to count or to stop calls.

    The record would refuse to keep what is computed then (tests/test_source_code.py).
    """
    monkeypatch.setattr(source_code, "require_as_loaded", lambda *_: None)


def pytest_collection_modifyitems(items):
    """The longest files first: where two processes share the tests, none is left with one of them at the end."""
    longest = ("test_extending", "test_road", "test_howto")
    items.sort(key=lambda item: next((i for i, name in enumerate(longest) if name in item.nodeid), len(longest)))
