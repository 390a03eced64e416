"""The repository: small files, nothing unfinished, plain words, and no names that only one machine knows."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

# this file contains what must not occur elsewhere
EXEMPT = {"tests/test_product.py"}


@pytest.fixture(scope="module")
def shipped(root: Path) -> dict[str, str]:
    """Path to text of every file of the working copy that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    texts = {}
    for name in listed.stdout.decode().split("\0"):
        if name and name not in EXEMPT and (root / name).is_file():
            content = (root / name).read_bytes()
            if b"\0" not in content:
                texts[name] = content.decode()
    assert {"README.md", "Makefile", "src/kplab/ops/affine.py"} <= set(texts)
    return texts


def found(texts: dict[str, str], pattern: str) -> list[str]:
    """Where a pattern occurs, as path:line: text."""
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize(
    ("what", "pattern", "allowed"),
    [
        ("a workplace path", r"(?<![\w.~-])/work(/|\b(?!\w))|/home/\w+|/root/|/tmp/(?!\.)", set()),
        ("the data beside one checkout", r"\.\./shared", {".ci/run"}),
        (
            "an issue tracker",
            r"github\.com/[\w-]+/[\w-]+/(issues|pull)|(?i:\bissue #?\d|\bticket #?\d|\bjira\b)",
            set(),
        ),
        ("a session or an assistant", r"(?i)\bsession[ _-]?(id|\d)|\bclaude\b|\bchatgpt\b|\bcopilot\b", set()),
        (
            "a package registry",
            r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.(org|com)|(?<!-)index-url",
            {"Makefile", "tests/test_environment.py"},
        ),
    ],
)
def test_the_product_does_not_name(shipped: dict[str, str], what: str, pattern: str, allowed: set[str]) -> None:
    places = found({name: text for name, text in shipped.items() if name not in allowed}, pattern)
    assert not places, f"{what} is named:\n" + "\n".join(places)


def test_nothing_is_unfinished(shipped: dict[str, str]) -> None:
    code = {
        n: t for n, t in shipped.items() if n.startswith(("src/", "conf/", "notebooks/", "bench/")) or n == "README.md"
    }
    places = found(code, r"raise NotImplementedError|\bTODO\b|\bFIXME\b|\bXXX\b|(?i:not implemented yet)")
    assert not places, "\n".join(places)


def test_files_are_small(shipped: dict[str, str]) -> None:
    long = {n: len(t.splitlines()) for n, t in shipped.items() if n.startswith("src/") and len(t.splitlines()) > 400}
    assert not long, f"over 400 lines: {long}"


def test_lines_of_documents_are_short(shipped: dict[str, str]) -> None:
    places = [
        f"{name}:{number}: {len(line)} columns"
        for name, text in shipped.items()
        if name.endswith(".md")
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > 120
    ]
    assert not places, "documents have at most 120 columns:\n" + "\n".join(places)


#: Phrases that a reader who is new to kplab does not understand, and what to write instead.
UNCLEAR = {
    r"\bghosts?\b": "false positives",
    r"\bnobody\b": "the case itself: 'no subject', 'an empty view', 'never labelled'",
    r"\bwhoever\b": "the subject of the sentence: 'the caller', 'a model that …'",
    r"\b(is|are|was|were|be|been)( not)? told\b(?! apart)": "'is reported', 'is given'",
    r"\bspeaks?\b|\bspoken\b": "'predicts', 'is assigned to'",
    r"\b(keeps?|kept)( \w+)? in mind\b|\bby heart\b": "'stores', 'memorises'",
    r"\b(less|more) sure\b|\bsurest\b|\bsurer\b": "'of lower score', 'the highest-scoring'",
    r"\bperfect network\b": "'outputs that decode exactly to the targets', 'ideal outputs'",
    r"\b(should|would|can|can't) say\b": "'target', 'predicts', 'can represent'",
    r"\bnone goes\b|\bno one goes\b": "'null disables it'",
}


def test_words_are_plain(shipped: dict[str, str]) -> None:
    written = {n: t for n, t in shipped.items() if n.startswith(("src/", "conf/", "bench/")) or n.endswith(".md")}
    places = [
        f"{place}\n    write {remedy}"
        for pattern, remedy in UNCLEAR.items()
        for place in found(written, f"(?i:{pattern})")
    ]
    assert not places, "unclear words:\n" + "\n".join(places)


def test_unclear_phrases_are_found() -> None:
    examples = {
        "a ghost": 0, "Nobody goes": 1, "whoever finds it": 2, "a subject is not told": 3, "they are told apart": None,
        "the anchor speaks": 4, "keeps them in mind": 5, "the less sure of two": 6, "What a perfect network would say": 7,
        "what it should say": 8, "null: none goes": 9,
    }  # fmt: skip
    for text, index in examples.items():
        hits = [i for i, pattern in enumerate(UNCLEAR) if found({"x": text}, f"(?i:{pattern})")]
        assert (index in hits) if index is not None else not hits, text


def test_notebooks_are_stripped(shipped: dict[str, str]) -> None:
    for name, text in shipped.items():
        if name.endswith(".ipynb"):
            code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
            assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code), (
                f"{name}: run make fmt"
            )


def names_instantiate(tree: ast.AST) -> bool:
    """Whether code imports or calls something called instantiate."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "instantiate" for alias in node.names):
            return True
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name == "instantiate":
                return True
    return False


def test_hydra_instantiates_in_one_place_only(shipped: dict[str, str]) -> None:
    assert names_instantiate(ast.parse("import hydra\nhydra.utils.instantiate({})"))
    assert names_instantiate(ast.parse("from hydra.utils import instantiate as make"))
    places = {n for n, t in shipped.items() if re.fullmatch(r"src/.*\.py", n) and names_instantiate(ast.parse(t))}
    assert places == {"src/kplab/tasks/wiring/nodes.py"}
