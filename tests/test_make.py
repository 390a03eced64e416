"""The Makefile, the lock without torch, and what continuous integration runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command free of the make that may have started these tests."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "KPLAB", "VENV", "TORCH"))}
    return subprocess.run(
        command, cwd=cwd, env={**clean, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("make", f"PYTHON={sys.executable}", *arguments, cwd=root)


@pytest.fixture(scope="module")
def targets(root: Path) -> list[str]:
    phony = re.findall(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    return " ".join(phony).split()


def test_help_lists_every_target(root: Path, targets: list[str]) -> None:
    listed = re.findall(r"^  make (\S+) +\S", make(root, "help").stdout, flags=re.MULTILINE)
    assert listed == sorted(targets)


def test_every_target_prepares_the_environment_by_itself(root: Path, targets: list[str], tmp_path: Path) -> None:
    for target in set(targets) - {"help", "clean", "lock"}:
        result = make(root, "-n", target, f"VENV={tmp_path}/fresh")
        assert result.returncode == 0, result.stderr
        assert "--require-hashes -r requirements.lock" in result.stdout, target


def test_a_ready_environment_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / ".ready-auto").touch()
    result = make(root, "-n", "check", f"VENV={tmp_path}")
    assert "requirements.lock" not in result.stdout
    assert "mypy" in result.stdout


def test_another_build_of_torch_keeps_all_other_hashes(root: Path, tmp_path: Path) -> None:
    text = make(root, "-n", "setup", f"VENV={tmp_path}/fresh", "TORCH=cpu").stdout
    assert "--require-hashes --no-deps -r" in text
    assert "--torch-backend=cpu" in text


def test_an_old_python_is_refused_with_the_remedy(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    # a uv of its own, so that nothing is fetched before the check
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nexit 0\n")
    uv.chmod(0o755)
    result = run("make", "setup", f"PYTHON={old}", f"UV={uv}", f"VENV={tmp_path}/fresh", cwd=root)
    assert result.returncode != 0
    assert "kplab needs Python 3.11 to 3.13" in result.stderr
    assert "make PYTHON=python3.12" in result.stderr


def without_torch(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S and -I: it runs before anything is installed
    return run(sys.executable, "-I", "-S", str(root / ".ci" / "without_torch.py"), *arguments, cwd=root)


def names(text: str) -> list[str]:
    return re.findall(r"^([A-Za-z0-9._-]+)==", text, flags=re.MULTILINE)


def test_the_lock_without_torch_keeps_every_other_pin_whole(root: Path) -> None:
    lock = (root / "requirements.lock").read_text()
    kept = without_torch(root, "requirements.lock").stdout
    kept_lines = set(kept.splitlines())
    left_out = [line for line in lock.splitlines() if line not in kept_lines]
    assert kept_lines <= set(lock.splitlines())
    assert kept.count("--hash") + "\n".join(left_out).count("--hash") == lock.count("--hash")
    assert {"torch", "torchvision", "triton"} <= set(names("\n".join(left_out)))
    for name in names("\n".join(left_out)):
        assert name.startswith(("nvidia-", "cuda-")) or name in {"torch", "torchvision", "triton"}, name
    assert not re.search(r"^(torch|torchvision|triton|nvidia-.*|cuda-.*)==", kept, flags=re.MULTILINE)
    # their namesakes stay
    assert {"torchmetrics", "pytorch-lightning"} <= set(names(kept))


def test_the_lock_without_torch_on_a_small_lock(root: Path, tmp_path: Path) -> None:
    lock = tmp_path / "small.lock"
    lock.write_text(
        "# a comment\n"
        "alpha==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n"
        "torch==2.9.0 ; sys_platform == 'linux' \\\n    --hash=sha256:bb\n"
        "torchmetrics==3 \\\n    --hash=sha256:cc\n"
        "torchvision==0.24.1 \\\n    --hash=sha256:dd\n"
        "nvidia-nccl-cu13==2 \\\n    --hash=sha256:ee\n"
        "zeta==9 \\\n    --hash=sha256:ff"
    )
    assert without_torch(root, str(lock)).stdout == (
        "alpha==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n"
        "torchmetrics==3 \\\n    --hash=sha256:cc\n"
        "zeta==9 \\\n    --hash=sha256:ff"
    )
    assert without_torch(root, "--dropped", str(lock)).stdout == "torch==2.9.0 torchvision==0.24.1\n"


def test_a_lock_with_two_versions_of_torch_is_refused(root: Path, tmp_path: Path) -> None:
    lock = tmp_path / "forked.lock"
    lock.write_text(
        "torch==2.9.0 ; python_version < '3.12'\ntorch==2.10.0 ; python_version >= '3.12'\ntorchvision==1\n"
    )
    result = without_torch(root, "--dropped", str(lock))
    assert result.returncode == 1
    assert "forked.lock" in result.stderr
    assert "pins torch 2 times" in result.stderr


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A working copy with .ci/run and a make that says how it was called and fails as pytest would."""
    copy = tmp_path / "checkout"
    (copy / ".ci").mkdir(parents=True)
    (copy / ".ci" / "run").write_text((root / ".ci" / "run").read_text())
    (copy / ".ci" / "run").chmod(0o755)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "make"
    fake.write_text(
        "#!/bin/bash\n"
        'echo "in $PWD make $* data=${KPLAB_DATA:-none} stdin=$(cat | wc -c)"\n'
        'echo "1 failed, 2 passed in 3.00s"\n'
        'echo "make: *** [Makefile:62: test] Error 1" >&2\n'
        "exit 2\n"
    )
    fake.chmod(0o755)
    return copy


def ci(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout.parent / 'bin'}:{os.environ['PATH']}"
    return run(str(checkout / ".ci" / "run"), cwd=checkout.parent, PATH=path, **env)


def test_ci_runs_the_tests_and_keeps_their_verdict(checkout: Path) -> None:
    result = ci(checkout)
    first, *_, last = result.stdout.splitlines()
    assert first == f"in {checkout} make test data=none stdin=0"
    assert last == "1 failed, 2 passed in 3.00s"
    assert result.returncode == 2


def test_ci_finds_the_real_images_beside_the_checkout(checkout: Path) -> None:
    beside = checkout.parent / "shared" / "data"
    beside.mkdir(parents=True)
    assert f"data={beside} " in ci(checkout).stdout
    assert "data=/elsewhere " in ci(checkout, KPLAB_DATA="/elsewhere").stdout
