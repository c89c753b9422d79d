"""Small trees of datasets, written as their archives unpack."""

import numpy as np
import soundfile

LA_LISTS = {
    "train.trn": ["LA_0079 LA_T_1000001 - - bonafide", "LA_0080 LA_T_1000002 - A01 spoof"],
    "dev.trl": ["LA_0069 LA_D_1000001 - - bonafide", "LA_0070 LA_D_1000002 - A02 spoof"],
    "eval.trl": ["LA_0039 LA_E_1000001 - - bonafide", "LA_0014 LA_E_1000002 - A11 spoof"],
}


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def audio(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(16_000 * seconds), np.float32), 16_000)
    return path


def make_la(base, kind="LA", lists=LA_LISTS, leave_out=()):
    """Write a 2019 tree as its zip does: protocols and one flac folder a split."""
    for name, lines in lists.items():
        lines = [line.replace("LA_", f"{kind}_") for line in lines]
        write(base / f"ASVspoof2019_{kind}_cm_protocols" / f"ASVspoof2019.{kind}.cm.{name}.txt", lines)
        for line in lines:
            utterance = line.split()[1]
            if utterance not in leave_out:
                audio(base / f"ASVspoof2019_{kind}_{name.split('.')[0]}" / "flac" / f"{utterance}.flac")
    return base
