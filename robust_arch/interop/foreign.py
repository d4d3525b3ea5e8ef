"""What a file that is no torch file is, or what a torch file holds that may not be loaded, in our own words."""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CUT_OFF = "is cut off or damaged: fetch it again"
_HEAD = 512  # bytes, enough for every signature; that of a tar archive is at 257
_PICKLES = 5  # in a row, as torch wrote before 1.6: magic number, protocol, system, content, names of storages
_MOST_ITEMS = 1_000  # of a tuple and all tuples in it; shapes have four
_LONGEST = 80  # characters of a name from a file that an error repeats

_BEGINNINGS = {
    rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|meta|script|title|\?xml|!--)": (
        "looks like a web page, such as one that asks to log in: download the file itself"
    ),
    rb"version https://git-lfs": "is a Git LFS pointer: fetch the file itself, for instance with `git lfs pull`",
    rb"\x1f\x8b": "is compressed (gzip): unpack it first",
    rb"BZh": "is compressed (bzip2): unpack it first",
    rb"\xfd7zXZ": "is compressed (xz): unpack it first",
    rb"\x28\xb5\x2f\xfd": "is compressed (zstandard): unpack it first",
    rb"7z\xbc\xaf": "is a 7-Zip archive: unpack it first",
    rb"Rar!": "is a RAR archive: unpack it first",
    rb".{257}ustar": "is a tar archive: unpack it first",
    rb"\x93NUMPY": "is a numpy array",
    rb"\x89HDF": "is an HDF5 file, as Keras writes",
    rb".{4}\0\0\0\0{": "looks like a safetensors file",
    rb"\x08": "looks like an ONNX file",
}
# what the pickle of a state dict names: tensors, their types, and numpy's scalars
_DATA = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.([A-Z]\w*|device|bool|(u?int|b?float|complex)\d\w*)|collections\.OrderedDict"
    r"|numpy(\._?core\.multiarray)?\.(dtype|scalar)|_codecs\.encode"
)
_MODEL_PARTS = {"_parameters", "_modules"}


def describe_foreign(path: Path) -> str | None:
    """What the file is instead of a torch file, like "is empty"; None where it begins as torch files do."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is empty"
    if head[:2] == b"PK":
        return _describe_zip(path)
    if head[:1] == b"\x80":  # a pickle, as torch wrote before 1.6
        return None
    for beginning, what in _BEGINNINGS.items():
        if re.match(beginning, head, re.DOTALL | re.IGNORECASE):
            return what
    return "is a text file" if _is_text(head) else "is of another format, which is not known here"


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header, in 8 bytes of which the last are 0, and that header."""
    return head[4:9] == b"\0\0\0\0{"


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", errors="ignore")  # the last character may be cut
    return len(text.encode()) > len(head) - 4 and all(mark.isprintable() or mark.isspace() for mark in text)


def _describe_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # whatever a broken file makes the reader trip over
        return CUT_OFF
    names = [entry.filename for entry in entries]
    if not any(name.endswith("/data.pkl") for name in names):
        numpy = bool(names) and all(name.endswith(".npy") for name in names)
        return "is a numpy archive (.npz)" if numpy else "is a zip archive of something else"
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript program: save the state_dict of its model instead"
    # torch never compresses: what a file of its own holds is not larger than the file
    if (unpacked := sum(entry.file_size for entry in entries)) > (size := path.stat().st_size):
        return f"would grow from {size:,} to {unpacked:,} bytes when unpacked, and torch never compresses"
    return None


def describe_refused(path: Path) -> str:
    """Why torch did not load the file: what it holds besides data, or that it is cut off."""
    names, texts = _names_and_texts(path)
    refused = [name for name in names if not _DATA.fullmatch(name)]
    if any(name.startswith("torch.nn.modules.") for name in names) or texts >= _MODEL_PARTS:
        return (
            "holds a whole pickled model, and anything that would run code when loaded is refused: save its "
            "state_dict instead, torch.save(model.state_dict(), path)"
        )
    if refused:
        return (
            f"holds {printable(refused[0])}, and anything that would run code when loaded is refused: load it where "
            "you trust it, and save its state_dict alone"
        )
    return CUT_OFF


def describe_endless(path: Path) -> str | None:
    """What is wrong where the file's pickles hold a tuple that takes for ever to hash; None where they do not.

    A few hundred bytes suffice for a tuple that holds another twice, which holds another twice, and so on.
    """
    sizes: list[int | None] = []  # of what is on the pickle's stack; None is a mark
    memo: dict[object, int] = {}
    for operation, value in _operations(path):
        name = operation.name
        if name in ("GET", "BINGET", "LONG_BINGET"):
            sizes.append(memo.get(value, 1))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if value is None else value] = (sizes or [1])[-1] or 1
        else:
            taken = _take(sizes, operation)
            size = 1 + sum(taken) if "TUPLE" in name else 1
            if size > _MOST_ITEMS:
                return f"holds a tuple of more than {_MOST_ITEMS:,} items in tuples, as no checkpoint does"
            sizes += [None if kind is pickletools.markobject else size for kind in operation.stack_after]
    return None


def _take(sizes: list[int | None], operation: pickletools.OpcodeInfo) -> list[int]:
    """Take off the stack what the operation does, and return the sizes."""
    kinds, taken = list(operation.stack_before), []
    if pickletools.stackslice in kinds:
        while sizes and (size := sizes.pop()) is not None:
            taken.append(size)
        kinds = kinds[: kinds.index(pickletools.markobject)]
    for _ in kinds[: len(sizes)]:
        taken.append(sizes.pop() or 1)
    return taken


def _names_and_texts(path: Path) -> tuple[list[str], set[str]]:
    """The functions and classes that the file's pickles name, like `os.system`, and their texts; nothing is run."""
    names: list[str] = []
    texts: list[str] = []
    for operation, value in _operations(path):
        if operation.name == "GLOBAL":
            names.append(str(value).replace(" ", ".", 1))
        elif operation.name == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif isinstance(value, str):
            texts.append(value)
    return names, set(texts)


def _operations(path: Path) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    """The operations of the file's pickles, as far as they can be read."""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                with zipfile.ZipFile(path) as archive:
                    name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                    with archive.open(name) as pickle:
                        yield from _of_one_pickle(pickle)
                return
            file.seek(0)
            for _ in range(_PICKLES):
                yield from _of_one_pickle(file)
    except Exception:  # the end of the pickles, or whatever a broken file makes the reader trip over
        return


def _of_one_pickle(file: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    for operation, value, _ in pickletools.genops(file):
        yield operation, value


def printable(text: str) -> str:
    """Text of a file or of another library on one line: without control characters, and cut where it is long."""
    line = "".join(mark if mark.isprintable() else " " for mark in text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
