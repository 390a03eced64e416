"""The Makefile prepares what its targets need, the lock without torch keeps all other hashes, and CI keeps the verdict."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


def run(*command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables of the make that may have started these tests."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "KPLAB", "VENV", "TORCH"))}
    return subprocess.run(
        command, cwd=cwd, env={**clean, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def make(root: Path, *arguments: str) -> str:
    """What ``make`` prints; it must succeed."""
    result = run("make", f"PYTHON={sys.executable}", *arguments, cwd=root)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_help_lists_every_target_and_each_prepares_the_environment(root: Path, tmp_path: Path) -> None:
    declared = re.findall(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    targets = " ".join(declared).split()
    assert re.findall(r"^  make (\S+) +\S", make(root, "help"), flags=re.MULTILINE) == sorted(targets)
    for target in set(targets) - {"help", "clean", "lock"}:
        fresh = make(root, "-n", target, f"VENV={tmp_path}/fresh")
        assert "--require-hashes -r requirements.lock" in fresh, target


def test_test_runs_every_check_in_a_ready_environment(root: Path, tmp_path: Path) -> None:
    (tmp_path / ".ready-auto").touch()
    commands = make(root, "-n", "test", f"VENV={tmp_path}")
    assert "requirements.lock" not in commands
    assert "/mypy" in make(root, "-n", "check", f"VENV={tmp_path}")  # test_types.py runs it beside the other tests
    for part in (
        "ruff check",
        "ruff format --check",
        "nbstripout --verify",
        "lint-imports",
        "pytest",
        "--nbmake",
    ):
        assert f"/{part}" in commands or f" {part}" in commands, part


def test_the_script_at_the_top_runs_the_environment_that_make_sets_up(root: Path, tmp_path: Path) -> None:
    """From any folder, with arguments unchanged, and with the status of the command."""
    script = tmp_path / "top" / "kplab"
    script.parent.mkdir()
    shutil.copy(root / "kplab", script)
    missing = run(str(script), "--help", cwd=tmp_path)
    assert missing.returncode == 2
    assert "make setup" in missing.stderr
    program = script.parent / ".venv" / "bin" / "kplab"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 3\n')
    program.chmod(0o755)
    called = run(str(script), "train", "name=a b", cwd=tmp_path)
    assert (called.stdout, called.returncode) == ("train|name=a b|", 3)


@pytest.mark.parametrize("user", ["0", "1000"])
def test_notebooks_open_for_any_user_and_with_arguments(root: Path, tmp_path: Path, user: str) -> None:
    """JupyterLab refuses to start as root unless it is asked to."""
    (tmp_path / ".ready-auto").touch()
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    command = ("make", "-n", "notebooks", f"VENV={tmp_path}", "ARGS=--no-browser --port 8899")
    shown = run(*command, cwd=root, PATH=f"{tmp_path}:{os.environ['PATH']}")
    expected = "--allow-root --no-browser" if user == "0" else "lab  --no-browser"
    assert f"{expected} --port 8899 notebooks" in shown.stdout, shown


def test_what_the_verbs_write_is_ignored_by_git(root: Path) -> None:
    """The folders that runs, the demo and a benchmark fill."""
    for path in (
        "runs/x/run.json", "demo/a.png", "benchmarks/flies/table.md", "data/synthetic/x.png", "outputs/x.png",
        "report.html", "report.record.json", "figures/pck.pdf",
    ):  # fmt: skip
        assert run("git", "check-ignore", path, cwd=root).returncode == 0, path


def test_another_build_of_torch_keeps_all_other_hashes(root: Path, tmp_path: Path) -> None:
    commands = make(root, "-n", "setup", f"VENV={tmp_path}/fresh", "TORCH=cpu")
    assert "--require-hashes --no-deps -r" in commands
    assert "--torch-backend=cpu" in commands


def test_an_old_python_is_refused_with_the_remedy(root: Path, tmp_path: Path) -> None:
    old, uv = tmp_path / "python3", tmp_path / "uv"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])" "$2"\n'
    )
    uv.write_text("#!/bin/sh\nexit 0\n")  # so that nothing is downloaded before the check
    for program in (old, uv):
        program.chmod(0o755)
    result = run("make", "setup", f"PYTHON={old}", f"UV={uv}", f"VENV={tmp_path}/fresh", cwd=root)
    assert result.returncode != 0
    assert "kplab needs Python 3.11 to 3.13" in result.stderr
    assert "make PYTHON=python3.12" in result.stderr


@pytest.fixture(scope="module")
def lock_tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("without_torch", root / ".ci" / "without_torch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL_LOCK = (
    "# a comment\n"
    "alpha==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n"
    "torch==2.9.0 ; sys_platform == 'linux' \\\n    --hash=sha256:bb\n"
    "torchmetrics==3 \\\n    --hash=sha256:cc\n"
    "torchvision==0.24.1 \\\n    --hash=sha256:dd\n"
    "nvidia-nccl-cu13==2 \\\n    --hash=sha256:ee\n"
    "zeta==9 \\\n    --hash=sha256:ff"
)


def test_the_lock_without_torch_keeps_every_other_pin(lock_tool: ModuleType) -> None:
    assert lock_tool.kept(SMALL_LOCK) == (
        "alpha==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n"
        "torchmetrics==3 \\\n    --hash=sha256:cc\n"
        "zeta==9 \\\n    --hash=sha256:ff"
    )
    assert lock_tool.replaced(SMALL_LOCK) == "torch==2.9.0 torchvision==0.24.1"
    with pytest.raises(ValueError, match="pins torch 2 times"):
        lock_tool.replaced(SMALL_LOCK + "\ntorch==2.10.0 ; python_version >= '3.12'\n")


def test_the_lock_tool_needs_the_standard_library_only(root: Path) -> None:
    """It runs before anything is installed: -S and -I hide all installed packages."""
    result = run(sys.executable, "-I", "-S", ".ci/without_torch.py", "requirements.lock", cwd=root)
    assert result.returncode == 0, result.stderr
    kept = set(re.findall(r"^([A-Za-z0-9._-]+)==", result.stdout, flags=re.MULTILINE))
    locked = set(re.findall(r"^([A-Za-z0-9._-]+)==", (root / "requirements.lock").read_text(), flags=re.MULTILINE))
    removed = locked - kept
    assert {"torch", "torchvision", "triton"} <= removed
    assert {n for n in removed if not n.startswith(("nvidia-", "cuda-"))} == {"torch", "torchvision", "triton"}


def test_ci_runs_make_test_on_real_images_and_keeps_the_verdict(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "checkout" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    script.write_text((root / ".ci" / "run").read_text())
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "make"
    fake.write_text(
        "#!/bin/bash\n"
        'echo "in $PWD make $* data=${KPLAB_DATA:-none} stdin=$(cat | wc -c)"\n'
        'echo "1 failed, 2 passed in 3.00s"\n'
        'echo "make: *** [Makefile:62: test] Error 1" >&2\n'
        "exit 2\n"
    )
    for program in (script, fake):
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    result = run(str(script), cwd=tmp_path, PATH=path)
    first, *_, last = result.stdout.splitlines()
    assert first == f"in {tmp_path / 'checkout'} make test data=none stdin=0"
    assert last == "1 failed, 2 passed in 3.00s"
    assert result.returncode == 2

    beside = tmp_path / "shared" / "data"
    beside.mkdir(parents=True)
    assert f"data={beside} " in run(str(script), cwd=tmp_path, PATH=path).stdout
    assert "data=/elsewhere " in run(str(script), cwd=tmp_path, PATH=path, KPLAB_DATA="/elsewhere").stdout
