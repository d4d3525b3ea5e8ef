"""The published pickle of pseudo-labelled images: as Python 2 and 3 write it, and hostile ones without effect."""

import contextlib
import copyreg
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_arch.data import ImageSet
from robust_arch.data.pseudo_labels import PseudoLabels
from robust_arch.errors import InputError

SIZE = 12


def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIZE, 6, 8, 3), dtype=np.uint8)


def labels():
    return np.arange(SIZE) % 3


def content(**changes):
    return {"data": pixels(), "extrapolated_targets": labels(), "prediction_model": "wrn", **changes}


@pytest.fixture
def train():
    return ImageSet(torch.zeros(4, 3, 6, 8, dtype=torch.uint8), torch.arange(4) % 3, num_classes=3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ti_500K_pseudo_labeled.pickle"


@pytest.fixture
def extra(path, train):
    """A function from the bytes of the file to the images."""

    def make(written):
        path.write_bytes(written)
        return PseudoLabels(path=str(path), name="ti_500k").load(train)

    return make


def assert_read(found):
    images, classes = found.take(torch.arange(SIZE))
    np.testing.assert_array_equal(images, pixels().transpose(0, 3, 1, 2))
    assert classes.tolist() == labels().tolist()


# --- files as they are


def python_2(array, code):
    """An array as Python 2 with numpy 1 wrote it at protocol 2: opcode by opcode, its bytes as a Python 2 string."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in array.shape) + b"t"
    order = b"U\x01|" if array.itemsize == 1 else b"U\x01<"
    dtype = (
        b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"K\x00K\x01tR(K\x03" + order
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )  # fmt: skip
    data = b"T" + struct.pack("<i", array.nbytes) + array.tobytes()
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    return made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def python_2_file():
    items = b"U\x04data" + python_2(pixels(), b"u1") + b"U\x14extrapolated_targets" + python_2(labels(), b"i8")
    return b"\x80\x02}(" + items + b"U\x10prediction_modelU\x03wrnu."


def test_a_file_of_python_2_is_read(extra):
    # the bytes above are what numpy itself reads
    known = pickle.loads(python_2_file(), encoding="latin1")
    np.testing.assert_array_equal(known["data"], pixels())
    assert_read(extra(python_2_file()))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_python_3_is_read(extra, protocol):
    assert_read(extra(pickle.dumps(content(), protocol)))


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_the_names_of_numpy_1_and_2_are_read(extra, module):
    written = pickle.dumps(content(), 2)
    for known in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        written = written.replace(known, module)
    assert_read(extra(written))


@pytest.mark.parametrize(
    "changes",
    [
        {"extrapolated_targets": labels().tolist()},
        {"extrapolated_targets": labels().astype(">i4")},
        {"extrapolated_targets": labels().astype(np.uint8)},
        {"data": np.asfortranarray(pixels())},
        {"probabilities": np.zeros((SIZE, 3), dtype=np.float32)},
    ],
    ids=["list", "big-endian", "uint8", "Fortran", "more"],
)
def test_other_ways_to_hold_the_same_are_read(extra, changes):
    assert_read(extra(pickle.dumps(content(**changes), 4)))


# --- files of another form


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"data": pixels()}, "there is no extrapolated_targets"),
        ({"extrapolated_targets": labels()}, "there is no data"),
        ([pixels(), labels()], "it holds a list"),
        (content(data=pixels().astype(np.int64)), "data is int64"),
        (content(data=pixels().reshape(SIZE, -1)), r"data is uint8 of shape \(12, 144\)"),
        (content(data=pixels()[:-1]), r"extrapolated_targets is int64 of shape \(12,\)"),
        (content(data=pixels().tolist()), "data is no array of numbers"),
        (content(data=b"\x00" * 100), "data is no array of numbers"),
        (content(extrapolated_targets=labels() / 2), "extrapolated_targets is float64"),
        (content(extrapolated_targets=[0.5] * SIZE), "no array of numbers"),
        (content(extrapolated_targets=[True] * SIZE), "no array of numbers"),
        (content(extrapolated_targets=labels()[:, None]), "of shape"),
        (content(extrapolated_targets=labels() + 1), r"these are in 1\.\.3"),
        (content(extrapolated_targets=labels() - 1), r"these are in -1\.\.1"),
        (content(extrapolated_targets=[10**30] * SIZE), "too large"),
        (content(data=pixels()[:, :5]), r"these are \(5, 8, 3\)"),
        (content(data=pixels()[..., :1]), r"these are \(6, 8, 1\)"),
    ],
)
def test_another_content_is_refused_with_the_reason(extra, made, message):
    with pytest.raises(InputError, match=rf"(?s)^extra\.path = '.*pickle': expected .*{message}"):
        extra(pickle.dumps(made, 4))


def test_a_file_that_is_cut_short_anywhere_is_refused(extra):
    for written in (python_2_file(), pickle.dumps(content(), 5)):
        for end in range(0, len(written), 41):
            with pytest.raises(InputError, match=r"^extra\.path = "):
                extra(written[:end])


# --- hostile files: each would leave a file behind, or change an object of this process


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def called(module, name, arguments):
    """A REDUCE: the named function with these arguments, which are opcodes."""
    return b"c" + module + b"\n" + name + b"\n(" + arguments + b"tR"


def inside_data(opcodes):
    return b"\x80\x02}(" + text(b"data") + opcodes + text(b"extrapolated_targets") + b"Nu."


def object_array(item):
    """An array of objects, as numpy writes it, whose only entry is made by `item`."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x01tcnumpy\ndtype\n"
        b"(U\x02O8K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89(" + item + b"ltb"
    )


def hostile(trace):
    """Pickles that leave the file `trace` behind if they are read as usual."""
    shell = text(f"touch '{trace}'".encode())
    source = text(f"open({str(trace)!r}, 'w').close()".encode())
    name = text(str(trace).encode())
    system = called(b"posix", b"system", shell)
    return {
        "os.system": system + b".",
        "os.system inside the dictionary": inside_data(system),
        "builtins.eval": inside_data(called(b"builtins", b"eval", source)),
        "builtins.eval as Python 2 names it": inside_data(called(b"__builtin__", b"eval", source)),
        "builtins.exec by OBJ": inside_data(b"(cbuiltins\nexec\n" + source + b"o"),
        "by INST": b"(" + shell + b"iposix\nsystem\n.",
        "by STACK_GLOBAL": b"\x80\x04" + text(b"posix") + text(b"system") + b"\x93(" + shell + b"tR.",
        "a function of numpy": inside_data(called(b"numpy", b"save", name + text(b"x"))),
        "a function of numpy's own modules": inside_data(called(b"numpy._core.multiarray", b"memmap", name)),
        "a file by numpy.memmap": inside_data(
            called(b"numpy", b"memmap", name + text(b"uint8") + text(b"w+") + b"K\x00K\x01")
        ),
        "an object array": inside_data(object_array(system)),
        "a subprocess by NEWOBJ": b"\x80\x02csubprocess\nPopen\n(" + text(f"touch '{trace}'".encode()) + b"tR.",
        "after the end of the arrays": python_2_file()[:-2] + text(b"more") + system + b"u.",
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_what_a_hostile_pickle_would_run_does_not_run(name, extra, tmp_path):
    trace = tmp_path / "trace"
    with pytest.raises(InputError, match=r"^extra\.path = .*(it names|not of numbers)"):
        extra(hostile(trace)[name])
    assert not trace.exists()


def test_these_pickles_are_hostile_indeed(tmp_path):
    trace = tmp_path / "trace"
    for name in ("os.system", "builtins.eval", "an object array", "a file by numpy.memmap", "by STACK_GLOBAL"):
        pickle.loads(hostile(trace)[name], encoding="latin1")
        trace.unlink()  # it is there


class Extension:
    """What an extension code of another package stands for."""


def test_further_ways_to_reach_an_object_are_refused(extra):
    code = 0x7F
    copyreg.add_extension("pickle", "loads", code)
    try:
        attempts = {
            "a persistent id": b"Psomewhere\n.",
            "a binary persistent id": b"\x80\x02K\x01Q.",
            "an extension code": b"\x80\x02\x82" + bytes([code]) + b"(" + text(b"x") + b"tR.",
            "a buffer from outside": b"\x80\x05\x97.",
            "BUILD on numpy's function": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}" + text(b"x") + b"K\x01sb.",
            "BUILD on numpy's class": b"\x80\x02cnumpy\nndarray\nN}" + text(b"x") + b"K\x01s\x86b.",
            "BUILD on a class with attributes": b"\x80\x02cnumpy\ndtype\nN}" + text(b"__setstate__") + b"Ns\x86b.",
            "BUILD on a dictionary": b"\x80\x02}}" + text(b"x") + b"K\x01sb.",
            "BUILD on a number": b"\x80\x02K\x01N}" + text(b"x") + b"K\x01s\x86b.",
            "a state of another kind": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)RK\x01b.",
            "a type with fields": b"\x80\x02cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|K\x01K\x01NJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",  # noqa: E501
            "a type of records": b"\x80\x02cnumpy\ndtype\n(U\x02V8K\x00K\x01tR.",
            "a new object of numpy's class": b"\x80\x02cnumpy\nndarray\n(K\x05t\x81.",
            "an encoding that runs code": b"\x80\x02c_codecs\nencode\n(" + text(b"x") + text(b"idna") + b"tR.",
            "a shape that its bytes do not fill": inside_data(python_2(pixels(), b"u1").replace(b"J\x0c\0\0\0", b"J\x0d\0\0\0")),  # noqa: E501
            "an endless tower": b"(" * 100_000 + b"l" * 100_000 + b".",
            "a type whose text has no end": b"\x80\x02cnumpy\ndtype\n)" + b"2\x86" * 60 + b"\x85R.",
            "more bytes than there are": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        }  # fmt: skip
        for name, written in attempts.items():
            with pytest.raises(InputError, match=r"^extra\.path = ") as caught:
                extra(written)
            assert str(caught.value).isprintable(), name
    finally:
        copyreg.remove_extension("pickle", "loads", code)
    assert_read(extra(python_2_file()))  # and nothing in this process has changed


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_file_is_read_or_refused(tmp_path_factory, changes):
    written = bytearray(python_2_file())
    for position, value in changes:
        written[position % len(written)] = value
    path = tmp_path_factory.mktemp("changed") / "x.pickle"
    path.write_bytes(written)
    train = ImageSet(torch.zeros(4, 3, 6, 8, dtype=torch.uint8), torch.arange(4) % 3, num_classes=3)
    found = None
    with contextlib.suppress(InputError):
        found = PseudoLabels(path=str(path)).load(train)
    assert found is None or len(found) == SIZE
    assert list(path.parent.iterdir()) == [path]
