"""The state of a run between epochs: what has been done, and every variable of the model and its optimizer.

One file, `last.npz`, holds all of it (weights, optimizer, dropout seeds, history, the best weights so far). It is
written under another name first and then renamed: a kill costs at most the epoch under way.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from errors import UserError
from whole_file import whole_file


@dataclass
class Progress:
    """Where a run stands; everything in it is JSON."""

    stage: int = 0
    stage_epoch: int = 0  # epochs done in this stage
    stale_epochs: int = 0  # since dev EER last improved
    best: dict[str, Any] | None = None  # the best epoch's row of the history
    history: list[dict[str, Any]] = field(default_factory=list)
    averaged: int = 0  # epochs whose weights are in the average
    finished: bool = False
    clips: str = ""  # stands for those that it learns from and chooses on
    dev: str = ""  # stands for those that it chooses on alone
    backend: str = "tensorflow"  # which draws its random numbers in its own way
    speed: dict[str, float | None] | None = None  # clips a second of the input alone and of the training step alone

    @property
    def epoch(self) -> int:
        """Epochs done in all stages."""
        return len(self.history)


def read_progress(run: Path) -> Progress:
    """The progress a run folder's checkpoint holds; a new one where there is none."""
    if not (run / "last.npz").exists():
        return Progress()
    try:
        with np.load(run / "last.npz") as state:
            return Progress(**json.loads(str(state["progress"])))
    except (BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise UserError(
            f"{run / 'last.npz'}: not a state to go on from ({error}); remove {run} to begin anew"
        ) from error


class Checkpoint:
    """All variables of a compiled Keras model in training, and those of its best epoch."""

    def __init__(self, model: Any, run: Path):
        self.model, self.file = model, run / "last.npz"
        self.fresh_optimizer = [np.array(v) for v in model.optimizer.variables]
        self.best: list[np.ndarray] | None = None  # weights of the best epoch
        self.average: list[np.ndarray] = []  # of the weights of the last epochs, where that is wanted

    def keep_best(self) -> None:
        self.best = [np.array(v) for v in self.model.variables]

    def load_best(self) -> None:
        assign(self.model.variables, self.best)

    def add_to_average(self, progress: Progress) -> None:
        """Take this epoch's weights into the average."""
        progress.averaged += 1
        weights = [np.array(v, np.float64) for v in self.model.variables]
        before = self.average or weights
        self.average = [a + (w - a) / progress.averaged for a, w in zip(before, weights, strict=True)]

    def load_average(self) -> None:
        kept = [np.array(v) for v in self.model.variables]
        averaged = [
            a if v.dtype.startswith("float") else k
            for v, a, k in zip(self.model.variables, self.average, kept, strict=True)
        ]
        assign(self.model.variables, averaged)  # a seed is no weight: it stays

    def start_stage(self) -> None:
        """Go on from the best weights with an optimizer that has no memory."""
        self.load_best()
        assign(self.model.optimizer.variables, self.fresh_optimizer)

    def _live(self) -> dict[str, list]:
        return {"model": self.model.variables, "optimizer": self.model.optimizer.variables}

    def write(self, progress: Progress) -> None:
        groups = {**self._live(), "best": self.best, "average": self.average}
        arrays = {f"{name}_{i}": np.array(v) for name, group in groups.items() for i, v in enumerate(group)}
        with whole_file(self.file) as unfinished, unfinished.open("wb") as file:
            np.savez(file, progress=json.dumps(asdict(progress)), **arrays)
            file.flush()
            os.fsync(file.fileno())  # on the disk before it takes the old state's place

    def read(self) -> None:
        with np.load(self.file) as state:
            for name, variables in self._live().items():
                assign(variables, [state[f"{name}_{i}"] for i in range(len(variables))])
            self.best = [state[f"best_{i}"] for i in range(len(self.model.variables))]
            if "average_0" in state:
                self.average = [state[f"average_{i}"] for i in range(len(self.model.variables))]


def assign(variables: list, values: list[np.ndarray]) -> None:
    """Set Keras variables to values, one for one."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
