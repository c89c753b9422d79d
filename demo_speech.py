"""A source-filter speaker: babble with the structure of speech, made from numbers alone.

Each speaker has a larynx (pitch, open quotient, tilt, jitter, shimmer, breath) and a vocal tract (length,
vowel habits, bandwidths). An utterance is a plan of phrases, syllables and phones; its formants, voicing and
noise glide between targets, a glottal pulse train and noise excite the tract, and a small room and a
microphone record it. No word of it means anything: it stands in for recorded speech in the demo corpus.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

from config import SAMPLE_RATE
from frames import frame_count, hold_to_samples, time_varying_filter

HOP = 128  # samples between two settings of the vocal tract, 8 ms
FFT = 1024  # the tract's response may ring for 48 ms
FORMANTS = 7  # resonances below 8 kHz of a 17 cm tract
# F1-F4 in Hz of an average adult male tract
VOWELS = {
    "i": (280, 2250, 2950, 3600),
    "I": (400, 1950, 2550, 3500),
    "e": (480, 1900, 2500, 3450),
    "E": (550, 1770, 2450, 3450),
    "a": (720, 1250, 2500, 3400),
    "A": (680, 1080, 2500, 3350),
    "o": (480, 860, 2450, 3250),
    "O": (570, 860, 2450, 3300),
    "u": (310, 870, 2250, 3250),
    "U": (440, 1020, 2300, 3300),
    "@": (500, 1450, 2450, 3450),
}


@dataclass(frozen=True)
class Phone:
    """Targets of one consonant: durations in s, amplitudes relative to a vowel, noise band in Hz."""

    seconds: float
    voice: float = 0.0  # amplitude of the glottal pulses
    noise: float = 0.0  # amplitude of frication made in front of the constriction
    breath: float = 0.0  # amplitude of aspiration through the whole tract
    centre: float = 4000.0
    width: float = 1500.0
    formants: tuple[float, ...] | None = None  # None: the neighbouring vowel's
    nasal: float = 0.0
    closure: float = 0.0  # s of silence (or of murmur, by `voice`) before a burst


CONSONANTS = {
    "s": Phone(0.105, noise=0.20, centre=5900, width=1900),
    "sh": Phone(0.105, noise=0.24, centre=3100, width=1500),
    "f": Phone(0.090, noise=0.07, centre=5200, width=6000),
    "th": Phone(0.080, noise=0.05, centre=6500, width=4500),
    "h": Phone(0.060, breath=0.35),
    "z": Phone(0.075, voice=0.28, noise=0.11, centre=5700, width=2100, formants=(280, 1700, 2550, 3500)),
    "v": Phone(0.060, voice=0.35, noise=0.04, centre=4800, width=5000, formants=(260, 1100, 2250, 3300)),
    "p": Phone(0.022, noise=0.16, breath=0.16, centre=1100, width=1400, closure=0.075),
    "t": Phone(0.030, noise=0.26, breath=0.16, centre=4300, width=2500, closure=0.065),
    "k": Phone(0.035, noise=0.24, breath=0.18, centre=2000, width=900, closure=0.070),
    "b": Phone(0.010, voice=0.12, noise=0.10, centre=900, width=1200, closure=0.060),
    "d": Phone(0.014, voice=0.12, noise=0.16, centre=3800, width=2500, closure=0.050),
    "g": Phone(0.018, voice=0.12, noise=0.16, centre=1900, width=900, closure=0.055),
    "m": Phone(0.070, voice=0.45, formants=(270, 1050, 2200, 3300), nasal=1.0),
    "n": Phone(0.065, voice=0.45, formants=(270, 1550, 2500, 3400), nasal=1.0),
    "l": Phone(0.060, voice=0.60, formants=(350, 1100, 2750, 3500)),
    "r": Phone(0.060, voice=0.60, formants=(380, 1200, 1650, 3200)),
    "w": Phone(0.060, voice=0.55, formants=(300, 700, 2250, 3250)),
    "j": Phone(0.060, voice=0.60, formants=(270, 2200, 3000, 3600)),
}


@dataclass(frozen=True)
class Speaker:
    """One person; frequencies in Hz, rates per second, amplitudes relative."""

    f0: float
    liveliness: float  # size of the pitch movements in octaves
    tract: float  # formant scale, 1 for 17 cm
    vowel_habit: tuple[float, ...]  # factors on F1-F4
    bandwidth: float
    open_quotient: float
    tilt: float  # corner in Hz above which the glottal pulse falls faster
    breath: float
    jitter: float
    shimmer: float
    syllables: float
    pause: float
    sibilance: float


def draw_speaker(rng: np.random.Generator) -> Speaker:
    """A speaker by chance, of either sex: pitch and tract length go together, loosely."""
    height = rng.uniform(0, 1)  # 0: long tract and low voice
    return Speaker(
        f0=float(2 ** (np.log2(95) + 1.15 * height + rng.normal(0, 0.12))),
        liveliness=float(rng.uniform(0.12, 0.38)),
        tract=float(0.93 + 0.24 * height + rng.normal(0, 0.025)),
        vowel_habit=tuple(float(v) for v in rng.normal(1, (0.05, 0.04, 0.03, 0.03))),
        bandwidth=float(rng.uniform(0.8, 1.5)),
        open_quotient=float(rng.uniform(0.45, 0.72)),
        tilt=float(rng.uniform(2500, 8000)),
        breath=float(10 ** rng.uniform(-2.3, -1.1)),
        jitter=float(rng.uniform(0.004, 0.014)),
        shimmer=float(rng.uniform(0.03, 0.10)),
        syllables=float(rng.uniform(3.6, 5.8)),
        pause=float(rng.uniform(0.15, 0.40)),
        sibilance=float(rng.uniform(0.6, 1.5)),
    )


class _Plan:
    """Step targets of every track, one row a segment, grown phone by phone."""

    TRACKS = ("voice", "noise", "breath", "centre", "width", "nasal")

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.formants: list[tuple[float, ...]] = []
        self.values: list[tuple[float, ...]] = []
        self.accents: list[tuple[float, float, float]] = []  # time in s, height in octaves, width in s
        self.phrases: list[tuple[float, float]] = []  # start and end in s

    @property
    def end(self) -> float:
        return sum(self.seconds)

    def add(self, seconds: float, formants: tuple[float, ...], **values: float) -> None:
        defaults = {"centre": 4000.0, "width": 2000.0} | values
        self.seconds.append(seconds)
        self.formants.append(formants)
        self.values.append(tuple(defaults.get(name, 0.0) for name in self.TRACKS))

    def add_consonant(self, name: str, vowel: tuple[float, ...], pace: float, sibilance: float) -> None:
        phone = CONSONANTS[name]
        formants = phone.formants or tuple(0.75 * v + 0.25 * n for v, n in zip(vowel, VOWELS["@"], strict=True))
        if phone.closure:
            self.add(phone.closure * pace, formants, voice=phone.voice)
        voice = 0.0 if phone.closure else phone.voice
        self.add(
            phone.seconds * (1.0 if phone.closure else pace),
            formants,
            voice=voice,
            noise=phone.noise * sibilance,
            breath=phone.breath,
            centre=phone.centre,
            width=phone.width,
            nasal=phone.nasal,
        )
        if phone.closure and not phone.voice:  # voiceless plosives are aspirated into the vowel
            self.add(0.03 * pace, vowel, breath=0.5 * phone.breath)


def _plan_utterance(speaker: Speaker, seconds: float, rng: np.random.Generator) -> _Plan:
    """Phrases of syllables until the wanted length is reached."""
    plan, consonants, vowels = _Plan(), list(CONSONANTS), list(VOWELS)
    while plan.end < seconds:
        start = plan.end
        for _ in range(int(rng.integers(3, 9))):
            pace = float(rng.uniform(0.7, 1.35)) * 4.6 / speaker.syllables
            stress = float(rng.uniform(0.55, 1.0))
            vowel = VOWELS["@"] if stress < 0.65 else VOWELS[vowels[rng.integers(len(vowels))]]
            if rng.random() < 0.85:
                plan.add_consonant(consonants[rng.integers(len(consonants))], vowel, pace, speaker.sibilance)
            plan.accents.append((plan.end + 0.05, (stress - 0.75) * 2, float(rng.uniform(0.06, 0.12))))
            length = (0.06 + 0.075 * stress) * pace
            if rng.random() < 0.25:  # diphthong: glide to a second vowel
                plan.add(0.6 * length, vowel, voice=stress)
                vowel = VOWELS[vowels[rng.integers(len(vowels))]]
                plan.add(0.7 * length, vowel, voice=0.9 * stress)
            else:
                plan.add(length, vowel, voice=stress)
            if rng.random() < 0.35:
                plan.add_consonant(consonants[rng.integers(len(consonants))], vowel, pace, speaker.sibilance)
            if plan.end > seconds:
                break
        plan.phrases.append((start, plan.end))
        if plan.end < seconds - 0.5:
            pause = speaker.pause * float(rng.uniform(0.5, 1.6))
            plan.add(pause, VOWELS["@"], breath=0.03 if rng.random() < 0.3 else 0.0)
    plan.add(0.06, VOWELS["@"])
    return plan


def _pitch(plan: _Plan, speaker: Speaker, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """F0 in Hz at the given times: declination, accents, phrase endings, slow drift and flutter."""
    octaves = np.zeros(len(times))
    for start, end in plan.phrases:
        inside = (times >= start) & (times <= end + 0.1)
        place = (times[inside] - start) / max(end - start, 0.1)
        ending = rng.choice([-0.35, -0.25, 0.3], p=[0.5, 0.3, 0.2])
        octaves[inside] = 0.25 * (0.5 - place) + ending * np.clip(place - 0.75, 0, 1) * 4 * speaker.liveliness
    for centre, height, width in plan.accents:
        octaves += speaker.liveliness * height * np.exp(-0.5 * ((times - centre) / width) ** 2)
    drift = gaussian_filter1d(rng.normal(0, 1, len(times)), 12) * 0.10
    flutter = gaussian_filter1d(rng.normal(0, 1, len(times)), 2) * 0.02
    return np.clip(speaker.f0 * 2 ** (octaves + drift + flutter), 60, 420)


def _glottis(f0: np.ndarray, speaker: Speaker, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Glottal flow derivative with jitter and shimmer, and how far the glottis is open (for the breath)."""
    over = 2  # computed at 32 kHz so that the sharp closing does not fold back
    rate = over * SAMPLE_RATE
    sample = np.arange(over * len(f0))
    phase = np.cumsum(np.interp(sample / over, np.arange(len(f0)), f0)) / rate
    cycles = int(phase[-1]) + 2
    closing = np.interp(np.arange(cycles), phase, sample)
    period = np.gradient(closing)
    closing += np.clip(rng.normal(0, speaker.jitter, cycles), -0.05, 0.05) * period
    height = np.exp(rng.normal(0, speaker.shimmer, cycles) + gaussian_filter1d(rng.normal(0, 0.3, cycles), 4))
    quotient = np.clip(speaker.open_quotient + rng.normal(0, 0.02, cycles), 0.35, 0.85)
    phase = np.interp(sample, closing, np.arange(cycles))
    cycle = np.minimum(phase.astype(int), cycles - 1)
    # within a cycle: closed, then an opening that rises slowly and ends abruptly
    place = ((phase - cycle) - (1 - quotient[cycle])) / quotient[cycle]
    opened = np.clip(place, 0, 1)
    flow = (opened**2 * (1 - opened)).astype(np.float32)
    slope = np.where(place > 0, (2 * opened - 3 * opened**2) * height[cycle], 0).astype(np.float32)
    return resample_poly(slope, 1, over).astype(np.float32), 6.75 * flow[::over]


def _tract(formants: np.ndarray, nasal: np.ndarray, speaker: Speaker) -> np.ndarray:
    """Response of the cascade of resonances, (time, FFT // 2 + 1), with an anti-formant when nasal."""

    def response(frequencies: np.ndarray, bandwidths: np.ndarray) -> np.ndarray:
        """Product of second-order sections, (time, sections) each, with gain 1 at 0 Hz."""
        radius = np.exp(-np.pi * bandwidths / SAMPLE_RATE)
        middle = -2 * radius * np.cos(2 * np.pi * frequencies / SAMPLE_RATE)
        product = np.zeros((len(radius), 2 * radius.shape[1] + 1))
        product[:, 0] = 1.0
        for b, c in zip(middle.T[:, :, None], (radius**2).T[:, :, None], strict=True):
            grown = product.copy()
            grown[:, 1:] += b * product[:, :-1]
            grown[:, 2:] += c * product[:, :-2]
            product = grown
        return rfft(product / product.sum(axis=1, keepdims=True), FFT, axis=1)

    frequencies = np.minimum(formants, 7700.0)
    bandwidths = speaker.bandwidth * (45 + 0.028 * frequencies + 25 * nasal[:, None])
    still = np.ones((len(nasal), 1))
    poles = response(np.hstack([frequencies, 950 * still]), np.hstack([bandwidths, 800 * still]))
    zeros = response(950 * still, 800 - 650 * nasal[:, None])
    return (zeros / poles).astype(np.complex64)


def _frication(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Response of the noise made at a constriction: one broad hump, (time, FFT // 2 + 1)."""
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    distance = (frequency[None] - centre[:, None]) / width[:, None]
    return (1 / (1 + 2.5 * distance**2)).astype(np.float32)


def speak(speaker: Speaker, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """About `seconds` of dry babble by this speaker, float32 at 16 kHz, speech level near 0.1 RMS."""
    plan = _plan_utterance(speaker, seconds, rng)
    samples = int(plan.end * SAMPLE_RATE)
    times = np.arange(frame_count(samples, HOP)) * HOP / SAMPLE_RATE
    segment = np.minimum(np.searchsorted(np.cumsum(plan.seconds), times, side="right"), len(plan.seconds) - 1)

    habit = speaker.tract * np.asarray(speaker.vowel_habit)
    formants = np.asarray(plan.formants)[segment] * habit * rng.normal(1, 0.02, 4)
    formants = gaussian_filter1d(formants, 3.2, axis=0)  # 25 ms: coarticulation
    formants *= 1 + 0.01 * gaussian_filter1d(rng.normal(0, 1, formants.shape), 3, axis=0)
    upper = speaker.tract * np.array([4450, 5450, 6500][: FORMANTS - 4]) * rng.normal(1, 0.02, FORMANTS - 4)
    formants = np.hstack([formants, np.broadcast_to(upper, (len(times), len(upper)))])

    tracks = dict(zip(_Plan.TRACKS, np.asarray(plan.values).T[:, segment], strict=True))
    smooth = {name: gaussian_filter1d(tracks[name], 1.2) for name in ("voice", "breath", "nasal", "centre", "width")}
    smooth["noise"] = gaussian_filter1d(tracks["noise"], 0.6)  # bursts stay sharp
    level = {name: hold_to_samples(smooth[name], HOP, samples) for name in ("voice", "noise", "breath")}

    f0 = hold_to_samples(_pitch(plan, speaker, times, rng), HOP, samples)
    pulses, opening = _glottis(f0, speaker, rng)
    pulses, opening = pulses[:samples], opening[:samples]
    air = rng.standard_normal(samples, dtype=np.float32)
    hiss = rng.standard_normal(samples, dtype=np.float32)
    puffs = 0.3 + opening  # breath is strongest while the glottis is open
    voiced = level["voice"] * (pulses + speaker.breath * puffs * air) + 0.12 * level["breath"] * air
    through_tract = _tract(formants, smooth["nasal"], speaker)
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    tilt = 1 / np.sqrt(1 + (frequency / speaker.tilt) ** 2)  # rounded closing; lips already in the derivative
    speech = time_varying_filter(voiced, through_tract * tilt.astype(np.float32), HOP)
    noise = time_varying_filter(level["noise"] * hiss, _frication(smooth["centre"], smooth["width"]), HOP)
    speech += noise
    return (0.1 / (np.sqrt(np.mean(speech**2)) + 1e-9) * speech).astype(np.float32)


def record(speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same speech in a small room through a quiet microphone: echoes, a short tail, faint noise."""
    decay = rng.uniform(0.05, 0.30)  # s until the tail has fallen by 60 dB
    length = int(SAMPLE_RATE * decay)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= rng.uniform(0.01, 0.10) / np.sqrt(np.sum(tail**2))  # power 20-40 dB below the direct sound
    room = np.zeros(length)
    room[0] = 1.0
    room[16:] += tail[16:]
    for delay in rng.integers(16, 200, 4):
        room[delay] += rng.uniform(-0.2, 0.2)
    size = next_fast_len(len(speech) + length)
    wet = irfft(rfft(speech, size) * rfft(room, size), size)[: len(speech)]
    noise = rng.standard_normal(len(speech)) * 10 ** (rng.uniform(-62, -50) / 20) * 0.1
    return (wet + noise).astype(np.float32)
