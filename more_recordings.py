"""More recorded speech from Debian's packages: telephone prompts, and words that volunteers read for children's games.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-g722 ktuberling-data klettres-data
    for f in *.deb; do dpkg-deb -x $f unpacked; done
    python more_recordings.py unpacked --out recorded

One folder of sound files counts as one speaker. Most files are short: they are joined in a drawn order, each faded
over 5 ms, to clips of 4-8 s, so that a joint proves nothing. 16 kHz mono FLAC and manifest.csv (all bona fide, the
page is package and language). Licences: asterisk CC-BY-SA-3.0, ktuberling and klettres GPL-2+.
"""

import argparse
import csv
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from audio import load_audio, write_flac
from config import SAMPLE_RATE
from errors import AudioError, CommandParser, UserError, ctrl_c, run_command

SOURCES = {  # package -> where its sounds are, one folder a speaker
    "asterisk": "usr/share/asterisk/sounds/*",
    "ktuberling": "usr/share/ktuberling/sounds/*",
    "klettres": "usr/share/klettres/*",
}
SUFFIXES = {".g722", ".ogg", ".wav"}
TWICE = {"sr@ijekavian", "sr@ijekavianlatin", "sr@latin"}  # the files of sr again
SHORTEST, FROM, TO = 0.35, 4.0, 8.0  # seconds of a file; of a clip
FEWEST = 15  # seconds of a speaker


def read(path: Path) -> np.ndarray:
    """One sound file as float32 at 16 kHz; a .g722 has no header."""
    if path.suffix != ".g722":
        return load_audio(path)
    try:
        with av.open(str(path), format="g722") as container:
            frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    except av.error.FFmpegError as error:
        raise AudioError(f"{path}: cannot be decoded ({error.strerror})") from error
    if not frames:
        raise AudioError(f"{path}: holds no audio samples")
    return np.concatenate(frames).astype(np.float32) / 32768


def joined(files: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Clips of 4-8 s from files in a drawn order; a longer file is cut."""
    fade = np.linspace(0, 1, SAMPLE_RATE // 200, dtype=np.float32)
    clips, parts, most = [], [], int(TO * SAMPLE_RATE)
    for i in rng.permutation(len(files)):
        part = files[i][:most].copy()
        part[: len(fade)] *= fade
        part[-len(fade) :] *= fade[::-1]
        parts.append(part)
        if sum(map(len, parts)) >= FROM * SAMPLE_RATE:
            clips.append(np.concatenate(parts)[:most])
            parts = []
    return clips


def main(arguments: list[str] | None = None) -> int:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unpacked", type=Path, metavar="DIR", help="folder that the packages were unpacked in")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the clips")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which files are joined (default 1)")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be 0 or more")
    speakers = []
    for name, pattern in SOURCES.items():
        folders = (folder for folder in sorted(options.unpacked.glob(pattern)) if folder.name not in TWICE)
        for folder in folders:
            files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
            if files:
                speakers.append((name, folder.name, files))
    if not speakers:
        raise UserError(f"{options.unpacked}: no sounds of {', '.join(SOURCES)} there; see --help")
    rows, problems = [], []
    for number, (package, language, paths) in enumerate(tqdm(speakers, unit="speaker", disable=None)):
        ctrl_c.check()
        files = []
        for path in paths:
            try:
                waveform = read(path)
            except AudioError as error:
                problems.append(str(error))
                continue
            if len(waveform) >= SHORTEST * SAMPLE_RATE:
                files.append(waveform)
        if sum(map(len, files)) < FEWEST * SAMPLE_RATE:
            continue
        for i, clip in enumerate(joined(files, np.random.default_rng((options.seed, number)))):
            name = f"{package}-{language}-{i:04d}.flac"
            options.out.mkdir(parents=True, exist_ok=True)
            write_flac(options.out / name, clip)
            rows.append((name, "bonafide", "-", f"{package}-{language}", "train", f"debian/{package}/{language}"))
    if not rows:
        raise UserError(f"{options.unpacked}: no speaker with {FEWEST} s of sound that can be read")
    with (options.out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        header = ("path", "label", "attack", "speaker", "split", "page")
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    for problem in problems:
        print(f"left out: {problem}")
    print(f"{options.out}: {len(rows):,} clips of {len({row[3] for row in rows})} speakers")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
