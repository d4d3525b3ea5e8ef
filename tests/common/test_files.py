import json
import os

import numpy as np
import pytest

from robust_arch.common.files import read_json, replacing, write_arrays, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    """A file that is there already, and beside which nothing may be left."""
    path = tmp_path / "file"
    path.write_text("old")
    yield path
    assert names(tmp_path) == ["file"]


def test_the_new_content_replaces_the_old(path):
    with replacing(path) as temporary:
        temporary.write_text("new")
        # readers see the old content until the new one is whole
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("written", [True, False])
def test_a_writer_that_raises_leaves_the_old_content(path, written, error):
    def write_half():
        with replacing(path) as temporary:
            if written:
                temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"


def test_text_is_written_as_it_is_in_utf8_and_missing_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_text(path, "ε ≤ 8/255\r\n")
    assert path.read_bytes() == b"\xce\xb5 \xe2\x89\xa4 8/255\r\n"
    assert names(path.parent) == ["file"]


def test_the_content_is_on_the_disk_before_it_gets_its_name(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, path.read_text())))
    write_text(path, "new")
    assert synced == [(path.stat().st_ino, "old")]


def test_json_comes_back(path):
    content = {"b": [1, 2.5, None, True], "a": {"ε": "8/255"}}
    write_json(path, content)
    assert read_json(path) == json.loads(path.read_text(encoding="utf-8")) == content
    assert list(read_json(path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("write", "content"),
    [
        *((write_json, {"a": value}) for value in (float("nan"), float("inf"), {1, 2})),
        (write_arrays, {"objects": np.array([object()])}),
    ],
)
def test_what_neither_json_nor_an_array_can_hold_is_refused_and_the_old_file_stays(write, content, path):
    with pytest.raises((ValueError, TypeError)):
        write(path, content)
    assert path.read_text() == "old"


def test_a_file_torn_anywhere_reads_as_none(path):
    write_json(path, {"a": [1, 22], "b": {"c": "text ε"}})
    whole = path.read_bytes()
    for length in range(whole.rindex(b"}") + 1):
        path.write_bytes(whole[:length])
        assert read_json(path) is None, whole[:length]


@pytest.mark.parametrize(
    "content", ["[1, 2]", "null", "3", '"text"', *(f'{{"a": {word}}}' for word in ("NaN", "Infinity", "-Infinity"))]
)
def test_json_that_is_no_object_reads_as_none(path, content):
    path.write_text(content)
    assert read_json(path) is None


def test_a_missing_file_or_a_folder_reads_as_none(tmp_path):
    assert read_json(tmp_path / "nowhere") is None
    assert read_json(tmp_path) is None


def test_arrays_come_back_under_the_very_name(tmp_path):
    # numpy itself would append .npz to a name without it
    arrays = {"index": np.array([3, 1, 2]), "pgd20": np.array([True, False, True])}
    for path in (tmp_path / "record.npz", tmp_path / "record"):
        write_arrays(path, arrays)
        with np.load(path, allow_pickle=False) as found:
            assert sorted(found.files) == ["index", "pgd20"]
            for name, expected in arrays.items():
                np.testing.assert_array_equal(found[name], expected)
                assert found[name].dtype == expected.dtype
    assert names(tmp_path) == ["record", "record.npz"]
