"""Distillation: a network learns from the labels and from what networks trained before it say of the same clips.

    python main.py --recipe resnet_wild --data my_data                  # say runs/a
    python main.py --recipe resnet_wild --data my_data --model tiny_resnet --seconds 2 --window 512 --teachers runs/a

A teacher hears each crop as the pupil does, augmented and blended, so it says something new in every epoch. It must
have been trained on the pupil's division of the data: what measures the pupil is then new to both. For
cross_validate.py a teacher is another cross-validation, of which each part's run teaches the same part.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend import keras
from config import SAMPLE_RATE, Config, read_config
from errors import UserError
from model import load_model

ops = keras.ops


class Pupil(keras.Model):
    """A functional model whose label is blended with `told`, (b, samples) -> (b, 1), while it is trained.

    `told` is a function and no layer: the weights behind it are none of the pupil's.
    """

    def __init__(self, model: keras.Model, told: Callable[[Any], Any], share: float):
        super().__init__(model.input, model.output, name=model.name)
        self.told, self.share = told, share

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        blended = (1 - self.share) * y + self.share * self.told(x)
        return super().compute_loss(x, blended, y_pred, sample_weight, training)


def with_teachers(trainer: keras.Model, config: Config) -> keras.Model:
    """What `fit` trains if the config names teachers: the same weights; of several teachers the mean logit counts."""
    teachers = [load_model(run) for run in teacher_runs(config)]
    for teacher in teachers:
        teacher.trainable = False

    def told(waveforms):
        return ops.sigmoid(sum(teacher(waveforms, training=False) for teacher in teachers) / len(teachers))

    return Pupil(trainer, told, config.training.teacher_share)


def teacher_runs(config: Config) -> list[Path]:
    """The run folder of every teacher that the config names."""
    return [_teacher_run(Path(name), config) for name in config.training.teachers]


def _teacher_run(folder: Path, config: Config) -> Path:
    """The trained run that a folder is, or of a cross-validation holds, with this config's division of the data."""
    for file in (folder / "config.json", *sorted(folder.glob("*/config.json"))):
        if not (file.parent / "best.keras").is_file():
            continue
        teacher = read_config(file)
        if _division(teacher) != _division(config):
            continue
        if teacher.extra not in (None, config.extra):
            raise UserError(f"teacher {file.parent}: learned from {teacher.extra} too; pass the same --extra")
        if teacher.features.samples != config.features.samples:
            heard = teacher.features.samples / SAMPLE_RATE
            raise UserError(f"teacher {file.parent}: hears {heard:g} s at once; pass --seconds {heard:g}")
        return file.parent
    data, split, seed = _division(config)
    raise UserError(
        f"teacher {folder}: holds no trained run with the data ({data or 'the demo corpus'}), split ({split}) and seed "
        f"({seed}) of this one; any other may have learned from what measures here"
    )


def _division(config: Config) -> tuple[str | None, str, int]:
    return config.data, config.training.split, config.training.seed
