"""The standard data sets, read by torchvision's own code from small files in the official layout."""

import gzip
import hashlib
import pickle
import re
import struct
from urllib.error import URLError

import numpy as np
import PIL.Image
import pytest
import scipy.io
import torch
from torchvision import datasets

from robust_arch.data.torchvision_sets import TorchvisionSet
from robust_arch.errors import InputError

# training examples, test examples; MNIST's are 28x28, the others' 32x32
SIZES = {"CIFAR10": (30, 10), "CIFAR100": (200, 100), "SVHN": (30, 10), "MNIST": (30, 10)}


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def labels(count, classes):
    """Every class as often as another, in an order that is not ascending."""
    return (np.arange(count) * 7 + 3) % classes


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def dump(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, md5(path)]


class Layout:
    """A data set in its official files, with random pixels."""

    def __init__(self, source, classes=10, shape=(3, 32, 32)):
        self.source, self.classes, self.shape = source, classes, shape

    def contents(self, part):
        count = SIZES[self.source][part == "test"]
        return pixels(part == "test", count, *self.shape), labels(count, self.classes)


class Cifar(Layout):
    """CIFAR-10 in five training batches, CIFAR-100 in one file with coarse and fine labels."""

    def __init__(self, source, classes, folder, meta, key, parts):
        super().__init__(source, classes)
        self.folder, self.meta, self.key, self.parts = folder, meta, key, parts

    def write(self, root, monkeypatch):
        kind = getattr(datasets, self.source)
        for part, attribute in (("train", "train_list"), ("test", "test_list")):
            images, targets = self.contents(part)
            listed = []
            for name, chunk in zip(
                self.parts[part], np.split(np.arange(len(images)), len(self.parts[part])), strict=True
            ):
                own = [int(label) for label in targets[chunk]]
                # a row: 1,024 red values, then the green, then the blue, each image row by row
                batch = {"data": images[chunk].reshape(len(chunk), 3072), "batch_label": name}
                # coarse labels are another question: 20 groups, which must not be taken for the classes
                fine = {"fine_labels": own, "coarse_labels": [0] * len(own)}
                listed.append(
                    dump(root / self.folder / name, batch | ({"labels": own} if self.classes == 10 else fine))
                )
            monkeypatch.setattr(kind, attribute, listed)
        _, digest = dump(root / self.folder / self.meta, {self.key: [f"class{i}" for i in range(self.classes)]})
        monkeypatch.setattr(kind, "meta", {"filename": self.meta, "key": self.key, "md5": digest})

    def files(self, root):
        return [root / self.folder / name for names in self.parts.values() for name in names]


class Svhn(Layout):
    def write(self, root, monkeypatch):
        root.mkdir(parents=True, exist_ok=True)
        listed = {}
        for part, path in zip(("train", "test"), self.files(root), strict=True):
            images, targets = self.contents(part)
            # MATLAB's order: X is (row, column, channel, example); the digit 0 has label 10
            y = np.where(targets == 0, 10, targets).astype(np.uint8)[:, None]
            scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": y})
            listed[part] = [datasets.SVHN.split_list[part][0], path.name, md5(path)]
        monkeypatch.setattr(datasets.SVHN, "split_list", listed)

    def files(self, root):
        return [root / "train_32x32.mat", root / "test_32x32.mat"]


class Mnist(Layout):
    def write(self, root, monkeypatch):
        raw = root / "MNIST" / "raw"
        raw.mkdir(parents=True)
        listed = []
        for part, stem in (("train", "train"), ("test", "t10k")):
            images, targets = self.contents(part)
            # idx: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension big-endian, the data
            for kind, array in (("images-idx3", images[:, 0]), ("labels-idx1", targets.astype(np.uint8))):
                name = f"{stem}-{kind}-ubyte"
                content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
                (raw / name).write_bytes(content)
                # the official list is of the compressed files
                listed.append((f"{name}.gz", hashlib.md5(gzip.compress(content, mtime=0)).hexdigest()))
        monkeypatch.setattr(datasets.MNIST, "resources", listed)

    def files(self, root):
        return [root / "MNIST" / "raw" / name.removesuffix(".gz") for name, _ in datasets.MNIST.resources]


BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
LAYOUTS = [
    Cifar("CIFAR10", 10, "cifar-10-batches-py", "batches.meta", "label_names", BATCHES),
    Cifar("CIFAR100", 100, "cifar-100-python", "meta", "fine_label_names", {"train": ["train"], "test": ["test"]}),
    Svhn("SVHN"),
    Mnist("MNIST", shape=(1, 28, 28)),
]
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.source)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sets"


@pytest.fixture
def dataset(root):
    """A function from a layout and settings to the data set; the root is given as in a YAML file, as text."""
    return lambda layout, **settings: TorchvisionSet(name="x", source=layout.source, root=str(root), **settings)


@pytest.fixture
def offline(monkeypatch):
    """No name can be resolved; returns the list of addresses that were tried."""
    tried = []

    def refuse(request, *args, **kwargs):
        tried.append(getattr(request, "full_url", request))
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tried


@each_layout
@pytest.mark.parametrize("part", [0, 1], ids=["train", "test"])
def test_pixels_labels_and_classes_are_those_of_the_files(layout, part, dataset, root, monkeypatch, offline):
    layout.write(root, monkeypatch)
    images, targets = layout.contents(("train", "test")[part])
    read = dataset(layout).read()[part]
    assert read.images.dtype == torch.uint8
    np.testing.assert_array_equal(read.images, images)  # (N, C, H, W), channels red, green, blue
    assert read.labels.tolist() == targets.tolist()
    assert read.labels.dtype == torch.int64
    assert (read.num_classes, read.max_value) == (layout.classes, 255)
    assert read.image_shape == layout.shape
    assert not offline  # what is there is not asked for again


def test_a_cifar_row_is_red_then_green_then_blue(dataset, root, monkeypatch):
    layout = LAYOUTS[0]

    def one_pixel(part):
        row = np.zeros((10, 3072), dtype=np.uint8)
        row[:, 5 * 32 + 7] = 1  # red, row 5, column 7
        row[:, 1024 + 31 * 32] = 2  # green, last row, first column
        row[:, 3071] = 3  # blue, last row, last column
        return row, labels(10, 10)

    monkeypatch.setattr(layout, "contents", one_pixel)
    layout.write(root, monkeypatch)
    image = dataset(layout).read()[0].images[0]
    assert {tuple(where): int(image[tuple(where)]) for where in image.nonzero().tolist()} == {
        (0, 5, 7): 1,
        (1, 31, 0): 2,
        (2, 31, 31): 3,
    }


def test_the_label_ten_of_svhn_is_the_digit_zero(dataset, root, monkeypatch):
    LAYOUTS[2].write(root, monkeypatch)
    stored = scipy.io.loadmat(root / "train_32x32.mat")["y"].ravel()
    read = dataset(LAYOUTS[2]).read()[0].labels.numpy()
    assert (stored == 10).sum() == 3
    np.testing.assert_array_equal(read, stored % 10)


@each_layout
def test_load_holds_a_part_of_the_training_set_out_and_none_of_the_test_set(layout, dataset, root, monkeypatch):
    layout.write(root, monkeypatch)
    splits = dataset(layout, val_fraction=0.5).load()
    train, test = (layout.contents(part)[0] for part in ("train", "test"))
    half = len(train) // 2
    assert (len(splits.train), len(splits.val), len(splits.test)) == (half, half, len(test))
    divided = {image.tobytes() for part in (splits.train, splits.val) for image in part.images.numpy()}
    assert divided == {image.tobytes() for image in train}  # random images: none is there twice
    np.testing.assert_array_equal(splits.test.images, test)
    # every class has as many training examples as another: 3 of 10 classes, 2 of 100
    counts = torch.bincount(splits.val.labels, minlength=layout.classes)
    assert set(counts.tolist()) <= ({1, 2} if layout.classes == 10 else {1})


@each_layout
@pytest.mark.parametrize("size", [16, 40])
def test_resizing_is_that_of_pil(layout, size, dataset, root, monkeypatch):
    layout.write(root, monkeypatch)
    train, test = dataset(layout, image_size=size).read()
    assert train.image_shape == test.image_shape == (layout.shape[0], size, size)
    assert (len(train), len(test)) == SIZES[layout.source]
    for read, part in ((train, "train"), (test, "test")):
        original = layout.contents(part)[0][4]
        # PIL's bilinear filter widens when it shrinks, which is what antialiasing means
        expected = [
            PIL.Image.fromarray(channel).resize((size, size), PIL.Image.Resampling.BILINEAR) for channel in original
        ]
        # both round to whole levels, PIL after each of the two axes
        np.testing.assert_allclose(read.images[4].numpy().astype(int), np.stack(expected).astype(int), atol=1)


def test_halving_is_a_triangle_of_four_pixels(dataset, root, monkeypatch):
    layout = LAYOUTS[2]
    columns = np.zeros(32)
    columns[10] = 240  # one bright column
    image = np.broadcast_to(columns.astype(np.uint8), (10, 3, 32, 32))
    monkeypatch.setattr(layout, "contents", lambda part: (image.copy(), labels(10, 10)))
    layout.write(root, monkeypatch)
    read = dataset(layout, image_size=16).read()[0].images
    # output column j is centred at 2j + 1 in pixel widths; weights of the pixels at -1.5, -0.5, 0.5, 1.5 from it are
    # 1/8, 3/8, 3/8, 1/8; pixel 10, at 10.5, is 1.5 from column 4's centre 9 and 0.5 from column 5's centre 11
    expected = np.zeros(16)
    expected[4], expected[5] = 240 / 8, 240 * 3 / 8
    np.testing.assert_array_equal(read[0, 0], np.broadcast_to(expected, (16, 16)))


def test_resizing_many_images_at_once_changes_none(dataset, root, monkeypatch):
    # chunks bound the memory; where they end must not show
    LAYOUTS[0].write(root, monkeypatch)
    whole = dataset(LAYOUTS[0], image_size=12).read()[0].images
    monkeypatch.setattr("robust_arch.data.torchvision_sets._RESIZE_CHUNK", 7)
    assert torch.equal(dataset(LAYOUTS[0], image_size=12).read()[0].images, whole)


def test_images_of_the_right_size_are_left_alone(dataset, root, monkeypatch):
    LAYOUTS[0].write(root, monkeypatch)
    read = dataset(LAYOUTS[0], image_size=32).read()[0].images
    np.testing.assert_array_equal(read, LAYOUTS[0].contents("train")[0])


# what a user must find or put below data.root
NAMED = {
    "CIFAR10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "CIFAR100": ("cifar-100-python", "cifar-100-python.tar.gz"),
    "SVHN": ("train_32x32.mat", "test_32x32.mat"),
    "MNIST": ("MNIST/raw", "images-idx3", "labels-idx1", "ubyte"),
}


@each_layout
@pytest.mark.parametrize("download", [True, False])
def test_without_files_one_message_says_which_file_to_put_where(download, layout, dataset, root, offline, capsys):
    with pytest.raises(InputError) as caught:
        dataset(layout, download=download).load()
    message = str(caught.value)
    assert message.startswith(f"data.root = {str(root)!r}: ")
    assert layout.source in message
    assert all(name in message for name in NAMED[layout.source])
    assert bool(offline) == root.exists() == download  # without permission nothing is tried
    assert caught.value.__context__ is None  # one error, without the chain of what torchvision went through
    assert capsys.readouterr() == ("", "")


@each_layout
def test_a_folder_that_cannot_be_made_is_named(layout, dataset, root, offline):
    root.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"data\.root = .*sets"):
        dataset(layout).load()


@pytest.mark.parametrize(("root", "folder"), [(None, "cache/robust_arch/torchvision"), ("~/mine", "home/mine")])
def test_the_default_root_is_the_cache_folder_and_a_tilde_the_home_folder(root, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    LAYOUTS[0].write(tmp_path / folder, monkeypatch)
    train, _ = TorchvisionSet(name="x", source="CIFAR10", root=root, download=False).read()
    np.testing.assert_array_equal(train.images, LAYOUTS[0].contents("train")[0])


DAMAGES = {
    "a byte": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "cut short": lambda content: content[:-3],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@each_layout
@pytest.mark.parametrize("number", [0, -1], ids=["train", "test"])
@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_file_is_not_used(layout, number, damage, download, dataset, root, monkeypatch, offline):
    if (layout.source, damage) == ("MNIST", "a byte"):
        pytest.skip("torchvision's checksums of MNIST are of the compressed files")
    layout.write(root, monkeypatch)
    path = layout.files(root)[number]
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(InputError, match=r"data\.root = "):
        dataset(layout, download=download).read()


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("source", ["ImageNet", "cifar10", "", "FakeData", None], "one of CIFAR10, CIFAR100, MNIST, SVHN"),
        ("image_size", [0, -32, 16.0, "16", True, (16, 16)], "an integer of at least 1, or null"),
        ("val_fraction", [1], "between 0 and 1"),
    ],
)
def test_bad_settings_are_named(key, values, message):
    for value in values:
        with pytest.raises(InputError, match=rf"data\.{key} = {re.escape(repr(value))}: .*{message}"):
            TorchvisionSet(**{"name": "x", "source": "CIFAR10", key: value})
