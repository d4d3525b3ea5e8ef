"""What a file is that is not a torch file, and what a torch file holds that must not be loaded."""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

CUT_OFF = "is cut off or damaged: fetch it again"
_HEAD = 512  # bytes, enough for every signature; that of a tar archive is at 257
_PICKLES = 5  # in a row, as torch wrote before 1.6: magic number, protocol, system, content, names of storages
_MOST_ITEMS = 1_000  # of a tuple and all tuples in it; shapes have four
_LONGEST = 80  # characters of a name from a file that an error repeats

_BEGINNINGS = {
    rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|meta|script|title|\?xml|!--)": (
        "looks like a web page, such as a log-in form: download the file itself"
    ),
    rb"version https://git-lfs": "is a Git LFS pointer: fetch the file itself, for instance with `git lfs pull`",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd": "is compressed (gzip, bzip2, xz or zstandard): unpack it first",
    rb"7z\xbc\xaf|Rar!|.{257}ustar": "is an archive (7-Zip, RAR or tar): unpack it first",
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
    """What the file is instead of a torch file, such as "is empty"; None if it begins as torch files do."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is empty"
    if head.startswith(b"PK"):
        return _describe_zip(path)
    if head.startswith(b"\x80"):  # a pickle, as torch wrote before 1.6
        return None
    for beginning, description in _BEGINNINGS.items():
        if re.match(beginning, head, re.DOTALL | re.IGNORECASE):
            return description
    text = head.decode("utf-8", errors="ignore")  # the last character may be cut
    is_text = len(text.encode()) > len(head) - 4 and all(mark.isprintable() or mark.isspace() for mark in text)
    return "is a text file" if is_text else "is of an unknown format"


def _describe_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # a damaged file can make the reader raise anything
        return CUT_OFF
    names = [entry.filename for entry in entries]
    if not any(name.endswith("/data.pkl") for name in names):
        numpy = bool(names) and all(name.endswith(".npy") for name in names)
        return "is a numpy archive (.npz)" if numpy else "is a zip archive of something else"
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript program: save the state_dict of its model instead"
    if (unpacked := sum(entry.file_size for entry in entries)) > (size := path.stat().st_size):
        return f"would grow from {size:,} to {unpacked:,} bytes when unpacked, and torch never compresses"
    return None


def describe_refused(path: Path) -> str:
    """Why torch did not load the file: what it holds besides data, or that it is cut off; nothing is executed."""
    names: list[str] = []  # of functions and classes, like `os.system`
    texts: list[str] = []
    for operation, value in _operations(path):
        if operation.name == "GLOBAL":
            names.append(str(value).replace(" ", ".", 1))
        elif operation.name == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif isinstance(value, str):
            texts.append(value)
    refused = [name for name in names if not _DATA.fullmatch(name)]
    if any(name.startswith("torch.nn.modules.") for name in names) or set(texts) >= _MODEL_PARTS:
        found = "a whole pickled model", "save its state_dict instead, torch.save(model.state_dict(), path)"
    elif refused:
        found = printable(refused[0]), "load it where you trust it, and save its state_dict alone"
    else:
        return CUT_OFF
    return f"holds {found[0]}, and anything that would run code when loaded is refused: {found[1]}"


def describe_endless(path: Path) -> str | None:
    """What is wrong if the file's pickles hold a tuple that would take practically for ever to hash, else None.

    A few hundred bytes suffice for a tuple that holds another one twice, which holds another one twice, and so on.
    """
    sizes: list[int | None] = []  # of the items on the pickle's stack; None is a mark
    memo: dict[object, int] = {}
    for operation, value in _operations(path):
        if "GET" in operation.name:
            sizes.append(memo.get(value, 1))
        elif "PUT" in operation.name or operation.name == "MEMOIZE":
            memo[len(memo) if value is None else value] = (sizes or [1])[-1] or 1
        else:
            taken = _take(sizes, operation)
            size = 1 + sum(taken) if "TUPLE" in operation.name else 1
            if size > _MOST_ITEMS:
                return f"holds a tuple of more than {_MOST_ITEMS:,} items in tuples, as no checkpoint does"
            sizes += [None if kind is pickletools.markobject else size for kind in operation.stack_after]
    return None


def _take(sizes: list[int | None], operation: pickletools.OpcodeInfo) -> list[int]:
    """Take from the stack what the operation takes, and return the sizes."""
    kinds, taken = list(operation.stack_before), []
    if pickletools.stackslice in kinds:
        while sizes and (size := sizes.pop()) is not None:
            taken.append(size)
        kinds = kinds[: kinds.index(pickletools.markobject)]
    return taken + [sizes.pop() or 1 for _ in kinds[: len(sizes)]]


def _operations(path: Path) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    """The operations of the file's pickles, as far as they can be read."""
    # an exception ends the pickles, or is one of the many that a damaged file makes the readers raise
    with suppress(Exception), ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if file.read(2) == b"PK":
            archive = stack.enter_context(zipfile.ZipFile(path))
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            file = stack.enter_context(archive.open(name))
        else:
            file.seek(0)
        for _ in range(_PICKLES):
            for operation, value, _ in pickletools.genops(file):
                yield operation, value


def printable(text: str) -> str:
    """Text of a file or of another library on one line, without control characters, and cut off if it is long."""
    line = "".join(mark if mark.isprintable() else " " for mark in text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
