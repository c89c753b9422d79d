"""The tensors of a PyTorch checkpoint, without PyTorch and without running what the file may hold.

    tensors = read_checkpoint(Path("AASIST.pth"))      # name -> array

A checkpoint is a pickle, and loading a pickle can run any program. `read_checkpoint` therefore reads only what
`torch.save` writes for a dictionary of tensors: an uncompressed zip, the few pickle instructions that takes,
three kinds of names, and storages whose sizes agree. Everything else is refused in one line.
"""

import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from errors import UserError

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
# what torch writes for a dictionary of tensors; nothing that makes objects of classes or looks up attributes
INSTRUCTIONS = set(
    "PROTO STOP MARK GLOBAL REDUCE BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET EMPTY_DICT SETITEM SETITEMS "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 BINUNICODE BININT BININT1 BININT2 LONG1 NEWTRUE NEWFALSE NONE".split()
)


class _Tensors(dict):
    """Stands for OrderedDict; the attributes that torch hangs on it are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Array(np.ndarray):
    """A storage or tensor while the pickle is read: its own way to take a state is closed."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor is given a state")


class _Rebuild:
    """Stands for torch._utils._rebuild_tensor_v2: a view of a storage becomes an array."""

    __slots__ = ()  # nothing can be set on it

    def __call__(self, storage, offset, size, stride, requires_grad, hooks, *metadata) -> np.ndarray:
        if not isinstance(storage, _Array) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise pickle.UnpicklingError("a tensor without a storage, size and stride")
        if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError(f"a tensor of size {size}, stride {stride}, offset {offset}")
        contiguous = tuple(math.prod(size[k + 1 :]) for k in range(len(size)))
        if len(stride) != len(size) or any(
            step != wanted for n, step, wanted in zip(size, stride, contiguous, strict=True) if n != 1
        ):
            raise pickle.UnpicklingError(f"a tensor of size {size} with stride {stride}; only contiguous ones are read")
        end = offset + math.prod(size)
        if end > len(storage):
            raise pickle.UnpicklingError(f"a tensor reaches element {end} of a storage of {len(storage)}")
        return storage[offset:end].reshape(size)


class _Reader(pickle.Unpickler):
    """Admits the names of a dictionary of tensors, and reads storages from the archive."""

    def __init__(self, program: bytes, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(program))
        self.archive, self.root = archive, root
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Tensors
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no dictionary of tensors needs")

    def persistent_load(self, pid: Any) -> np.ndarray:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("a reference that is not to a storage")
        _, dtype, key, _, count = pid
        if dtype not in STORAGES.values() or not isinstance(key, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage without a type, key and size")
        if key not in self.storages:
            stored = _stored(self.archive, f"{self.root}/data/{key}")
            whole = len(stored) % np.dtype(dtype).itemsize == 0
            self.storages[key] = np.frombuffer(stored, dtype).view(_Array) if whole else None
        storage = self.storages[key]
        if storage is None or storage.dtype != np.dtype(dtype) or len(storage) != count:
            raise pickle.UnpicklingError(f"storage {key} does not hold {count} numbers of type {dtype}")
        return storage


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing; what is stored cannot swell
        raise pickle.UnpicklingError(f"{name} is compressed")
    return archive.read(entry)


def _check_instructions(program: bytes) -> None:
    for instruction, argument, _ in pickletools.genops(program):
        if instruction.name not in INSTRUCTIONS:
            raise pickle.UnpicklingError(f"pickle instruction {instruction.name} has no place in one")
        if instruction.name == "LONG_BINPUT" and argument >= len(program):  # would reserve memory up to it
            raise pickle.UnpicklingError(f"memo index {argument} in a pickle of {len(program)} bytes")


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint that `torch.save` wrote from a flat state dictionary, by name."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not a torch checkpoint in the zip format that torch 1.6 and later write")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
            if len(pickles) != 1 or len(set(names)) != len(names):
                raise pickle.UnpicklingError("a zip file without the one data.pkl of a checkpoint")
            root = pickles[0].split("/")[0]
            if f"{root}/byteorder" in names and _stored(archive, f"{root}/byteorder") != b"little":
                raise pickle.UnpicklingError("it is not little-endian")
            program = _stored(archive, pickles[0])
            _check_instructions(program)
            tensors = _Reader(program, archive, root).load()
    except Exception as error:  # what a hostile or damaged file can raise has no list
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: not a checkpoint that can be read here: {reason}") from error
    flat = isinstance(tensors, dict) and all(
        isinstance(name, str) and isinstance(tensor, _Array) for name, tensor in tensors.items()
    )
    if not flat or not tensors:
        raise UserError(f"{path}: not a dictionary of tensors by name")
    if broken := sorted(name for name, tensor in tensors.items() if not np.isfinite(tensor).all()):
        raise UserError(f"{path}: {broken[0]} holds values that are not finite")
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}
