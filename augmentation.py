"""Waveforms in other conditions: noise, rooms, codecs, band limits, tone, level, speed, RawBoost ...; and mixup.

    python main.py --augment noise,codec,rawboost5 --augment-probability 0.5 --mixup 0.8

    augment = Augmenter(("noise", "codec", "rawboost5"), probability=0.5, rounds=2)
    waveform = augment(waveform, label, rng)
    waveforms, labels, weights = mixup(waveforms, labels, weights, rng, alpha=0.8)  # a batch

An augmentation is a pure function (waveform float32 (samples,) at 16 kHz, rng) -> waveform float32; everything
random comes from `rng`, so the same seed gives the same bytes in any thread. None changes the class: give all of
them to both classes (the default), or the network learns the condition instead of the voice.

audiomentations does the shift (it cross-fades the stitch) and the pitch (Signalsmith Stretch: 8 ms a clip, in
place). Its transforms draw from the process-wide random state, which threads share; so each call makes a
transform of its own and freezes the parameters drawn here. The rest is written out, because there it
  noise          draws every sample from the process-wide state, frozen or not;
  speed          keeps the pitch (TimeStretch), which leaves a vocoder's traces; resampling is one call of soxr;
  band_limit     refuses clips shorter than its padding, and its Butterworth slopes are no telephone's;
  codec          is MP3 alone and wants an extra package; PyAV is here already and has the telephone's codecs;
  reverberation  wants recorded responses or an extra package;
  RawBoost, mixup  has nothing.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from config import BONAFIDE, SAMPLE_RATE, SPOOF
from errors import UserError
from rawboost import RAWBOOST

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def add_noise(waveform: np.ndarray, snr_db: float, colour: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise whose power falls as 1 / f^colour at exactly this SNR over the clip; silence stays silent."""
    samples = len(waveform)
    spectrum = rfft(rng.standard_normal(samples, dtype=np.float32))
    # level below 50 Hz: else most of brown noise would be drift that nobody hears
    spectrum *= np.maximum(rfftfreq(samples, 1 / SAMPLE_RATE), 50.0).astype(np.float32) ** (-colour / 2)
    added = irfft(spectrum, samples).astype(np.float64)
    power = max(np.mean(added**2), 1e-30)
    gain = np.sqrt(np.mean(waveform.astype(np.float64) ** 2) / power / 10 ** (snr_db / 10))
    return (waveform + gain * added).astype(np.float32)


def noise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White to brown noise at 5-35 dB SNR; the level rises by the noise, at most 1.2 dB."""
    return add_noise(waveform, rng.uniform(5, 35), rng.uniform(0, 2), rng)


def shift(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn the clip round by a random number of samples, 5 ms of fade at the stitch; the level stays."""
    from audiomentations import Shift  # loads librosa: only for those who use it

    turn = Shift(shift_unit="samples", rollover=True, fade_duration=0.005)
    return _frozen(turn, waveform, shift_amount=int(rng.integers(len(waveform))))


def speed(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Play 0.9-1.1 times as fast, pitch and formants along with it: the length changes, the level stays."""
    import soxr

    factor = rng.integers(90, 111) / 100
    return soxr.resample(waveform, SAMPLE_RATE * factor, SAMPLE_RATE)


def pitch(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raise or lower by up to two semitones, in tune within 10 cents, at the same length and level (within 0.5 dB).

    A phase vocoder's traces come with it: on one class alone it would teach that class to be fake.
    """
    return shift_pitch(waveform, float(rng.uniform(-2, 2)))


def shift_pitch(waveform: np.ndarray, semitones: float) -> np.ndarray:
    """Raise by a number of semitones."""
    from audiomentations import PitchShift

    return _frozen(PitchShift(), waveform, num_semitones=semitones)


def _frozen(transform, waveform: np.ndarray, **parameters) -> np.ndarray:
    """Apply an audiomentations transform with these parameters and nothing random."""
    transform.parameters = {"should_apply": True, **parameters}
    transform.freeze_parameters()
    return transform(waveform, SAMPLE_RATE)


def keep_band(waveform: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep low to high Hz, zero phase; the edges fall from 1 to 0 within 100 Hz outside the band."""
    samples = len(waveform)
    size = next_fast_len(samples + 1024, real=True)  # zeros for the filter to ring into
    hertz = rfftfreq(size, 1 / SAMPLE_RATE)
    outside = np.maximum(low - hertz, hertz - high) / 100
    response = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside, 0, 1))
    return irfft(rfft(waveform, size) * response.astype(np.float32), size)[:samples]


def band_limit(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone's band (200-400 to 3000-3800 Hz) or a low-pass at 3-7.5 kHz; what is cut off is lost in level."""
    if rng.random() < 0.5:
        return keep_band(waveform, rng.uniform(200, 400), rng.uniform(3000, 3800))
    return keep_band(waveform, 0.0, rng.uniform(3000, 7500))


def room_response(rt60: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a room: the direct sound on sample 0, 2.5 ms later a tail of decaying noise.

    The tail falls by 60 dB in `rt60` seconds; the direct sound's energy is `direct_db` above the tail's.
    """
    first, length = SAMPLE_RATE // 400, int(rt60 * SAMPLE_RATE)
    response = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    response[:first] = 0
    response /= np.sqrt(np.sum(response**2)) * 10 ** (direct_db / 20)
    response[0] = 1.0
    return response.astype(np.float32)


def reverberation(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room of RT60 0.1-1 s, direct sound -5 to 15 dB above the tail, onset in place; the RMS level stays."""
    response = room_response(rng.uniform(0.1, 1.0), rng.uniform(-5, 15), rng)
    samples = len(waveform)
    size = next_fast_len(samples + len(response), real=True)
    wet = irfft(rfft(waveform, size) * rfft(response, size), size)[:samples]
    return wet * (np.linalg.norm(waveform) / max(np.linalg.norm(wet), 1e-12))


def equalise(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another microphone: a smooth curve of gains, 5 dB of deviation at 0, 1.6, 3.2 ... 8 kHz; the RMS level stays."""
    samples = len(waveform)
    size = next_fast_len(samples, real=True)
    hertz = rfftfreq(size, 1 / SAMPLE_RATE)
    decibels = np.interp(hertz, np.linspace(0, SAMPLE_RATE / 2, 6), rng.normal(0, 5, 6))
    changed = irfft(rfft(waveform, size) * (10 ** (decibels / 20)).astype(np.float32), size)[:samples]
    return changed * (np.linalg.norm(waveform) / max(np.linalg.norm(changed), 1e-12))


def level(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The loudest sample at -26 to 0 dB of full scale; silence stays silent."""
    peak = np.abs(waveform).max()
    return waveform * np.float32(10 ** (rng.uniform(-26, 0) / 20) / peak) if peak > 1e-5 else waveform.copy()


def shorten(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of 1 s or more; training repeats it to length, as it does with short clips."""
    samples = int(rng.integers(min(SAMPLE_RATE, len(waveform)), len(waveform) + 1))
    start = int(rng.integers(len(waveform) - samples + 1))
    return waveform[start : start + samples].copy()


class Codec(NamedTuple):
    encoder: str
    decoder: str
    rate: int  # Hz
    delay: int  # samples at `rate` by which FFmpeg's output comes late
    bit_rates: tuple[int, ...]  # bit/s to draw from
    options: dict[str, str] = {}  # noqa: RUF012


CODECS = {
    "mp3": Codec("libmp3lame", "mp3float", 16_000, 0, (16_000, 24_000, 32_000, 48_000, 64_000)),
    # as it is met: most files hold more than 8 kHz, so that less is left for what lies below
    "mp3_24k": Codec("libmp3lame", "mp3float", 24_000, 0, (24_000, 32_000, 48_000, 64_000)),
    "mp3_44k": Codec("libmp3lame", "mp3float", 44_100, 0, (32_000, 48_000, 64_000, 96_000, 128_000)),
    "aac": Codec("aac", "aac", 16_000, 1024, (16_000, 24_000, 32_000, 48_000)),
    # complexity 5 of 10: half the time, and what phones use
    "opus": Codec("libopus", "opus", 16_000, 0, (8_000, 12_000, 16_000, 24_000, 32_000), {"compression_level": "5"}),
    "mu_law": Codec("pcm_mulaw", "pcm_mulaw", 8_000, 0, (64_000,)),
    "a_law": Codec("pcm_alaw", "pcm_alaw", 8_000, 0, (64_000,)),
    "g722": Codec("g722", "g722", 16_000, 22, (64_000,)),
    "amr": Codec("libopencore_amrnb", "amrnb", 8_000, 39, (4_750, 5_900, 7_950, 12_200)),
}


@cache
def available_codecs() -> tuple[str, ...]:
    """Names in CODECS that this FFmpeg can encode: all of them in PyAV's wheels."""
    import av

    return tuple(name for name, codec in CODECS.items() if codec.encoder in av.codecs_available)


def through_codec(waveform: np.ndarray, name: str, bit_rate: int) -> np.ndarray:
    """Encode and decode in memory; the result lines up with the input and is as long."""
    import soxr

    codec = CODECS[name]
    loud = soxr.resample(waveform, SAMPLE_RATE, codec.rate) if codec.rate != SAMPLE_RATE else waveform
    decoded, rate = _encode_and_decode(np.clip(loud, -1, 1), codec, bit_rate)
    decoded = decoded[codec.delay * rate // codec.rate :]
    if rate != SAMPLE_RATE:
        decoded = soxr.resample(decoded, rate, SAMPLE_RATE)
    return decoded[: len(waveform)]


def _encode_and_decode(waveform: np.ndarray, codec: Codec, bit_rate: int) -> tuple[np.ndarray, int]:
    """Through FFmpeg, with more than a frame of silence after the end; returns samples and their rate."""
    import av

    encoder = av.CodecContext.create(codec.encoder, "w")
    encoder.sample_rate, encoder.layout, encoder.bit_rate = codec.rate, "mono", bit_rate
    encoder.time_base, encoder.thread_count, encoder.options = Fraction(1, codec.rate), 1, dict(codec.options)
    formats = {form.name for form in encoder.codec.audio_formats}
    encoder.format = next(name for name in ("fltp", "flt", "s16") if name in formats)
    # PyAV converts the samples and cuts them into the encoder's frames
    frame = av.AudioFrame.from_ndarray(np.pad(waveform, (0, 2048))[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts = codec.rate, 0
    packets = encoder.encode(frame) + encoder.encode(None)

    decoder = av.CodecContext.create(codec.decoder, "r")
    decoder.sample_rate, decoder.layout, decoder.thread_count = codec.rate, "mono", 1
    if encoder.extradata:
        decoder.extradata = encoder.extradata
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    decoded = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    scale = 32768 if decoded.dtype == np.int16 else 1
    return (decoded / scale).astype(np.float32), frames[0].sample_rate


def codec(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """MP3, AAC, Opus, G.711 (mu- or A-law), G.722 or AMR at a random bit rate, lined up with the input.

    The level stays within a decibel or so, less what a narrow band cuts off; AMR lowers it by up to 2 dB.
    """
    names = available_codecs()
    name = names[rng.integers(len(names))]
    return through_codec(waveform, name, int(rng.choice(CODECS[name].bit_rates)))


AUGMENTATIONS: dict[str, Augmentation] = {
    "noise": noise,
    "shift": shift,
    "speed": speed,
    "pitch": pitch,
    **RAWBOOST,
    "codec": codec,
    "band_limit": band_limit,
    "reverberation": reverberation,
    "equalise": equalise,
    "level": level,
    "shorten": shorten,
}
ONLY = {"both": (BONAFIDE, SPOOF), "bonafide": (BONAFIDE,), "spoof": (SPOOF,)}


class Augmenter:
    """With this probability, apply ONE randomly chosen augmentation of `names` to a clip of the wanted class.

    With several rounds that is done again to what came out, each time with the same probability.
    """

    def __init__(self, names: tuple[str, ...], probability: float = 0.5, only: str = "both", rounds: int = 1):
        if unknown := sorted(set(names) - set(AUGMENTATIONS)):
            raise UserError(f"unknown augmentation {', '.join(unknown)}; valid: {', '.join(AUGMENTATIONS)}")
        if not names:
            raise UserError(f"no augmentation is named; valid: {', '.join(AUGMENTATIONS)}")
        if not 0 <= probability <= 1:
            raise UserError(f"augmentation probability is {probability}; it must be from 0 to 1")
        if only not in ONLY:
            raise UserError(f"unknown class {only!r} to augment; valid: {', '.join(ONLY)}")
        self.names, self.probability, self.only, self.rounds = tuple(names), probability, only, rounds

    def __call__(self, waveform: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
        for _ in range(self.rounds if label in ONLY[self.only] else 0):
            if rng.random() < self.probability:
                waveform = AUGMENTATIONS[self.names[rng.integers(len(self.names))]](waveform, rng)
        return waveform


def mixup(
    waveforms: np.ndarray, labels: np.ndarray, weights: np.ndarray, rng: np.random.Generator, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blend random pairs of a batch: waveforms (b, n), labels (b, 1) and weights (b,), float32.

    Each pair has one share ~ Beta(alpha, alpha), and each of the two keeps its share of itself: the sums of
    waveforms, weights and weighted labels over the batch stay exactly as they were. A blended label counts each
    part by its weight, so that cross-entropy with it is the blend of both weighted losses. Of an odd batch one
    clip is left as it is.
    """
    if alpha <= 0:
        raise UserError(f"mixup alpha is {alpha}; it must be above 0")
    count = len(waveforms)
    order, half = rng.permutation(count), count // 2
    first, second = order[:half], order[half : 2 * half]
    partner, share = np.arange(count), np.ones(count, np.float32)
    partner[first], partner[second] = second, first
    share[first] = share[second] = rng.beta(alpha, alpha, half)

    def blend(values: np.ndarray) -> np.ndarray:
        own = share.reshape(-1, *[1] * (values.ndim - 1))
        return (own * values + (1 - own) * values[partner]).astype(np.float32)

    mixed_weights = blend(weights)
    return blend(waveforms), blend(weights[:, None] * labels) / mixed_weights[:, None], mixed_weights
