"""Look at a dataset before you train on it: what is there, how it sounds and looks, what gives the classes away.

    python eda.py DIR                          figures and findings in reports/eda/<name>/report.html
    python eda.py DIR --limit 2000 --seed 1    the same of a sample that keeps every split, class and attack
    python eda.py DIR --scores FILE            also: what a detector's scores go along with (several files: their mean)
    python eda.py --file clip.flac             one file over time: waveform, log-STFT, mel spectrogram

DIR is anything data_utils.py reads. Beside the report lie measurements.csv (a line a clip), summary.csv (by split,
class and attack), shortcuts.csv and joint.csv (what gives the classes away), followed.csv (what --scores go along
with) and spectra.npz (sums of spectra).
The report is written when everything is measured; after Ctrl-C the same command goes on (measurements.py).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import dataset_findings as findings
import dataset_plots as plots
from audio import load_audio
from clip_plots import ExampleClip, clips_figure
from config import BONAFIDE, DEFAULT_FEATURES, LABELS, SAMPLE_RATE, SPOOF
from data_utils import Dataset, read_dataset
from errors import CommandParser, UserError, run_command, tell_failures
from feature_extraction import log_stft, mel
from figure_style import BLACK, save_figure
from html_page import Page
from measurements import DEFINITIONS, MEASUREMENTS, Spectra, measure_clip, measure_clips
from protocols import UNKNOWN_ATTACK, UNKNOWN_SPEAKER, UNLABELLED
from score_files import read_scores
from shortcuts import FEWEST, both_classes, followed_by, joint_tests, rank_by_attack, rank_measurements
from splits import SPLIT_ORDER, stratified_sample

EXAMPLES = {BONAFIDE: 2, SPOOF: 6, UNLABELLED: 2}  # clips drawn of a class; of spoof one an attack
SIDE_BY_SIDE = 2
EXAMPLE_SECONDS = 4
MOST_FRAMES = 4000  # of a picture: a longer file gets a longer hop
DISTRIBUTIONS = {
    "Duration and level": ("seconds", "rms_db", "peak_db", "pause_db"),
    "Silence before and after": ("lead_silence", "trail_silence"),
    "Digital zeros, offset and band": ("zero_percent", "dc_db", "rolloff_hz", "bandwidth_hz", "edge_db"),
}
BARS = (
    "Each measurement as the only score, in the direction that separates better, and boosted trees of all of them. "
    "Black: 95 % intervals from resampling pages, else speakers, else clips."
)
FOLLOWING = (
    "Rank correlation of the spoof logit with each measurement, within one class: above zero, the higher the "
    "measurement the more spoof-like the score. The classes cannot explain it, but attacks, pages and speakers can, "
    "being harder or easier; what is left within the same attack (of spoof) or page, else speaker (of bona fide), "
    "stands beside it. To know whether the detector uses it, change it in the clips and score them again. Thirds by "
    "the measurement: share called spoof at the EER threshold of these scores; a dash where too many share a value. "
    "Beyond chance: more than chance gives in one of 20 such tables."
)
SUMMARY_SHOWN = ("split", "class", "listed", "found", "measured", "hours", "speakers")


def sample_rows(table: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """About `limit` rows in the old order, at least one of every split, class and attack."""
    if limit is None or limit >= len(table):
        return table
    strata = table.assign(attack=table["split"] + "\n" + table["attack"])
    return table.loc[stratified_sample(strata, limit / len(table), seed).index]


def summarise(listed: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """A row for each split and class, attack "all", and one for each attack in it.

    Counted are the clips that the dataset lists, that have a file, that were measured; the rest is of the last.
    """
    columns = ["split", "label", "attack"]
    parts = [listed.assign(attack="all"), listed[(listed["label"] == SPOOF).to_numpy()]]
    counts = pd.concat(parts).groupby(columns)["path"].agg(listed="size", found="count")
    known = measured["speaker"].where(measured["speaker"] != UNKNOWN_SPEAKER)
    clips = pd.concat([part.assign(speaker=known, measured=1) for part in (measured.assign(attack="all"), measured)])
    groups = clips.groupby(columns)
    sums = groups.agg(measured=("measured", "sum"), hours=("seconds", "sum"), speakers=("speaker", "nunique"))
    medians = groups[list(MEASUREMENTS)].median().add_prefix("median_")
    summary = counts.join(sums).join(medians).reset_index()
    summary[["measured", "hours", "speakers"]] = summary[["measured", "hours", "speakers"]].fillna(0)
    summary = summary.astype({"measured": int, "speakers": int}).assign(hours=summary["hours"] / 3600)
    places = {split: number for number, split in enumerate((*SPLIT_ORDER, "-"))}
    order = pd.DataFrame(
        {
            "split": summary["split"].map(places),
            "label": summary["label"] % 3,  # -1, no label, comes last
            "attack": summary["attack"].where(summary["attack"] != "all", ""),
        }
    )
    return summary.loc[order.sort_values(columns).index].reset_index(drop=True)


def in_words(summary: pd.DataFrame) -> pd.DataFrame:
    """The same table with the classes' names."""
    names = {label: name for label, (name, _) in plots.CLASSES.items()}
    return summary.assign(label=summary["label"].map(names)).rename(columns={"label": "class"})


# ---------------------------------------------------------------- clips


def names_attacks(table: pd.DataFrame) -> bool:
    """Whether of any spoof clip is said which system made it."""
    return bool(((table["label"] == SPOOF) & (table["attack"] != UNKNOWN_ATTACK)).any())


def example_clip(title: str, waveform: np.ndarray, colour: str = BLACK) -> ExampleClip:
    """A waveform (samples,) with its pictures."""
    hop = max(256, -(-len(waveform) // MOST_FRAMES))
    stft, bands = (replace(DEFAULT_FEATURES[kind], samples=len(waveform), hop=hop) for kind in ("log_stft", "mel"))
    return ExampleClip(title, waveform, log_stft(waveform, stft)[..., 0], mel(waveform, bands)[..., 0], colour)


def choose_examples(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A few rows of every class, of spoof one of each of the most frequent attacks."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label, count in EXAMPLES.items():
        rows = table[(table["label"] == label).to_numpy()]
        if label == SPOOF:
            attacks = rows["attack"].value_counts().index[:count]
            chosen += [rng.choice(rows.index[rows["attack"] == attack]) for attack in attacks]
        else:
            chosen += rng.choice(rows.index, min(count, len(rows)), replace=False).tolist()
    return table.loc[chosen]


def draw_file(path: Path, folder: Path) -> Path:
    """Write the figure of one file into a folder and print what was measured of it."""
    values, _ = measure_clip(path)
    title = f"{path.name}, {values['seconds']:.2f} s"
    for name, (what, unit) in MEASUREMENTS.items():
        print(f"{what:24} {values[name]:.5g} {unit}")
    return save_figure(clips_figure([example_clip(title, load_audio(path))]), folder / f"{path.stem}.png")


# ---------------------------------------------------------------- the report


def _contents(page: Page, dataset: Dataset, summary: pd.DataFrame, good: pd.DataFrame, bad: pd.DataFrame) -> None:
    page.section("What is there")
    of_class = summary[(summary["attack"] == "all").to_numpy()]
    page.figure(plots.class_bars(of_class), "Clips by split and class", findings.balance(of_class))
    page.table(in_words(of_class)[list(SUMMARY_SHOWN)].round({"hours": 2}))
    missing = int(dataset.table["path"].isna().sum())
    if missing:
        page.text(f"{missing:,} of the {len(dataset.table):,} files that the lists name are missing and passed over.")
    unlabelled = int((dataset.table["label"] == UNLABELLED).sum())
    if unlabelled:
        page.text(f"{unlabelled:,} clips have no label: they are drawn in grey and in no comparison of the classes.")
    if len(bad):
        page.text(f"{len(bad):,} files cannot be used and are left out; they are listed at the end.")
    for note in dataset.notes:
        page.text(f"Note: {note}.")
    if (good["label"] == SPOOF).any():
        page.section("Attacks")
        if names_attacks(good):
            page.figure(plots.attack_bars(good), "Spoof clips by attack and split", findings.attacks(good))
        else:
            page.text("Which system made a clip is not said, so nothing is compared by attack.")
    page.section("Speakers")
    known = good[(good["speaker"] != UNKNOWN_SPEAKER).to_numpy()]
    if len(known):
        page.figure(plots.speaker_curves(known), "Clips by speaker and class", findings.speakers(good))
    else:
        page.text(findings.speakers(good))


def _distributions(page: Page, good: pd.DataFrame, ranked: pd.DataFrame) -> None:
    for title, names in DISTRIBUTIONS.items():
        page.section(title)
        said = findings.of_measurements(ranked, names) if len(ranked) else findings.medians(good, names)
        described = f"Distribution by class of {', '.join(MEASUREMENTS[name][0] for name in names)}"
        page.figure(plots.histograms(good, names), described, said)
    page.section("Files")
    if plots.file_kind(good).nunique() > 1:
        page.figure(plots.format_bars(good), "Files by sample rate, channels and suffix", findings.formats(good))
    else:
        page.text(findings.formats(good))


def _spectra(page: Page, good: pd.DataFrame, spectra: Spectra) -> None:
    page.section("Mean spectrum")
    about = "Mean over clips of the spectrum in dB of the clip's power, by class, and the difference of the classes"
    page.figure(plots.mean_spectra(spectra), about, findings.spectrum(spectra))
    if (good["label"] == BONAFIDE).any() and names_attacks(good):
        spoof = good[(good["label"] == SPOOF).to_numpy()]
        shown = plots.top_attacks(good)[spoof.index]
        order = plots.attack_order(set(shown), shown.value_counts())
        members = {name: sorted(set(spoof.loc[shown == name, "attack"])) for name in order}
        about = "Mean spectrum of each attack less that of bona fide"
        page.figure(plots.attack_spectra(spectra, members), about, findings.attack_spectra(spectra, members))


def _shortcuts(page: Page, labelled: pd.DataFrame, ranked: pd.DataFrame, joint: pd.DataFrame) -> None:
    page.section("What gives the classes away")
    if ranked.empty:
        page.text("Not tested.")
        return
    page.figure(plots.shortcut_bars(ranked, joint), "EER of each measurement and of all together", BARS)
    page.table(findings.ranking(ranked))
    if not names_attacks(labelled):
        return
    shown = plots.top_attacks(labelled)
    grid = rank_by_attack(labelled, shown)
    if len(grid):
        grid = grid.loc[plots.attack_order(grid.index, shown.value_counts()), (grid < 0.5).any()]
        described = "EER of each measurement between one attack and all bona fide clips"
        page.figure(plots.shortcut_grid(grid), described, findings.by_attack(grid))


def _followed(page: Page, followed: pd.DataFrame) -> None:
    page.section("What the detector's scores go along with, within each class")
    page.text(FOLLOWING)
    page.table(findings.following(followed))


def mean_scores(files: list[Path]) -> pd.DataFrame:
    """Label and cm_score by utterance id: the mean over score files of the same utterances."""
    tables = [read_scores(file).set_index("utterance_id") for file in files]
    for file, table in zip(files, tables, strict=True):
        if set(table.index) != set(tables[0].index):
            raise UserError(f"{file}: not the same utterances as in {files[0]}")
    score = sum(table["score"].reindex(tables[0].index) for table in tables) / len(tables)
    if not np.ptp(score):
        raise UserError(f"{files[0]}: all scores are {score.iloc[0]:g}: they go along with nothing")
    return tables[0][["label"]].assign(score=score)


def with_scores(clips: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The labelled clips that have a score, with `score`; refused where scores are of other clips or labels."""
    both = clips[clips["utterance_id"].isin(scores.index) & (clips["label"] != UNLABELLED)].reset_index(drop=True)
    if not both_classes(both):
        counts = " and ".join(f"{(both['label'] == label).sum()} {LABELS[label]}" for label in (BONAFIDE, SPOOF))
        raise UserError(
            f"--scores: {counts} clips of this dataset have one, {FEWEST} of each class are needed; scores are of "
            f"{scores.index[0]} ..., clips are {clips['utterance_id'].iloc[0]} ..."
        )
    scores = scores.loc[both["utterance_id"]]
    other = np.flatnonzero(both["label"].to_numpy() != scores["label"].to_numpy())
    if len(other):
        name, label = both.loc[other[0], ["utterance_id", "label"]]
        raise UserError(f"--scores: {len(other)} labels differ; {name} is {LABELS[label]} in the dataset")
    return both.assign(score=scores["score"].to_numpy())


def _examples(page: Page, good: pd.DataFrame, seed: int) -> None:
    page.section("Examples")
    page.text(f"Drawn at random (seed {seed}); the first {EXAMPLE_SECONDS} s of each clip.")
    rows = list(choose_examples(good, seed).itertuples())
    for first in range(0, len(rows), SIDE_BY_SIDE):
        clips = []
        with page.side_by_side():
            for row in rows[first : first + SIDE_BY_SIDE]:
                name, colour = plots.CLASSES[row.label]
                what = row.attack if row.label == SPOOF and row.attack != UNKNOWN_ATTACK else name
                waveform = load_audio(row.path)[: EXAMPLE_SECONDS * SAMPLE_RATE]
                clips.append(example_clip(f"{what}, {plots.split_name(row.split)}", waveform, colour))
                page.audio(waveform, f"{clips[-1].title}: {row.utterance_id}")
        page.figure(clips_figure(clips), f"Waveform and spectra of {'; '.join(clip.title for clip in clips)}")


def write_report(
    dataset: Dataset, table: pd.DataFrame, spectra: Spectra, folder: Path, seed: int, scores: pd.DataFrame | None
) -> list[str]:
    """Write report.html and its tables from what was measured; returns the findings on shortcuts."""
    good, bad = (table[mask].reset_index(drop=True) for mask in (table["error"] == "", table["error"] != ""))
    labelled = good[(good["label"] != UNLABELLED).to_numpy()].reset_index(drop=True)
    summary = summarise(dataset.table, good)
    ranked, joint = rank_measurements(labelled), joint_tests(labelled, seed)
    in_words(summary).to_csv(folder / "summary.csv", index=False, float_format="%.6g")
    ranked.to_csv(folder / "shortcuts.csv", index=False, float_format="%.6g")
    joint.to_csv(folder / "joint.csv", index=False, float_format="%.6g")
    found = int(dataset.table["path"].notna().sum())
    sampled = f", a sample of {found:,} that keeps every split, class and attack" if len(table) < found else ""
    page = Page(f"Dataset {dataset.name}", f"{len(good):,} clips, {good['seconds'].sum() / 3600:,.2f} hours{sampled}.")
    page.section("In short")
    told = findings.shortcuts(ranked, joint)
    followed_file = folder / "followed.csv"
    followed_file.unlink(missing_ok=True)  # of other scores
    if scores is not None:
        scored = with_scores(labelled, scores)
        followed = followed_by(scored, scored["score"].to_numpy())
        followed.to_csv(followed_file, index=False, float_format="%.6g")
        told += findings.followed(followed)
    for finding in told:
        page.text(finding)
    _contents(page, dataset, summary, good, bad)
    _distributions(page, good, ranked)
    _spectra(page, good, spectra)
    _shortcuts(page, labelled, ranked, joint)
    if scores is not None:
        _followed(page, followed)
    _examples(page, good, seed)
    page.section("How it was measured")
    page.preformatted(DEFINITIONS)
    if len(bad):
        page.section("Files that cannot be used")
        page.preformatted("\n".join(bad["error"]))
    page.write(folder / "report.html")
    return told


def look_at(directory: Path, folder: Path | None, limit: int | None, seed: int, scores: list[Path]) -> int:
    """Measure a dataset and write its report; 1 if files could not be used."""
    scored = mean_scores(scores) if scores else None
    dataset = read_dataset(directory)
    rows = sample_rows(dataset.usable(allow_missing=True, labelled=False), limit, seed)
    if scored is not None:
        with_scores(rows, scored)  # refused before all is measured
    folder = folder or Path("reports") / "eda" / dataset.name
    listed, missing = len(dataset.table), int(dataset.table["path"].isna().sum())
    print(f"{dataset.name}: {listed:,} clips listed, {missing:,} files missing, {len(rows):,} to measure")
    unlabelled = int((rows["label"] == UNLABELLED).sum())
    if unlabelled:
        print(f"{unlabelled:,} of them have no label: the classes are compared without these")
    table, spectra = measure_clips(rows, folder)
    errors = table.loc[table["error"] != "", "error"]
    if len(errors) == len(table):
        raise UserError(f"{dataset.root}: none of {len(table):,} files can be used; the first: {errors.iloc[0]}")
    print("measured; comparing the classes and drawing the report")
    for finding in write_report(dataset, table, spectra, folder, seed, scored):
        print(f"- {finding}")
    print(f"report  {folder / 'report.html'}")
    return tell_failures(errors.tolist(), len(table), "cannot be used")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line and refuse what has no effect."""
    parser = CommandParser(description="Look at a dataset: counts, distributions, spectra, shortcuts, examples.")
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="dataset folder, or a CSV / TSV")
    parser.add_argument("--file", type=Path, metavar="F", help="draw this one file instead of a dataset")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: reports/eda/<name of the dataset>")
    parser.add_argument("--limit", type=int, metavar="N", help="about so many clips, of every split, class and attack")
    parser.add_argument("--seed", type=int, help="of the sample, the examples and the folds (default 1)")
    text = "what do these scores go along with? (of several files, all of the same clips, the mean)"
    parser.add_argument("--scores", type=Path, nargs="+", default=[], metavar="FILE", help=text)
    options = parser.parse_args(arguments)
    if (options.directory is None) == (options.file is None):
        raise UserError("give either the folder of a dataset or --file F (see --help)")
    if options.file is not None and (options.limit is not None or options.seed is not None or options.scores):
        raise UserError("--file draws one file whole: --limit, --seed and --scores have no effect on it")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit}: must be 1 or more")
    if options.seed is not None and options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be 0 or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.file is not None:
        print(f"figure  {draw_file(options.file, options.out or Path('reports') / 'eda')}")
        return 0
    seed = 1 if options.seed is None else options.seed
    return look_at(options.directory, options.out, options.limit, seed, options.scores)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
