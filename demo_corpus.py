"""Write the demo corpus, a small seeded tree in the layout of ASVspoof 2019 LA on which every command runs.

    python demo_corpus.py [DIR] [--seed N] [--scale X]

Nothing in it is speech. "Bona fide" is babble from the source-filter speaker of demo_speech.py, "spoof" is
other babble by the same speakers after one of the chains of resynthesis.py; the eval attacks occur in eval
alone. Loudness, length, silence, colour, bandwidth and noise are drawn for every file from the same
distributions whatever its class, so a detector has to find the marks of re-synthesis. Figures on it say
whether the code works, not how well a detector does on people.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import uniform_filter1d
from tqdm import tqdm

from config import SAMPLE_RATE
from demo_speech import Speaker, draw_speaker, record, speak
from errors import CommandParser, UserError, run_command
from resynthesis import CHAINS, match_long_term_spectrum

DEMO_FOLDER = Path("demo_corpus")  # where it is written if nobody says otherwise
VERSION = 2  # raise it with every change that changes the audio: an older corpus is then written anew
MARKER = "demo_corpus.json"  # written last, so a tree without it is unfinished
TITLE = "DEMO CORPUS"  # how a later run knows the folder for its own
NOTICE = f"{TITLE}, synthetic throughout: nobody speaks here, and figures on it say nothing about real speech."

ATTACKS = {
    "D01": "mel_griffin_lim",
    "D02": "lpc_vocoder",
    "D03": "frozen_phase",
    "D04": "harmonic_noise",
    "D05": "cepstral_griffin_lim",
    "D06": "channel_vocoder",
    "D07": "coarse_lpc",
    "D08": "quantised_spectrogram",
}


@dataclass(frozen=True)
class Split:
    """One part of the corpus at scale 1."""

    name: str
    letter: str
    protocol: str
    speakers: int
    bonafide: int
    attacks: tuple[str, ...]
    per_attack: int


KNOWN, UNSEEN = ("D01", "D02", "D03", "D04"), ("D05", "D06", "D07", "D08")
SPLITS = (
    Split("train", "T", "train.trn", 18, 160, KNOWN, 52),
    Split("dev", "D", "dev.trl", 8, 64, KNOWN, 22),
    Split("eval", "E", "eval.trl", 12, 88, UNSEEN, 30),
)


@dataclass(frozen=True)
class Utterance:
    """One line of a protocol, and where its chance comes from."""

    split: int
    index: int
    speaker: int
    attack: str | None

    @property
    def name(self) -> str:
        return f"DEMO_{SPLITS[self.split].letter}_{self.index:07d}"

    def line(self) -> str:
        key = "spoof" if self.attack else "bonafide"
        return f"DEMO_{self.speaker:04d} {self.name} - {self.attack or '-'} {key}"


def plan_corpus(seed: int, scale: float) -> list[list[Utterance]]:
    """The utterances of train, dev and eval: speakers disjoint, classes in a drawn order."""
    plan, first = [], 1
    for number, split in enumerate(SPLITS):
        speakers = max(3, round(split.speakers * scale))
        attacks = [None] * max(4, round(split.bonafide * scale))
        attacks += [attack for attack in split.attacks for _ in range(max(2, round(split.per_attack * scale)))]
        rng = np.random.default_rng((seed, number))
        order = rng.permutation(len(attacks))
        # speakers go round within each class, so that no speaker stands for one class
        plan.append(
            [
                Utterance(number, index, first + int(source) % speakers, attacks[source])
                for index, source in enumerate(order, start=1)
            ]
        )
        first += speakers
    return plan


def _shape(waveform: np.ndarray, decibels: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Filter by a gain curve given in dB at a few frequencies, without delay."""
    size = next_fast_len(len(waveform) + 2048, real=True)
    bins = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    gain = 10 ** (np.interp(bins, frequency, decibels) / 20)
    return irfft(rfft(waveform, size) * gain.astype(np.float32), size)[: len(waveform)]


def _disperse(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Delay each frequency by its own 0-16 ms: pulse-excited copies then have no sharper peaks."""
    size = next_fast_len(len(waveform) + 1024, real=True)
    delay = np.interp(np.linspace(0, 1, size // 2 + 1), np.linspace(0, 1, 17), rng.uniform(0, 0.016, 17))
    turns = np.cumsum(delay) * SAMPLE_RATE / size  # the phase is the integral of the group delay
    return irfft(rfft(waveform, size) * np.exp(-2j * np.pi * turns).astype(np.complex64), size)[: len(waveform)]


def pass_channel(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What every file goes through, whatever its class: cut, pad, microphone, noise, band limit, level."""
    energy = uniform_filter1d(waveform**2, 320)
    loud = np.flatnonzero(energy > 0.002 * np.quantile(energy[::16], 0.95))
    speech = waveform[loud[0] : loud[-1] + 1]
    before, after = (rng.uniform(0.05, 0.60, 2) * SAMPLE_RATE).astype(int)
    padded = _disperse(np.pad(speech, (before, after)), rng)

    points = np.array([0, 60, 120, 300, 700, 1500, 3000, 5000, 7000, 8000], float)
    microphone = np.cumsum(rng.normal(0, 1.5, len(points)))
    microphone += rng.uniform(-3, 3) * np.linspace(-1, 1, len(points))  # dull or bright
    microphone[:3] -= (25, 8, 2)
    padded = _shape(padded, microphone, points)
    padded *= 0.1 / np.sqrt(np.mean(padded[before : before + len(speech)] ** 2))

    slope = rng.uniform(-4, 0)  # dB an octave: white to more than pink
    noise = rng.standard_normal(len(padded), dtype=np.float32)
    noise = _shape(noise, slope * np.log2(np.maximum(points, 60) / 1000), points)
    noise *= 0.1 * 10 ** (-rng.uniform(28, 45) / 20) / np.sqrt(np.mean(noise**2))
    if rng.random() < 0.3:
        turns = rng.choice([50, 60]) * np.arange(len(padded)) / SAMPLE_RATE + rng.random()
        noise += (0.1 * 10 ** (-rng.uniform(32, 48) / 20) * np.sin(2 * np.pi * turns)).astype(np.float32)
    out = padded + noise

    if rng.random() < 0.5:
        edge = rng.uniform(5200, 7200)
        out = _shape(out, np.array([0, 0, -rng.uniform(20, 50)]), np.array([0, edge, edge + 800]))
    ceiling = np.float32(rng.uniform(0.22, 0.40))  # a recorder's limiter: peaks follow it, not the class
    out = ceiling * np.tanh(out / ceiling)
    return out * np.float32(10 ** (rng.uniform(-12, 4) / 20))


def render(utterance: Utterance, speaker: Speaker, seed: int) -> np.ndarray:
    """The waveform of one utterance, float32; it depends on the seed and the utterance alone."""
    root = np.random.SeedSequence((seed, utterance.split, utterance.index))
    # separate streams: what a chain draws must not shift the channel of its class
    content, chain, channel = (np.random.default_rng(child) for child in root.spawn(3))
    waveform = record(speak(speaker, content.uniform(1.6, 3.8), content), content)
    if utterance.attack:
        copy = CHAINS[ATTACKS[utterance.attack]](waveform, chain)
        waveform = match_long_term_spectrum(copy, waveform)
    return pass_channel(waveform, channel)


def _settings(seed: int, scale: float) -> dict[str, float]:
    return {"version": VERSION, "seed": seed, "scale": scale}


def _protocol(directory: Path, split: Split) -> Path:
    return directory / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{split.protocol}.txt"


def _flac(directory: Path, utterance: Utterance) -> Path:
    return directory / f"ASVspoof2019_LA_{SPLITS[utterance.split].name}" / "flac" / f"{utterance.name}.flac"


def _is_complete(directory: Path, seed: int, scale: float, utterances: Iterable[Utterance]) -> bool:
    """Whether the marker names these settings and every file is there."""
    try:
        found = json.loads((directory / MARKER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    if found != _settings(seed, scale) or not all(_protocol(directory, split).is_file() for split in SPLITS):
        return False
    return all(_flac(directory, utterance).is_file() for utterance in utterances)


def _claim(directory: Path) -> None:
    """Make the folder ours, or refuse it; a corpus that is there counts as unfinished from now on."""
    readme = directory / "README.txt"
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is a file; give a folder for the demo corpus")
    if directory.is_dir() and any(directory.iterdir()):
        text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
        if not text.startswith(TITLE):
            raise UserError(f"{directory}: holds other files and no demo corpus; give a new or empty folder")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARKER).unlink(missing_ok=True)
        readme.write_text(_readme(), encoding="utf-8")
        for old in directory.glob("ASVspoof2019_LA_*/flac/DEMO_*.flac"):
            old.unlink()
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error})") from error


def _readme() -> str:
    attacks = "\n".join(
        f"    {name}  {CHAINS[chain].__doc__}  ({'train, dev' if name in KNOWN else 'eval'})"
        for name, chain in ATTACKS.items()
    )
    return f"""{NOTICE}

The tree has the layout of ASVspoof 2019 LA but holds none of its files. Every waveform was computed by
demo_corpus.py: "bonafide" is babble from a source-filter model of the voice, "spoof" is such babble after a
re-synthesis chain, and both passed the same kind of random channel. Use it to see that the commands work.

Attacks:
{attacks}
"""


def write_demo_corpus(directory: Path, seed: int = 1, scale: float = 1.0, progress: bool = True) -> Path:
    """Write the corpus into a folder, or reuse a finished one with the same settings; return the folder.

    `scale` multiplies the number of utterances and speakers. The same seed and scale give the same bytes.
    """
    directory = Path(directory)
    if seed < 0:
        raise UserError(f"seed {seed}: must be 0 or more")
    if not 0.01 <= scale <= 50:
        raise UserError(f"scale {scale}: must lie between 0.01 and 50")
    plan = plan_corpus(seed, scale)
    utterances = [utterance for part in plan for utterance in part]
    if _is_complete(directory, seed, scale, utterances):
        return directory
    _claim(directory)
    # 9 is no split: these streams are apart from those of the utterances
    voices = {
        number: draw_speaker(np.random.default_rng((seed, 9, number)))
        for number in {utterance.speaker for utterance in utterances}
    }

    def write(utterance: Utterance) -> None:
        pcm = np.round(render(utterance, voices[utterance.speaker], seed) * 32767).astype(np.int16)
        sf.write(_flac(directory, utterance), pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")

    try:
        _protocol(directory, SPLITS[0]).parent.mkdir(exist_ok=True)
        for split in SPLITS:
            (directory / f"ASVspoof2019_LA_{split.name}" / "flac").mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor()  # most of the time is spent in NumPy and SciPy, outside Python's lock
        try:
            done = pool.map(write, utterances)
            hidden = None if progress else True  # None: shown on a terminal only
            for _ in tqdm(done, "demo corpus", len(utterances), unit="file", disable=hidden):
                pass
        finally:  # on Ctrl-C, do not go on with what waits
            pool.shutdown(cancel_futures=True)
        for split, part in zip(SPLITS, plan, strict=True):
            lines = "".join(f"{utterance.line()}\n" for utterance in part)
            _protocol(directory, split).write_text(lines, encoding="utf-8", newline="\n")
        (directory / MARKER).write_text(json.dumps(_settings(seed, scale)) + "\n", encoding="utf-8")
    except (OSError, sf.SoundFileError) as error:
        raise UserError(f"{directory}: cannot be written ({error})") from error
    return directory


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser(description="Write a small synthetic corpus in the layout of ASVspoof 2019 LA.")
    parser.add_argument("directory", nargs="?", type=Path, default=DEMO_FOLDER, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same bytes (default 1)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of utterances (default 1)")
    options = parser.parse_args(arguments)
    directory = write_demo_corpus(options.directory, options.seed, options.scale)
    print(NOTICE)
    for split, part in zip(SPLITS, plan_corpus(options.seed, options.scale), strict=True):
        speakers = len({utterance.speaker for utterance in part})
        spoofs = sum(utterance.attack is not None for utterance in part)
        attacks = f"{split.attacks[0]}-{split.attacks[-1]}"
        print(f"{split.name:5}: {speakers} speakers, {len(part) - spoofs} bonafide, {spoofs} spoof ({attacks})")
    print(f"{directory}: complete. Next: python main.py --data {directory}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
