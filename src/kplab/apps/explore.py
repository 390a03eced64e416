"""A picture with controls, for notebooks: ``explore(draw, image=range(9))`` draws again when a control is moved."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from kplab.errors import describe, printable
from kplab.viz import look

#: What a function of ``explore`` may return.
Picture = np.ndarray | Figure


class Explorer(ipywidgets.VBox):
    """A picture below its controls. Where there is no kernel, e.g. in an exported notebook, the picture alone is shown.

    Args:
        draw: from the values of the controls to a picture, or to a picture and a caption.
        controls: by the names of its arguments.
    """

    def __init__(self, draw: Callable[..., Any], controls: Mapping[str, ipywidgets.Widget]) -> None:
        self.drawn, self.controls = draw, dict(controls)
        self.caption = ipywidgets.Label()
        self.picture = ipywidgets.Image(format="png")
        self.show()  # a mistake in the function is an error of the cell
        for control in self.controls.values():
            control.observe(lambda _: self.update(), "value")
        row = ipywidgets.Box(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([row, self.caption, self.picture])

    def show(self) -> None:
        """Draw the picture."""
        result = self.drawn(**{name: control.value for name, control in self.controls.items()})
        picture, caption = result if isinstance(result, tuple) else (result, "")
        self.caption.value, self.picture.value = printable(str(caption)), look.png(picture)

    def update(self) -> None:
        """Draw the picture; an error is shown as the caption, as no cell is executed."""
        try:
            self.show()
        except Exception as error:
            self.caption.value = describe(error)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        return with_picture(super()._repr_mimebundle_(**options), self.picture.value)


def with_picture(bundle: dict[str, Any], png: bytes) -> dict[str, Any]:
    """The forms in which a notebook can show a widget, and a picture of it for readers without a kernel."""
    return {**bundle, "image/png": base64.b64encode(png).decode()} if png else bundle


def explore(draw: Callable[..., Any], **controls: Any) -> Explorer:
    """A picture and the controls of what it shows. It is drawn once at first, with the first value of each control.

    Args:
        draw: returns an (H, W, 3) uint8 RGB image or a figure, or a pair of it and a caption.
        controls: by arguments of ``draw``: a range is a slider; a list of values, of (text, value) pairs, or a dict of text to
            value, is a menu; True or False is a check box; ``between`` is a slider of numbers; any other widget is used as
            it is.
    """
    return Explorer(draw, {name: control(name, values) for name, values in controls.items()})


def control(name: str, values: Any) -> ipywidgets.Widget:
    """The control of an argument.

    Raises:
        TypeError: there is none for such values.
    """
    if isinstance(values, ipywidgets.Widget):
        values.description = values.description or name
        return values
    if isinstance(values, bool):
        return ipywidgets.Checkbox(values, description=name, indent=False)
    if isinstance(values, range):
        ends = {"min": values.start, "max": max(values.start, values.stop - 1), "step": values.step}
        return ipywidgets.IntSlider(values.start, description=name, continuous_update=False, **ends)
    if isinstance(values, Mapping):
        return ipywidgets.Dropdown(options=list(values.items()), description=name)
    if isinstance(values, Sequence) and not isinstance(values, str):
        return ipywidgets.Dropdown(options=list(values), description=name)
    raise TypeError(f"the values of '{name}' are {values!r}. Give a range, a list, a dict, True or False, or a widget.")


def between(low: float, high: float, start: float | None = None, steps: int = 100) -> ipywidgets.FloatSlider:
    """A slider of numbers.

    Args:
        start: value at first; None is the middle.
        steps: number of steps from end to end.
    """
    middle = (low + high) / 2 if start is None else start
    return ipywidgets.FloatSlider(middle, min=low, max=high, step=(high - low) / steps, continuous_update=False)


def frames(count: int, start: int = 0) -> ipywidgets.IntSlider:
    """A slider of the numbers of frames.

    Args:
        count: number of frames.
        start: the one that is shown at first.
    """
    return ipywidgets.IntSlider(min(start, count - 1), min=0, max=count - 1, continuous_update=False)
