"""What becomes of the pixels of one file: each conversion has the right result and a name, the rest is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from robust_arch.data.image_decoding import Decoder
from robust_arch.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)


def decoded(path, channels=3, image_size=None):
    """Pixels as (H, W, C), and the names of the conversions."""
    pixels, conversions = Decoder(channels, image_size)(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == channels
    return np.moveaxis(pixels, 0, -1), conversions


def saved(path, image, **options):
    image.save(path, **options)
    return path


def png(path, colour_type, bits, rows, *chunks):
    """A PNG written by hand: Pillow writes no colours of 16 bits. rows: bytes of each; chunks: of name and content."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width, height = 6, len(rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def tiff(path, pixels):
    """An uncompressed little-endian TIFF written by hand. pixels: (H, W, C), where C > 3 adds channels of no role."""
    height, width, channels = pixels.shape
    bits = 8 * pixels.itemsize
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 200), (259, 3, 1, 1), (262, 3, 1, 2),
               (273, 4, 1, 300), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, pixels.nbytes),
               (284, 3, 1, 1)]  # fmt: skip
    if channels > 3:
        entries.append((338, 3, channels - 3, 0))
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    content = (b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)).ljust(200, b"\0")
    content += struct.pack(f"<{channels}H", *[bits] * channels)
    path.write_bytes(content.ljust(300, b"\0") + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "PNG", "apng", "pnm"])
def test_colours_of_8_bits_are_taken_as_they_are(suffix, tmp_path):
    image = Image.fromarray(RGB)
    kind = {"apng": "PNG", "pnm": "PPM"}.get(suffix)
    pixels, conversions = decoded(saved(tmp_path / f"x.{suffix}", image, format=kind))
    np.testing.assert_array_equal(pixels, RGB)
    assert conversions == []


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jp2", {"irreversible": False}),
        ("j2k", {"irreversible": False}),
        ("avif", {"quality": 100, "subsampling": "4:4:4"}),
        ("webp", {"lossless": True}),
        ("jfif", {"format": "JPEG", "quality": 100, "subsampling": 0}),
        ("jpe", {"format": "JPEG", "quality": 100, "subsampling": 0}),
    ],
)
def test_formats_of_other_suffixes_are_read(suffix, options, tmp_path):
    pixels, conversions = decoded(saved(tmp_path / f"x.{suffix}", Image.fromarray(RGB), **options))
    np.testing.assert_allclose(pixels.astype(int), RGB, atol=6)  # some of the colour spaces round
    assert conversions == []


def test_the_content_decides_the_format_and_nothing_but_images_is_opened(tmp_path):
    path = saved(tmp_path / "x.jpg", Image.fromarray(RGB), format="PNG")
    np.testing.assert_array_equal(decoded(path)[0], RGB)
    # PostScript is a program: Pillow would hand it to Ghostscript
    with pytest.raises(InputError, match="cannot identify"):
        decoded(saved(tmp_path / "y.png", Image.fromarray(RGB), format="EPS"))


@pytest.mark.parametrize(("channels", "conversions"), [(1, []), (3, ["grey to RGB"])])
def test_grey(channels, conversions, tmp_path):
    pixels, done = decoded(saved(tmp_path / "x.png", Image.fromarray(GREY)), channels)
    np.testing.assert_array_equal(pixels, np.stack([GREY] * channels, axis=-1))
    assert done == conversions


def test_colours_become_grey_by_luma(tmp_path):
    pixels, done = decoded(saved(tmp_path / "x.png", Image.fromarray(RGB)), 1)
    np.testing.assert_allclose(pixels[..., 0], RGB @ [0.299, 0.587, 0.114], atol=0.51)  # ITU-R 601-2
    assert done == ["RGB to grey"]


@pytest.mark.parametrize("suffix", ["png", "pbm", "bmp", "tif"])
def test_one_bit_is_black_and_white(suffix, tmp_path):
    bits = GREY > 127
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", Image.fromarray(bits)))
    np.testing.assert_array_equal(pixels[..., 0], np.where(bits, 255, 0))
    assert done in (["black and white to RGB"], ["palette to RGB"])  # a BMP of 1 bit has a palette


def palette_image():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), mode="P")
    image.putpalette(RGB.tobytes())
    return image


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_a_palette_gives_its_colours(suffix, tmp_path):
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", palette_image()))
    np.testing.assert_array_equal(pixels, RGB)
    assert done == ["palette to RGB"]


def test_a_transparent_entry_of_a_palette_is_white_and_not_its_hidden_colour(tmp_path):
    path = saved(tmp_path / "x.png", palette_image(), transparency=7)
    pixels, done = decoded(path)
    expected = RGB.copy()
    expected[1, 1] = 255
    np.testing.assert_array_equal(pixels, expected)
    assert done == ["transparency laid over white", "palette to RGB"]


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_transparent_colours_are_laid_over_white(suffix, tmp_path):
    alpha = np.full((4, 6), 255, dtype=np.uint8)
    alpha[0, :3] = 0, 128, 51
    image = Image.fromarray(np.dstack([RGB, alpha]))
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", image, **({"lossless": True} if suffix == "webp" else {})))
    share = alpha[..., None] / 255
    np.testing.assert_allclose(pixels, RGB * share + 255 * (1 - share), atol=1)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(pixels[1:], RGB[1:])
    assert done == ["transparency laid over white"]


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_grey_is_laid_over_white(channels, tmp_path):
    alpha = np.full((4, 6), 255, dtype=np.uint8)
    alpha[2, 2] = 0
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    pixels, done = decoded(saved(tmp_path / "x.png", image), channels)
    expected = GREY.copy()
    expected[2, 2] = 255
    np.testing.assert_array_equal(pixels, np.stack([expected] * channels, axis=-1))
    assert done == ["transparency laid over white", *(["grey to RGB"] if channels == 3 else [])]


@pytest.mark.parametrize("kind", ["RGB", "L"])
def test_a_colour_that_stands_for_transparent_is_white(kind, tmp_path):
    content = RGB if kind == "RGB" else GREY
    key = tuple(map(int, RGB[3, 4])) if kind == "RGB" else int(GREY[3, 4])
    pixels, done = decoded(saved(tmp_path / "x.png", Image.fromarray(content), transparency=key))
    assert pixels[3, 4].tolist() == [255, 255, 255]
    assert done[0] == "transparency laid over white"


def test_an_alpha_channel_without_effect_changes_no_pixel_and_is_counted(tmp_path):
    image = Image.fromarray(np.dstack([RGB, np.full((4, 6), 255, dtype=np.uint8)]))
    pixels, done = decoded(saved(tmp_path / "x.png", image))
    np.testing.assert_array_equal(pixels, RGB)
    assert done == ["alpha of fully opaque pixels dropped"]


def test_printing_colours_are_converted(tmp_path):
    ink = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    pixels, done = decoded(saved(tmp_path / "x.tif", Image.fromarray(ink, mode="CMYK")))
    paper = 1 - ink / 255
    np.testing.assert_allclose(pixels, 255 * paper[..., :3] * paper[..., 3:], atol=1.01)
    assert done == ["CMYK to RGB"]


# EXIF 2.3, tag 274: what is to be done to the stored rows to see the scene
UPRIGHT = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_image_is_turned_upright(suffix, orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", Image.fromarray(RGB), exif=exif))
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](RGB))
    assert done == ["turned upright by EXIF orientation"]


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    halves = np.zeros((16, 32, 3), dtype=np.uint8)
    halves[:, :16] = 255  # stored with the bright half on the left: turned clockwise it is on top
    pixels, done = decoded(saved(tmp_path / "x.jpg", Image.fromarray(halves), exif=exif, quality=100))
    assert pixels.shape == (32, 16, 3)
    assert pixels[:14].min() > 200
    assert pixels[18:].max() < 55
    assert done == ["turned upright by EXIF orientation"]


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_an_orientation_that_turns_nothing_is_not_counted(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    pixels, done = decoded(saved(tmp_path / "x.png", Image.fromarray(RGB), exif=exif))
    np.testing.assert_array_equal(pixels, RGB)
    assert done == []


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_taken_and_counted(suffix, tmp_path):
    frames = [Image.fromarray(np.full((4, 6, 3), colour, dtype=np.uint8)) for colour in (0, 255)]
    path = saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    pixels, done = decoded(path)
    assert pixels.max() == 0
    assert "first of several frames" in done


def test_a_colour_profile_changes_no_pixel_and_is_counted(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels, done = decoded(saved(tmp_path / "x.png", Image.fromarray(RGB), icc_profile=profile))
    np.testing.assert_array_equal(pixels, RGB)
    assert done == ["colour profile or gamma not applied"]


@pytest.mark.parametrize(("gamma", "conversions"), [(45455, []), (100_000, ["colour profile or gamma not applied"])])
def test_a_gamma_changes_no_pixel_and_is_counted_where_it_is_unusual(gamma, conversions, tmp_path):
    rows = [row.tobytes() for row in RGB]
    pixels, done = decoded(png(tmp_path / "x.png", 2, 8, rows, (b"gAMA", struct.pack(">I", gamma))))
    np.testing.assert_array_equal(pixels, RGB)
    assert done == conversions


def test_channels_beyond_the_colours_are_counted(tmp_path):
    pixels, done = decoded(tiff(tmp_path / "x.tif", np.dstack([RGB, GREY, GREY])))
    np.testing.assert_array_equal(pixels, RGB)
    assert done == ["further channels of a TIFF dropped"]


def test_resizing_is_counted_with_its_method(tmp_path):
    path = saved(tmp_path / "x.png", Image.fromarray(RGB))
    assert decoded(path, image_size=4)[1] == ["resized (bilinear) and cropped to 4x4"]
    square = saved(tmp_path / "y.png", Image.fromarray(RGB[:, :4]))
    assert decoded(square, image_size=4)[1] == []


def test_every_conversion_of_a_file_is_counted(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    path = saved(tmp_path / "x.png", palette_image(), transparency=0, exif=exif)
    pixels, done = decoded(path, image_size=4)
    assert done == [
        "turned upright by EXIF orientation",
        "transparency laid over white",
        "palette to RGB",
        "resized (bilinear) and cropped to 4x4",
    ]
    np.testing.assert_array_equal(pixels[:3], RGB[::-1, ::-1][:3, 1:5])


SIXTEEN = RNG.integers(0, 2**16, (4, 24), dtype=np.uint16)


MORE_THAN_8_BITS = {
    "grey PNG": lambda folder: png(folder / "x.png", 0, 16, [row[:6].astype(">u2").tobytes() for row in SIXTEEN]),
    "RGB PNG": lambda folder: png(folder / "x.png", 2, 16, [row[:18].astype(">u2").tobytes() for row in SIXTEEN]),
    "LA PNG": lambda folder: png(folder / "x.png", 4, 16, [row[:12].astype(">u2").tobytes() for row in SIXTEEN]),
    "RGBA PNG": lambda folder: png(folder / "x.png", 6, 16, [row.astype(">u2").tobytes() for row in SIXTEEN]),
    "RGB TIFF": lambda folder: tiff(folder / "x.tif", SIXTEEN[:, :18].reshape(4, 6, 3)),
    "grey TIFF": lambda folder: saved(folder / "x.tif", Image.fromarray(SIXTEEN)),
    "float TIFF": lambda folder: saved(folder / "x.tif", Image.fromarray(SIXTEEN.astype(np.float32))),
    "32-bit TIFF": lambda folder: saved(folder / "x.tif", Image.fromarray(SIXTEEN.astype(np.int32))),
    "grey PGM": lambda folder: saved(folder / "x.pgm", Image.fromarray(SIXTEEN)),
    "grey JPEG 2000": lambda folder: saved(folder / "x.jp2", Image.fromarray(SIXTEEN)),
}


def ppm_of_16_bits(folder):
    path = folder / "x.ppm"
    path.write_bytes(b"P6 # a comment with 255\n6 4\n65535\n" + SIXTEEN[:, :18].astype(">u2").tobytes())
    return path


@pytest.mark.parametrize("make", [*MORE_THAN_8_BITS.values(), ppm_of_16_bits], ids=[*MORE_THAN_8_BITS, "RGB PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_8_bits_per_channel_are_refused_in_every_format(make, channels, tmp_path):
    path = make(tmp_path)
    with Image.open(path) as image:
        image.load()  # Pillow reads it: it is not refused for a damage
    with pytest.raises(InputError, match=r"data\.root: .* more than 8 bits per channel") as caught:
        decoded(path, channels)
    assert str(path) in str(caught.value)


def test_colours_of_8_bits_written_in_the_same_way_are_read(tmp_path):
    path = png(tmp_path / "x.png", 2, 8, [row.tobytes() for row in RGB])
    np.testing.assert_array_equal(decoded(path)[0], RGB)


@pytest.mark.parametrize(("flags", "bits"), [(0x40, 10), (0x60, 12)])
def test_an_avif_of_more_than_8_bits_is_refused(flags, bits, tmp_path):
    # Pillow writes 8 bits alone: the header's two statements of the depth (boxes av1C and pixi) are changed by hand
    path = saved(tmp_path / "x.avif", Image.fromarray(RGB))
    content = bytearray(path.read_bytes())
    content[content.index(b"av1C") + 6] |= flags
    depths = content.index(b"pixi") + 9
    assert content[depths : depths + 3] == bytes([8, 8, 8])
    content[depths : depths + 3] = bytes([bits] * 3)
    path.write_bytes(content)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("AVIF", "RGB")
    with pytest.raises(InputError, match="more than 8 bits"):
        decoded(path)


def test_a_colour_space_that_cannot_be_converted_is_refused(tmp_path):
    path = saved(tmp_path / "x.tif", Image.fromarray(RGB, mode="LAB"))
    with pytest.raises(InputError, match="its mode is LAB; expected one of"):
        decoded(path)


def empty(path):
    path.write_bytes(b"")


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_the_end(path):
    path.write_bytes(path.read_bytes()[:-40])


def garbage(path):
    path.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("damage", [empty, cut_in_half, cut_at_the_end, garbage])
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "ppm", "tif", "jp2", "avif"])
def test_a_damaged_file_of_every_format_is_named(suffix, damage, tmp_path):
    image = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(tmp_path / f"x.{suffix}", image)
    decoded(path)
    damage(path)
    with pytest.raises(InputError, match=r"data\.root: .*cannot be read as an image: ") as caught:
        decoded(path)
    assert str(path) in str(caught.value)
    if damage is empty:
        assert "the file is empty" in str(caught.value)


def test_a_small_file_of_a_huge_image_is_refused_before_it_is_unpacked(tmp_path):
    path = png(tmp_path / "x.png", 0, 8, [bytes(6)] * 4)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(InputError, match="decompression bomb"):
        decoded(path)
