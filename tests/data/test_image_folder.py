import itertools
import math
import os
import re

import numpy as np
import PIL.Image
import pytest

from robust_arch.common.files import MOST_OUTCOMES
from robust_arch.data.image_folder import ImageFolder
from robust_arch.errors import InputError


def colours(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Two classes of 4x6 RGB images; files are written in an order that is not the sorted one."""
    root = tmp_path / "images"
    for seed, name in enumerate(["train/dog/b.png", "train/cat/z.png", "train/dog/a.png", "train/cat/sub/c.bmp"]):
        save(root / name, colours(seed, 4, 6, 3))
    for seed, name in enumerate(["test/dog/1.png", "test/cat/1.png"], start=10):
        save(root / name, colours(seed, 4, 6, 3))
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    (root / "train" / "README").write_text("not a class")
    return root


@pytest.fixture
def folder(root, tmp_path):
    def make(**settings):
        return ImageFolder(name="animals", root=str(root), cache=str(tmp_path / "cache"), **settings)

    return make


@pytest.fixture
def unreadable(monkeypatch):
    """From the call on, no file can be decoded."""

    def refuse():
        def fail(*args, **kwargs):
            raise AssertionError("decoded again")

        monkeypatch.setattr(PIL.Image, "open", fail)

    return refuse


def test_pixels_and_labels(folder):
    train, test = folder().read()
    # classes by sorted name, files of a class by sorted path: cat/sub/c, cat/z, dog/a, dog/b
    expected = np.stack([colours(seed, 4, 6, 3) for seed in (3, 1, 2, 0)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(train.images, expected)
    assert train.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(test.images, np.stack([colours(s, 4, 6, 3) for s in (11, 10)]).transpose(0, 3, 1, 2))
    assert test.labels.tolist() == [0, 1]
    assert (train.num_classes, train.max_value, train.image_shape) == (2, 255, (3, 4, 6))


def test_a_cache_larger_than_any_record_is_read(tmp_path, unreadable):
    """CIFAR-10's training images take 150 MB, and what bounds the arrays of records must not bound them."""
    side = math.isqrt(MOST_OUTCOMES // 2) + 1  # two images per part
    for grey, place in enumerate(itertools.product(("train", "test"), ("cat", "dog"))):
        save(tmp_path.joinpath("large", *place, "0.png"), np.full((side, side), grey, dtype=np.uint8))
    folder = ImageFolder(name="large", root=str(tmp_path / "large"), cache=str(tmp_path / "cache"), channels=1)
    first = folder.read()
    unreadable()
    assert [part.fingerprint() for part in folder.read()] == [part.fingerprint() for part in first]


def test_without_a_cache_folder_the_user_s_is_used(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    ImageFolder(name="animals", root=str(root)).read()
    assert len([path for path in (tmp_path / "xdg" / "robust_arch").rglob("*") if path.is_file()]) == 2


def test_a_second_read_decodes_nothing_and_the_root_is_left_as_it_was(folder, root, tmp_path, unreadable):
    before = sorted(root.rglob("*"))
    first = folder().read()
    unreadable()
    for part, again in zip(first, folder().read(), strict=True):
        assert part.fingerprint() == again.fingerprint()
    assert sorted(root.rglob("*")) == before
    assert len(list((tmp_path / "cache").iterdir())) == 2  # train and test, and no temporary file


def test_a_changed_an_added_and_a_removed_file_are_noticed(folder, root):
    folder().read()
    path = root / "train" / "dog" / "a.png"
    before = path.stat()
    save(path, colours(99, 4, 6, 3))
    # even if the clock is too coarse to tell the two writes apart
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    np.testing.assert_array_equal(folder().read()[0].images[2], colours(99, 4, 6, 3).transpose(2, 0, 1))
    save(root / "train" / "dog" / "c.png", colours(7, 4, 6, 3))
    assert folder().read()[0].labels.tolist() == [0, 0, 1, 1, 1]
    (root / "train" / "cat" / "z.png").unlink()
    assert folder().read()[0].labels.tolist() == [0, 1, 1, 1]


def test_each_size_and_number_of_channels_has_its_own_cache(folder):
    shapes = [folder(**settings).read()[0].image_shape for settings in ({}, {"channels": 1}, {"image_size": 4})]
    assert shapes == [(3, 4, 6), (1, 4, 6), (3, 4, 4)]


def test_files_of_several_sizes_are_named(folder, root):
    save(root / "train" / "dog" / "b.png", colours(0, 5, 6, 3))
    with pytest.raises(InputError, match=r"data\.image_size = None: expected a size to resize to") as caught:
        folder().read()
    first, odd = root / "train" / "cat" / "sub" / "c.bmp", root / "train" / "dog" / "b.png"
    assert f"{first} is (4, 6)" in str(caught.value)
    assert f"{odd} (5, 6)" in str(caught.value)


def test_a_test_part_of_another_size_is_named(folder, root):
    for name in ("dog/1.png", "cat/1.png"):
        save(root / "test" / name, colours(0, 8, 6, 3))
    with pytest.raises(InputError, match=r"train has \(3, 4, 6\) and test \(3, 8, 6\)"):
        folder().read()


def test_a_side_that_fits_is_cropped_at_the_centre(folder):
    # the shorter side is 4 already: columns 1 to 4 of 6 remain, no pixel is resampled
    train, _ = folder(image_size=4).read()
    np.testing.assert_array_equal(train.images[0], colours(3, 4, 6, 3)[:, 1:5].transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (2, 2), (3, 9), (9, 3), (7, 5), (1, 100)])
def test_images_of_every_size_become_squares(height, width, folder, root):
    colour = np.array([10, 200, 77], dtype=np.uint8)
    save(root / "train" / "dog" / "b.png", np.broadcast_to(colour, (height, width, 3)).copy())
    train, _ = folder(image_size=4).read()
    # a constant image stays constant under any interpolation
    np.testing.assert_array_equal(train.images[3], np.broadcast_to(colour[:, None, None], (3, 4, 4)))


def test_halving_averages_neighbours(folder, root):
    # bands of two equal rows and columns: away from the edges between them, antialiased halving keeps their order
    ramp = np.repeat(np.repeat(np.arange(0, 160, 10, dtype=np.uint8).reshape(4, 4), 2, axis=0), 2, axis=1)
    save(root / "train" / "dog" / "b.png", np.stack([ramp] * 3, axis=-1))
    image = folder(image_size=4).read()[0].images[3, 0].double()
    assert (image.diff(dim=0) > 0).all()
    assert (image.diff(dim=1) > 0).all()
    assert abs(image.mean().item() - ramp.mean()) < 0.5  # the interpolation preserves the mean


def test_load_holds_a_part_of_the_training_set_out(folder):
    splits = folder(val_fraction=0.5).load()
    assert splits.train.labels.tolist() == splits.val.labels.tolist() == [0, 1]
    assert splits.test.labels.tolist() == [0, 1]


def test_a_missing_test_part_is_named(folder, root):
    (root / "test").rename(root / "valid")
    with pytest.raises(InputError, match=r"data\.root = .*test/<class>/"):
        folder().read()


def test_a_train_part_without_classes_is_named(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(InputError, match="no class folder"):
        ImageFolder(name="animals", root=str(tmp_path)).read()


def test_a_single_class_is_not_a_classification_task(folder, root):
    for part in ("train", "test"):
        (root / part / "dog").rename(root.parent / f"dog-{part}")
    with pytest.raises(InputError, match="at least 2 classes; found 1"):
        folder().load()


DAMAGES = {  # suffix and content, of which the header is checked by different readers
    "not an image": (".png", b"this is text"),
    "a bad header": (".ppm", b"P6\n4 six\n255\n" + bytes(72)),
    "an impossible size": (".ppm", b"P6\n100000 100000\n255\n" + bytes(72)),
}


@pytest.mark.parametrize(("suffix", "content"), DAMAGES.values(), ids=DAMAGES)
def test_a_broken_file_is_named_and_nothing_is_cached(suffix, content, folder, root, tmp_path):
    path = root / "train" / "dog" / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.root: .*cannot be read as an image") as caught:
        folder().read()
    assert str(path) in str(caught.value)
    assert list((tmp_path / "cache").glob("*")) == []


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("root", [None], r": .*the folder that holds train"),
        ("channels", [2, True, "3", 3.0, [3]], r": .*3 \(RGB\) or 1 \(grey\)"),
        ("image_size", [0, True, 8.0], r": .*an integer of at least 1, or null"),
    ],
)
def test_bad_settings_are_named(key, values, message):
    for value in values:
        with pytest.raises(InputError, match=rf"data\.{key} = {re.escape(repr(value))}{message}"):
            ImageFolder(**{"name": "animals", "root": "images", key: value})


def test_a_size_that_no_memory_holds_is_named(folder):
    with pytest.raises(
        InputError, match=r"data\.image_size = 1000000: expected images that fit into memory: .* this machine has"
    ):
        folder(image_size=10**6).read()
