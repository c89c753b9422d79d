"""A page in the browser: drop or record clips, read a verdict and what it is worth.

    make app                      # or: python -m streamlit run app.py, then open http://localhost:8501

The models offered are those of pretrained/ and the finished runs below runs/. Uploads stay in memory for as long
as the page is open (uploads.py).
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st
from matplotlib.figure import Figure

from config import SAMPLE_RATE, FeatureConfig
from errors import AudioError, UserError
from figure_style import png_bytes
from file_index import AUDIO_SUFFIXES
from uploads import MAX_MEGABYTES, MAX_MINUTES, read_clip

MAX_FILES = 20  # at once, while the visitor waits; for more there is inference.py
SHOWN_SECONDS = 30  # of a spectrogram; more is neither legible nor light
MAX_WINDOWS = 240  # of a timeline; the steps of a longer clip grow
MAX_SEGMENTS = 8  # named below a timeline
PICTURE = (5.2, 200)  # width in inches and dpi: text that can be read on a telephone, sharp on a desk
NO_MODEL = (
    "There is no trained detector here yet. Run `python main.py` in a terminal: it trains a small one in about four "
    "minutes; then reload this page."
)


def main() -> None:
    st.set_page_config("Recorded or synthetic?")  # an icon would be fetched from a font service
    st.title("Recorded or synthetic?")
    st.write("Upload or record speech. A detector says whether it sounds recorded from a person or made by a machine.")
    with st.spinner("Starting the detector. The first visit after a start takes some seconds."):
        from verdict_words import plain  # TensorFlow comes with it, after the page has a head
    try:
        detector = choose_detector()
        uploads = ask_for_clips()
        results = judge_all(detector, uploads)
        if uploads:
            show_results(detector, uploads, results)
        show_card(detector.card)
    except UserError as error:
        st.error(plain(error), icon=":material/error:")


# ---------------------------------------------------------------- the model


class Detector(NamedTuple):
    """A model and what is known of it."""

    model: Any  # keras.Model
    card: dict[str, Any]  # empty where the model comes without one
    key: str  # of its file as it is now


def choose_detector() -> Detector:
    """The model that the visitor chooses; without one the page ends here."""
    from inference import as_model
    from model import PRETRAINED, find_model, read_card

    # metrics.json comes last: without it a run is not finished
    runs = sorted(Path("runs").glob("*/metrics.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    offered = {file.stem: file for file in sorted(PRETRAINED.glob("*.keras"))}
    offered |= {f"run {file.parent.name}": file.with_name("best.keras") for file in runs}
    own = "another file ..."
    # a stranger's path would ask the server about its disk
    local = st.get_option("server.address") in ("localhost", "127.0.0.1")
    if not offered:
        st.info(NO_MODEL, icon=":material/school:")
        if not local:
            st.stop()
    choice = st.selectbox("Detector", [*offered, *([own] if local else [])])
    if choice == own:
        path = st.text_input("Model file or run folder", placeholder="runs/... or a .keras / .h5 file").strip()
        if not path:
            st.stop()
        file = find_model(path)
    else:
        file = offered[choice]
    with st.spinner("Loading the detector ..."), one_at_a_time():
        return Detector(as_model(file), read_card(file) or {}, f"{file} {file.stat().st_mtime_ns}")


@st.cache_resource
def one_at_a_time() -> threading.Lock:
    """Two visitors' models and clips are not loaded and judged at once: memory is needed for one only."""
    return threading.Lock()


# ---------------------------------------------------------------- clips


def ask_for_clips() -> list[Any]:
    """The uploaded files and the recording, as Streamlit's in-memory files."""
    uploads = st.file_uploader(
        f"Sound files (up to {MAX_FILES}; each up to {MAX_MEGABYTES} MB and {MAX_MINUTES} minutes)",
        sorted(suffix.removeprefix(".") for suffix in AUDIO_SUFFIXES),
        accept_multiple_files=True,
        max_upload_size=MAX_MEGABYTES,
    )
    recording = st.audio_input("Or record a voice (a few seconds are enough)")
    st.caption(
        "Nothing is kept: files are in memory while this page is open, then they are forgotten. What a loudspeaker "
        "plays is a recording once it is recorded, so upload the file itself where you have it."
    )
    return [*uploads, *([recording] if recording else [])]


def judge_upload(model: Any, upload: Any) -> dict[str, Any] | AudioError:
    """The verdict on one upload, without its waveform; or why there is none."""
    from inference import predict_waveform

    try:
        with one_at_a_time():
            return dict(predict_waveform(model, read_clip(upload.name, upload.getvalue()), upload.name))
    except AudioError as error:
        return error


def judge_all(detector: Detector, uploads: list[Any]) -> list[dict[str, Any] | AudioError]:
    """Verdicts in the order of the uploads; what this visitor's page has judged already is not judged again."""
    known = st.session_state.setdefault("judged", {})
    accepted = {(detector.key, upload.file_id): upload for upload in uploads[:MAX_FILES]}
    progress = st.empty()
    for number, (key, upload) in enumerate(accepted.items()):
        if key not in known:
            progress.progress(number / len(accepted), f"Listening to {number + 1} of {len(accepted)} ...")
            known[key] = judge_upload(detector.model, upload)
    progress.empty()
    st.session_state.judged = {key: known[key] for key in accepted}  # a file taken away is forgotten
    left_out = f"left out, {MAX_FILES} files at once are the limit"
    errors = [AudioError(f"{upload.name}: {left_out}") for upload in uploads[MAX_FILES:]]
    return [*st.session_state.judged.values(), *errors]


# ---------------------------------------------------------------- results


def show_results(detector: Detector, uploads: list[Any], results: list[dict[str, Any] | AudioError]) -> None:
    """What could not be judged, the table of several clips, and one clip in full."""
    from verdict_words import plain

    errors = [result for result in results if isinstance(result, AudioError)]
    for error in errors:
        st.error(plain(error), icon=":material/error:")
    if errors:
        st.caption("Whole files of speech are needed. If in doubt open yours in an audio editor and save it as WAV.")
    if len(results) > 1:
        show_table(uploads, results)
    good = [number for number, result in enumerate(results) if not isinstance(result, AudioError)]
    if not good:
        return
    number = good[0]
    if len(good) > 1:
        number = st.selectbox("In full", good, format_func=lambda n: f"{n + 1}. {uploads[n].name}")
    show_verdict(detector, results[number])
    show_clip(detector, uploads[number])


def show_table(uploads: list[Any], results: list[dict[str, Any] | AudioError]) -> None:
    """One row a clip, and the same table as `inference.py --csv` writes it."""
    from inference import CSV_COLUMNS, table_row
    from verdict_words import VERDICTS

    rows = [table_row(upload.name, result) for upload, result in zip(uploads, results, strict=True)]
    table = pd.DataFrame(rows, columns=CSV_COLUMNS)
    shown = table[["path", "verdict", "spoof_probability", "seconds", "warnings", "error"]].rename(
        columns={"path": "clip", "spoof_probability": "spoof probability"}
    )
    texts = {"verdict": "not judged", "warnings": "", "error": ""}
    shown["verdict"] = shown["verdict"].map({verdict: words for verdict, (_, words) in VERDICTS.items()})
    shown = shown.astype(dict.fromkeys(texts, object)).fillna(texts)
    decimals = {"spoof probability": "%.3f", "seconds": "%.1f"}
    columns = {name: st.column_config.NumberColumn(format=format) for name, format in decimals.items()}
    st.dataframe(shown, hide_index=True, column_config=columns)
    csv = table.to_csv(index=False).encode()
    st.download_button("Table as CSV", csv, "verdicts.csv", "text/csv", icon=":material/download:")


def show_verdict(detector: Detector, result: dict[str, Any]) -> None:
    """The verdict in words, the probability with its domain, and what both are worth."""
    from verdict_words import DEMO_ONLY, NOT_A_PROOF, VERDICTS, domain, is_demo, limits, meaning, plain, rounded

    icon, words = VERDICTS[result["verdict"]]
    probability = result["spoof_probability"]
    with st.container(border=True):
        st.subheader(f"{icon} {words}", anchor=False)
        st.caption(f"{plain(result['path'])}, {result['seconds']:.1f} s")
        st.markdown(f"Spoof probability **{rounded(probability)}**, {domain(detector.card, result)}.")
        st.progress(probability, "0 = recorded, 1 = synthetic")
        st.caption(limits(detector.model))
        if result["warnings"]:
            st.warning(f"About this clip: {plain('; '.join(result['warnings']))}.", icon=":material/warning:")
    if is_demo(detector.card):
        st.warning(DEMO_ONLY, icon=":material/science:")
    st.markdown(meaning(result))
    st.markdown(NOT_A_PROOF)


def show_clip(detector: Detector, upload: Any) -> None:
    """Sound and spectrogram; where it is asked for, what takes longer: explanation and timeline."""
    waveform, pictures = current_clip(detector, upload)
    st.audio(waveform, sample_rate=SAMPLE_RATE)
    if st.toggle("Show which parts of the sound speak for the verdict"):
        start = window_start(detector.model, waveform)
        show_picture(
            pictures, f"explanation {start}", lambda: explanation(detector.model, waveform, start, upload.name)
        )
    else:
        show_picture(pictures, "spectrogram", lambda: spectrogram(waveform))
    if st.toggle("Show how the verdict changes over the clip"):
        show_picture(pictures, "timeline", lambda: course(detector.model, waveform, upload.name))


def current_clip(detector: Detector, upload: Any) -> tuple[np.ndarray, dict[str, tuple[bytes, str]]]:
    """Waveform of the clip shown in full and the pictures drawn of it so far; another clip takes their place."""
    key = (detector.key, upload.file_id)
    if st.session_state.get("clip", (None,))[0] != key:
        st.session_state.clip = (key, read_clip(upload.name, upload.getvalue()), {})
        st.session_state.pop("strongest", None)
    return st.session_state.clip[1:]


def window_start(model: Any, waveform: np.ndarray) -> float:
    """Where the window to explain begins, in seconds: the strongest one for the verdict, or the visitor's choice."""
    from explain import strongest_window
    from inference import input_samples

    last = max(0, len(waveform) - input_samples(model)) * 10 // SAMPLE_RATE / 10  # a slider's steps are of 0.1 s
    if last == 0:
        return 0.0
    if "strongest" not in st.session_state:
        with st.spinner("Looking for the strongest window ..."), one_at_a_time():
            st.session_state.strongest = min(last, round(strongest_window(model, waveform) / SAMPLE_RATE, 1))
    clip = str(st.session_state.clip[0])  # another clip begins at its own strongest window
    return st.slider("Explain the window from second", 0.0, last, st.session_state.strongest, step=0.1, key=clip)


def show_picture(pictures: dict[str, tuple[bytes, str]], name: str, draw: Callable[[], tuple[Figure, str]]) -> None:
    """A figure and what it shows, drawn once."""
    from verdict_words import plain

    if name not in pictures:
        with st.spinner("Listening again ..."), one_at_a_time():
            figure, description = draw()
        width, dpi = PICTURE
        figure.set_size_inches(width, figure.get_figheight())
        figure.set_dpi(dpi)
        pictures[name] = png_bytes(figure), description
    png, description = pictures[name]
    st.image(png, plain(description), width="stretch", alt=description)


def spectrogram(waveform: np.ndarray) -> tuple[Figure, str]:
    from clip_plots import clip_figure
    from feature_extraction import log_stft

    start = waveform[: SHOWN_SECONDS * SAMPLE_RATE]
    cut = f", the first {SHOWN_SECONDS} s" if len(start) < len(waveform) else ""
    figure = clip_figure(start, log_stft(start, FeatureConfig(samples=len(start)))[..., 0])
    return figure, f"Waveform and spectrogram{cut}"


def explanation(model: Any, waveform: np.ndarray, start: float, name: str) -> tuple[Figure, str]:
    from explain import explain
    from verdict_words import TERMS

    result = explain(model, waveform, start=start, name=name)
    return result.figure(), (
        f"In this window: {result.sentence()}. What the detector reacts to, not what is wrong. {TERMS}"
    )


def course(model: Any, waveform: np.ndarray, name: str) -> tuple[Figure, str]:
    from timeline import HOP, timeline
    from verdict_words import TERMS

    result = timeline(model, waveform, hop=max(HOP, len(waveform) / SAMPLE_RATE / MAX_WINDOWS), name=name)
    found = [f"{s.start:.1f}-{s.end:.1f} s ({s.label})" for s in result.segments.itertuples()]
    named = ", ".join(found[:MAX_SEGMENTS]) + (f" and {len(found) - MAX_SEGMENTS} more" * (len(found) > MAX_SEGMENTS))
    return result.figure(), (
        f"Windows of {result.window:g} s every {result.hop:.2g} s. So little sound is judged less surely than the "
        f"whole clip. Above the threshold: {named or 'nothing'}. {TERMS}"
        + "".join(f" Note: {warning}." for warning in result.warnings)
    )


def show_card(card: dict[str, Any]) -> None:
    from verdict_words import HOW_TO_READ_A_CARD, card_rows, plain

    with st.expander("About this detector", icon=":material/info:"):
        if not card:
            st.write("It comes without a card: nobody can say what it was trained on or how often it errs.")
            return
        st.markdown("\n".join(f"- **{name}**: {plain(value)}" for name, value in card_rows(card).items()))
        st.caption(HOW_TO_READ_A_CARD)


if __name__ == "__main__":
    main()
