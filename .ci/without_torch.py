"""Print a hash-pinned lock file without torch, so that another build of torch can be installed with everything else.

A CPU or an older CUDA build of torch and torchvision has other hashes than the locked one, and needs none of the
``nvidia-*``, ``cuda-*`` and ``triton`` pins. This script runs before anything is installed: standard library only.

    python .ci/without_torch.py requirements.lock              the pins that are kept, each with its hashes
    python .ci/without_torch.py --dropped requirements.lock    torch==X torchvision==Y
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

REPLACED = ("torch", "torchvision")
DROPPED = re.compile(r"(torch|torchvision|triton|nvidia-.+|cuda-.+)")


def pins(lock: str) -> list[tuple[str, str]]:
    """Split a lock file into (package name, the pin with its continuation lines), in order."""
    text = re.sub(r"^\s*#.*\n", "", lock, flags=re.MULTILINE)
    blocks = re.findall(r"^\S(?:.*\\\n)*.*\n?", text, flags=re.MULTILINE)
    return [(re.split(r"[\s=<>!~;\[]", block, maxsplit=1)[0].lower(), block) for block in blocks]


def kept(lock: str) -> str:
    """The lock file without torch, torchvision, and the packages that only their CUDA builds need."""
    return "".join(block for name, block in pins(lock) if not DROPPED.fullmatch(name))


def replaced(lock: str) -> str:
    """The locked versions of torch and torchvision, without hashes: ``torch==X torchvision==Y``.

    Raises:
        ValueError: one of them is missing, or is pinned to several versions.
    """
    found = []
    for package in REPLACED:
        versions = [block.split()[0] for name, block in pins(lock) if name == package]
        if len(versions) != 1:
            raise ValueError(
                f"the lock file pins {package} {len(versions)} times, but must pin it once. Run make lock."
            )
        found.append(versions[0])
    return " ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lock", type=Path)
    parser.add_argument("--dropped", action="store_true", help="print torch==X torchvision==Y instead")
    options = parser.parse_args()
    try:
        lock = options.lock.read_text()
        sys.stdout.write(replaced(lock) + "\n" if options.dropped else kept(lock))
    except (OSError, ValueError) as error:
        print(f"{options.lock}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
