"""The clips that a model gets most wrong, to hear and to see: part of a run's report.

    wrong, trials = errors_of(scores, threshold, calibration, clips)
    show_errors(page, wrong, samples)

A clip that is not there or cannot be read is named with the reason, and the rest goes on.
"""

from typing import Any

import numpy as np
import pandas as pd

from audio import fit_length, load_audio
from calibration import log_likelihood_ratio
from clip_plots import draw_spectrogram
from config import SAMPLE_RATE, SPOOF, FeatureConfig
from errors import AudioError
from feature_extraction import log_stft
from figure_style import CLASS_NAMES, figure_with_axes
from html_page import Page
from protocols import UNKNOWN_SPEAKER

SHOWN = 8  # of each class
PLAYED_SECONDS = 80  # of all players together: it keeps the page below 4 MB


def errors_of(
    scores: pd.DataFrame, threshold: float, calibration: dict[str, Any], clips: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials on the wrong side of a cm_score threshold, the furthest first, and all trials.

    `clips` (utterance_id, path, speaker) says where they are and who speaks; a trial may be missing there.
    Added are distance (of the score from the threshold, positive = wrong side) and spoof_probability.
    """
    where = clips[["utterance_id", "path", "speaker"]].drop_duplicates("utterance_id")
    trials = scores.drop(columns="speaker").merge(where, on="utterance_id", how="left")
    trials["speaker"] = trials["speaker"].fillna(UNKNOWN_SPEAKER)
    llr = log_likelihood_ratio(trials["score"], calibration)
    trials["spoof_probability"] = 1 / (1 + np.exp(np.clip(llr, -500, 500)))
    above, spoof = trials["score"] - threshold, trials["label"] == SPOOF
    trials["distance"] = np.where(spoof, above, -above)
    wrong = trials[np.where(spoof, above > 0, above <= 0)]  # a score at the threshold is called spoof
    return wrong.sort_values("distance", ascending=False, kind="stable"), trials


def show_errors(page: Page, wrong: pd.DataFrame, samples: int) -> None:
    """Put the worst of `errors_of` on a page, each with the `samples` that the model heard."""
    count = int(np.clip(PLAYED_SECONDS * SAMPLE_RATE // (2 * samples), 1, SHOWN))
    page.text(
        f"The clips furthest on the wrong side, at most {count} of a class, as the model heard them: the first "
        f"{samples / SAMPLE_RATE:.1f} s, a shorter clip repeated."
    )
    for label, name in enumerate(CLASS_NAMES):
        worst = wrong[wrong["label"] == label].head(count)
        if len(worst):
            page.text(f"{name.capitalize()} called {CLASS_NAMES[1 - label]}:")
            with page.side_by_side():
                for clip in worst.itertuples():
                    with page.together():
                        _show_clip(page, clip, samples)


def _show_clip(page: Page, clip: Any, samples: int) -> None:
    """One clip: what it is, how it sounds and looks."""
    attack = "" if clip.label != SPOOF else f", attack {clip.attack}"
    speaker = "" if clip.speaker == UNKNOWN_SPEAKER else f", speaker {clip.speaker}"
    about = (
        f"{clip.utterance_id}{attack}{speaker}: score {clip.score:.2f}, {clip.distance:.2f} on the wrong side, "
        f"spoof probability {clip.spoof_probability:.3f}"
    )
    try:
        if not isinstance(clip.path, str):
            raise AudioError("the file was not found")
        waveform = fit_length(load_audio(clip.path), samples)
    except AudioError as error:
        page.text(f"{about}. No player: {error}.")
        return
    page.audio(waveform, about)
    figure, axes = figure_with_axes(4.4, 1.7)
    figure.set_dpi(100)  # many of them on one page: coarse cells, each a block of equal pixels, keep it small
    axes.grid(False)
    picture = log_stft(waveform, FeatureConfig(samples=samples, window=512, hop=max(1, samples // 100)))[..., 0]
    draw_spectrogram(axes, picture, samples / SAMPLE_RATE).set_interpolation("nearest")
    page.figure(figure, f"spectrogram of {clip.utterance_id}")
