"""``kplab.annotate``: the annotator in a notebook."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import anywidget

from kplab.apps.annotate import start
from kplab.apps.annotate.window import Windows
from kplab.errors import KplabError
from kplab.tasks import compose

STATIC = Path(__file__).with_name("static")
#: The modules of the page in the order in which they need each other.
MODULES = ("drawing.js", "store.js", "panel.js", "pointer.js", "view.js", "annotator.js")


@cache
def module() -> str:
    """The modules of the page as one, as a notebook takes one module: without their imports of each other.

    A module is a block of its own, so that its names stay apart; what it exports is named before.
    """
    parts = []
    for name in MODULES:
        text = re.sub(r'^import \{.*\} from "\./.*";\n', "", (STATIC / name).read_text(), flags=re.MULTILINE)
        exported = re.findall(r"^export function (\w+)", text, flags=re.MULTILINE)
        text = re.sub(r"^export default .*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^export function (\w+)", r"\1 = function \1", text, flags=re.MULTILINE)
        parts.append(f"let {', '.join(exported)};\n{{\n{text}}}\n")
    return "".join(parts) + "export default { render };\n"


class Annotator(anywidget.AnyWidget):
    """The annotator of a project; edits are saved as in ``kplab annotate``.

    Args:
        windows: of the project.

    Attributes:
        project: the project; ``project.labels()`` is what is labelled.
    """

    _css = STATIC / "annotator.css"

    def __init__(self, windows: Windows) -> None:
        self.windows, self.project = windows, windows.project
        super().__init__(_esm=module())
        self.on_msg(self._received)

    def _received(self, widget: Any, content: Any, buffers: Any) -> None:
        answer = self.windows.answer(content)
        pixels = []
        if answer["kind"] == "image":
            try:
                pixels = [self.windows.picture(answer["image"])]
            except (KplabError, OSError) as error:
                answer["text"] = str(error)
        self.send(answer, pixels)

    def close(self) -> None:
        """Save the labels and end the annotator; other processes can open the labels then."""
        self.windows.close()
        super().close()


def annotate(dataset: str | None = None, overrides: tuple[str, ...] | list[str] = (), **options: Any) -> Annotator:
    """The annotator in a notebook, with the options of ``kplab annotate``. ``close()`` ends it; edits are saved at once.

    Args:
        dataset: name of a file in ``conf/dataset``; None with ``images=…``.
        overrides: of the config, as on the command line, e.g. "dataset.folder=DIR".
        options: keys of ``kplab annotate``: images, skeleton, out, run, source, annotator, …

    Raises:
        KplabError: as of ``kplab annotate``.
    """
    given = {**({} if dataset is None else {"dataset": dataset}), **options}
    return Annotator(start(compose("annotate", [*(override(k, v) for k, v in given.items()), *overrides])))


def override(key: str, value: Any) -> str:
    """An option as the command line states it.

    >>> override("out", "a b.json"), override("frames", [0, 100, 5]), override("run", None)
    ("out='a b.json'", 'frames=[0,100,5]', 'run=null')
    """
    if value is None:
        return f"{key}=null"
    if isinstance(value, list | tuple):
        return f"{key}=[{','.join(map(str, value))}]"
    if isinstance(value, str | Path):
        text = str(value)
        plain = re.fullmatch(r"[\w./-]+", text)
        return f"{key}={text}" if plain else f"{key}='{text.translate(ESCAPES)}'"
    return f"{key}={value}"


#: Characters that a quoted override escapes.
ESCAPES = str.maketrans({"'": "\\'"})
