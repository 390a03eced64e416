"""A plan in the making: the choices of the rules so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kplab.data.traits import Traits
from kplab.structures.poses import HULL_MARGIN
from kplab.tasks.planning.families import FAMILIES, Family, Shown
from kplab.tasks.planning.stopwatch import Timing

#: Side of a crop over the extent of its keypoints: the margin of hulls, of annotated boxes about the same, and that of the crop.
PADDED = (1 + 2 * HULL_MARGIN) * 1.25


@dataclass(frozen=True)
class Choice:
    """What a rule has decided.

    Args:
        rule: name of the rule.
        figure: the measured figures that it is based on.
        reason: why they lead to the choice.
        values: keys of the training config, dotted, and their values.
        groups: config groups and the chosen files.
    """

    rule: str
    figure: str
    reason: str
    values: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)


@dataclass
class Draft:
    """A plan in the making.

    Args:
        traits: of the training split.
        family: that the user asks for, or "auto".
        validated: whether the dataset has a split ``val``.
        short: whether the time allows fewer views than a training should have.
        shrink: factor on the size of subjects in views, below 1 where the time is very short.
        timing: of the chosen network on this machine.
        choices: of the rules so far.
    """

    traits: Traits
    family: str
    validated: bool
    short: bool = False
    shrink: float = 1.0
    timing: Timing = field(init=False)
    choices: list[Choice] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """The value that a rule has given a key.

        Raises:
            KeyError: none has.
        """
        return {k: v for choice in self.choices for k, v in choice.values.items()}[key]

    @property
    def groups(self) -> dict[str, str]:
        """Chosen groups."""
        return {k: v for choice in self.choices for k, v in choice.groups.items()}

    @property
    def cascade(self) -> bool:
        """Whether a detector comes first."""
        return self.groups["model"] == "cascade"

    @property
    def kind(self) -> Family:
        """The chosen family."""
        chosen = self.groups["model"], self.groups["head"]
        return next(f for f in FAMILIES.values() if (f.model, f.head) == chosen)

    @property
    def shown(self) -> Shown:
        """How the head sees subjects: in crops, or in views and windows."""
        t = self.traits
        if self.cascade:
            width, height = self.value("model.crop")
            scale = width / PADDED / t.side
        else:
            width, height = self.value("window") or self.value("size")
            scale = self.value("size")[0] / t.width
        return Shown(t.side * scale, (width, height), scale)
