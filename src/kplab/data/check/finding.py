"""Findings, and the rules that yield them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kplab.data.check.checked import Checked

LEVELS = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One place at which a rule found something.

    Args:
        image: index of the image in its split; None: it concerns the whole split.
        instance: index of the instance in the split; None: it concerns the image.
        keypoint: index of the keypoint; None: it concerns the instance.
        text: what was found here, in a few words.
        value: the measured number, where there is one.
        expected: the limit that it was compared with.
        fix: what ``mend`` does about it; "" where a person has to decide.
        rule: name of the rule; set by ``Rule.run``, like the level and the split.
        level: "error", "warning" or "info".
        split: name of the split.
    """

    image: int | None = None
    instance: int | None = None
    keypoint: int | None = None
    text: str = ""
    value: float | None = None
    expected: float | None = None
    fix: str = ""
    rule: str = ""
    level: str = ""
    split: str = ""


@dataclass(frozen=True)
class Rule:
    """A rule of the linter.

    Args:
        name: of its function, with hyphens.
        group: of its module: files, geometry, identity, tracks, schema, splits, balance or model.
        level: "error": the labels can't be used as they are; "warning": probably wrong; "info": worth knowing.
        title: the kind of finding, in the plural.
        what: what is wrong with each of them.
        remedy: what to do.
        message: the first line of the function's docstring.
        training: whether it is applied before a training as well.
        pixels: whether it needs images to be read whole, and finds nothing without.
        check: the function; it yields the findings of one split.
    """

    name: str
    group: str
    level: str
    title: str
    what: str
    remedy: str
    message: str
    training: bool
    pixels: bool
    check: Callable[[Checked], Iterable[Finding]]

    def run(self, data: Checked) -> list[Finding]:
        """Findings in one split, with the rule's name and level."""
        return [
            Finding(
                f.image, f.instance, f.keypoint, f.text, f.value, f.expected, f.fix, self.name, self.level, data.name
            )
            for f in self.check(data)
        ]


def rule(
    level: str, title: str, what: str, remedy: str, training: bool = False, pixels: bool = False
) -> Callable[[Callable[[Checked], Iterable[Finding]]], Rule]:
    """Make a Rule of a function, whose name, docstring and module complete it.

    Raises:
        ValueError: the level is unknown, or the function has no docstring.
    """

    def made(check: Callable[[Checked], Iterable[Finding]]) -> Rule:
        name = check.__name__.replace("_", "-")
        message = (check.__doc__ or "").strip().partition("\n")[0]
        if level not in LEVELS or not message:
            raise ValueError(f"rule {name}: level is '{level}', and its docstring is '{message}'")
        group = check.__module__.rpartition(".")[2]
        return Rule(name, group, level, title, what, remedy, message, training, pixels, check)

    return made


def find_rules() -> dict[str, Rule]:
    """All rules by name: the ``Rule`` objects of the modules in ``rules/``, in the order of their sources."""
    found: dict[str, Rule] = {}
    for path in sorted((Path(__file__).parent / "rules").glob("[!_]*.py")):
        module: Any = import_module(f"kplab.data.check.rules.{path.stem}")
        found |= {value.name: value for value in vars(module).values() if isinstance(value, Rule)}
    return found
