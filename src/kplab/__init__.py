"""kplab: a keypoint-detection research workspace.

>>> import kplab
>>> sorted(kplab.__all__)
['annotate', 'compare', 'evaluate', 'load', 'read_labels', 'show']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["annotate", "compare", "evaluate", "load", "read_labels", "show"]

if TYPE_CHECKING:
    from kplab.api import compare, evaluate, load, read_labels
    from kplab.apps.annotate.notebook import annotate
    from kplab.apps.show import show
else:

    def __getattr__(name):
        """The functions of ``kplab.api``, which is imported at the first use of one: the command line starts without it."""
        if name == "show":
            from kplab.apps.show import show

            return show
        if name == "annotate":
            from kplab.apps.annotate.notebook import annotate

            return annotate
        if name in __all__:
            from kplab import api

            return getattr(api, name)
        raise AttributeError(f"module 'kplab' has no attribute '{name}'")
