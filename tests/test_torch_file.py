"""A checkpoint is read as data; no other pickle gets to run."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch_files import GOOD, NUMBERS, REBUILD, a_storage, a_tensor, dictionary, refused, text, tuple_of, whole, write

from torch_file import read_checkpoint


def test_a_plain_checkpoint_is_read(tmp_path: Path) -> None:
    named = (
        ("whole", a_tensor()),
        ("row", a_tensor(offset=3, size=tuple_of(3), stride=tuple_of(1))),
        ("one", a_tensor(offset=5, size=b")", stride=b")")),
        ("column", a_tensor(size=tuple_of(1, 6), stride=tuple_of(77, 1))),  # the step of an axis of one is never taken
        ("half", a_tensor(a_storage("1", 2, "HalfStorage"), size=tuple_of(2), stride=tuple_of(1))),
    )
    storages = {"0": NUMBERS.tobytes(), "1": np.array([1, 2], "<f2").tobytes()}
    tensors = read_checkpoint(write(tmp_path / "good.pth", dictionary(*named), storages, byteorder=b"little"))
    assert np.array_equal(tensors["whole"], [[0, 1, 2], [3, 4, 5]])
    assert np.array_equal(tensors["row"], [3, 4, 5])
    assert tensors["one"].shape == () and tensors["one"] == 5
    assert np.array_equal(tensors["column"], [[0, 1, 2, 3, 4, 5]])
    assert np.array_equal(tensors["half"], [1, 2])


class _Calls:
    """Pickles to the call of a function."""

    def __init__(self, function: Callable, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["os.system", "builtins.eval", "getattr", "in a dictionary"])
def test_no_function_is_called(kind: str, protocol: int, tmp_path: Path) -> None:
    traces = [tmp_path / "plain", tmp_path / "ours"]
    for trace in traces:
        system = _Calls(os.system, f'mkdir "{trace}"')
        hostile = {
            "os.system": system,
            "builtins.eval": _Calls(eval, f"__import__('os').mkdir({str(trace)!r})"),
            "getattr": _Calls(getattr, _Calls(__import__, "os"), "sep"),
            "in a dictionary": {"weight": [1.0, {"deep": (system,)}]},
        }[kind]
        program = pickle.dumps(hostile, protocol)
        if trace is traces[0]:
            pickle.loads(program)  # the example is a real one
        else:
            refusal = refused(write(tmp_path / "hostile.pth", program))
            assert refusal.startswith("not a checkpoint that can be read here: ")
            assert "which no dictionary of tensors needs" in refusal or "has no place in one" in refusal
    assert traces[0].exists() == (kind != "getattr")
    assert not traces[1].exists()


NO_NAME, NO_PLACE = "which no dictionary of tensors needs", "has no place in one"
PROGRAMS = {
    "a method of an admitted class": (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", NO_NAME),
    "an attribute of torch": (b"\x80\x02ctorch\nload\n.", NO_NAME),
    "a module of a module": (b"\x80\x02cos.path\njoin\n.", NO_NAME),
    "two strings make a name": (b"\x80\x04" + text("os") + text("path.join") + b"\x93.", NO_PLACE),
    "an instance": (b"\x80\x02(ios\nsystem\n.", NO_PLACE),
    "an object": (b"\x80\x02(cos\nsystem\no.", NO_PLACE),
    "a new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", NO_PLACE),
    "an extension": (b"\x80\x02\x82\x01.", NO_PLACE),
    "state of the function": (b"\x80\x02" + REBUILD + b"}" + text("__call__") + b"Nsb.", "__dict__"),
    "slots of the function": (b"\x80\x02" + REBUILD + b"(N}" + text("__call__") + b"Nstb.", "__call__"),
    "state of the class": (b"\x80\x02ccollections\nOrderedDict\n}b.", "__setstate__"),
    "state of a tensor": (
        b"\x80\x02" + a_tensor() + b"(" + tuple_of(9) + text("f4") + b"\x89" + text("") + b"tb.",
        "a state",
    ),
    "state of a storage": (
        b"\x80\x02" + a_storage() + b"(" + tuple_of(9) + text("f4") + b"\x89" + text("") + b"tb.",
        "a state",
    ),
    "call of a string": (b"\x80\x02ctorch\nFloatStorage\n)R.", "callable"),
    "call of nothing": (b"\x80\x02N)R.", "callable"),
    "reference that is no storage": (b"\x80\x02" + text("storage") + b"Q.", "a reference that is not to a storage"),
    "storage of no type": (
        b"\x80\x02(" + text("storage") + b"N" + text("0") * 2 + whole(6) + b"tQ.",
        "a storage without",
    ),
    "storage of a negative size": (b"\x80\x02" + a_storage(count=-1) + b".", "a storage without"),
    "storage that is not there": (b"\x80\x02" + a_storage("7") + b".", "archive/data/7"),
    "storage outside": (b"\x80\x02" + a_storage("../version") + b".", "archive/data/../version"),
    "storage of another size": (b"\x80\x02" + a_storage(count=7) + b".", "storage 0 does not hold 7 numbers"),
    "storage of another type": (
        b"\x80\x02" + a_storage(kind="LongStorage") + b".",
        "storage 0 does not hold 6 numbers",
    ),
    "tensor past its storage": (b"\x80\x02" + a_tensor(offset=1) + b".", "reaches element 7 of a storage of 6"),
    "tensor before its storage": (b"\x80\x02" + a_tensor(offset=-1) + b".", "offset -1"),
    "tensor of a huge size": (
        b"\x80\x02" + a_tensor(size=tuple_of(2**31 - 1, 2), stride=tuple_of(2, 1)) + b".",
        "reaches",
    ),
    "tensor of a negative size": (b"\x80\x02" + a_tensor(size=tuple_of(-2, -3)) + b".", "size (-2, -3)"),
    "one number a million times": (
        b"\x80\x02" + a_tensor(size=tuple_of(10**6, 6), stride=tuple_of(0, 1)) + b".",
        "contiguous",
    ),
    "transposed": (b"\x80\x02" + a_tensor(size=tuple_of(3, 2), stride=tuple_of(1, 3)) + b".", "contiguous"),
    "strides of another length": (b"\x80\x02" + a_tensor(stride=tuple_of(1)) + b".", "contiguous"),
    "tensor without a storage": (b"\x80\x02" + a_tensor(storage=b"N") + b".", "a tensor without a storage"),
    "memo of 16 GB": (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo index 2147483647"),
    "no end": (GOOD[:-1], ""),
    "no beginning": (b"", ""),
    "stack runs empty": (b"\x80\x02R.", ""),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_pickle_of_anything_else_is_refused(name: str, tmp_path: Path) -> None:
    program, reason = PROGRAMS[name]
    refusal = refused(write(tmp_path / "hostile.pth", program))
    assert refusal.startswith("not a checkpoint that can be read here: ")
    assert reason in refusal
    # and leaves nothing behind
    assert np.array_equal(read_checkpoint(write(tmp_path / "good.pth"))["weight"], NUMBERS.reshape(2, 3))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"\x80\x02" + a_tensor() + b".", "not a dictionary of tensors by name"),
        (b"\x80\x02}.", "not a dictionary of tensors by name"),
        (dictionary(("epoch", whole(3))), "not a dictionary of tensors by name"),
        (dictionary(("state", b"}" + text("weight") + a_tensor() + b"s")), "not a dictionary of tensors by name"),
    ],
)
def test_other_things_than_named_tensors_are_refused(program: bytes, reason: str, tmp_path: Path) -> None:
    assert refused(write(tmp_path / "other.pth", program)) == reason


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = np.array([0, 1, np.nan, 3, 4, 5], "<f4").tobytes()
    path = write(tmp_path / "nan.pth", storages={"0": broken})
    assert refused(path) == "weight holds values that are not finite"


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    assert refused(path) == "no such file"
    assert refused(tmp_path) == "no such file"
    good = write(path).read_bytes()
    no_zip = "not a torch checkpoint in the zip format that torch 1.6 and later write"
    for content in (b"", b"words", good[: len(good) // 2], good[:-30], pickle.dumps(0x1950A86A20F9469CFC6C, 2)):
        path.write_bytes(content)
        assert refused(path) == no_zip
    path.write_bytes(good.replace(NUMBERS.tobytes(), b"x" * 24))
    assert "Bad CRC-32 for file 'archive/data/0'" in refused(path)
    path.write_bytes(good[: len(good) // 3] + good[len(good) // 3 + 7 :])
    assert "cannot" in refused(path) or "can be read" in refused(path)
    for entries in ((), ("other/words.txt",), ("archive/data.pkl", "two/data.pkl"), ("deep/archive/data.pkl",)):
        with zipfile.ZipFile(path, "w") as archive:
            for name in entries:
                archive.writestr(name, GOOD)
        assert "the one data.pkl of a checkpoint" in refused(path)
    assert "not little-endian" in refused(write(path, byteorder=b"big"))


@pytest.mark.parametrize("inside", ["data.pkl", "data/0"])
def test_what_is_compressed_is_never_unpacked(inside: str, tmp_path: Path) -> None:
    """A bomb: 100 MB of zeros in 100 KB, or a pickle padded likewise."""
    path = tmp_path / "bomb.pth"
    storage = a_storage(count=25_000_000)
    program = dictionary(("weight", a_tensor(storage, size=tuple_of(25_000_000), stride=tuple_of(1))))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        stored = zipfile.ZIP_STORED if inside != "data.pkl" else zipfile.ZIP_DEFLATED
        archive.writestr("archive/data.pkl", program, stored)
        archive.writestr("archive/data/0", bytes(100_000_000))
    assert path.stat().st_size < 200_000
    assert f"archive/{inside} is compressed" in refused(path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.pth"
    with pytest.warns(UserWarning, match="Duplicate"):
        write(path, storages={"0": NUMBERS.tobytes(), "1": b"", "../data.pkl": GOOD}, **{"data.pkl": GOOD})
    assert "the one data.pkl of a checkpoint" in refused(path)
