"""Clusters of the store for one test: those that need others define their own."""
import pytest

from dcs_lab import new_lab


@pytest.fixture(name="lab")
def lab_fixture():
    lab = new_lab()
    yield lab
    lab.close()


@pytest.fixture(name="one")
def one_fixture():
    lab = new_lab(1)
    yield lab
    lab.close()
