"""Sound files of packages become clips of 4-8 s, by speaker, whom the path of a file tells."""

import av
import numpy as np
import pytest
import soundfile as sf

from audio import load_audio
from config import BONAFIDE, SAMPLE_RATE
from data_utils import read_dataset
from errors import UserError
from more_recordings import main, read, sound_files


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


def test_whose_voice_a_file_is(tmp_path):
    spoken = {
        "klettres/da/alpha/a.ogg": ("klettres", "da"),
        "tuxpaint/stamps/animals/fish/shark_desc_fr.ogg": ("tuxpaint", "fr"),
        "tuxpaint/stamps/town/car_desc_fr.ogg": ("tuxpaint", "fr"),
        "games/fillets-ng/sound/airplane/nl/let-m-divna.ogg": ("fillets", "nl-m"),
        "games/fillets-ng/sound/rush/nl/m-zvlastni.ogg": ("fillets", "nl-m"),
        "games/fillets-ng/sound/fdto/cs/nacekala-v.ogg": ("fillets", "cs-v"),
    }
    others = [
        "tuxpaint/stamps/animals/fish/shark.ogg",  # not a description but a noise
        "games/fillets-ng/sound/briefcase/cs/help15.ogg",  # somebody else
        "klettres/da/alpha/a.txt",
        "sounds/klettres/da/a.ogg",
    ]
    for name in [*spoken, *others]:
        path = tmp_path / "usr/share" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = sound_files(tmp_path)
    assert {path.relative_to(tmp_path / "usr/share").as_posix() for paths in found.values() for path in paths} == set(
        spoken
    )
    for name, speaker in spoken.items():
        assert tmp_path / "usr/share" / name in found[speaker]


def test_at_most_so_many_clips_of_a_speaker(tmp_path, speech_like, capsys):
    for language, count in (("fr", 10), ("ro", 6)):
        for i in range(count):
            path = tmp_path / f"usr/share/tuxpaint/stamps/{i}_desc_{language}.ogg"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, 0.3 * speech_like(4.5, seed=i), SAMPLE_RATE)
    for most, counts in (([], {"fr": 10, "ro": 6}), (["--most", "7"], {"fr": 7, "ro": 6})):
        out = tmp_path / f"out{len(most)}"
        assert main([str(tmp_path), "--out", str(out), *most]) == 0
        assert read_dataset(out).usable()["speaker"].value_counts().to_dict() == {
            f"tuxpaint-{language}": count for language, count in counts.items()
        }
    with pytest.raises(UserError, match="--most 0: must be at least 1"):
        main([str(tmp_path), "--out", str(tmp_path / "out"), "--most", "0"])


def test_a_folder_without_packages(tmp_path):
    with pytest.raises(UserError, match="no sounds of asterisk, ktuberling, klettres"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
