"""Tiny-ImageNet, read from small files in the layout of the official zip file."""

import numpy as np
import pytest
from PIL import Image

from robust_arch.data.tiny_imagenet import TinyImageNet
from robust_arch.errors import InputError

WNIDS = ("n01443537", "n01629819", "n09256479")
TRAIN, VAL = 4, 6


def pixels(seed):
    """An 8x8 image of one colour, which JPEG keeps nearly as it is."""
    return np.broadcast_to(np.random.default_rng(seed).integers(40, 216, 3, dtype=np.uint8), (8, 8, 3))


@pytest.fixture
def root(tmp_path):
    """Training images by class with their boxes, annotated validation images, and a test part without labels."""
    root = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(reversed(WNIDS)):  # the order of folders on the disk is another
        images = root / "train" / wnid / "images"
        images.mkdir(parents=True)
        for count in range(TRAIN):
            Image.fromarray(pixels(100 * number + count)).save(images / f"{wnid}_{count}.JPEG", quality=100)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    for part, count in (("val", VAL), ("test", 2)):
        (root / part / "images").mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(pixels(1000 + number))
            image.save(root / part / "images" / f"{part}_{number}.JPEG", quality=100)
    lines = [f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t32\t44\t62\n" for number in reversed(range(VAL))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    (root / "words.txt").write_text("n01443537\tgoldfish\n")
    return root


@pytest.fixture
def dataset(root, tmp_path):
    return lambda **settings: TinyImageNet(
        **{"name": "tiny", "root": str(root), "cache": str(tmp_path / "cache"), **settings}
    )


def test_both_parts_have_the_labels_of_the_files(dataset, caplog):
    caplog.set_level("INFO")
    train, test = dataset().read()
    assert (len(train), len(test), train.num_classes, train.image_shape) == (3 * TRAIN, VAL, 3, (3, 8, 8))
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4  # classes in the order of their WordNet ids
    for label, number in ((0, 2), (1, 1), (2, 0)):
        for count in range(TRAIN):
            read = train.images[label * TRAIN + count, :, 4, 4].int()
            assert abs(read.numpy() - pixels(100 * number + count)[4, 4]).max() <= 3  # JPEG's rounding
    assert test.labels.tolist() == [number % 3 for number in range(VAL)]
    for number in range(VAL):
        assert abs(test.images[number, :, 4, 4].int().numpy() - pixels(1000 + number)[4, 4]).max() <= 3
    assert dict(train.reading.noted) == {}
    assert dict(train.reading.skipped) == {".txt files": 3}
    assert "not read: ['test', 'wnids.txt', 'words.txt']" in caplog.text


def test_a_part_of_it_can_be_trained_on(dataset):
    splits = dataset(val_fraction=0.25, train_images=6).load()
    assert splits.train.labels.bincount().tolist() == [2, 2, 2]
    assert splits.val.labels.bincount().tolist() == [1, 1, 1]


def replace(name, old, new):
    def change(root):
        path = root / name
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "val" / "val_annotations.txt").unlink(), "val_annotations.txt cannot be read"),
        (
            replace("val/val_annotations.txt", "val_3.JPEG\t", "val_33.JPEG\t"),
            "has no label for 1 images .* val_3.JPEG",
        ),
        (replace("val/val_annotations.txt", "n01629819\t0", "n99\t0"), r"line 2 of .*annotations.txt is 'val_4.JPEG"),
        (lambda root: (root / "val" / "images" / "val_5.JPEG").unlink(), "lacks 1 images .* like val_5.JPEG"),
        (lambda root: (root / "val" / "val_annotations.txt").write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda root: (root / "train" / WNIDS[0] / "images").rename(root / "aside"), "at least one image"),
    ],
)
def test_files_that_do_not_fit_together_are_named(change, message, root, dataset):
    change(root)
    with pytest.raises(InputError, match=rf"^data\.root.*{message}"):
        dataset().read()


@pytest.mark.parametrize("given", [None, "/nowhere"])
def test_a_missing_folder_is_told_what_it_must_hold(given, dataset):
    with pytest.raises(InputError, match=rf"^data\.root = {given!r}: .*train/<class>/images/.*val_annotations\.txt"):
        dataset(root=given).read()
