"""Filters, sorting, pages and groups of the index, in SQL.

A filter is a list of terms, and a row fits if it fits all of them: ``AP>0.5``, ``dataset=mouse,lsp`` (one of these),
``head.sigma!=2``, ``experiment~lsp`` (contains), ``status=running``; a word alone is searched in names, tags and notes.
A value with spaces is written in double quotes.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kplab.apps.dashboard.index import OWN, Index
from kplab.errors import ConfigError

_TERM = re.compile(r'\s*(?P<key>[^\s=<>!~"]+)(?P<op>!=|<=|>=|=|<|>|~)(?P<value>"[^"]*"|\S*)|\s*(?P<word>"[^"]*"|\S+)')
#: Keys that a word alone is searched in.
SEARCHED = ("run", "experiment", "dataset", "tags", "note")
MOST = 1000


@dataclass(frozen=True)
class Query:
    """Which rows, and in which order.

    Args:
        text: the filter.
        sort: key to sort by; with a leading '-' in descending order. Rows without a value come last.
        columns: keys whose values are returned besides those of ``OWN`` and the metrics.
    """

    text: str = ""
    sort: str = "-started"
    offset: int = 0
    limit: int = 100
    columns: Sequence[str] = field(default_factory=tuple)


def page(index: Index, query: Query) -> dict[str, Any]:
    """One page of rows.

    Returns:
        {"total": number of rows that fit, "all": number of rows, "rows": key to value of each row of the page}
    """
    where, values = condition(index, query.text)
    name = query.sort.removeprefix("-")
    direction = "DESC" if query.sort.startswith("-") else "ASC"
    total = index.select(f"SELECT COUNT(*) FROM row r WHERE {where}", values)[0][0]
    found = index.select(
        f"SELECT r.id, r.shown FROM row r LEFT JOIN value s ON s.key = ? AND s.row = r.id WHERE {where} "
        f"ORDER BY s.row IS NULL, s.number {direction}, s.text {direction}, r.run DESC, r.id LIMIT ? OFFSET ?",
        (key_of(index, name), *values, min(query.limit, MOST), query.offset),
    )
    rows = {row: json.loads(shown) for row, shown in found}
    for column in query.columns:
        key = index.keys.get(column)
        if key is not None and column not in OWN and rows:
            marks = ",".join("?" * len(rows))
            for row, number, text in index.select(
                f"SELECT row, number, text FROM value WHERE key = ? AND row IN ({marks})", (key, *rows)
            ):
                rows[row][column] = text if number is None else number
    everything = index.select("SELECT COUNT(*) FROM row")[0][0]
    return {"total": total, "all": everything, "rows": list(rows.values())}


def groups(index: Index, query: Query, by: Sequence[str]) -> dict[str, Any]:
    """Rows grouped by the values of keys and by the name of their scores, with number, mean and spread of other columns.

    Scores of different sets, such as those on detected and on annotated boxes, are never averaged.

    Args:
        query: ``columns`` are the numbers to average; ``sort`` is one of them, of ``by``, or "count".
        by: keys, at least one.

    Returns:
        {"by": keys, "groups": [{"by": values, "count": rows, "means": key to [mean, standard deviation, number],
        "runs": names}], "total": number of groups}
    """
    if not by:
        raise ConfigError("groups need a key to group by.")
    by = [*by, *(["set"] if "set" not in by else [])]
    where, values = condition(index, query.text)
    keys = [key_of(index, name) for name in by]
    joins = " ".join(f"LEFT JOIN value g{i} ON g{i}.key = {key} AND g{i}.row = r.id" for i, key in enumerate(keys))
    picked = ", ".join(f"COALESCE(g{i}.text, g{i}.number)" for i in range(len(keys)))
    grouped: dict[tuple[Any, ...], dict[str, Any]] = {}
    member: dict[int, dict[str, Any]] = {}
    for row, run, *group in index.select(f"SELECT r.id, r.run, {picked} FROM row r {joins} WHERE {where}", values):
        entry = grouped.setdefault(tuple(group), {"by": group, "count": 0, "runs": [], "sums": {}})
        entry["count"] += 1
        if run not in entry["runs"][-8:] and len(entry["runs"]) < 8:
            entry["runs"].append(run)
        member[row] = entry
    for column in query.columns:
        key = index.keys.get(column)
        if key is None:
            continue
        for row, number in index.select("SELECT row, number FROM value WHERE key = ? AND number IS NOT NULL", (key,)):
            if row in member:
                n, total, squares = member[row]["sums"].get(column, (0, 0.0, 0.0))
                member[row]["sums"][column] = (n + 1, total + number, squares + number * number)
    for entry in grouped.values():
        entry["means"] = {column: _moments(*sums) for column, sums in entry.pop("sums").items()}
    name, descending = query.sort.removeprefix("-"), query.sort.startswith("-")

    def rank(entry: dict[str, Any]) -> tuple[bool, float, str]:
        if name in by:
            value = entry["by"][list(by).index(name)]
            return (isinstance(value, str), value if isinstance(value, int | float) else 0.0, str(value))
        return (False, entry["count"] if name == "count" else entry["means"].get(name, [0.0])[0], "")

    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for entry in grouped.values():
        parts[name not in (*by, "count") and name not in entry["means"]].append(entry)
    ordered = sorted(parts[0], key=rank, reverse=descending) + parts[1]
    return {"by": by, "total": len(ordered), "groups": ordered[query.offset : query.offset + min(query.limit, MOST)]}


def _moments(n: int, total: float, squares: float) -> list[float | None]:
    """Mean, standard deviation (of a sample; None for one value) and number."""
    mean = total / n
    spread = math.sqrt(max(0.0, squares - n * mean * mean) / (n - 1)) if n > 1 else None
    return [mean, spread, n]


def keys(index: Index) -> list[dict[str, Any]]:
    """All keys that rows have: name, kind (own, metric, config), and number of different values, own ones first."""
    order = {name: i for i, name in enumerate(OWN)}
    listed = index.select("SELECT name, kind FROM key")
    ranked = sorted(listed, key=lambda k: (("own", "metric", "config").index(k[1]), order.get(k[0], 0), k[0]))
    return [{"name": name, "kind": kind} for name, kind in ranked]


def key_of(index: Index, name: str) -> int:
    """The number of a key.

    Raises:
        ConfigError: no run has it; names similar ones.
    """
    if name not in index.keys:
        if name in OWN or not index.keys:
            return -1
        close = difflib.get_close_matches(name, index.keys, n=3, cutoff=0.5)
        close = close or [k for k in index.keys if k.endswith(f".{name}")][:3]
        raise ConfigError(f"no run has the key '{name}'." + (f" Similar: {', '.join(close)}." if close else ""))
    return index.keys[name]


def condition(index: Index, text: str) -> tuple[str, tuple[Any, ...]]:
    """A filter as an SQL condition on ``row r``, and its values.

    Raises:
        ConfigError: a term names an unknown key, or compares with something that is no number.
    """
    parts: list[str] = ["1"]
    values: list[Any] = []
    for found in _TERM.finditer(text.strip()):
        if found["word"] is not None:
            word = found["word"].strip('"')
            known = [index.keys[name] for name in SEARCHED if name in index.keys]
            if word:
                parts.append(
                    f"r.id IN (SELECT row FROM value WHERE key IN ({','.join(map(str, known))}) AND instr(lower(text), ?))"
                )
                values.append(word.lower())
            continue
        key, op, value = key_of(index, found["key"]), found["op"], found["value"].strip('"')
        inside = "NOT IN" if op == "!=" else "IN"
        given: list[Any]
        if op in ("=", "!="):
            options = found["value"].strip('"').split(",") if not found["value"].startswith('"') else [value]
            either = " OR ".join("text = ? OR number = ?" for _ in options)
            test, given = f"({either})", [v for option in options for v in (option, _number(option))]
        elif op == "~":
            test, given = "instr(lower(COALESCE(text, number)), ?)", [value.lower()]
        else:
            number = _number(value)
            if number is None and not (found["key"] == "started" and value):
                raise ConfigError(f"'{found[0].strip()}' compares with '{value}', which is no number.")
            test, given = (f"number {op} ?", [number]) if number is not None else (f"text {op} ?", [value])
        parts.append(f"r.id {inside} (SELECT row FROM value WHERE key = ? AND {test})")
        values += [key, *given]
    return " AND ".join(parts), tuple(values)


def _number(text: str) -> float | None:
    try:
        number = float(text)
        return number if math.isfinite(number) else None
    except ValueError:
        return None
