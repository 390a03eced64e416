"""What a run was made with, against what there is now: code, packages, machine, threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AGREES, DIFFERS, UNKNOWN = "agrees", "differs", "not recorded"


@dataclass(frozen=True)
class Check:
    """One comparison of a run's record with the present.

    Args:
        what: is compared.
        state: ``AGREES``, ``DIFFERS`` or ``UNKNOWN``.
        text: the value, or both values where they differ.
    """

    what: str
    state: str
    text: str

    def __str__(self) -> str:
        return f"{self.what:<12} {self.state:<12} {self.text}"


def compare(what: str, then: Any, now: Any) -> Check:
    """Compare one value; a value that is None or missing was not recorded.

    >>> print(compare("threads", 2, 1))
    threads      differs      2 in the run, 1 now
    """
    if then is None:
        return Check(what, UNKNOWN, f"{now} now")
    if then != now:
        return Check(what, DIFFERS, f"{then} in the run, {'unknown' if now is None else now} now")
    return Check(what, AGREES, str(then))


def code_checks(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Check]:
    """Commit and uncommitted changes; both not recorded where the run's code was in no repository.

    Args:
        then: ``code`` of the run's record.
        now: of this process.
    """
    commit = compare("commit", then.get("commit"), now.get("commit"))
    if then.get("commit") is None:
        return [commit]
    states = [_short(code.get("patch_sha256")) for code in (then, now)]
    return [commit, compare("changes", *states)]


def _short(patch: Any) -> str:
    return "none" if patch is None else f"uncommitted ({str(patch)[:12]}…)"


def package_check(then: Any, now: Any) -> Check:
    """Versions of Python and of all packages that results depend on; the text names those that differ."""
    now = now if isinstance(now, Mapping) else {}
    if not isinstance(then, Mapping) or not then:
        return Check("packages", UNKNOWN, f"{len(now)} versions now")
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if names:
        told = ", ".join(f"{n} {then.get(n, 'missing')} in the run, {now.get(n, 'missing')} now" for n in names)
        return Check("packages", DIFFERS, told)
    return Check("packages", AGREES, f"{len(now)} versions")


def checks(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Check]:
    """All comparisons of a run's record with one of the present; both have the entries of ``run.json``.

    The name of the machine and its memory are not compared: they don't change results.
    """
    machine = [_of(record, "hardware") for record in (then, now)]
    found = [
        *code_checks(_of(then, "code"), _of(now, "code")),
        compare("lock file", *(_digits(record.get("lock_sha256")) for record in (then, now))),
        package_check(then.get("packages"), now.get("packages")),
        compare("processor", *(hardware.get("cpu") for hardware in machine)),
    ]
    if any(hardware.get("gpus") for hardware in machine):
        found.append(compare("GPUs", *(_list(hardware) for hardware in machine)))
    return found + [
        compare(what, then.get(what), now.get(what)) for what in ("device", "precision", "threads", "processes")
    ]


def _of(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    return found if isinstance(found, Mapping) else {}


def _digits(digest: Any) -> str | None:
    return None if digest is None else f"{str(digest)[:12]}…"


def _list(hardware: Mapping[str, Any]) -> str | None:
    return ", ".join(map(str, hardware.get("gpus") or ["none"])) if hardware else None
