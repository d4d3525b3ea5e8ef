"""Data sets in parquet files, as the Hugging Face hub has them."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from robust_arch.common.randomness import derive, example_keys
from robust_arch.data.parquet_set import ParquetSet
from robust_arch.errors import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIDE = 8


def pixels(seed, size=(SIDE, SIDE)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def write(path, images, labels, *, image="img", label="label", names=None, group=3, **more):
    """One file with groups of three rows, images as structs of bytes and path."""
    cells = [{"bytes": each, "path": f"{row}.png"} for row, each in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(cells, kind), label: pa.array(labels), **more})
    if names:
        features = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def root(tmp_path):
    """A training part of 7 + 5 images in two files, and a test part of 4."""
    root = tmp_path / "set"
    for number, seeds in ((0, range(7)), (1, range(7, 12))):
        path = root / f"train-0000{number}-of-00002.parquet"
        write(path, [encoded(pixels(seed)) for seed in seeds], [seed % 3 for seed in seeds])
    write(root / "test-00000-of-00001.parquet", [encoded(pixels(100 + row)) for row in range(4)], [2, 0, 1, 2])
    return root


@pytest.fixture
def dataset(root, tmp_path):
    return lambda **settings: ParquetSet(**{"name": "x", "root": str(root), "cache": str(tmp_path / "c"), **settings})


def test_both_parts_are_those_of_the_files_in_order(dataset):
    for train, test in (dataset().read(), dataset().read()):  # the second time from the cache
        np.testing.assert_array_equal(train.images, [pixels(seed).transpose(2, 0, 1) for seed in range(12)])
        np.testing.assert_array_equal(test.images, [pixels(100 + row).transpose(2, 0, 1) for row in range(4)])
        assert train.labels.tolist() == [seed % 3 for seed in range(12)]
        assert test.labels.tolist() == [2, 0, 1, 2]
        assert (train.num_classes, train.reading.read, dict(train.reading.converted)) == (3, 12, {})


def test_the_cache_is_read_instead_of_the_images(dataset, root, monkeypatch):
    before = dataset().read()[0]

    def refuse(*args, **settings):
        raise AssertionError("an image was decoded")

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refuse)
        assert torch.equal(dataset().read()[0].images, before.images)
    write(root / "train-00001-of-00002.parquet", [encoded(pixels(500))] * 5, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(dataset().read()[0].images[7], pixels(500).transpose(2, 0, 1))


def test_sizes_and_colours_are_converted_and_counted(dataset, root):
    grey = Image.fromarray(pixels(0)[..., 0])
    buffer = io.BytesIO()
    grey.save(buffer, format="PNG")
    contents = [encoded(pixels(1, (10, 16))), buffer.getvalue(), encoded(pixels(2))]
    write(root / "test-00000-of-00001.parquet", contents, [0, 1, 2])
    _, test = dataset(image_size=SIDE).read()
    assert dict(test.reading.converted) == {"grey to RGB": 1, "resized (bilinear) and cropped to 8x8": 1}
    with pytest.raises(
        InputError, match=r"^data\.image_size = None: expected a size to resize to, as row 0 of .*test-"
    ):
        dataset().read()


@pytest.mark.parametrize("columns", [{"image": "image"}, {"label": "fine_label"}, {"image": "x", "label": "y"}])
def test_columns_of_other_sets(columns, dataset, root):
    for path in root.glob("*.parquet"):
        rows = pq.ParquetFile(path).metadata.num_rows
        write(path, [encoded(pixels(row)) for row in range(rows)], [row % 3 for row in range(rows)],
              coarse_label=pa.array([9] * rows), **columns)  # fmt: skip
    named = {f"{kind}_column": name for kind, name in columns.items() if len(name) == 1}
    train, _ = dataset(**named).read()
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 0, 1]
    assert train.num_classes == 3


def test_images_that_are_bytes_themselves_and_a_validation_part(dataset, root):
    (root / "test-00000-of-00001.parquet").unlink()
    table = pa.table({"image": pa.array([encoded(pixels(7))], pa.binary()), "label": [1]})
    pq.write_table(table, root / "validation-00000-of-00001.parquet")
    _, test = dataset().read()
    np.testing.assert_array_equal(test.images[0], pixels(7).transpose(2, 0, 1))


def test_classes_without_an_image_count_where_the_file_names_them(dataset, root):
    for number in range(2):
        path = root / f"train-0000{number}-of-00002.parquet"
        write(path, [encoded(pixels(number))] * 2, [0, 1], names=["a", "b", "c", "d", "e"])
    assert [part.num_classes for part in dataset().read()] == [5, 5]


def test_a_test_part_without_labels_can_be_passed_over(dataset, root):
    write(root / "test-00000-of-00001.parquet", [encoded(pixels(0))] * 2, [-1, -1])
    write(root / "validation-00000-of-00001.parquet", [encoded(pixels(1))] * 2, [1, 2])
    with pytest.raises(InputError, match=r"^data\.root: row 0 of .*test may be without labels: set data\.test_part"):
        dataset().read()
    assert dataset(test_part="validation").read()[1].labels.tolist() == [1, 2]


def test_a_part_can_be_trained_on(dataset):
    splits = dataset(val_fraction=0.25, train_images=6).load()
    assert splits.train.labels.bincount().tolist() == [2, 2, 2]


# --- streamed


def test_streamed_images_are_those_in_memory_and_crops_follow_their_keys(dataset):
    whole, (train, test) = dataset().read(), dataset(stream=True, image_size=SIDE, resize=SIDE, workers=0).read()
    assert torch.equal(train.images[:], whole[0].images)
    assert torch.equal(test.images[torch.tensor([3, 0])], whole[1].images[[3, 0]])
    assert train.labels.tolist() == whole[0].labels.tolist()
    index = torch.tensor([11, 0, 6, 7])
    keys = example_keys(derive(0, "crop", 0, 0), index)
    crops = train.images.random_crops(index, keys)
    assert torch.equal(train.images.random_crops(index[2:3], keys[2:3])[0], crops[2])


def test_streaming_reads_no_more_than_the_groups_of_the_images(dataset, monkeypatch):
    train, _ = dataset(stream=True, image_size=SIDE, workers=0).read()
    read = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, number, **more: read.append(number) or real(self, number, **more)
    )
    train.images[torch.tensor([0, 1, 2, 6])]
    assert read == [0, 2]  # rows 0 to 2 and, of the same file, row 6


def test_streaming_needs_a_size(root):
    with pytest.raises(InputError, match=r"^data\.image_size = None: expected the side of the crops"):
        ParquetSet(name="x", root=str(root), stream=True)
    with pytest.raises(InputError, match=r"^data\.channels = 1: expected 3"):
        ParquetSet(name="x", root=str(root), stream=True, image_size=8, channels=1)


# --- bad files


def damaged(root):
    path = root / "train-00000-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[20:200] = bytes(180)
    path.write_bytes(content)


def truncated(root):
    path = root / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def rewritten(**settings):
    given = {"images": [encoded(pixels(0))] * 2, "labels": [0, 1], **settings}
    return lambda root: write(root / "test-00000-of-00001.parquet", **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: [path.unlink() for path in root.glob("train*")], "there is no train-"),
        (lambda root: (root / "test-00000-of-00001.parquet").unlink(), "there is no test-"),
        (truncated, "train-00001.* cannot be read"),
        (damaged, "train-00000.* cannot be read"),
        (lambda root: (root / "test-1.parquet").write_bytes(b""), "test-1.parquet cannot be read"),
        (rewritten(images=[encoded(pixels(0)), b"no image"]), r"row 1 of .*test-.* cannot be read as an image"),
        (rewritten(images=[encoded(pixels(0)), None]), r"row 1 of .*test-.* it holds no bytes"),
        (rewritten(labels=[0, None]), "expected one integer per image"),
        (rewritten(labels=[0.0, 1.0]), "expected one integer per image"),
        (rewritten(labels=["a", "b"]), "expected one integer per image"),
        (rewritten(images=[], labels=pa.array([], pa.int64())), "at least one image"),
    ],
)
def test_files_of_another_form_are_named(change, message, root, dataset):
    change(root)
    with pytest.raises(InputError, match=rf"^data\.root.*{message}"):
        dataset().read()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": None}, r"data\.root = None: expected the folder that holds train-\*\.parquet"),
        ({"root": "/nowhere"}, r"data\.root = '/nowhere': expected a folder"),
        ({"image_column": "picture"}, r"data\.image_column = 'picture': expected a column of .*: img, label"),
        ({"label_column": "class"}, r"data\.label_column = 'class': expected a column of"),
        ({"test_part": "dev"}, r"data\.test_part = 'dev': expected test, validation"),
        ({"stream": "yes"}, r"data\.stream = 'yes': expected true or false"),
    ],
)
def test_bad_settings_of_parquet_are_named(settings, message, dataset):
    with pytest.raises(InputError, match=f"^{message}"):
        dataset(**settings).read()


def test_without_pyarrow_the_extra_is_named(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install 'robust-arch\[parquet\]'"):
        dataset().read()
