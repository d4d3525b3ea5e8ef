"""Extra images in the published .npz layout: mapped where they lie, checked, and read by position."""

import os
import pickle
import struct
import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robust_arch.data import ImageSet
from robust_arch.data.extra import MappedArray
from robust_arch.data.npz_images import NpzImages
from robust_arch.errors import InputError

SHAPE = (6, 8, 3)  # height, width, channels


def pixels(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, *SHAPE), dtype=np.uint8)


def labels(size):
    return np.arange(size) * 7 % 3


@pytest.fixture
def train():
    """A training set of three classes, of images of the same shape."""
    return ImageSet(torch.zeros(4, 3, 6, 8, dtype=torch.uint8), torch.arange(4) % 3, num_classes=3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edm_1m.npz"


def extra(path, train, **settings):
    return NpzImages(path=str(path), **settings).load(train)


@pytest.mark.parametrize("label_type", [np.int64, np.uint8, np.int32])
def test_images_and_labels_are_those_of_the_file(path, train, label_type):
    np.savez(path, image=pixels(20), label=labels(20).astype(label_type))
    found = extra(path, train)
    index = torch.tensor([19, 0, 7, 7])
    images, classes = found.take(index)
    assert (images.dtype, classes.dtype) == (torch.uint8, torch.int64)
    np.testing.assert_array_equal(images, pixels(20)[index].transpose(0, 3, 1, 2))
    assert classes.tolist() == labels(20)[index].tolist()
    assert (len(found), found.name, found.file, found.fraction) == (20, "edm_1m", "edm_1m.npz", 0.5)


def test_an_uncompressed_file_is_mapped_and_travels_as_its_place(path, train):
    np.savez(path, label=labels(500), image=pixels(500))
    found = extra(path, train)
    assert isinstance(found.images, MappedArray)
    assert found.images.path == path
    found.take(torch.arange(500))
    sent = pickle.dumps(found.images)
    assert len(sent) < 1000  # to another process: not the 72,000 bytes of the images
    np.testing.assert_array_equal(pickle.loads(sent)[[3, 499]], pixels(500)[[3, 499]])


def test_a_compressed_file_is_refused_without_a_cache_and_unpacked_once_with_one(path, train, tmp_path):
    np.savez_compressed(path, image=pixels(30), label=labels(30))
    with pytest.raises(InputError, match=r"^extra\.path = .*np\.savez writes, or extra\.cache=<folder>"):
        extra(path, train)
    cache = tmp_path / "unpacked" / "here"
    first = extra(path, train, cache=str(cache))
    fingerprint = first.fingerprint()
    (file,) = cache.iterdir()
    np.testing.assert_array_equal(np.load(file), pixels(30))
    before = file.stat().st_mtime_ns
    again = extra(path, train, cache=str(cache))
    assert [entry.stat().st_mtime_ns for entry in cache.iterdir()] == [before]
    for found in (first, again):
        np.testing.assert_array_equal(found.take(torch.arange(30))[0], pixels(30).transpose(0, 3, 1, 2))
    file.write_bytes(file.read_bytes()[:-1])  # cut short by something else
    np.testing.assert_array_equal(extra(path, train, cache=str(cache)).images[29], pixels(30)[29])
    # a file of other images beside it has a cache of its own
    np.savez_compressed(path, image=pixels(30, seed=1), label=labels(30))
    np.testing.assert_array_equal(extra(path, train, cache=str(cache)).images[29], pixels(30, seed=1)[29])
    assert len(list(cache.iterdir())) == 2
    # both ways are the same data
    np.savez(path, image=pixels(30), label=labels(30))
    assert extra(path, train).fingerprint() == fingerprint


def test_a_cache_without_room_is_refused_before_anything_is_written(path, train, tmp_path, monkeypatch):
    np.savez_compressed(path, image=pixels(30), label=labels(30))
    monkeypatch.setattr("robust_arch.data.npz_images.shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(InputError, match=r"^extra\.cache = .*room for"):
        extra(path, train, cache=str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_compressed_file_leaves_nothing_in_the_cache(path, train, tmp_path):
    np.savez_compressed(path, image=pixels(3000), label=labels(3000))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^extra\.path = "):
        extra(path, train, cache=str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())


def write_sparse(path, size, label_type):
    """An uncompressed .npz of `size` black images, whose pixels take no room on the disk; the last one is white."""
    shape = (size, 32, 32, 3)

    def header(entries, kind):
        text = f"{{'descr': '{np.dtype(kind).str}', 'fortran_order': False, 'shape': {entries}, }}"
        text = text.ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()

    central = b""
    with path.open("wb") as handle:
        for name, entries, kind in ((b"image.npy", shape, np.uint8), (b"label.npy", (size,), label_type)):
            head = header(entries, kind)
            length = len(head) + int(np.prod(entries, dtype=object)) * np.dtype(kind).itemsize
            start = handle.tell()
            # zip64: sizes and place as 8 bytes each in the extra field; a CRC that nobody compares, as of the labels
            crc = 0
            if name == b"label.npy":
                crc = zipfile.crc32(head + bytes(length - len(head)))
            extra_field = struct.pack("<HHQQ", 1, 16, length, length)
            fixed = (45, 0, 0, 0, 33, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(name))
            handle.write(struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *fixed, len(extra_field)) + name + extra_field)
            handle.write(head)
            handle.seek(length - len(head), os.SEEK_CUR)
            if name == b"image.npy":
                handle.seek(-3072, os.SEEK_CUR)
                handle.write(b"\xff" * 3072)
            extra_field = struct.pack("<HHQQQ", 1, 24, length, length, start)
            central += struct.pack("<4sH", b"PK\x01\x02", 45) + struct.pack(
                "<HHHHHIIIHHHHHII", *fixed, len(extra_field), 0, 0, 0, 0, 0xFFFFFFFF
            ) + name + extra_field  # fmt: skip
        start = handle.tell()
        handle.write(central)
        end = handle.tell()
        handle.write(struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(central), start))
        handle.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        handle.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2, 2, len(central), 0xFFFFFFFF, 0))


def test_fifty_million_images_are_opened_and_drawn_from_without_being_read(tmp_path):
    path, size = tmp_path / "50m.npz", 50_000_000
    write_sparse(path, size, np.uint8)
    assert path.stat().st_size > 150e9
    assert path.stat().st_blocks * 512 < 1e6
    train = ImageSet(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4) % 2, num_classes=10)
    tracemalloc.start()
    try:
        found = extra(path, train)
        found.fingerprint()
        images, classes = found.take(torch.tensor([0, size // 2, size - 1]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [int(image.min()) for image in images] == [0, 0, 255]
    assert classes.tolist() == [0, 0, 0]
    assert len(found) == size
    assert peak < 4 * size  # the labels, some of the time twice; the images would be 3,072 times as much


def test_the_fingerprint_changes_with_labels_shape_and_pixels(path, train):
    changes = {
        "same": (pixels(20), labels(20)),
        "other type of labels": (pixels(20), labels(20).astype(np.uint8)),
        "pixel": (pixels(20) ^ (np.arange(20) == 11)[:, None, None, None], labels(20)),
        "label": (pixels(20), np.r_[labels(20)[:-1], 0]),
        "order": (pixels(20)[::-1], labels(20)),
        "fewer": (pixels(20)[:19], labels(20)[:19]),
    }
    found = {}
    for name, (images, classes) in changes.items():
        np.savez(path, image=np.ascontiguousarray(images, dtype=np.uint8), label=classes)
        found[name] = extra(path, train).fingerprint()
    assert found["same"] == found.pop("other type of labels")
    assert len(set(found.values())) == 5


def object_array():
    array = np.empty(20, dtype=object)
    array[:] = [object] * 20
    return array


BAD = {
    "no file": (None, "a file; there is none"),
    "no zip file": (lambda path: path.write_bytes(b"not a zip"), "File is not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "File is not a zip file"),
    "no label": (lambda path: np.savez(path, image=pixels(20)), "label.npy"),
    "no image": (lambda path: np.savez(path, label=labels(20)), "image.npy"),
    "floats": (lambda path: np.savez(path, image=pixels(20) / 255, label=labels(20)), "image is float64"),
    "channels first": (
        lambda path: np.savez(path, image=pixels(20).transpose(0, 3, 1, 2), label=labels(20)), "Fortran|these are",
    ),
    "another size": (lambda path: np.savez(path, image=pixels(20)[:, :5], label=labels(20)), r"these are \(5, 8, 3\)"),
    "grey": (lambda path: np.savez(path, image=pixels(20)[..., 0], label=labels(20)), "of shape"),
    "Fortran order": (lambda path: np.savez(path, image=np.asfortranarray(pixels(20)), label=labels(20)), "Fortran"),
    "too few labels": (lambda path: np.savez(path, image=pixels(20), label=labels(19)), r"shape \(19,\)"),
    "one-hot labels": (lambda path: np.savez(path, image=pixels(20), label=np.eye(20)), "label is float64"),
    "label above": (lambda path: np.savez(path, image=pixels(20), label=labels(20) + 1), r"these are in 1\.\.3"),
    "label below": (lambda path: np.savez(path, image=pixels(20), label=labels(20) - 1), r"these are in -1\.\.1"),
    "no images": (lambda path: np.savez(path, image=pixels(0), label=labels(0)), "there is none"),
    "objects": (lambda path: np.savez(path, image=pixels(20), label=object_array()), "objects"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_another_form_is_refused(name, path, train):
    write, message = BAD[name]
    if write:
        write(path)
    with pytest.raises(InputError, match=rf"^extra\.path = '.*edm_1m\.npz': expected .*({message})"):
        extra(path, train)


def test_a_file_that_is_cut_short_anywhere_is_refused(path, train):
    np.savez(path, image=pixels(4), label=labels(4))
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"^extra\.path = "):
            extra(path, train)


def test_a_header_that_names_more_than_the_file_holds_is_refused(path, train):
    np.savez(path, image=pixels(20), label=labels(20))
    path.write_bytes(path.read_bytes().replace(b"(20, 6, 8, 3)", b"(99, 6, 8, 3)"))
    with pytest.raises(InputError, match=r"^extra\.path = "):  # numpy's header is not what the directory has
        extra(path, train)


def test_images_of_another_scale_are_refused(path):
    digits = ImageSet(torch.zeros(4, 3, 6, 8, dtype=torch.uint8), torch.arange(4) % 3, num_classes=3, max_value=16)
    np.savez(path, image=pixels(20), label=labels(20))
    with pytest.raises(InputError, match=r"0\.\.16, as the training set's"):
        extra(path, digits)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("path", [None, "", 3], "the path of a file"),
        ("fraction", [0.0, 1.0, -0.5, 1, True, float("nan")], "between 0 and 1"),
        ("name", ["", " x", "a\nb"], "a name"),
    ],
)
def test_bad_settings_are_named(key, values, message):
    for value in values:
        with pytest.raises(InputError, match=rf"^extra\.{key} = .*{message}"):
            NpzImages(**{"path": "x.npz", key: value})


def test_a_fraction_that_leaves_no_image_of_either_kind_is_refused(path, train):
    np.savez(path, image=pixels(20), label=labels(20))
    assert extra(path, train).per_batch(256) == 128
    assert extra(path, train, fraction=0.3).per_batch(128) == 38
    for fraction, batch_size in ((0.01, 10), (0.99, 10)):
        with pytest.raises(InputError, match=rf"^extra\.fraction = {fraction}: expected a share of .* = 10"):
            extra(path, train, fraction=fraction).per_batch(batch_size)
