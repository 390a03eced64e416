"""What every test shares: no network, one thread, the folder of real images, and the order of a run on several workers."""

import os
import signal
from pathlib import Path

import pytest

# set before any test module imports the libraries that read them
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# one thread per process: the same bits on every machine, and one worker of pytest-xdist per core
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("kplab", deadline=None, derandomize=bool(os.environ.get("CI")), database=None)
settings.load_profile("kplab")

# a shell lets its background jobs ignore Ctrl-C, and what they start inherits that: here Ctrl-C is tested
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real labelled images that KPLAB_DATA names."""
    named = os.environ.get("KPLAB_DATA")
    if not named:
        pytest.skip("needs real images: set KPLAB_DATA to the folder that holds them")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"KPLAB_DATA is {named}, which is no folder. Name the folder of real images, or unset it.")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the working copy."""
    return Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for several workers: the long ones first, so that all workers end at nearly the same time.

    Notebooks that train use one another's runs, so one worker runs them all.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        if item.path.suffix == ".ipynb" and "trained(" in item.path.read_text():
            item.add_marker(pytest.mark.xdist_group("notebooks that train"))
    items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.get_closest_marker("slow") is None))
