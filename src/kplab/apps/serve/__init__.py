"""``kplab serve``: a run as a service, which takes images and returns poses as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from kplab.errors import ConfigError
from kplab.tasks import compose

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXAMPLE = "kplab serve run=latest"


@dataclass
class Options:
    """Keys of ``kplab serve``."""

    run: str = MISSING
    checkpoint: str = "auto"
    flip_test: bool | None = None
    device: str = "auto"
    batch_size: int = 16
    wait_ms: float = 5.0
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = MISSING
    max_mb: float = 20.0
    max_megapixels: float = 25.0
    queue: int = 64
    timeout: float = 30.0
    runs_dir: str = MISSING


def check(config: DictConfig) -> list[str]:
    """Limits that allow no request, and values outside their range."""
    from kplab.data.images import most_pixels

    faults = [
        f"{key} is {config[key]}, but must be above 0."
        for key in ("batch_size", "max_mb", "max_megapixels", "queue", "timeout")
        if not config[key] > 0
    ]
    if not 0 <= config.wait_ms <= 1000:
        faults.append(f"wait_ms is {config.wait_ms}, but must lie between 0 and 1000.")
    if not 0 <= config.port < 65536:
        faults.append(f"port is {config.port}, but must lie between 0 and 65535; 0 takes a free one.")
    if config.max_megapixels * 1e6 > most_pixels():
        faults.append(f"max_megapixels is {config.max_megapixels}, but kplab reads {most_pixels() / 1e6:.0f} at most.")
    if config.token is not None and len(config.token) < 16:
        faults.append("token has fewer than 16 characters. Use a longer one, or leave it out for a random one.")
    return faults


def main(args: list[str]) -> None:
    """Serve a run until Ctrl-C; prints the address."""
    config = compose("serve", args)
    try:
        from kplab.apps.serve.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"kplab serve needs the package '{error.name}', which is not installed. Install kplab with its extra 'serve'."
        ) from None
    from kplab.apps.serve.service import Limits
    from kplab.runs.run import Run

    run = Run.find(config.run, Path(config.runs_dir))
    limits = Limits(
        int(config.max_mb * 1e6), int(config.max_megapixels * 1e6), int(config.queue), float(config.timeout)
    )
    serve(
        run,
        limits,
        batch_size=config.batch_size,
        wait=config.wait_ms / 1000,
        host=config.host,
        port=config.port,
        token=config.token,
        checkpoint=config.checkpoint,
        device=config.device,
        flip_test=config.flip_test,
    )
