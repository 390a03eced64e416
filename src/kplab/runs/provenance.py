"""Provenance: hashes, and the code, packages and hardware of this process."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "kplab", "torch", "torchvision", "timm", "lightning", "albumentations", "opencv-python-headless", "pycocotools",
    "hydra-core", "numpy", "scipy", "pandas",
)  # fmt: skip


def sha256(data: bytes | str) -> str:
    """SHA-256 of bytes or text, as hex digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


#: Bytes of an untracked file up to which a patch contains it.
LARGEST = 200_000


def git(folder: Path, *args: str, statuses: tuple[int, ...] = (0,)) -> str | None:
    """Output of a git command in a folder; None without git, without a repository, or with another exit status."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode in statuses else None


def code(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the commit of the code, and its uncommitted changes.

    Notebooks are left out: they hold outputs, such as pictures, and no code that a run uses.

    Returns:
        {"commit", "dirty", "patch_sha256"}, and the patch itself, for ``git apply``: tracked changes and untracked sources.
    """
    commit = git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None, "patch_sha256": None}, ""
    patch = git(folder, "diff", "HEAD", "--binary", "--", ":/", ":(top,exclude)*.ipynb") or ""
    for name in (git(folder, "ls-files", "--others", "--exclude-standard", "--", "src", "conf") or "").split("\n"):
        path = folder / name
        if name and path.is_file():
            if path.stat().st_size < LARGEST:
                patch += new_file(folder, name)
            else:
                patch += f"untracked {name}: sha256 {sha256(path.read_bytes())}, too large to be kept\n"
    return {"commit": commit.strip(), "dirty": bool(patch), "patch_sha256": sha256(patch) if patch else None}, patch


def new_file(folder: Path, name: str) -> str:
    """The patch that adds an untracked file of a folder."""
    # paths of a patch are relative to the top of the repository
    top = (git(folder, "rev-parse", "--show-prefix") or "").strip()
    prefixes = f"--src-prefix=a/{top}", f"--dst-prefix=b/{top}"
    # git reports a difference by the status 1
    return git(folder, "diff", "--no-index", "--binary", *prefixes, "--", os.devnull, name, statuses=(1,)) or ""


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """Processor, cores(), memory and accelerators of this machine."""
    out: dict[str, Any] = {
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": cores(),
        "cpu": cpu_name(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        out["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        out["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return out


def cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def lock_hash(folder: Path) -> str | None:
    """SHA-256 of requirements.lock; None without one."""
    lock = folder / "requirements.lock"
    return file_sha256(lock) if lock.is_file() else None
