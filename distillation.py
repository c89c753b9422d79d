"""Distillation: a network learns from the labels and from what networks trained before it say of the same clips.

    python main.py --recipe resnet_wild --data my_data --extra corpus           # say runs/a; then a smaller network
    python main.py --recipe resnet_wild --data my_data --extra corpus --model tiny_resnet --seconds 2 --window 512 \\
        --teachers runs/a

A teacher hears each crop as the pupil does, augmented and blended, so it says something new in every epoch. It must
have been measured on the clips that measure the pupil: then they are new to both. For cross_validate.py a teacher is
the folder of another cross-validation, of which each part's run teaches the same part.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from backend import keras
from checkpoint import read_progress
from config import SAMPLE_RATE, Config, read_config
from errors import UserError
from model import load_model
from splits import clips_key

ops = keras.ops


class Pupil(keras.Model):
    """A functional model whose label is blended, while it is trained, with what its teachers say: their mean logit."""

    def __init__(self, model: keras.Model, teachers: list[keras.Model], share: float):
        super().__init__(model.input, model.output, name=model.name)
        self.told, self.share = mean_opinion(teachers), share
        # Keras asks every layer of a model before it compiles with XLA, but cannot see the teachers'
        self.supports_jit = all(layer.supports_jit for teacher in teachers for layer in teacher._flatten_layers())

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        blended = (1 - self.share) * y + self.share * self.told(x)
        return super().compute_loss(x, blended, y_pred, sample_weight, training)


def mean_opinion(teachers: list[keras.Model]) -> Callable[[Any], Any]:
    """Waveforms (b, samples) -> probabilities (b, 1).

    A function and no layer: Keras would count the teachers' weights as the pupil's.
    """

    def told(waveforms):
        return ops.sigmoid(sum(teacher(waveforms, training=False) for teacher in teachers) / len(teachers))

    return told


def pupil_of(trainer: keras.Model, config: Config) -> keras.Model:
    """What `fit` trains if the config names teachers; it has the weights of `trainer`."""
    return Pupil(trainer, [load_model(run) for run in config.training.teachers], config.training.teacher_share)


def check_teachers(config: Config, dev_table: pd.DataFrame) -> None:
    """Refuse teachers that do not fit, or may have learned from what measures the pupil."""
    for run in map(Path, config.training.teachers):
        if not (run / "config.json").is_file():
            raise UserError(f"teacher {run}: no run folder; give one that main.py has made")
        teacher, progress = read_config(run / "config.json"), read_progress(run)
        if not progress.finished:
            raise UserError(f"teacher {run}: is not trained to its end")
        if progress.dev != clips_key({"dev": dev_table}):
            raise UserError(
                f"teacher {run}: its dev clips are others, so it may have learned from those that measure here; train "
                "it with the same data, --split, --seed and --limit"
            )
        if config.training.select == "last" and teacher.training.select != "last":
            raise UserError(f"teacher {run}: its epoch was chosen on the clips that measure here; use --select last")
        if teacher.features.samples != config.features.samples:
            heard = teacher.features.samples / SAMPLE_RATE
            raise UserError(f"teacher {run}: hears {heard:g} s at once; pass --seconds {heard:g}")


def lineage(config: Config) -> list[Config]:
    """This config, those of its teachers, and of theirs."""
    settings = [read_config(Path(run) / "config.json") for run in config.training.teachers]
    return [config, *(one for teacher in settings for one in lineage(teacher))]
