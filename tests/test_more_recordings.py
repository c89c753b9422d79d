"""Sound files of packages become clips of 4-8 s, a speaker a folder."""

import av
import numpy as np
import pytest
import soundfile as sf

from audio import load_audio
from config import BONAFIDE, SAMPLE_RATE
from data_utils import read_dataset
from errors import UserError
from more_recordings import main, read


def write_g722(path, waveform):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((waveform * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_g722_without_a_header_is_read(tmp_path, speech_like):
    waveform = speech_like(1.0)
    write_g722(tmp_path / "a.g722", waveform)
    decoded = read(tmp_path / "a.g722")
    assert abs(len(decoded) - SAMPLE_RATE) < 400
    lags = [np.corrcoef(decoded[lag : lag + 12_000], waveform[:12_000])[0, 1] for lag in range(60)]
    assert max(lags) > 0.98


def test_folders_become_speakers_and_files_are_joined(tmp_path, speech_like, capsys):
    root = tmp_path / "unpacked" / "usr" / "share"
    for i in range(12):
        write_g722(root / "asterisk" / "sounds" / "en_voice" / f"{i}.g722", 0.3 * speech_like(1.7, seed=i))
    letters = root / "klettres" / "da" / "syllab"
    letters.mkdir(parents=True)
    for i in range(3):  # 6 s are too few for a speaker
        sf.write(letters / f"{i}.ogg", 0.3 * speech_like(2.0, seed=i), SAMPLE_RATE)
    (root / "asterisk" / "sounds" / "en_voice" / "empty.g722").write_bytes(b"")
    assert main([str(tmp_path / "unpacked"), "--out", str(tmp_path / "out")]) == 1
    assert "empty.g722" in capsys.readouterr().out
    table = read_dataset(tmp_path / "out").usable()
    assert set(table["label"]) == {BONAFIDE} and set(table["page"]) == {"debian/asterisk/en_voice"}
    assert len(table) == 4  # three files of 1.7 s each
    for path in table["path"]:
        assert 4 <= len(load_audio(path)) / SAMPLE_RATE <= 8


def test_a_folder_without_packages(tmp_path):
    with pytest.raises(UserError, match="no sounds of asterisk, ktuberling, klettres"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
