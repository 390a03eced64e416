"""The linter of labels: named rules, each a function in ``rules/``, that are found by listing that folder.

``check_dataset`` applies them to all splits of a dataset. ``check_labels`` applies those that state facts about one split
before a training starts. ``mend`` corrects what can be corrected safely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kplab.data.check.checked import Dataset
from kplab.data.check.finding import LEVELS, Finding, Rule, find_rules
from kplab.data.reading import some
from kplab.errors import ConfigError, DataError
from kplab.structures.labels import Labels

__all__ = ["Dataset", "Finding", "Report", "Rule", "check_dataset", "check_labels", "find_rules"]


@dataclass
class Report:
    """What the rules found.

    Args:
        labels: the splits that were checked.
        findings: all of them, by split and rule.
        rules: the rules that were applied.
    """

    labels: Mapping[str, Labels]
    findings: list[Finding] = field(default_factory=list)
    rules: Mapping[str, Rule] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Images, instances, labelled instances and keypoints; and how often each kind was found."""
        parts = list(self.labels.values())
        counts = {
            "images": sum(len(labels) for labels in parts),
            "instances": sum(len(labels.poses) for labels in parts),
            "labelled instances": sum(int(labels.poses.labelled.any(1).sum()) for labels in parts),
            "labelled keypoints": sum(int(labels.poses.labelled.sum()) for labels in parts),
        }
        return counts | Counter(self.rules[f.rule].title for f in self.findings)

    @property
    def errors(self) -> list[str]:
        """Faults that prevent or invalidate a training: a line for each kind and split, with what to do."""
        return self.lines("error")

    @property
    def warnings(self) -> list[str]:
        """What is probably wrong, or may be intended: a line for each kind and split."""
        return self.lines("warning")

    def lines(self, level: str, limit: int = 10) -> list[str]:
        """A line for each rule of a level and each split: number, the first places, what is wrong, and what to do."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            if finding.level == level:
                groups.setdefault((finding.split, finding.rule), []).append(finding)
        return [
            f"{len(found)} {self.rules[name].title}: {some(map(self.place, found), limit)}: {self.rules[name].what}. "
            f"{self.rules[name].remedy}"
            for (_, name), found in groups.items()
        ]

    def place(self, finding: Finding) -> str:
        """Where a finding is, with its text in parentheses."""
        labels = self.labels[finding.split]
        parts = [labels.where(finding.image)] if finding.image is not None else []
        if finding.instance is not None:
            parts.append(f"instance {labels.instance_id[finding.instance]}")
        if finding.keypoint is not None:
            parts.append(labels.skeleton.keypoints[finding.keypoint])
        where = " ".join(parts)
        return f"{where} ({finding.text})" if where and finding.text else where or finding.text

    def __str__(self) -> str:
        head = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        return "\n".join([head, *(f"{level}: {line}" for level in LEVELS for line in self.lines(level))])

    def raise_if_errors(self) -> None:
        """Raise one DataError that names every error."""
        if self.errors:
            raise DataError(f"the dataset has {len(self.errors)} kinds of error:\n" + "\n".join(self.errors))


def check_labels(labels: Labels, *, deep: bool = False, max_poses: int | None = None) -> Report:
    """Check one split before a training, by the rules that state facts.

    Args:
        labels: the dataset, or one part of it.
        deep: decode every image whole, in threads, rather than reading headers only.
        max_poses: largest number of poses in one image, where a head is limited; None for any number.
    """
    rules = [rule.name for rule in find_rules().values() if rule.training]
    return check_dataset(Dataset({"": labels}, deep, max_poses), rules)


def check_dataset(dataset: Dataset, only: Sequence[str] | None = None, skip: Sequence[str] = ()) -> Report:
    """Apply rules to all splits of a dataset.

    Args:
        dataset: its splits, and how they are checked.
        only: names of rules or of groups of rules; None: all.
        skip: names of rules or groups that are not applied.

    Raises:
        ConfigError: there is no rule or group of that name.
    """
    rules = chosen_rules(only, skip)
    report = Report(dataset.labels, [], rules)
    for data in dataset.splits.values():
        for rule in rules.values():
            report.findings += rule.run(data)
    return report


def chosen_rules(only: Sequence[str] | None = None, skip: Sequence[str] = ()) -> dict[str, Rule]:
    """Rules by name; see ``check_dataset``."""
    rules = find_rules()
    groups = {rule.group for rule in rules.values()}
    unknown = [name for name in (*(only or ()), *skip) if name not in rules and name not in groups]
    if unknown:
        raise ConfigError(
            f"no rule or group of rules is called {', '.join(unknown)}. Groups: {', '.join(sorted(groups))}. "
            f"Rules: {', '.join(rules)}."
        )
    return {
        name: rule
        for name, rule in rules.items()
        if (only is None or name in only or rule.group in only) and name not in skip and rule.group not in skip
    }
