"""The files of an image folder, root/<part>/<class>/..., by class; skipped files are counted by reason."""

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from robust_arch.data.image_decoding import SUFFIXES
from robust_arch.errors import InputError, invalid

PARTS = ("train", "test")

_FOLDER, _IMAGE, _HIDDEN = "folder", "image", "hidden files or folders"
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # copies and thumbnails that macOS and Synology put beside images


@dataclass(frozen=True)
class Listing:
    """The images of a part.

    Attributes:
        files: path and class number of each image, by class and sorted.
        noted: number of images by what is unusual about their place or name.
        skipped: number of files that are not images of the set, by reason.
    """

    files: list[tuple[Path, int]]
    noted: Counter[str]
    skipped: Counter[str]


class _Entry(NamedTuple):
    """One file or folder; paths are strings, as there can be millions."""

    name: str
    path: str  # by way of the root
    real: str  # without symbolic links
    kind: str  # _FOLDER, _IMAGE or the reason to skip it


def list_images(root: Path, parts: Sequence[str] = PARTS) -> tuple[list[str], dict[str, Listing], list[str]]:
    """Names of the classes, the images of each part, and what lies beside the parts. root: without symbolic links.

    Symbolic links to files and folders are followed, also out of the root. The first part names the classes.

    Raises:
        InputError: if the folder is not laid out as a data set, holds a link that leads nowhere or in a circle, or
            holds one file twice by way of a link.
    """
    entries = {entry.name: entry for entry in _scandir(root)}
    tops = {}
    for part in parts:
        if part not in entries or _kind(entries[part]) != _FOLDER:
            raise invalid("data.root", str(root), f"a folder with {part}/<class>/ inside; there is no {root / part}")
        tops[part] = list(_scan(entries[part].path, str(Path(entries[part].path).resolve())))
    classes = _class_names(root, tops)
    seen: dict[str, str] = {}
    listings = {part: _list_part(top, classes, seen) for part, top in tops.items()}
    return classes, listings, sorted(name for name in entries if name not in parts and not name.startswith("."))


def _class_names(root: Path, tops: dict[str, list[_Entry]]) -> list[str]:
    """Sorted folder names of the first part, which the others must share."""
    first, *others = tops
    train, *rest = (sorted(entry.name for entry in top if entry.kind == _FOLDER) for top in tops.values())
    if not train:
        raise invalid("data.root", str(root), f"a folder with {first}/<class>/ inside; {first} has no class folder")
    for part, names in zip(others, rest, strict=True):
        if odd := sorted(set(train) ^ set(names)):
            allowed = f"the same class folders in {first} and {part}; {odd} are in one only"
            raise invalid("data.root", str(root), allowed)
    folded = Counter(map(_folded, train))
    if alike := [name for name in train if folded[_folded(name)] > 1]:
        raise invalid("data.root", str(root), f"class folders whose names differ by more than case; here are {alike}")
    return train


def _list_part(top: list[_Entry], classes: list[str], seen: dict[str, str]) -> Listing:
    """The images below the class folders. seen: paths of the files read so far by real path; grows."""
    folders = {entry.name: entry for entry in top if entry.kind == _FOLDER}
    others = (entry.kind for entry in top if entry.kind != _FOLDER)
    skipped = Counter("images outside the class folders" if kind == _IMAGE else kind for kind in others)
    noted: Counter[str] = Counter()
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        folder = folders[name].path
        entries = list(_walk(folders[name], ()))
        # sorted as paths are, folder by folder: no character of a name comes before the separator
        images = sorted(
            (entry for entry in entries if entry.kind == _IMAGE), key=lambda entry: entry.path.replace(os.sep, "\0")
        )
        skipped_here = Counter(entry.kind for entry in entries if entry.kind != _IMAGE)
        if not images:
            reasons = ", ".join(f"{count} {reason}" for reason, count in skipped_here.items()) or "nothing"
            suffixes = ", ".join(sorted(SUFFIXES))
            raise invalid("data.root", folder, f"at least one image ({suffixes}); it holds {reasons}")
        for entry in images:
            other = seen.setdefault(entry.real, entry.path)
            if other != entry.path:
                raise InputError(f"data.root: {other} and {entry.path} are one file, by way of a symbolic link")
        names = Counter(_folded(entry.path) for entry in images)
        noted["in sub-folders"] += sum(entry.path.count(os.sep) > folder.count(os.sep) + 1 for entry in images)
        noted["through symbolic links"] += sum(entry.real != entry.path for entry in images)
        noted["with names that differ only by case"] += sum(count for count in names.values() if count > 1)
        skipped += skipped_here
        files += [(Path(entry.path), label) for entry in images]
    return Listing(files, +noted, skipped)  # without zeros


def list_mapped(folder: Path, labels: Mapping[str, int], source: Path) -> Listing:
    """The images directly in a folder, by name. labels: by name, with or without the suffix, as `source` has them.

    Raises:
        InputError: if an image has no label, or a label no image.
    """
    entries = sorted(_scan(str(folder), str(folder.resolve())), key=lambda entry: entry.name)
    images = [entry for entry in entries if entry.kind == _IMAGE]
    keys = [entry.name if entry.name in labels else Path(entry.name).stem for entry in images]
    if missing := [entry.name for entry, key in zip(images, keys, strict=True) if key not in labels]:
        raise InputError(f"data.root: {source} has no label for {len(missing)} images of {folder}, like {missing[0]}")
    if unused := sorted(labels.keys() - set(keys)):
        raise InputError(f"data.root: {folder} lacks {len(unused)} images that {source} labels, like {unused[0]}")
    skipped = Counter(entry.kind for entry in entries if entry.kind != _IMAGE)
    return Listing(
        [(Path(entry.path), labels[key]) for entry, key in zip(images, keys, strict=True)], Counter(), skipped
    )


def read_labels(path: Path, classes: Sequence[str]) -> dict[str, int]:
    """Class numbers by image name, from lines `<image> <class> ...`, separated by spaces, tabs or commas.

    A first line without a class is a header.

    Raises:
        InputError: for a file that cannot be read, or a line of another form.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data.root: {path} cannot be read: {error}") from None
    labels = {}
    for count, line in enumerate(lines, start=1):
        name, label = (*re.split(r"[,\s]+", line.strip(), maxsplit=2), "", "")[:2]
        if label in numbers:
            labels[name] = numbers[label]
        elif name and count > 1:
            raise InputError(f"data.root: line {count} of {path} is {line[:60]!r}: expected an image and its class")
    return labels


def _folded(name: str) -> str:
    """Equal for names that are one name to a file system that ignores case, or composes letters and accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _walk(folder: _Entry, above: tuple[Path, ...]) -> Iterator[_Entry]:
    """Every file below a folder. above: the folders on the way to it, without links."""
    way = (*above, Path(folder.real))
    for entry in _scan(folder.path, folder.real):
        if entry.kind != _FOLDER:
            yield entry
            continue
        if any(passed.is_relative_to(entry.real) for passed in way):
            raise InputError(f"data.root: the symbolic link {entry.path} leads back to a folder that it is in")
        yield from _walk(entry, way)


def _scan(folder: str, real: str) -> Iterator[_Entry]:
    """The files and folders in a folder."""
    for entry in _scandir(folder):
        kind = _kind(entry)
        linked = entry.is_symlink() and kind != _HIDDEN
        target = str(Path(entry.path).resolve()) if linked else f"{real}{os.sep}{entry.name}"
        yield _Entry(entry.name, entry.path, target, kind)


def _scandir(folder: str | Path) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"data.root: {folder} cannot be read: {error.strerror}") from None


def _kind(entry: "os.DirEntry[str]") -> str:
    if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
        return _HIDDEN
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        what = "is a symbolic link that leads nowhere" if entry.is_symlink() else "cannot be read"
        raise InputError(f"data.root: {entry.path} {what}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        return _FOLDER
    if not stat.S_ISREG(mode):
        return "FIFOs, sockets or devices"
    _, dot, end = entry.name.lower().rpartition(".")
    if dot + end in SUFFIXES:
        return _IMAGE
    if not dot or not end:
        return "files without a suffix"
    return f".{end} files" if end.isprintable() else "files with an unprintable suffix"
