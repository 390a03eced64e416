"""What a page and its project send each other; the same messages in a browser window and in a notebook."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgspec
import numpy as np

from kplab.apps.annotate.project import Change, Conflict, Project, outline
from kplab.apps.annotate.suggestions import FILE, ORDERS, Suggestions
from kplab.errors import ConfigError, DataError, KplabError, describe

ONLY = ("all", "without labels", "with labels")


class Asked(msgspec.Struct, tag_field="kind", forbid_unknown_fields=True, kw_only=True):
    """A message of a page; the answer repeats the name of its view."""

    view: str


class Open(Asked, tag="open"):
    """A page starts; the answer is the outline of the project."""


class News(Asked, tag="news"):
    """Ask what has happened since the last time; the answer is a list of messages."""


class Find(Asked, tag="find"):
    """Ask which images to show, in which order; the answer is a list of indices.

    Args:
        text: part of an image's name.
        order: of ``ORDERS``.
        only: of ``ONLY``.
    """

    text: str = ""
    order: str = FILE
    only: str = "all"


class Show(Asked, tag="show"):
    """Ask for an image; the answer has its instances and suggestions, and its pixels."""

    image: int


class Earlier(Asked, tag="earlier"):
    """Ask for the instances of the last image with labels before an image, of the same video."""

    image: int


class Submit(Asked, tag="edit"):
    """Submit an edit; the answer states whether it was accepted.

    Args:
        number: of the edit, chosen by the page; the answer repeats it.
        image: index.
        changes: of its instances.
    """

    number: int
    image: int
    changes: list[Change]


Message = Open | News | Find | Show | Earlier | Submit
#: Views whose state is kept.
VIEWS = 200


@dataclass
class ViewState:
    """What the page of a view knows: numbers of edits and of suggestions, and the state of the files."""

    edits: int
    suggested: int
    status: dict[str, Any] = field(default_factory=dict)


class Windows:
    """The pages of a project.

    Args:
        project: that they edit.
        suggestions: of a run; None without one.
    """

    def __init__(self, project: Project, suggestions: Suggestions | None = None) -> None:
        self.project, self.suggestions = project, suggestions
        self._views: OrderedDict[str, ViewState] = OrderedDict()

    def close(self) -> None:
        """End the suggestions and save the project.

        Raises:
            KplabError: the labels can't be saved; the journal has the edits.
        """
        if self.suggestions is not None:
            self.suggestions.close()
        self.project.close()

    def _state(self, view: str) -> ViewState:
        """What a view knows; a new one knows what it is about to ask for."""
        if view not in self._views:
            suggested = 0 if self.suggestions is None else len(self.suggestions.done)
            self._views[view] = ViewState(len(self.project.edits), suggested)
            while len(self._views) > VIEWS:
                self._views.popitem(last=False)
        return self._views[view]

    def answer(self, content: Any) -> dict[str, Any]:
        """The answer to a message; a mistake is an answer of kind "fault".

        Args:
            content: JSON, as bytes or decoded.
        """
        try:
            message: Message = (
                msgspec.json.decode(content, type=Message)
                if isinstance(content, bytes)
                else msgspec.convert(content, Message)
            )
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return {"kind": "fault", "view": "", "text": f"not a message of the annotator: {error}"}
        head: dict[str, Any] = {"view": message.view}
        if isinstance(message, Submit):
            head["number"] = message.number
        try:
            self._state(message.view)
            return {**head, **self._answer(message)}
        except Conflict as error:
            assert isinstance(message, Submit)
            return {**head, "kind": "refused", "text": str(error), **self._instances(message.image)}
        except KplabError as error:
            return {**head, "kind": "fault", "text": str(error)}
        except OSError as error:
            return {**head, "kind": "fault", "text": describe(error)}

    def _answer(self, message: Message) -> dict[str, Any]:
        if isinstance(message, Open):
            orders = ORDERS if self.suggestions is not None else ORDERS[:1]
            return {"kind": "project", "orders": orders, "only": ONLY, **outline(self.project)}
        if isinstance(message, News):
            return {"kind": "news", "items": self.news(message.view)}
        if isinstance(message, Find):
            return {"kind": "found", "images": self.find(message).tolist()}
        if isinstance(message, Show):
            return self.show(message.image)
        if isinstance(message, Earlier):
            return self.earlier(message.image)
        self.project.edit(message.image, message.changes, message.view)
        self._state(message.view).status = {}  # the answer states a part of it, so the next news state it anew
        return {"kind": "accepted", "unsaved": self.project.unsaved}

    def find(self, asked: Find) -> np.ndarray:
        """(S,) int64 indices of the images that fit.

        Raises:
            ConfigError: the order or the filter is unknown.
        """
        known = ORDERS if self.suggestions is not None else ORDERS[:1]
        for name, value, options in (("order", asked.order, known), ("only", asked.only, ONLY)):
            if value not in options:
                raise ConfigError(f"{name} is '{value}'. Use one of: {', '.join(options)}.")
        count = len(self.project)
        order = np.arange(count) if self.suggestions is None else self.suggestions.order(asked.order)
        keep = np.ones(count, dtype=bool)
        if asked.only != "all":
            keep = (self.project.counts > 0) == (asked.only == "with labels")
        if asked.text:
            wanted = asked.text.lower()
            keep = keep & np.array([wanted in str(name).lower() for name in self.project.base.names], dtype=bool)
        return np.asarray(order[keep[order]])

    def _check(self, i: int) -> None:
        if not 0 <= i < len(self.project):
            raise DataError(f"there is no image {i}: the project has {len(self.project)}, from 0.")

    def _instances(self, i: int) -> dict[str, Any]:
        """The instances of an image, in their order, as a list: the keys of an object that are numbers would be sorted."""
        found = self.project.instances(i)
        return {"image": i, "instances": [[key, msgspec.to_builtins(one)] for key, one in found.items()]}

    def _suggestion(self, i: int) -> list[Any] | None:
        found = None if self.suggestions is None else self.suggestions.of(i)
        return None if found is None else [msgspec.to_builtins(one) for one in found]

    def show(self, i: int) -> dict[str, Any]:
        """An image without its pixels.

        Raises:
            DataError: there is no such image.
        """
        self._check(i)
        if self.suggestions is not None:
            self.suggestions.ask(i)
        base = self.project.base
        return {
            "kind": "image",
            "name": str(base.names[i]),
            "size": list(self.project.size(i)),
            "suggested": self._suggestion(i),
            **self._instances(i),
        }

    def earlier(self, i: int) -> dict[str, Any]:
        """The instances of the last image with labels before an image; of the same video, where images have videos.

        Raises:
            DataError: there is none.
        """
        self._check(i)
        base = self.project.base
        fits = self.project.counts[:i] > 0
        if (base.group == base.group[i]).sum() > 1:
            fits = fits & (base.group[:i] == base.group[i])
        if not fits.any():
            raise DataError("no image before this one has labels to copy.")
        last = int(np.flatnonzero(fits)[-1])
        return {"kind": "earlier", "to": i, "name": str(base.names[last]), **self._instances(last)}

    def news(self, view: str) -> list[dict[str, Any]]:
        """What has happened since a view asked last: edits of other views, suggestions, and the state of the files."""
        out: list[dict[str, Any]] = []
        state = self._state(view)
        edits = self.project.edits[state.edits :]
        state.edits += len(edits)
        touched = dict.fromkeys(edit.image for edit in edits if edit.window != view)
        out += [{"kind": "changed", **self._instances(i)} for i in touched]
        fault = None
        if self.suggestions is not None:
            done = self.suggestions.done[state.suggested :]
            state.suggested += len(done)
            out += [{"kind": "suggestion", "image": i, "suggested": self._suggestion(i)} for i in done[-50:]]
            fault = self.suggestions.fault
        status = {
            "kind": "status",
            "unsaved": self.project.unsaved,
            "fault": self.project.fault or fault,
            "labelled": int((self.project.counts > 0).sum()),
            "predicted": None if self.suggestions is None else len(self.suggestions.found),
        }
        if status != state.status:
            state.status = status
            out.append(status)
        return out

    def picture(self, i: int) -> bytes:
        """The pixels of an image as JPEG of high quality, without subsampled colours.

        Raises:
            DataError: there is no such image, or it can't be read.
        """
        self._check(i)
        options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        whole, data = cv2.imencode(".jpg", self.project.base.read(i)[..., ::-1], options)
        if not whole:
            raise DataError(f"{self.project.base.where(i)}: can't be encoded for the page.")
        return data.tobytes()
