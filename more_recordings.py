"""More recorded speech from Debian's packages: telephone prompts, words volunteers read for children, a game's lines.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}-g722 ktuberling-data klettres-data
    for f in *.deb; do dpkg-deb -x $f unpacked; done
    python more_recordings.py unpacked --out recorded

TRAINING.md's corpus holds these. There are more (ABLATION.md says what they bring), of some voices too many:

    apt-get download tuxpaint-stamps-default fillets-ng-data-{cs,nl}
    for f in tuxpaint-stamps-default*.deb fillets-ng-data-*.deb; do dpkg-deb -x $f more_unpacked; done
    python more_recordings.py more_unpacked --out more_recorded --most 60

Whose voice a sound file is, its path tells. Most files are short: they are joined in a drawn order, each faded over 5
ms, to clips of 4-8 s, so that a joint proves nothing. 16 kHz mono FLAC and manifest.csv (all bona fide, the page is
package and speaker). Licences: asterisk CC-BY-SA-3.0, the others GPL-2+.
"""

import argparse
import csv
import re
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from audio import load_audio, write_flac
from config import SAMPLE_RATE
from errors import AudioError, CommandParser, UserError, ctrl_c, run_command

SOURCES = {  # package -> its sound files; the group is, or the groups are, the speaker
    "asterisk": r"asterisk/sounds/([^/]+)/",
    "ktuberling": r"ktuberling/sounds/([^/]+)/",
    "klettres": r"klettres/([^/]+)/",
    "tuxpaint": r"tuxpaint/stamps/.*_desc_(\w+)\.ogg$",  # a language each
    "fillets": r"fillets-ng/sound/.*/(cs|nl)/(?:[^/]*-)?([mv])[-.][^/]*$",  # the small fish and the big one
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


def sound_files(unpacked: Path) -> dict[tuple[str, str], list[Path]]:
    """(package, speaker) -> the sound files, both in order of the packages above and then of the names."""
    sounds = [path for path in sorted(unpacked.rglob("*")) if path.suffix in SUFFIXES and path.is_file()]
    paths = {path.relative_to(unpacked).as_posix(): path for path in sounds}
    found: dict[tuple[str, str], list[Path]] = {}
    for package, pattern in SOURCES.items():
        for name, path in paths.items():
            told = re.match(f"usr/share/(?:games/)?{pattern}", name)
            if told and told[1] not in TWICE:
                found.setdefault((package, "-".join(told.groups())), []).append(path)
    return found


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
    parser.add_argument("--most", type=int, metavar="N", help="at most so many clips of each speaker (default: all)")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be 0 or more")
    if options.most is not None and options.most < 1:
        raise UserError(f"--most {options.most}: must be at least 1")
    speakers = sound_files(options.unpacked)
    if not speakers:
        raise UserError(f"{options.unpacked}: no sounds of {', '.join(SOURCES)} there; see --help")
    rows, problems = [], []
    progress = tqdm(speakers.items(), unit="speaker", disable=None)
    for number, ((package, speaker), paths) in enumerate(progress):
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
        clips = joined(files, np.random.default_rng((options.seed, number)))
        for i, clip in enumerate(clips[: options.most]):
            name = f"{package}-{speaker}-{i:04d}.flac"
            options.out.mkdir(parents=True, exist_ok=True)
            write_flac(options.out / name, clip)
            rows.append((name, "bonafide", "-", f"{package}-{speaker}", "train", f"debian/{package}/{speaker}"))
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
