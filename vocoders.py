"""More ways to make a copy of recorded speech that no microphone heard: WORLD, neural-like marks, codecs, conversion.

Each is a pure function (waveform float32 at 16 kHz, rng, partner) -> waveform of the same length; the partner is
another recording, whose voice a conversion takes. Together with the chains of resynthesis.py they are METHODS,
from which training_corpus.py makes fakes of recordings. Three kinds, by what is lost on the way:

  vocoder     only parameters pass: envelope and pitch, or a mel spectrogram; the waveform is made anew
  imitation   what neural vocoders leave behind without their weights: phase known in part, mel resolution,
              images of upsampling, a quantised or smoothed spectrogram
  conversion  another pitch, another envelope, another voice

dressing.py then gives a copy what its recording had and no detector should learn from. WORLD needs pyworld, codec2
the commands c2enc and c2dec (requirements-corpus.txt).
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, rfft
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import resample_poly

from config import SAMPLE_RATE
from errors import UserError
from frames import continuous_pitch, hann, hold_to_samples, istft, pitch_track, stft, time_varying_filter
from resynthesis import CHAINS, all_pole, griffin_lim, linear_prediction
from resynthesis import mel_like_bands as bands

Vocoder = Callable[[np.ndarray, np.random.Generator, np.ndarray], np.ndarray]
SIZE, HOP = 1024, 256  # of the mel spectrograms that neural vocoders are fed with


def is_installed(name: str) -> bool:
    """Whether there is a command or a module of this name."""
    return bool(shutil.which(name) or find_spec(name))


class Method(NamedTuple):
    """One way to make a copy, and the modules, commands or file that it needs beside the requirements."""

    make: Vocoder
    kind: str  # vocoder | imitation | conversion
    family: str  # methods of one family share what gives them away
    needs: str = ""

    @property
    def is_here(self) -> bool:
        if Path(self.needs).suffix:
            return Path(self.needs).is_file()
        return all(map(is_installed, self.needs.split()))


def _mel(waveform: np.ndarray, count: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mel magnitudes (time, count), what spreads them over bins, and the STFT they come from."""
    average, spread = bands(count, SIZE // 2 + 1, 700.0)
    spectrum = stft(waveform, SIZE, HOP)
    return np.abs(spectrum) @ average, spread, spectrum


def _unit(spectrum: np.ndarray) -> np.ndarray:
    return spectrum / (np.abs(spectrum) + 1e-9)


# ---- WORLD ----


def _world(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F0 (time,), envelope and aperiodicity (time, bins) every 5 ms."""
    import pyworld

    x = waveform.astype(np.float64)
    f0, t = pyworld.dio(x, SAMPLE_RATE)
    f0 = pyworld.stonemask(x, f0, t, SAMPLE_RATE)
    return f0, pyworld.cheaptrick(x, f0, t, SAMPLE_RATE), pyworld.d4c(x, f0, t, SAMPLE_RATE)


def _from_world(f0: np.ndarray, envelope: np.ndarray, aperiodicity: np.ndarray, samples: int) -> np.ndarray:
    import pyworld

    out = pyworld.synthesize(
        np.ascontiguousarray(f0),
        np.ascontiguousarray(np.maximum(envelope, 1e-16)),
        np.ascontiguousarray(np.clip(aperiodicity, 0, 1)),
        SAMPLE_RATE,
    )
    return np.pad(out, (0, max(0, samples - len(out))))[:samples].astype(np.float32)


def _warped(envelope: np.ndarray, factor: float) -> np.ndarray:
    """Formants moved up by the factor: the envelope at frequency f comes from f / factor."""
    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / factor, bins[-1])
    left = np.minimum(source.astype(int), bins[-1] - 1)
    share = source - left
    log = np.log(envelope + 1e-16)
    return np.exp(log[:, left] * (1 - share) + log[:, left + 1] * share)


def world(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Pitch, envelope and aperiodicity every 5 ms, and back."""
    return _from_world(*_world(waveform), len(waveform))


def world_coded(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """WORLD through 24-60 coefficients of a mel cepstrum, smoothed in time as acoustic models do."""
    import pyworld

    f0, envelope, aperiodicity = _world(waveform)
    fft = 2 * (envelope.shape[1] - 1)
    coded = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE, int(rng.integers(24, 61)))
    blur = rng.uniform(0.4, 2.0)
    envelope = pyworld.decode_spectral_envelope(gaussian_filter1d(coded, blur, axis=0), SAMPLE_RATE, fft)
    rough = gaussian_filter1d(pyworld.code_aperiodicity(aperiodicity, SAMPLE_RATE), blur, axis=0)
    aperiodicity = pyworld.decode_aperiodicity(rough, SAMPLE_RATE, fft)
    smooth = np.exp(gaussian_filter1d(np.log(continuous_pitch(f0)), rng.uniform(1, 4)))
    return _from_world(np.where(f0 > 0, smooth, 0), envelope, aperiodicity, len(waveform))


def world_fixed_mix(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """WORLD with one aperiodicity for all voiced frames: pulses below a frequency and noise above it."""
    f0, envelope, aperiodicity = _world(waveform)
    frequency = np.linspace(0, SAMPLE_RATE / 2, envelope.shape[1])
    edge, slope = rng.uniform(2000, 8000), rng.uniform(200, 1500)
    mix = np.broadcast_to(1 / (1 + np.exp(-(frequency - edge) / slope)), envelope.shape)
    return _from_world(f0, envelope, np.where((f0 > 0)[:, None], mix, aperiodicity), len(waveform))


def world_shifted(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Another speaker by rule: pitch 0.7-1.45 times, formants 0.87-1.15 times, liveliness 0.6-1.4 times."""
    f0, envelope, aperiodicity = _world(waveform)
    voiced = f0 > 0
    if voiced.any():
        log = np.log(f0[voiced])
        lively = log.mean() + (log - log.mean()) * rng.uniform(0.6, 1.4)
        f0 = f0.copy()
        f0[voiced] = np.clip(np.exp(lively) * np.exp(rng.uniform(-0.36, 0.37)), 50, 600)
    factor = np.exp(rng.uniform(-0.14, 0.14))
    return _from_world(f0, _warped(envelope, factor), _warped(aperiodicity, factor), len(waveform))


def world_conversion(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """The partner's pitch range and the mean and spread of its cepstrum, on the recording's words."""
    import pyworld

    f0, envelope, aperiodicity = _world(waveform)
    other_f0, other_envelope, _ = _world(partner)
    fft, order = 2 * (envelope.shape[1] - 1), 40
    own = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE, order)
    other = pyworld.code_spectral_envelope(other_envelope, SAMPLE_RATE, order)
    loud, other_loud = own[:, 0] > np.quantile(own[:, 0], 0.3), other[:, 0] > np.quantile(other[:, 0], 0.3)
    scale = np.clip(other[other_loud].std(axis=0) / (own[loud].std(axis=0) + 1e-6), 0.5, 2.0)
    moved = (own - own[loud].mean(axis=0)) * scale + other[other_loud].mean(axis=0)
    moved[:, 0] = own[:, 0]  # loudness stays
    share = rng.uniform(0.6, 1.0)
    envelope = pyworld.decode_spectral_envelope(share * moved + (1 - share) * own, SAMPLE_RATE, fft)
    if (f0 > 0).any() and (other_f0 > 0).any():
        log, other_log = np.log(f0[f0 > 0]), np.log(other_f0[other_f0 > 0])
        spread = np.clip(other_log.std() / (log.std() + 1e-6), 0.5, 2.0)
        moved_pitch = np.exp((np.log(np.maximum(f0, 1)) - log.mean()) * spread + other_log.mean())
        f0 = np.where(f0 > 0, np.clip(moved_pitch, 50, 600), 0)
    return _from_world(f0, envelope, aperiodicity, len(waveform))


# ---- imitations of what neural vocoders and codecs leave behind ----


def fast_griffin_lim(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """80-128 mel bands, phase by 30-80 rounds of Griffin-Lim with momentum: as good as it gets without learning."""
    mel, spread, _ = _mel(waveform, int(rng.choice([80, 100, 128])))
    magnitude, samples = mel @ spread, len(waveform)
    phase = np.exp(2j * np.pi * rng.random(magnitude.shape)).astype(np.complex64)
    previous = np.zeros_like(phase)
    for _ in range(int(rng.integers(30, 81))):
        spectrum = stft(istft(magnitude * phase, SIZE, HOP, samples), SIZE, HOP)
        phase, previous = _unit(spectrum - 0.99 / 1.99 * previous), spectrum
    return istft(magnitude * phase, SIZE, HOP, samples)


def mel_with_phase(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Mel magnitudes on a phase that is nearly right at low frequencies and guessed above, as a GAN's is."""
    mel, spread, spectrum = _mel(waveform, int(rng.choice([80, 100])))
    frequency = np.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1])
    error = rng.uniform(0.1, 0.6) + 2.5 / (1 + np.exp(-(frequency - rng.uniform(1000, 5000)) / 800))
    turn = error * rng.standard_normal(spectrum.shape)
    fine = np.clip(np.abs(spectrum) / (mel @ spread + 1e-9), 0.05, 4)  # harmonics, which a vocoder keeps at low bins
    keep = rng.uniform(0.3, 1.0) / (1 + np.exp((frequency - rng.uniform(1500, 5000)) / 500))
    magnitude = mel @ spread * fine**keep
    return istft(magnitude * _unit(spectrum) * np.exp(1j * turn).astype(np.complex64), SIZE, HOP, len(waveform))


def smoothed_mel(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """A mel spectrogram blurred in time and frequency, as acoustic models predict it; phase from the recording."""
    mel, spread, spectrum = _mel(waveform)
    log = gaussian_filter1d(np.log(mel + 1e-5), rng.uniform(0.5, 1.6), axis=0)
    log = gaussian_filter1d(log, rng.uniform(0.3, 1.2), axis=1)
    magnitude, phase = np.exp(log) @ spread, _unit(spectrum)
    for _ in range(int(rng.integers(2, 20))):
        phase = _unit(stft(istft(magnitude * phase, SIZE, HOP, len(waveform)), SIZE, HOP))
    return istft(magnitude * phase, SIZE, HOP, len(waveform))


def _nearest(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    distance = (codes**2).sum(axis=1) - 2 * rows @ codes.T
    return distance.argmin(axis=1)


def _codebook(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centres (count, width) of a few rounds of k-means."""
    codes = rows[rng.choice(len(rows), count, replace=len(rows) < count)].copy()
    for _ in range(6):
        owner = _nearest(rows, codes)
        for k in range(count):
            if (owner == k).any():
                codes[k] = rows[owner == k].mean(axis=0)
    return codes


def quantised_mel(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """A mel spectrogram by residual vector quantisation, 2-6 stages of 16-64 codes, as neural codecs store speech."""
    mel, spread, spectrum = _mel(waveform)
    log = np.log(mel + 1e-5)
    rest, stored = log - log.mean(axis=0), np.broadcast_to(log.mean(axis=0), log.shape).copy()
    count = int(rng.choice([16, 32, 64]))
    for _ in range(int(rng.integers(2, 7))):
        codes = _codebook(rest, count, rng)
        step = codes[_nearest(rest, codes)]
        stored, rest = stored + step, rest - step
    magnitude = np.exp(stored) @ spread
    known = _unit(spectrum) * np.exp(1j * rng.uniform(0, 1.5) * rng.standard_normal(spectrum.shape))
    phase = known.astype(np.complex64)
    for _ in range(int(rng.integers(1, 12))):
        phase = _unit(stft(istft(magnitude * phase, SIZE, HOP, len(waveform)), SIZE, HOP))
    return istft(magnitude * phase, SIZE, HOP, len(waveform))


def upsampling_images(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """The upper band as mirrored images of the lower one, under the recording's envelope, and a trace of the grid.

    This is what learned upsampling (transposed convolutions, zero-stuffing, nearest neighbours) leaves.
    """
    factor = int(rng.choice([2, 4]))
    low = resample_poly(waveform, 1, factor).astype(np.float32)
    stuffed = np.zeros(len(low) * factor, np.float32)
    if rng.random() < 0.5:
        stuffed[::factor] = low * factor  # images at full strength
    else:
        stuffed[:] = np.repeat(low, factor)  # images under the droop of a hold
    stuffed = stuffed[: len(waveform)]
    size, hop = 512, 128
    image, target = stft(stuffed, size, hop), np.abs(stft(waveform, size, hop))
    width = rng.uniform(2, 8)
    envelope = gaussian_filter1d(target, width, axis=1) / (gaussian_filter1d(np.abs(image), width, axis=1) + 1e-7)
    frequency = np.linspace(0, SAMPLE_RATE / 2, image.shape[1])
    above = 1 / (1 + np.exp(-(frequency - 0.9 * SAMPLE_RATE / 2 / factor) / 150))
    own = np.exp(1j * rng.uniform(0, 0.8) * rng.standard_normal(target.shape)) * stft(waveform, size, hop)
    out = istft(((1 - above) * own + above * envelope * image).astype(np.complex64), size, hop, len(waveform))
    period = int(rng.choice([8, 16, 64, 256]))  # strides of the layers
    pattern = 1 + rng.uniform(0.0, 0.06) * rng.standard_normal(period)
    return out * np.resize(pattern, len(out)).astype(np.float32)


def subband_phase(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Four to eight bands, each with its aliasing and a delay of its own, as multi-band networks add them up."""
    size, hop = 512, 64
    spectrum = stft(waveform, size, hop)
    count = int(rng.choice([4, 8]))
    edges = np.linspace(0, spectrum.shape[1], count + 1).astype(int)
    out = np.zeros_like(spectrum)
    slope = rng.uniform(2, 10)
    bins = np.arange(spectrum.shape[1])
    for low, high in pairwise(edges):
        window = 1 / (1 + np.exp(-(bins - low) / slope)) / (1 + np.exp((bins - high) / slope))
        delay = rng.uniform(-0.0015, 0.0015) * SAMPLE_RATE
        turn = np.exp(-2j * np.pi * bins * delay / size + 2j * np.pi * rng.random())
        band = spectrum * window * turn
        mirror = np.zeros_like(band)  # what folds over the upper edge of the band
        inside = np.arange(low, high)
        beyond = 2 * high - 1 - inside
        fits = beyond < len(bins)
        mirror[:, inside[fits]] = np.conj(spectrum[:, beyond[fits]]) * window[beyond[fits]]
        out += band + rng.uniform(0.1, 1.0) * mirror
    return istft(out.astype(np.complex64), size, hop, len(waveform))


def new_excitation(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Linear prediction keeps its filter; the residual keeps its spectrogram and gets a new, rounded waveform."""
    hop, samples = 128, len(waveform)
    reflection, _ = linear_prediction(waveform, 512, hop, int(rng.integers(16, 25)))
    inverse = 1 / all_pole(reflection, np.ones(len(reflection)))
    residual = time_varying_filter(waveform, inverse, hop)
    magnitude = np.abs(stft(residual, 512, 128))
    made = griffin_lim(magnitude, 512, 128, samples, int(rng.integers(0, 6)), rng)
    peak = np.abs(made).max() + 1e-9
    law = 2 ** int(rng.integers(6, 9)) - 1  # mu-law codes, as sample-by-sample networks draw them
    code = np.round(np.sign(made) * np.log1p(255 * np.abs(made) / peak) / np.log(256) * law / 2) * 2 / law
    made = np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255 * peak
    return time_varying_filter(made.astype(np.float32), 1 / inverse, hop)


def sinusoids(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """The 20-60 strongest spectral peaks of each frame as gliding tones, shaped noise for the rest."""
    size, hop, samples = 1024, 128, len(waveform)
    spectrum = stft(waveform, size, hop)
    magnitude = np.abs(spectrum)
    middle = magnitude[:, 1:-1]
    peak = np.zeros(magnitude.shape, bool)
    peak[:, 1:-1] = (middle > magnitude[:, :-2]) & (middle >= magnitude[:, 2:])
    strength = np.where(peak, magnitude, 0)
    keep = int(rng.integers(20, 61))
    least = -np.partition(-strength, keep, axis=1)[:, keep : keep + 1]
    tones = np.where(strength > least, 1.0, 0.0)
    tones = np.minimum(uniform_filter1d(tones, 5, axis=1) * 5, 1)  # a peak is as wide as the window's main lobe
    advance = np.angle(spectrum[1:] * np.conj(spectrum[:-1]))
    jitter = rng.normal(0, rng.uniform(0.0, 0.15), advance.shape)
    turned = np.concatenate([np.angle(spectrum[:1]), np.angle(spectrum[:1]) + np.cumsum(advance + jitter, axis=0)])
    tonal = istft((magnitude * tones * np.exp(1j * turned)).astype(np.complex64), size, hop, samples)
    noise = stft(rng.standard_normal(samples, dtype=np.float32), size, hop) / np.sqrt(np.sum(hann(size) ** 2))
    floor = gaussian_filter1d(magnitude * (1 - tones), 6, axis=1)
    return tonal + istft((noise * floor).astype(np.complex64), size, hop, samples)


# ---- modification and old codecs ----


def psola(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Pitch moved by 12-30 % by cutting periods out and putting them back closer or further apart (TD-PSOLA)."""
    hop, samples = 128, len(waveform)
    pitch = hold_to_samples(continuous_pitch(pitch_track(waveform, hop)), hop, samples)
    factor = np.exp(rng.choice([-1, 1]) * rng.uniform(0.11, 0.26))
    marks, at = [], 0
    while at < samples:  # one mark a period, on the strongest sample near by
        period = int(SAMPLE_RATE / pitch[at])
        low, high = max(at - period // 4, 0), min(at + period // 4 + 1, samples)
        marks.append(low + int(np.abs(waveform[low:high]).argmax()))
        at = max(marks[-1], at) + period
    marks = np.array(marks)
    out, total = np.zeros(samples + 2048, np.float32), np.full(samples + 2048, 1e-3, np.float32)
    padded = np.pad(waveform, 1024)
    at = float(marks[0])
    while at < samples:
        source = marks[np.abs(marks - at).argmin()]
        half = min(int(SAMPLE_RATE / pitch[source]), 1000)
        window = hann(2 * half)
        start = int(at) + 1024 - half
        out[start : start + 2 * half] += window * padded[source + 1024 - half : source + 1024 + half]
        total[start : start + 2 * half] += window
        at += SAMPLE_RATE / pitch[min(int(at), samples - 1)] / factor
    return (out / np.maximum(total, 0.3))[1024 : 1024 + samples]


def phase_vocoder(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Stretched by 12-30 % with a phase vocoder and played back at another rate: another pitch, the same length."""
    size, hop, samples = 1024, 128, len(waveform)
    factor = np.exp(rng.choice([-1, 1]) * rng.uniform(0.11, 0.26))
    spectrum = stft(waveform, size, hop)
    at = np.arange(0, len(spectrum) - 1, 1 / factor)
    left = at.astype(int)
    share = (at - left)[:, None]
    magnitude = np.abs(spectrum[left]) * (1 - share) + np.abs(spectrum[left + 1]) * share
    advance = np.angle(spectrum[left + 1] * np.conj(spectrum[left]))
    turned = np.angle(spectrum[:1]) + np.concatenate([np.zeros_like(advance[:1]), np.cumsum(advance[:-1], axis=0)])
    stretched = istft((magnitude * np.exp(1j * turned)).astype(np.complex64), size, hop, len(at) * hop)
    positions = np.arange(samples) * factor
    kernel = stretched if factor < 1 else uniform_filter1d(stretched, 2)
    return np.interp(positions, np.arange(len(kernel)), kernel).astype(np.float32)


def codec2(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
    """Codec 2 (sinusoids, 0.7-3.2 kbit/s) up to 4 kHz; above, where it has nothing, a mel Griffin-Lim copy."""
    rate = str(rng.choice(["3200", "2400", "1600", "1300", "700C"]))
    narrow = resample_poly(waveform, 1, 2)
    with tempfile.TemporaryDirectory() as folder:
        raw, packed, back = (str(Path(folder) / name) for name in ("in.raw", "bits", "out.raw"))
        (np.clip(np.pad(narrow, (0, 800)), -1, 1) * 32767).astype("<i2").tofile(raw)
        for command in (["c2enc", rate, raw, packed], ["c2dec", rate, packed, back]):
            if subprocess.run(command, capture_output=True).returncode:
                raise UserError(f"{' '.join(command[:2])}: failed; is Debian's codec2 installed as a whole?")
        decoded = np.fromfile(back, "<i2").astype(np.float32) / 32768
    wide = resample_poly(decoded, 2, 1).astype(np.float32)
    lag = _lag(wide[: len(waveform)], waveform)
    wide = np.pad(wide[lag:], (0, len(waveform)))[: len(waveform)]
    upper = CHAINS["mel_griffin_lim"](waveform, rng)
    low, high = stft(wide, 512, 128), stft(upper, 512, 128)
    level = np.linalg.norm(np.abs(stft(waveform, 512, 128))[:, :110]) / (np.linalg.norm(np.abs(low)[:, :110]) + 1e-9)
    above = 1 / (1 + np.exp(-(np.linspace(0, 8000, low.shape[1]) - 3700) / 60))
    return istft((low * level * (1 - above) + high * above).astype(np.complex64), 512, 128, len(waveform))


def _lag(copy: np.ndarray, original: np.ndarray, most: int = 1600) -> int:
    """By how many samples, 0 to `most`, the loudness of a copy comes late."""
    size = 2 * len(original)
    envelopes = [uniform_filter1d(np.abs(x), 160) for x in (copy, original)]
    a, b = (rfft(e - e.mean(), size) for e in envelopes)
    return int(irfft(a * np.conj(b), size)[:most].argmax())


def _chain(name: str) -> Vocoder:
    def make(waveform: np.ndarray, rng: np.random.Generator, partner: np.ndarray) -> np.ndarray:
        return CHAINS[name](waveform, rng)

    make.__doc__ = CHAINS[name].__doc__
    return make


METHODS: dict[str, Method] = {
    "world": Method(world, "vocoder", "world", "pyworld"),
    "mel_with_phase": Method(mel_with_phase, "imitation", "mel_phase"),
    "quantised_mel": Method(quantised_mel, "imitation", "mel_phase"),
    "fast_griffin_lim": Method(fast_griffin_lim, "vocoder", "griffin_lim"),
    "world_conversion": Method(world_conversion, "conversion", "world", "pyworld"),
    "upsampling_images": Method(upsampling_images, "imitation", "upsampling"),
    "smoothed_mel": Method(smoothed_mel, "imitation", "mel_phase"),
    "world_coded": Method(world_coded, "vocoder", "world", "pyworld"),
    "new_excitation": Method(new_excitation, "imitation", "excitation"),
    "subband_phase": Method(subband_phase, "imitation", "subband"),
    "world_shifted": Method(world_shifted, "conversion", "world", "pyworld"),
    "world_fixed_mix": Method(world_fixed_mix, "vocoder", "world", "pyworld"),
    "sinusoids": Method(sinusoids, "vocoder", "sinusoids"),
    "psola": Method(psola, "conversion", "psola"),
    "phase_vocoder": Method(phase_vocoder, "conversion", "phase_vocoder"),
    "codec2": Method(codec2, "vocoder", "codec2", "c2enc"),
    **{name: Method(_chain(name), "vocoder", "griffin_lim" if "griffin" in name else name) for name in CHAINS},
}
