"""Front ends: the NumPy function, the Keras layer and an independent computation give the same picture."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import fit_length, load_audio
from backend import keras
from config import DEFAULT_FEATURES, SAMPLE_RATE, FeatureConfig, feature_config
from errors import UserError
from feature_extraction import FEATURES, extract_features, feature_shape
from front_ends import LAYERS, front_end_layer
from model import SpoofLogit

REPO = Path(__file__).resolve().parents[1]
KINDS = tuple(DEFAULT_FEATURES)
# one float32 FFT differs from another, and from float64, by this share of the loudest bin
POWER_TOLERANCE = 1e-6
# ... which in the logarithm shows most in the quietest bins of a loud clip
LOG_TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def real_clips(shared_data: Path) -> list[np.ndarray]:
    """Twelve genuine ASVspoof 2019 LA clips, of train and dev."""
    files = sorted((shared_data / "LA").rglob("*.flac"))
    return [load_audio(file) for file in files[:: len(files) // 12][:12]]


def _layer(waveforms: np.ndarray, config: FeatureConfig) -> np.ndarray:
    return keras.ops.convert_to_numpy(front_end_layer(config)(waveforms.astype(np.float32)))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("log_stft", (250, 513, 1)),
        ("mel", (250, 128, 1)),
        ("lfcc", (401, 60, 1)),
        ("cqt", (282, 100, 1)),
        ("raw", (64_600, 1)),
    ],
)
def test_default_shapes(kind: str, shape: tuple[int, ...]) -> None:
    config = feature_config(kind)
    assert feature_shape(config) == shape
    waveform = np.random.default_rng(0).normal(size=config.samples).astype(np.float32)
    assert extract_features(waveform, config).shape == shape
    assert _layer(waveform[None], config).shape == (1, *shape)
    assert front_end_layer(config).compute_output_shape((7, config.samples)) == (7, *shape)


@pytest.mark.parametrize("kind", KINDS)
def test_twins_agree_on_real_clips(kind: str, real_clips: list[np.ndarray]) -> None:
    config = feature_config(kind)
    waveforms = np.stack([fit_length(clip, config.samples) for clip in real_clips])
    batch = _layer(waveforms, config)
    assert batch.dtype == np.float32
    for waveform, features in zip(waveforms, batch, strict=True):
        clip = extract_features(waveform, config)
        assert clip.dtype == np.float32
        assert np.abs(features - clip).max() < 1e-4


# ---------------------------------------------------------------- against computations that are not ours


def _stft_power(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """librosa's power spectrum in float64 for our convention, (frames, bins)."""
    padded = np.pad(waveform.astype(np.float64), (0, config.window - config.hop))
    return np.abs(librosa.stft(padded, n_fft=config.window, hop_length=config.hop, center=False)).T ** 2


def _assert_log_power(features: np.ndarray, power: np.ndarray, floor: float) -> None:
    assert np.abs(np.exp(features.astype(np.float64)) - floor - power).max() < POWER_TOLERANCE * power.max()
    assert np.abs(features - np.log(power + floor)).max() < LOG_TOLERANCE


def test_log_stft_is_librosas(real_clips: list[np.ndarray]) -> None:
    config = feature_config("log_stft")
    for clip in real_clips:
        waveform = fit_length(clip, config.samples)
        _assert_log_power(extract_features(waveform, config)[..., 0], _stft_power(waveform, config), config.power_floor)


def test_mel_is_librosas(real_clips: list[np.ndarray]) -> None:
    config = feature_config("mel")
    for clip in real_clips:
        waveform = fit_length(clip, config.samples)
        padded = np.pad(waveform.astype(np.float64), (0, config.window - config.hop))
        power = librosa.feature.melspectrogram(
            y=padded, sr=SAMPLE_RATE, n_fft=config.window, hop_length=config.hop, n_mels=128, center=False
        ).T
        _assert_log_power(extract_features(waveform, config)[..., 0], power, config.power_floor)


def test_cqt_is_its_definition(real_clips: list[np.ndarray]) -> None:
    """At random places of every clip: the inner product with one windowed exponential, in the time domain."""
    config, rng = feature_config("cqt"), np.random.default_rng(0)
    quality = (2 ** (1 / 6) + 1) / (2 ** (1 / 6) - 1)
    for clip in real_clips:
        waveform = fit_length(clip, config.samples)
        features = extract_features(waveform, config)[..., 0]
        for frame, k in zip(rng.integers(0, 282, 20), rng.integers(0, 100, 20), strict=True):
            hertz = 2.0 ** (k / 12)
            length = quality * SAMPLE_RATE / hertz
            time = np.arange(-int(length // 2), int(length // 2) + 1)
            window = 0.5 + 0.5 * np.cos(2 * np.pi * time / length)
            inside = (time + 512 * frame >= 0) & (time + 512 * frame < config.samples)
            samples = waveform[(time + 512 * frame)[inside]].astype(np.float64)
            product = np.sum(samples * (window * np.exp(-2j * np.pi * hertz * time / SAMPLE_RATE))[inside])
            wanted = np.log1p(np.sqrt(length) * abs(product) / window.sum())
            assert features[frame, k] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("sparsity", "tolerance"), [(0, 0.02), (0.01, 0.05)])
def test_cqt_is_librosas(sparsity: float, tolerance: float, real_clips: list[np.ndarray]) -> None:
    """librosa's default drops 1 % of every filter, and its low octaves come from a resampled signal."""
    config = feature_config("cqt")
    for clip in real_clips[::4]:
        waveform = fit_length(clip, config.samples)
        with warnings.catch_warnings():  # "n_fft too large": the 1 Hz filter is longer than the clip
            warnings.simplefilter("ignore", UserWarning)
            theirs = librosa.cqt(
                waveform.astype(np.float64),
                sr=SAMPLE_RATE,
                hop_length=512,
                fmin=1,
                n_bins=100,
                bins_per_octave=12,
                sparsity=sparsity,
            )
        ours = extract_features(waveform, config)[..., 0]
        assert np.abs(ours - np.log1p(np.abs(theirs)).T).max() < tolerance


def _lfcc(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """LFCC spelled out: librosa's frames, triangles by interpolation, SciPy's DCT, deltas by loop."""
    emphasised = waveform.astype(np.float64).copy()
    emphasised[1:] -= 0.97 * waveform[:-1]
    spectrum = librosa.stft(
        emphasised, n_fft=512, win_length=320, hop_length=160, window="hamming", center=True, pad_mode="constant"
    )
    corners = np.linspace(0, 8000, config.lfcc_filters + 2)
    hertz = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=512)
    triangles = np.stack([np.interp(hertz, corners[k : k + 3], [0, 1, 0]) for k in range(config.lfcc_filters)])
    static = scipy.fft.dct(np.log10(triangles @ np.abs(spectrum) ** 2 + config.power_floor), axis=0, norm="ortho").T

    def delta(values: np.ndarray) -> np.ndarray:
        last = len(values) - 1
        return np.stack([values[min(t + 1, last)] - values[max(t - 1, 0)] for t in range(len(values))])

    return np.concatenate([static, delta(static), delta(delta(static))], axis=1)


def test_lfcc_is_what_its_definition_says(real_clips: list[np.ndarray]) -> None:
    config = feature_config("lfcc")
    for clip in real_clips:
        waveform = fit_length(clip, config.samples)
        assert np.abs(extract_features(waveform, config)[..., 0] - _lfcc(waveform, config)).max() < 1e-4


def test_a_tone_stands_where_it_should() -> None:
    """1 kHz: bin 64 of a 1,024-point FFT, filter 2 of 20 linear ones, CQT bin 12 log2(1000) = 119.6."""
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(144_000) / SAMPLE_RATE).astype(np.float32)
    middle = extract_features(tone[:64_000])[100, :, 0]
    assert middle.argmax() == 64
    # |S| of a sine of amplitude a under a Hann window of N: a N / 4
    assert middle[64] == pytest.approx(2 * np.log(0.5 * 1024 / 4), abs=1e-3)
    cqt = extract_features(tone, replace(feature_config("cqt"), cqt_bins=150))[140, :, 0]
    assert cqt.argmax() == 120
    raw = feature_config("raw")
    assert np.array_equal(extract_features(tone[:64_600], raw)[:, 0], tone[:64_600])


def test_the_last_frame_is_padded_with_zeros() -> None:
    waveform = np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    longer = replace(feature_config("log_stft"), samples=65_024)
    padded = extract_features(np.pad(waveform, (0, 1024)), longer)
    assert np.array_equal(extract_features(waveform), padded[:250])


# ---------------------------------------------------------------- other settings


def _assert_twins(config: FeatureConfig, seed: int, level: float, tolerance: float = 1e-4) -> None:
    rng = np.random.default_rng(seed)
    waveforms = (level * rng.normal(size=(2, config.samples))).astype(np.float32)
    shape, batch = feature_shape(config), _layer(waveforms, config)
    assert batch.shape == (2, *shape)
    for waveform, features in zip(waveforms, batch, strict=True):
        clip = extract_features(waveform, config)
        assert clip.shape == shape
        assert np.isfinite(clip).all()
        assert np.abs(features - clip).max() < tolerance


levels = st.sampled_from([0.0, 1e-3, 0.1, 1.0])


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["log_stft", "mel"]),
    window=st.integers(8, 1024).map(lambda half: 2 * half),
    hop=st.integers(16, 2048),
    samples=st.integers(1, 20_000),
    mel_bands=st.integers(1, 160),
    floor=st.sampled_from([1e-6, 1e-5, 1e-2]),
    level=levels,
    seed=st.integers(0, 9),
)
def test_any_stft_setting(
    kind: str, window: int, hop: int, samples: int, mel_bands: int, floor: float, level: float, seed: int
) -> None:
    config = FeatureConfig(kind, samples, window=window, hop=hop, mel_bands=mel_bands, power_floor=floor)
    with warnings.catch_warnings():  # librosa: more bands than the FFT has bins leaves some empty
        warnings.simplefilter("ignore", UserWarning)
        # white noise has bins of hardly any power beside loud ones: there the logarithm shows the rounding
        _assert_twins(config, seed, level, tolerance=LOG_TOLERANCE if level else 1e-4)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(2, 20_000), filters=st.integers(1, 120), level=levels, seed=st.integers(0, 9))
def test_any_lfcc_setting(samples: int, filters: int, level: float, seed: int) -> None:
    _assert_twins(FeatureConfig("lfcc", samples, lfcc_filters=filters, power_floor=1e-6), seed, level, LOG_TOLERANCE)


@settings(max_examples=6, deadline=None)
@given(samples=st.integers(1, 100_000), bins=st.integers(1, 150), level=levels, seed=st.integers(0, 9))
def test_any_cqt_setting(samples: int, bins: int, level: float, seed: int) -> None:
    _assert_twins(FeatureConfig("cqt", samples, cqt_bins=bins), seed, level)


def test_wrong_use_is_one_line() -> None:
    with pytest.raises(UserError, match=r"unknown front end 'mfcc'; valid: log_stft, mel, lfcc, cqt, raw"):
        feature_config("mfcc")
    with pytest.raises(UserError, match=r"mel wants 64000 samples, got \(63999,\)"):
        extract_features(np.zeros(63_999, np.float32), feature_config("mel"))
    with pytest.raises(UserError, match=r"cqt_bins = 151 .* at most 150"):
        extract_features(np.zeros(1000, np.float32), FeatureConfig("cqt", 1000, cqt_bins=151))


def test_every_kind_is_listed_everywhere() -> None:
    assert set(FEATURES) == set(LAYERS) == set(DEFAULT_FEATURES)
    for kind, layer in LAYERS.items():
        assert feature_config(kind).kind == layer.kind == kind


# ---------------------------------------------------------------- inside a model


def test_precision_policy_does_not_reach_a_front_end(speech_like: Callable) -> None:
    configs = [replace(feature_config(kind), samples=8_000) for kind in KINDS]
    waveform = speech_like(0.5)[None]
    wanted = [_layer(waveform, config) for config in configs]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = [front_end_layer(config)(waveform) for config in configs]
    finally:
        keras.config.set_dtype_policy("float32")
    for config, ours, theirs in zip(configs, found, wanted, strict=True):
        assert keras.backend.standardize_dtype(ours.dtype) == "float32", config.kind
        assert np.array_equal(keras.ops.convert_to_numpy(ours), theirs), config.kind


def test_layers_are_rebuilt_from_their_config() -> None:
    config = FeatureConfig("mel", 9_000, window=512, hop=100, mel_bands=40, power_floor=1e-3)
    layer = front_end_layer(config)
    rebuilt = type(layer).from_config({**layer.get_config(), "a_setting_of_later": 1})
    assert rebuilt.features == config
    assert rebuilt.name == layer.name


def _small_model() -> keras.Model:
    """All five front ends with settings that are not the default, and one logit."""
    inputs = keras.Input((8_000,), name="waveform")
    means = []
    for kind in KINDS:
        config = FeatureConfig(kind, 8_000, window=512, hop=200, mel_bands=40, lfcc_filters=13, cqt_bins=90)
        features = front_end_layer(config)(inputs)
        pool = keras.layers.GlobalAveragePooling2D if len(features.shape) == 4 else keras.layers.GlobalMaxPooling1D
        means.append(pool()(features))
        if len(features.shape) == 4:
            means.append(keras.layers.Reshape((-1,))(features))
    return keras.Model(inputs, SpoofLogit()(keras.layers.Dense(1)(keras.layers.Concatenate()(means))))


IN_A_FRESH_PROCESS = """
import sys
import numpy as np
import inference
for name in sys.argv[2:]:
    model = inference.keras.models.load_model(name)
    np.save(name + ".npy", model(np.load(sys.argv[1])))
"""


def test_front_ends_survive_saving(tmp_path: Path, speech_like: Callable) -> None:
    keras.utils.set_random_seed(1)
    model = _small_model()
    waveforms = np.stack([speech_like(0.5, seed=k) for k in range(3)]).astype(np.float32)
    wanted = keras.ops.convert_to_numpy(model(waveforms))
    np.save(tmp_path / "waveforms.npy", waveforms)
    files = [str(tmp_path / "model.keras"), str(tmp_path / "model.h5")]
    for file in files:
        model.save(file)
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "waveforms.npy"), *files]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    for file in files:
        assert np.abs(np.load(file + ".npy") - wanted).max() <= 1e-6 * max(1, np.abs(wanted).max()), file
