"""PyTorch checkpoints written by hand, instruction by instruction, and how one is refused."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from errors import UserError
from torch_file import read_checkpoint


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tuple_of(*values: int) -> bytes:
    return b"(" + b"".join(whole(value) for value in values) + b"t"


def a_storage(key: str = "0", count: int = 6, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + whole(count) + b"tQ"


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
EMPTY = b"ccollections\nOrderedDict\n)R"


def a_tensor(storage: bytes = b"", offset: int = 0, size: bytes = b"", stride: bytes = b"") -> bytes:
    """By default (2, 3) floats from a storage of six."""
    parts = storage or a_storage(), whole(offset), size or tuple_of(2, 3), stride or tuple_of(3, 1)
    return REBUILD + b"(" + b"".join(parts) + b"\x89" + EMPTY + b"tR"


def dictionary(*named: tuple[str, bytes]) -> bytes:
    items = b"".join(text(name) + value for name, value in named)
    return b"\x80\x02" + EMPTY + b"(" + items + b"u."


NUMBERS = np.arange(6, dtype="<f4")
GOOD = dictionary(("weight", a_tensor()))


def write(path: Path, program: bytes = GOOD, storages: dict[str, bytes] | None = None, **extra: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in ({"0": NUMBERS.tobytes()} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in extra.items():
            archive.writestr(f"archive/{name}", content)
    return path


def save(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write tensors as `torch.save` does."""
    named, storages = [], {}
    for k, (name, value) in enumerate(tensors.items()):
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[value.dtype.name]
        stride = [int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim)]
        named.append(
            (name, a_tensor(a_storage(str(k), value.size, kind), 0, tuple_of(*value.shape), tuple_of(*stride)))
        )
        storages[str(k)] = value.tobytes()
    return write(path, dictionary(*named), storages)


def refused(path: Path, read: Callable = read_checkpoint) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")
