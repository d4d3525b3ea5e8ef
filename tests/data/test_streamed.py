"""Images that are decoded on access: their pixels, their random crops, and ImageNet in its folders."""

import itertools
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as F

from robust_arch.common.randomness import derive, example_keys
from robust_arch.data import ImageSet, Splits
from robust_arch.data.batches import GlobalBatches, loader
from robust_arch.data.extra import ExtraImages
from robust_arch.data.imagenet import ImageNet
from robust_arch.data.streamed import StreamedImages, crop_box
from robust_arch.errors import InputError
from robust_arch.training.datamodule import StudyData
from robust_arch.training.module import AdversarialTraining

SIDE, RESIZE = 12, 16
CLASSES = ("n01440764", "n01443537", "n02102040")
SIZES = ((30, 20), (20, 30), (16, 16), (50, 17))


def image(seed):
    """Noise of one of four sizes."""
    width, height = SIZES[seed % 4]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write(root, val_in_folders=True):
    for (number, name), part in itertools.product(enumerate(CLASSES), ("train", "val")):
        folder = root / part / name if part == "train" or val_in_folders else root / part
        folder.mkdir(parents=True, exist_ok=True)
        for count in range(8 if part == "train" else 2):
            seed = 100 * number + count + (50 if part == "val" else 0)
            image(seed).save(folder / f"{part}_{seed}.JPEG", format="PNG")  # the content decides: nothing is lost


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "imagenet")
    return tmp_path / "imagenet"


def dataset(root, **settings):
    given = {"name": "imagenet", "root": str(root), "image_size": SIDE, "resize": RESIZE, "workers": 0}
    return ImageNet(**{**given, **settings})


def expected_train():
    return [(100 * number + count, number) for number in range(3) for count in range(8)]


def centre(picture):
    """What torchvision makes of it."""
    return F.pil_to_tensor(transforms.Compose([transforms.Resize(RESIZE), transforms.CenterCrop(SIDE)])(picture))


@pytest.mark.parametrize("workers", [0, 3])
def test_an_image_of_the_test_set_is_what_torchvision_makes_of_it(root, workers):
    train, test = dataset(root, workers=workers).read()
    assert (len(train), len(test), test.num_classes, test.image_shape) == (24, 6, 3, (3, SIDE, SIDE))
    seeds = [50, 51, 150, 151, 250, 251]
    assert torch.equal(test.images[0:6], torch.stack([centre(image(seed)) for seed in seeds]))
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    part = test.subset(torch.tensor([5, 0]))
    assert torch.equal(part.images[:], torch.stack([centre(image(251)), centre(image(50))]))
    assert torch.equal(part.images[torch.tensor([1])], centre(image(50))[None])
    assert len(part.images[:0]) == 0


def test_nothing_is_decoded_before_it_is_used(root, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **settings: opened.append(1) or real(*args, **settings))
    splits = dataset(root, val_fraction=0.25, train_images=6).load()
    splits.training_fingerprint()  # it reads some files, but decodes none
    assert not opened
    assert splits.train.labels.bincount().tolist() == [2, 2, 2]
    assert len(splits.val.images[0:2]) == len(opened) == 2


def test_a_random_crop_is_that_of_torchvision_for_the_same_box(root):
    train = dataset(root).read()[0].images
    index = torch.arange(24)
    keys = example_keys(derive(7, "crop", 0, 0), index)
    crops = train.random_crops(index, keys)
    different = 0
    for position, (seed, _) in enumerate(expected_train()):
        alone = train.random_crops(index[position : position + 1], keys[position : position + 1])
        assert torch.equal(alone[0], crops[position])  # whatever is in the batch with it
        different += not torch.equal(crops[position], centre(image(seed)))
    assert different == 24
    assert torch.equal(crops, train.random_crops(index, keys))
    assert not torch.equal(crops, train.random_crops(index, example_keys(derive(7, "crop", 0, 1), index)))


def test_the_crop_of_given_draws(root, monkeypatch):
    # area 0.5 of 30 x 20, ratio 1: 17.3 x 17.3, so 17 x 17; from 4 of the places 0..3 on, 14 places 0..13
    draws = [[(0.5 - 0.08) / 0.92, 0.5, 0.999, 0.5]] * 10
    assert crop_box(30, 20, draws) == (7, 3, 17, 17)
    monkeypatch.setattr("robust_arch.data.streamed.randomness.uniform", lambda keys, shape: torch.tensor([draws]))
    train = dataset(root).read()[0].images
    crop = train.random_crops(torch.tensor([0]), torch.tensor([0]))[0]
    assert torch.equal(crop, F.pil_to_tensor(F.resized_crop(image(0), 3, 7, 17, 17, [SIDE, SIDE])))


def test_crops_have_the_published_areas_and_ratios_and_lie_inside():
    draws = np.random.default_rng(0).random((2000, 10, 4))
    boxes = np.array([crop_box(400, 300, attempt.tolist()) for attempt in draws])
    left, top, width, height = boxes.T
    assert min(left.min(), top.min()) == 0
    assert (left + width).max() == 400
    assert (top + height).max() == 300
    area, ratio = width * height / (400 * 300), np.log(width / height)
    assert 0.07 < area.min() < 0.1
    assert area.max() > 0.95
    assert np.abs(ratio).max() < math.log(4 / 3) + 0.02
    # second implementation: torchvision's own, whose draws are others
    torch.manual_seed(0)
    own = transforms.RandomResizedCrop.get_params
    theirs = np.array([own(torch.zeros(1, 300, 400), (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(2000)])
    their_area, their_ratio = theirs[:, 2] * theirs[:, 3] / (400 * 300), np.log(theirs[:, 3] / theirs[:, 2])
    for mine, other in ((area, their_area), (ratio, their_ratio), (left, theirs[:, 1]), (top, theirs[:, 0])):
        spread = math.sqrt((mine.var() + other.var()) / 2000)
        assert abs(mine.mean() - other.mean()) < 4 * spread


@pytest.mark.parametrize(("size", "box"), [((400, 10), (193, 0, 13, 10)), ((10, 400), (0, 193, 10, 13))])
def test_where_no_crop_fits_it_is_the_centre_of_the_nearest_ratio(size, box):
    # of 4,000 pixels at least 8% have a side of 15 at least, where the image has 10
    assert crop_box(*size, np.full((10, 4), 0.99).tolist()) == box


# --- batches


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_processes_and_from_the_middle_of_an_epoch(root, workers):
    def epoch(processes, begin=0):
        splits = dataset(root, workers=processes, val_fraction=0.25).load()
        data = StudyData(splits, batch_size=5, drop_last=True, val_images=6, seed=3)
        batches = data.train_dataloader()
        batches.sampler.set_epoch(2)
        batches.sampler.skip(begin)
        return list(batches), splits.train

    (batches, train), (again, _), (rest, _) = epoch(0), epoch(workers), epoch(workers, begin=2)
    assert len(batches) == 3
    for one, other in zip([*batches, *batches[2:]], [*again, *rest], strict=True):
        assert all(torch.equal(mine, same) for mine, same in zip(one, other, strict=True))
    for number, (images, labels, index) in enumerate(batches):
        assert torch.equal(labels, train.labels[index])
        assert torch.equal(images, train.images.random_crops(index, example_keys(derive(3, "crop", 2, number), index)))


def test_ranks_crop_an_image_as_one_process_does(root):
    train = dataset(root).read()[0]

    def by_index(**rank):
        batches = loader(train, GlobalBatches(24, 8, shuffle=True, drop_last=True, keyed=True, **rank))
        return {int(at): pixels for images, _, index in batches for at, pixels in zip(index, images, strict=True)}

    whole = by_index()
    shares = by_index(rank=0, world_size=2) | by_index(rank=1, world_size=2)
    assert whole.keys() == shares.keys() == set(range(24))
    assert all(torch.equal(whole[index], shares[index]) for index in whole)


def test_held_out_images_are_centres_and_extra_ones_join_the_crops(root):
    splits = dataset(root, val_fraction=0.25).load()
    pixels = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)
    extra = ExtraImages(pixels, np.arange(7) % 3, "x", "x.npz", 0.5)
    splits = Splits(splits.train, splits.val, splits.test, extra)
    data = StudyData(splits, batch_size=4, drop_last=True, val_images=6, seed=3)
    images, labels, index = next(iter(data.train_dataloader()))
    assert [position < 18 for position in index.tolist()] == [True, True, False, False]
    np.testing.assert_array_equal(images[2:], pixels[index[2:] - 18].transpose(0, 3, 1, 2))
    assert labels[2:].tolist() == ((index[2:] - 18) % 3).tolist()
    held_out = torch.cat([images for images, _, _ in data.val_dataloader()])
    assert torch.equal(held_out, splits.val.images[:])


def test_statistics_of_an_average_are_of_centres(root):
    splits = dataset(root).load()
    data = StudyData(splits, batch_size=8, drop_last=True, val_images=2, seed=3)
    batches = data.train_dataloader()
    for _ in batches:  # an epoch has passed
        pass
    trainer = SimpleNamespace(train_dataloader=batches)
    module = SimpleNamespace(trainer=trainer, steps_per_epoch=2, device=torch.device("cpu"), max_value=255)
    first, second = AdversarialTraining._clean_batches(module)
    centres = {image.numpy().tobytes() for image in splits.train.images[:].float() / 255}
    assert {image.numpy().tobytes() for image in torch.cat([first, second])} <= centres
    assert len(first) == len(second) == 8


# --- the set


def test_the_fingerprint_follows_content_labels_choice_and_size_but_not_the_place(root, tmp_path):
    first = dataset(root).load().training_fingerprint()
    root.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert dataset(moved).load().training_fingerprint() == first
    found = {first}
    for settings in ({"image_size": 8}, {"resize": 20}, {"split_seed": 1}, {"train_images": 12}):
        found.add(dataset(moved, **settings).load().training_fingerprint())
    image(999).save(moved / "train" / CLASSES[0] / "train_0.JPEG", format="PNG")
    found.add(dataset(moved).load().training_fingerprint())
    assert len(found) == 6


def test_statistics_are_those_of_the_centres(root):
    train = dataset(root).read()[0]
    pixels = torch.stack([centre(image(seed)) for seed, _ in expected_train()]).double() / 255
    mean, std = train.channel_statistics()
    assert mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist())
    assert std == pytest.approx(pixels.std(dim=(0, 2, 3), unbiased=False).tolist())


def test_it_travels_to_another_process_without_its_images(root):
    train = dataset(root).read()[0]
    sent = pickle.loads(pickle.dumps(train))
    assert isinstance(sent, ImageSet)
    assert isinstance(sent.images, StreamedImages)
    assert torch.equal(sent.images[:3], train.images[:3])


@pytest.mark.parametrize(
    ("line", "header"), [("{name} {wnid} 1 2 3 4", "ImageId,PredictionString"), ("{name}.JPEG,{wnid}", None)]
)
def test_images_directly_in_val_take_their_classes_from_a_file(tmp_path, line, header):
    write(tmp_path, val_in_folders=False)
    named = [(f"val_{100 * number + count + 50}", CLASSES[number]) for number in range(3) for count in range(2)]
    lines = [line.format(name=name, wnid=wnid) for name, wnid in reversed(named)]
    (tmp_path / "map.csv").write_text("\n".join([header] * bool(header) + lines) + "\n")
    _, test = dataset(tmp_path, val_labels="map.csv").read()
    labels = {seed: seed // 100 for seed in (50, 51, 150, 151, 250, 251)}
    for position, seed in enumerate(sorted(labels, key=str)):  # by name
        assert torch.equal(test.images[position : position + 1][0], centre(image(seed)))
        assert int(test.labels[position]) == labels[seed]
    (tmp_path / "map.csv").write_text("\n".join(lines[1:]))
    with pytest.raises(InputError, match=r"^data\.root: .*map\.csv has no label for 1 images"):
        dataset(tmp_path, val_labels="map.csv").read()
    with pytest.raises(InputError, match=r"^data\.root = .*the same class folders in train and val"):
        dataset(tmp_path).read()


def test_a_damaged_image_is_named_when_it_is_used(root):
    path = root / "train" / CLASSES[1] / "train_100.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    train = dataset(root).read()[0]
    with pytest.raises(InputError, match=r"^data\.root: .*train_100\.JPEG cannot be read as an image"):
        train.images[8:9]
    path.unlink()
    with pytest.raises(InputError, match=r"train_100\.JPEG cannot be read as an image: No such file"):
        train.images[8:9]


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("root", [None], r"the folder that holds train/<class>/ and val/<class>/"),
        ("image_size", [0, None, 1.5], "an integer of at least 1"),
        ("resize", [SIDE - 1, None], f"an integer of at least {SIDE}"),
        ("workers", [-1, True, 0.5], "an integer of at least 0, or null"),
    ],
)
def test_bad_settings_are_named_for_streams(key, values, message, root):
    for value in values:
        with pytest.raises(InputError, match=rf"^data\.{key} = {value!r}: expected {message}"):
            ImageNet(**{"name": "x", "root": str(root), "image_size": SIDE, "resize": RESIZE, key: value})
