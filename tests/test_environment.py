"""pyproject.toml, requirements.lock, environment.yml and the installed packages agree."""

import importlib.metadata
import platform
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def direct(project: dict) -> list[Requirement]:
    return [Requirement(r) for r in (*project["dependencies"], *project["optional-dependencies"]["dev"])]


@pytest.fixture(scope="module")
def lock(root: Path) -> str:
    return (root / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def pinned(lock: str) -> list[Requirement]:
    return [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def environment(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux", "os_name": "posix"}


def pin_of(requirement: Requirement, pinned: list[Requirement], python: str) -> Version:
    """The version to which the lock pins a requirement under a Python."""
    name = canonicalize_name(requirement.name)
    fitting = [
        p
        for p in pinned
        if canonicalize_name(p.name) == name and (p.marker is None or p.marker.evaluate(environment(python)))
    ]
    assert len(fitting) == 1, f"{name} has {len(fitting)} pins under Python {python}; run make lock"
    return Version(str(fitting[0].specifier).removeprefix("=="))


def test_every_direct_dependency_is_locked_within_its_range(
    direct: list[Requirement], pinned: list[Requirement]
) -> None:
    for python in PYTHONS:
        for requirement in direct:
            version = pin_of(requirement, pinned, python)
            assert requirement.specifier.contains(version), f"{requirement} is locked to {version}"


def test_the_lock_has_versions_and_hashes_but_no_address(lock: str, pinned: list[Requirement]) -> None:
    assert all(re.fullmatch(r"==[^,*]+", str(p.specifier)) and p.url is None for p in pinned)
    blocks = re.split(r"\n(?=\S)", lock.strip())
    assert len(blocks) == len(pinned)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", block) for block in blocks)
    assert not re.search(r"https?:|git\+|file:|index-url|find-links", lock)


def test_installed_versions_are_the_locked_ones(direct: list[Requirement], pinned: list[Requirement]) -> None:
    python = ".".join(platform.python_version_tuple()[:2])
    for requirement in direct:
        installed = Version(importlib.metadata.version(requirement.name))
        # a CPU build of torch is 2.15.0+cpu
        assert installed.public == str(pin_of(requirement, pinned, python)), f"{requirement.name}: run make setup"


def test_conda_gets_the_locked_environment(root: Path, project: dict, pinned: list[Requirement]) -> None:
    conda = yaml.safe_load((root / "environment.yml").read_text())
    assert conda["name"] == project["name"]
    assert conda["channels"][0] == "conda-forge"
    (pip,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    assert sorted(pip) == ["--require-hashes", "-r requirements.lock"]
    from_conda = [Requirement(entry) for entry in conda["dependencies"] if isinstance(entry, str)]
    assert not {r.name for r in from_conda} & {p.name for p in pinned}, "conda and the lock would each install it"

    (python,) = (r.specifier for r in from_conda if r.name == "python")
    minors = [Version(f"3.{minor}.9") for minor in range(8, 20)]
    allowed = SpecifierSet(project["requires-python"])
    assert any(v in python for v in minors)
    assert all(v in allowed for v in minors if v in python)


def test_make_requires_the_same_pythons_as_the_project(root: Path, project: dict) -> None:
    found = re.search(r"\((\d+), (\d+)\) <= v < \((\d+), (\d+)\)", (root / "Makefile").read_text())
    assert found is not None
    a, b, c, d = found.groups()
    assert SpecifierSet(project["requires-python"]) == SpecifierSet(f">={a}.{b},<{c}.{d}")
    assert all(Version(p) in SpecifierSet(project["requires-python"]) for p in PYTHONS)
