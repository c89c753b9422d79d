"""A pupil learns what its teachers say, keeps none of them, and has none that may have heard what measures it."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_training import TINY, saved_arrays, tiny_config

from backend import keras
from config import SPOOF
from distillation import Pupil, teacher_runs
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
    from tiny_training import tiny_network

    from model import MODELS, ModelSpec

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", ModelSpec(tiny_network, "log_stft", "for tests"))
        run = tmp_path_factory.mktemp("teacher")
        return trained(run, tables, epochs=(6,))


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
    assert expected != pytest.approx(float(make_loss("bce")(y, model(x))), rel=1e-3)


def test_who_hears_only_the_teacher_learns_what_it_says_not_the_labels(tables, teacher, new_run):
    wrong = {name: table.assign(label=1 - table["label"]) for name, table in tables.items()}
    config = tiny_config(select="last", teachers=(teacher,), teacher_share=1.0)
    progress = train(config, wrong["train"], wrong["dev"], new_run("pupil"))
    assert progress.best["dev_eer"] > 0.8  # of the wrong labels; the teacher knew the right ones


def test_a_pupil_is_saved_and_resumed_without_its_teachers(tables, teacher, new_run):
    before = load_model(teacher).get_weights()
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
    for was, still in zip(before, load_model(teacher).get_weights(), strict=True):
        np.testing.assert_array_equal(was, still)


def test_a_cross_validation_teaches_each_part_by_the_run_of_that_part(tmp_path):
    for fold in ("pages-1-of-4", "pages-2-of-4", ""):
        run = tmp_path / f"run-{fold}"
        run.mkdir()
        tiny_config(split=fold).write(run / "config.json")
        if fold != "pages-2-of-4":
            (run / "best.keras").touch()

    def asked(fold):
        return teacher_runs(tiny_config(split=fold, teachers=(str(tmp_path),)))

    assert asked("pages-1-of-4") == [tmp_path / "run-pages-1-of-4"]
    assert asked("") == [tmp_path / "run-"]
    for fold in ("pages-2-of-4", "pages-3-of-4"):  # unfinished; not there
        with pytest.raises(UserError, match=f"holds no trained run .* split \\({fold}\\)"):
            asked(fold)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"seed": 7}}, r"seed \(1\) of this one; any other may have learned from what measures"),
        ({"training": {"split": "official"}}, r"split \(attack-held-out\)"),
        ({"data": "elsewhere"}, r"data \(the demo corpus\)"),
        ({"extra": "corpus"}, "learned from corpus too; pass the same --extra"),
        ({"features": {"samples": 16_000}}, "hears 1 s at once; pass --seconds 1"),
    ],
)
def test_a_teacher_that_may_have_heard_what_measures_is_refused(tmp_path, changes, message):
    config = tiny_config()
    parts = {k: replace(getattr(config, k), **v) if isinstance(v, dict) else v for k, v in changes.items()}
    replace(config, **parts).write(tmp_path / "config.json")
    (tmp_path / "best.keras").touch()
    with pytest.raises(UserError, match=message):
        teacher_runs(tiny_config(teachers=(str(tmp_path),)))


def test_several_columns_are_each_set_against_the_same_blend():
    x = keras.Input((3,))
    columns = keras.Model(x, keras.layers.Dense(2, name="column_logits")(x))
    pupil = Pupil(columns, lambda x: keras.ops.full((len(x), 1), 0.8), 0.5)
    pupil.compile(loss=make_loss("bce"))
    logits = np.array([[0.0, 2.0]], "float32")
    loss = float(pupil.compute_loss(np.ones((1, 3), "float32"), np.array([[SPOOF]], "float32"), logits))
    assert loss == pytest.approx(np.mean(np.logaddexp(0, logits) - 0.9 * logits), rel=1e-6)
