"""A pupil learns what its teachers say, keeps none of them, and has none that may have heard what measures it."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_training import TINY, list_tiny, saved_arrays, tiny_config, write_tones

from backend import keras
from config import SPOOF
from cross_validate import taught_fold
from distillation import Pupil, check_teachers
from errors import UserError
from losses import make_loss
from model import build_model, load_model
from training import compile_model, set_up_keras, train

pytestmark = pytest.mark.usefixtures("tiny_in_the_list")


def trained(run, tables, **settings):
    """A run that the tables trained, with its config beside it."""
    config = tiny_config(**settings)
    train(config, tables["train"], tables["dev"], run)
    config.write(run / "config.json")
    return str(run)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, tables):
    """A run that tells the tones from the noise."""
    with pytest.MonkeyPatch.context() as patch:
        list_tiny(patch)
        return trained(tmp_path_factory.mktemp("teacher"), tables)


def test_the_loss_is_that_of_labels_blended_with_the_mean_of_the_teachers(tables, teacher, new_run):
    other = trained(new_run("other"), tables, epochs=(1,), batch_size=16)
    config = tiny_config(teachers=(teacher, other), teacher_share=0.3)
    set_up_keras(config.training)
    model, pupil = compile_model(config)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 0.1, (6, TINY.samples)).astype("float32"), np.array([[0], [1]] * 3, "float32")
    logits = [np.asarray(load_model(run)(x)) for run in (teacher, other)]
    told = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    expected = float(make_loss("bce")(0.7 * y + 0.3 * told, model(x)))
    assert float(pupil.compute_loss(x, y, model(x))) == pytest.approx(expected, rel=1e-5)
    weight = np.array([1, 0, 0, 0, 0, 0], "float32")
    first = float(make_loss("bce")(0.7 * y[:1] + 0.3 * told[:1], model(x[:1])))
    assert float(pupil.compute_loss(x, y, model(x), weight)) == pytest.approx(first / 6, rel=1e-5)
    assert expected != pytest.approx(float(make_loss("bce")(y, model(x))), rel=1e-3)


def test_who_hears_only_the_teacher_learns_what_it_says_not_the_labels(tables, teacher, new_run):
    wrong = {name: table.assign(label=1 - table["label"]) for name, table in tables.items()}
    config = tiny_config(select="last", teachers=(teacher,), teacher_share=1.0)
    progress = train(config, wrong["train"], wrong["dev"], new_run("pupil"))
    assert progress.best["dev_eer"] > 0.8  # of the wrong labels; the teacher knew the right ones


def test_a_pupil_is_saved_and_resumed_without_its_teachers(tables, teacher, new_run):
    config = tiny_config(epochs=(2,), teachers=(teacher,))
    whole, paused = new_run("whole"), new_run("paused")
    train(config, tables["train"], tables["dev"], whole)
    train(config, tables["train"], tables["dev"], paused, stop_after=1)
    train(config, tables["train"], tables["dev"], paused)
    expected, resumed = saved_arrays(whole), saved_arrays(paused)
    assert expected.keys() == resumed.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(values, resumed[name], err_msg=name)
    alone = build_model(replace(config, training=replace(config.training, teachers=())))
    assert [w.shape for w in load_model(whole).weights] == [w.shape for w in alone.weights]
    assert sum(name.startswith("model_") for name in expected) == len(alone.variables)


def test_a_cross_validation_teaches_each_part_by_the_run_of_that_part(tmp_path):
    for fold in ("pages-1-of-4", "pages-2-of-4"):
        run = tmp_path / f"run-{fold}"
        run.mkdir()
        tiny_config(split=fold).write(run / "config.json")
    (tmp_path / "run-pages-1-of-4" / "metrics.json").touch()
    part = taught_fold(tiny_config(teachers=(str(tmp_path),)), "pages-1-of-4")
    assert part.training.teachers == (str(tmp_path / "run-pages-1-of-4"),)
    assert part.training.split == "pages-1-of-4"
    with pytest.raises(UserError, match="holds no finished run of pages-2-of-4; give a folder"):  # it was stopped
        taught_fold(tiny_config(teachers=(str(tmp_path),)), "pages-2-of-4")


def test_a_teacher_may_differ_in_all_that_leaves_the_clips_that_measure(teacher, tmp_path):
    pupil = tiny_config(teachers=(teacher,), seed=5, split="official", batch_size=4)
    check_teachers(pupil, write_tones(tmp_path)["dev"])  # the same clips in another folder


@pytest.mark.parametrize(
    ("dev", "changes", "message"),
    [
        (slice(1, None), {}, "its dev clips are others, so it may have learned from those that measure here"),
        (slice(None), {"training": {"select": "last"}}, "its epoch was chosen on the clips that measure here"),
        (slice(None), {"features": {"samples": 16_000}}, "hears 0.5 s at once; pass --seconds 0.5"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(tables, teacher, dev, changes, message):
    config = tiny_config(teachers=(teacher,))
    parts = {name: replace(getattr(config, name), **values) for name, values in changes.items()}
    with pytest.raises(UserError, match=message):
        check_teachers(replace(config, **parts), tables["dev"][dev])


def test_a_paused_run_teaches_nobody(tables, new_run):
    run, config = new_run("paused"), tiny_config()
    config.write(run / "config.json")
    train(config, tables["train"], tables["dev"], run, stop_after=1)
    with pytest.raises(UserError, match="is not trained to its end"):
        check_teachers(tiny_config(teachers=(str(run),)), tables["dev"])


def test_several_columns_are_each_set_against_the_same_blend():
    x = keras.Input((3,))
    columns = keras.Model(x, keras.layers.Dense(2, name="column_logits")(x))
    sure = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(np.log(4)))
    pupil = Pupil(columns, [keras.Model(x, sure(x))], 0.5)  # four to one that it is spoof
    pupil.compile(loss=make_loss("bce"))
    logits = np.array([[0.0, 2.0]], "float32")
    loss = float(pupil.compute_loss(np.ones((1, 3), "float32"), np.array([[SPOOF]], "float32"), logits))
    assert loss == pytest.approx(np.mean(np.logaddexp(0, logits) - 0.9 * logits), rel=1e-6)
