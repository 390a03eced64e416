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
# the notebooks show and train runs in a folder of their own, whatever runs the workspace has
os.environ.setdefault("KPLAB_COURSE_RUNS", str(Path(__file__).resolve().parents[1] / "outputs" / "course" / "runs"))

from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long tests first where several processes share the tests, so that all end at nearly the same time."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.get_closest_marker("slow") is None))


#: files whose tests are long and share nothing
SPLIT = ("tests/tasks/test_overfit.py", "tests/tasks/test_recipes.py")


class Units(LoadScopeScheduling):
    """What pytest-xdist gives to one process: all notebooks, which use one another's runs; a long test; a file of tests.

    Not ``--dist loadgroup``: pytest-xdist 3.8 writes the group into the node id, which pytest 9.2 ignores.
    """

    def _split_scope(self, nodeid: str) -> str:
        """The name of a test's unit."""
        file = nodeid.split("::")[0]
        if file.endswith(".ipynb"):
            return "notebooks"
        return nodeid if file in SPLIT else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Units:
    """Use these units in place of those of ``--dist``."""
    return Units(config, log)
