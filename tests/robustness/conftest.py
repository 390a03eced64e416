"""The tiny dataset, the config of a short training and the finished runs of tests/tasks, for tests of robustness."""

import sys
from pathlib import Path

# tests are no package, and these fixtures are shared
sys.path.append(str(Path(__file__).resolve().parents[1]))

from tasks.conftest import config, dotted, finished, overrides, stored, tmp_path

__all__ = ["config", "dotted", "finished", "overrides", "stored", "tmp_path"]
