"""Trainings of a given duration: the number of epochs follows from the speed, until the learning rate begins to fall."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig

from kplab.errors import ConfigError, RunError

#: A schedule: the factor of each parameter group on its learning rate, at a step.
Factors = list[Callable[[int], float]]


class Duration(pl.Callback):
    """Sets the number of epochs so that a training with its validations takes a given time.

    After each epoch, the number is estimated anew from the time that epochs and validations have taken. A new number is accepted
    only if its schedule agrees with that of the steps already made: with ``adamw_trapezoid``, until the learning rate begins to
    fall. So the training equals one whose config states that number, and can be repeated without a clock.

    Args:
        seconds: from the first step to the end of the last epoch; of a resumed training, of all its parts.
        schedule: gives the factors of a training of a number of steps, see ``check_schedule``.
        every: epochs from one validation to the next; the last epoch is validated, too.
    """

    def __init__(self, seconds: float, schedule: Callable[[int], Factors], every: int = 1) -> None:
        self.seconds, self.schedule, self.every = seconds, schedule, every
        self.begun = self.validating = 0.0
        self.ends, self.validations = [0.0], [0.0]
        self.epochs: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Times at which epochs have ended, and of the validation of each, seconds; and the number of epochs."""
        return {"ends": self.ends, "validations": self.validations, "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them; checkpoints of earlier versions count validations as parts of their epochs."""
        self.ends, self.epochs = list(state_dict["ends"]), state_dict["epochs"]
        self.validations = list(state_dict.get("validations", [0.0] * len(self.ends)))

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Set the number of epochs of a resumed training, before Lightning compares it with those that are done."""
        if self.epochs is not None:
            trainer.fit_loop.max_epochs = self.epochs

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.begun = time.perf_counter() - self.ends[-1]
        if self.epochs is not None:
            self.set_epochs(trainer, self.epochs)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note the time."""
        self.validating = -time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note what the validation took."""
        self.validating += time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Estimate the number of epochs anew, the same one in all processes."""
        self.ends.append(time.perf_counter() - self.begun)
        self.validations.append(self.validating)
        self.validating = 0.0
        wanted = trainer.strategy.broadcast(self.estimated())
        now = int(trainer.max_epochs or 0)
        for epochs in [wanted] if wanted >= now else range(wanted, now):
            if agree(self.factors(trainer, epochs), self.factors(trainer, now), trainer.global_step):
                self.set_epochs(trainer, epochs)
                return
        self.epochs = now

    def estimated(self) -> int:
        """The number of epochs that comes closest to the duration; one more than are done at least."""
        done = len(self.ends) - 1
        # the speed of a machine varies: the last quarter of the epochs tells most about the next ones
        last = -(-done // 4)
        epoch = (self.ends[-1] - self.ends[-1 - last] - sum(self.validations[-last:])) / last
        validation = next((took for took in reversed(self.validations) if took), 0.0)
        left = self.seconds - self.ends[-1]

        def wanting(epochs: int) -> float:
            validations = -(-epochs // self.every) - done // self.every
            return (epochs - done) * epoch + validations * validation

        numbers = range(done + 1, done + 2 + max(0, int(left / max(epoch, 1e-9))))
        longer = bisect_left(numbers, left, key=wanting)
        return min(numbers[max(0, longer - 1) : longer + 1], key=lambda n: abs(wanting(n) - left))

    def factors(self, trainer: pl.Trainer, epochs: int) -> Factors:
        """The schedule of a number of epochs."""
        batches, together = int(trainer.num_training_batches), int(trainer.accumulate_grad_batches)
        return self.schedule(epochs * -(-batches // together))

    def set_epochs(self, trainer: pl.Trainer, epochs: int) -> None:
        """Train for a number of epochs, with their schedule."""
        self.epochs = epochs
        trainer.fit_loop.max_epochs = epochs
        scheduler: Any = trainer.lr_scheduler_configs[0].scheduler
        scheduler.lr_lambdas = self.factors(trainer, epochs)


def agree(one: Factors, other: Factors, steps: int) -> bool:
    """Whether two schedules have the same factors up to a step; compared at a thousand steps or more."""
    compared = range(steps, -1, -max(1, steps // 1000))
    return all(a(step) == b(step) for step in compared for a, b in zip(one, other, strict=True))


def check_schedule(schedule: Callable[[int], Factors]) -> None:
    """Check that a training can begin before its number of steps is known.

    Raises:
        ConfigError: the schedule of its first steps depends on that number.
    """
    if not agree(schedule(1000), schedule(2000), 500):
        raise ConfigError(
            "with duration=… the number of steps is not known when the training begins, but the learning rate of its first steps "
            "depends on it. Use optimizer=adamw_trapezoid without frozen_until; or trainer.max_epochs, and no duration."
        )


def repeated(config: DictConfig, record: Mapping[str, Any]) -> None:
    """Turn the config of a run into one that trains for the same number of epochs, at any speed.

    Args:
        config: of the run; changed in place.
        record: of the run.

    Raises:
        RunError: the record does not have that number.
    """
    config.trainer.max_time = None
    if config.duration is None:
        return
    epochs = record.get("schedule_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        raise RunError(
            "run.json has no number 'schedule_epochs', which a training with duration=… records. Restore it."
        )
    config.duration = None
    config.trainer.max_epochs = epochs
