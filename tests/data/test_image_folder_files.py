"""The files of an image folder: each is read, counted with a reason, or refused; what is logged and kept."""

import logging
import os
import re
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from robust_arch.data import image_decoding
from robust_arch.data.image_folder import ImageFolder
from robust_arch.errors import InputError


def colours(seed):
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def save(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours(seed)).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "images"
    for seed, name in enumerate(("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/1.png",
                                 "test/dog/1.png")):  # fmt: skip
        save(root / name, seed)
    return root


@pytest.fixture
def read(root, tmp_path):
    """A function that reads the folder and returns the training and the test set."""
    return lambda **settings: ImageFolder(name="pets", root=str(root), cache=str(tmp_path / "cache"), **settings).read()


def reading(read, **settings):
    """How the training part was read, as plain dictionaries."""
    found = read(**settings)[0].reading
    return found.read, dict(found.noted), dict(found.skipped), dict(found.converted)


def test_every_suffix_that_is_read_is_read_in_any_case(root, read):
    assert reading(read) == (3, {}, {}, {})
    formats = {"apng": "PNG", "jpe": "JPEG", "jfif": "JPEG", "pnm": "PPM", "j2c": "JPEG2000", "jpc": "JPEG2000",
               "jpf": "JPEG2000", "jpx": "JPEG2000", "pgm": "PPM", "pbm": "PPM"}  # fmt: skip
    for suffix in image_decoding.SUFFIXES:
        name = suffix.removeprefix(".")
        save(root / "train" / "dog" / f"{name}.{name.upper()}", format=formats.get(name))
    count, noted, skipped, _ = reading(read)
    assert (count, noted, skipped) == (3 + len(image_decoding.SUFFIXES), {}, {})


SKIPPED = {
    "hidden files or folders": [
        ".DS_Store", "._1.png", ".1.png", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/1.png", "@eaDir/1.png",
    ],
    ".db files": ["Thumbs.db"],
    ".txt files": ["notes.TXT"],
    ".heic files": ["1.heic"],
    ".part files": ["1.png.part"],
    "files without a suffix": ["LICENSE"],
    "files with an unprintable suffix": ["1.png\n"],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "names"), SKIPPED.items(), ids=SKIPPED)
@pytest.mark.parametrize("where", ["train/cat", "train", "train/dog/puppies"])
def test_what_is_no_image_is_skipped_and_counted(reason, names, where, root, read):
    for name in names:
        path = root / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "train" / "cat" / "1.png", path)
    train, test = read()
    assert (len(train), dict(train.reading.skipped)) == (3, {reason: len(names)})
    assert (train.num_classes, test.num_classes, dict(test.reading.skipped)) == (2, 2, {})


def test_an_image_directly_under_train_is_skipped_and_counted(root, read):
    save(root / "train" / "stray.png")
    assert reading(read) == (3, {}, {"images outside the class folders": 1}, {})


def test_images_in_sub_folders_belong_to_the_class_and_are_counted(root, read):
    save(root / "train" / "dog" / "puppies" / "album.png" / "1.png", 7)  # a folder may be named like an image
    train, _ = read()
    assert dict(train.reading.noted) == {"in sub-folders": 1}
    np.testing.assert_array_equal(train.images[-1], colours(7).transpose(2, 0, 1))
    assert train.labels.tolist() == [0, 0, 1, 1]


def test_images_are_in_the_order_of_their_paths(root, read):
    names = ["a-b.png", "a/c.png", "a.png", "a/b/1.png", "ab.png"]
    for seed, name in enumerate(names):
        save(root / "train" / "dog" / name, seed)
    expected = sorted([*(root / "train" / "dog" / name for name in names), root / "train" / "dog" / "1.png"])
    train, _ = read()
    for image, path in zip(train.images[2:], expected, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)).transpose(2, 0, 1))


# --- symbolic links


def test_links_to_files_and_folders_are_followed_out_of_the_root_too(root, read, tmp_path):
    save(tmp_path / "elsewhere" / "9.png", 9)
    save(tmp_path / "store" / "10.png", 10)
    (root / "train" / "dog" / "3.png").symlink_to(tmp_path / "elsewhere" / "9.png")
    (root / "train" / "dog" / "4").symlink_to(tmp_path / "store", target_is_directory=True)
    train, _ = read()
    assert dict(train.reading.noted) == {"in sub-folders": 1, "through symbolic links": 2}
    for position, seed in ((-2, 9), (-1, 10)):
        np.testing.assert_array_equal(train.images[position], colours(seed).transpose(2, 0, 1))


def test_a_class_folder_a_part_and_the_root_may_be_links(root, tmp_path):
    plain = ImageFolder(name="pets", root=str(root), cache=str(tmp_path / "cache")).read()
    linked = tmp_path / "linked"
    (linked / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (linked / "train" / name).symlink_to(root / "train" / name)
    (linked / "test").symlink_to(root / "test")
    (tmp_path / "link").symlink_to(linked)
    through = ImageFolder(name="pets", root=str(tmp_path / "link"), cache=str(tmp_path / "cache")).read()
    for one, other in zip(plain, through, strict=True):
        assert one.fingerprint() == other.fingerprint()
        assert dict(other.reading.noted) == {"through symbolic links": len(other)}


NOWHERE = {  # symbolic links below train, and where they lead
    "a broken link": {"cat/3.png": "nowhere.png"},
    "a broken link among the classes": {"owl": "nowhere"},
    "a link to itself": {"cat/3.png": "3.png"},
    "two links in a circle": {"cat/a": "b", "cat/b": "a"},
}


@pytest.mark.parametrize("links", NOWHERE.values(), ids=NOWHERE)
def test_a_link_that_leads_nowhere_is_refused(links, root, read):
    for link, target in links.items():
        (root / "train" / link).symlink_to(target)
    with pytest.raises(InputError, match=r"data\.root: .*/train/\S+ is a symbolic link that leads nowhere"):
        read()


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_link_back_to_a_folder_that_it_is_in_is_refused(target, root, read):
    (root / "train" / "cat" / "all").symlink_to(target, target_is_directory=True)
    with pytest.raises(InputError, match=r"data\.root: the symbolic link .*/cat/all leads back"):
        read()


def test_two_folders_that_lead_into_each_other_are_refused(root, read, tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "next").symlink_to(tmp_path / other)
    (root / "train" / "cat" / "a").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="leads back"):
        read()


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("train/cat/copy.png", "train/cat/1.png"),  # one image twice
        ("train/dog/cat.png", "train/cat/1.png"),  # one image under two labels
        ("train/cat/test.png", "test/cat/1.png"),  # a test image in the training set
        ("train/dog/tests", "test/dog"),
    ],
)
def test_one_file_twice_by_way_of_a_link_is_refused(link, target, root, read):
    (root / link).symlink_to(root / target)
    with pytest.raises(InputError, match=r"data\.root: .* and .* are one file, by way of a symbolic link"):
        read()


# --- what is neither a file nor a folder


def test_a_fifo_is_not_waited_for_and_a_device_or_a_socket_not_read(root, read, monkeypatch):
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    (root / "train" / "dog" / "zeros.png").symlink_to("/dev/zero")
    os.mkfifo(root / "train" / "pipe.png")
    monkeypatch.chdir(root / "train" / "cat")  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        assert reading(read) == (3, {}, {"FIFOs, sockets or devices": 4}, {})


# --- names


def test_names_that_differ_only_by_case_are_read_and_counted(root, read):
    for seed, name in enumerate(("A.png", "a.png", "a.PNG", "b.png"), start=5):
        save(root / "train" / "dog" / name, seed)
    assert reading(read)[:2] == (7, {"with names that differ only by case": 3})


@pytest.mark.parametrize("names", [("Dog", "dog"), ("STRASSE", "straße"), ("caf\u00e9", "cafe\u0301")])
def test_classes_that_differ_only_by_case_or_composition_are_refused(names, root, read):
    for part in ("train", "test"):
        for seed, name in enumerate(names):
            save(root / part / name / "9.png", seed)
    with pytest.raises(InputError, match=r"data\.root = .*names differ by more than case") as caught:
        read()
    assert repr(sorted(names)) in str(caught.value)


def test_names_that_are_no_text_are_read(root, read):
    path = os.fsencode(root / "train" / "dog") + b"/\xff\n.png"
    shutil.copy(os.fsencode(root / "train" / "cat" / "1.png"), path)
    assert reading(read)[0] == 4


def test_class_sets_that_differ_and_a_class_without_images_are_refused_with_what_is_there(root, read):
    (root / "test" / "dog" / "1.png").rename(root / "test" / "dog" / "1.txt")
    (root / "test" / "dog" / ".x.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"test/dog.*at least one image") as caught:
        read()
    assert "1 .txt files" in str(caught.value)
    assert "1 hidden files or folders" in str(caught.value)
    shutil.rmtree(root / "test" / "dog")
    with pytest.raises(InputError, match=r"\['dog'\] are in one only"):
        read()


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for root in (tmp_path / "nowhere", tmp_path / "loop", "a\0b", "~nobody-of-this-name/images"):
        with pytest.raises(InputError, match=rf"data\.root = {re.escape(repr(str(root)))}: .*train/<class>"):
            ImageFolder(name="pets", root=str(root)).read()
    path = save(tmp_path / "images.png")
    with pytest.raises(InputError, match=r"data\.root: .*images\.png cannot be read: Not a directory"):
        ImageFolder(name="pets", root=str(path)).read()


def test_a_folder_that_may_not_be_read_is_refused(root, read, monkeypatch):
    secret = root / "train" / "cat" / "secret"
    secret.mkdir()
    scandir = os.scandir

    def guarded(path):  # root may read everything
        if os.fspath(path) == os.fspath(secret):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InputError, match=r"cat/secret cannot be read: Permission denied"):
        read()


# --- what is logged and kept


def convert_one(root):
    """One grey image among the colours of train/dog."""
    Image.fromarray(colours(20)[..., 0]).save(root / "train" / "dog" / "grey.png")


def test_one_line_reports_the_files_at_each_load(root, read, caplog, monkeypatch):
    convert_one(root)
    save(root / "train" / "cat" / "sub" / "3.png", 21)
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / "cat" / "more.txt").write_text("x")
    (root / "train" / "cat" / ".DS_Store").write_text("x")
    (root / "val").mkdir()
    (root / "README").write_text("x")
    expected = (
        f"pets in {root} | train: 5 read (1 in sub-folders); skipped: 2 .txt files, 1 hidden files or folders; "
        "converted: 1 grey to RGB | test: 2 read; skipped: none; converted: none | not read: ['README', 'val']"
    )
    for served_from_cache in (False, True):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="robust_arch"):
            read()
        assert [line for line in caplog.messages if line.startswith("pets")] == [expected]
        assert any("decoding" in line for line in caplog.messages) != served_from_cache


def test_the_line_stays_one_line_where_there_are_many_reasons(root, read):
    for number in range(13):
        (root / "train" / "cat" / f"scan.{number:03d}").write_text("x")
    found = read()[0].reading
    assert len(found.skipped) == 13  # the record has each
    assert str(found).count(" files") == 10
    assert ", 3 for 3 other reasons; converted: none" in str(found)


def test_the_fingerprint_is_that_of_the_pixels_unless_something_is_converted(root, read):
    plain = read()
    save(root / "train" / "cat" / ".hidden.png")
    (root / "train" / "cat" / "notes.txt").write_text("x")
    assert read()[0].fingerprint() == plain[0].fingerprint()  # what a file manager leaves does not change the data set
    # the same pixels, once as they are and once by a conversion
    path = root / "train" / "dog" / "1.png"
    pixels = np.asarray(Image.open(path))
    Image.fromarray(np.dstack([pixels, np.full((4, 4), 255, dtype=np.uint8)])).save(path)
    converted = read()
    np.testing.assert_array_equal(converted[0].images, plain[0].images)
    assert converted[0].fingerprint() != plain[0].fingerprint()
    assert converted[1].fingerprint() == plain[1].fingerprint()


def test_the_fingerprint_depends_on_the_kind_of_conversion(root, read, monkeypatch, tmp_path):
    convert_one(root)
    before = read()[0]
    monkeypatch.setitem(image_decoding._COLOURS, "L", "grey in another way")
    shutil.rmtree(tmp_path / "cache")
    after = read()[0]
    np.testing.assert_array_equal(after.images, before.images)
    assert after.fingerprint() != before.fingerprint()
    assert before.subset(before.labels.nonzero()[:, 0]).reading == before.reading


def test_the_cache_is_not_used_by_another_reader(read, monkeypatch, tmp_path):
    def cached():
        read()
        return len(list((tmp_path / "cache").iterdir()))

    assert [cached(), cached()] == [2, 2]
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert cached() == 4
    monkeypatch.setattr("robust_arch.data.decoded.inspect.getsource", lambda module: "other code")
    assert cached() == 6


def test_a_torn_cache_is_made_again(read, tmp_path):
    before = read()[0]
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-60])
    assert read()[0].fingerprint() == before.fingerprint()


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_age_is_noticed(root, read):
    path = save(root / "train" / "dog" / "2.bmp", 30)
    read()
    before = path.stat()
    save(path, 31)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    np.testing.assert_array_equal(read()[0].images[-1], colours(31).transpose(2, 0, 1))


def test_images_that_do_not_fit_into_memory_ask_for_a_size(read, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("robust_arch.data.decoded.np.empty", refuse)
    with pytest.raises(InputError, match=r"data\.image_size = None: expected a size .*, as 3 images of .* GiB"):
        read()
