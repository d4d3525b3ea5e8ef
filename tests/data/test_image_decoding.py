"""The pixels of one file: each conversion has the right result and a name, everything else is refused."""

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
    pixels, conversions = Decoder(channels, image_size)(path.read_bytes(), str(path))
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


def rows(pixels):
    return [row.tobytes() for row in pixels]


def alpha_of(*values):
    """An opaque alpha channel, but for these values at the beginning of its first row."""
    alpha = np.full((4, 6), 255, dtype=np.uint8)
    alpha[0, : len(values)] = values
    return alpha


def palette_image():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), mode="P")
    image.putpalette(RGB.tobytes())
    return image


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return {"exif": exif}


EXACT = {"png": {}, "bmp": {}, "ppm": {}, "tif": {}, "PNG": {}, "apng": {"format": "PNG"}, "pnm": {"format": "PPM"}}
JPEG = {"format": "JPEG", "quality": 100, "subsampling": 0}
ROUNDED = {  # some of the colour spaces round
    "jp2": {"irreversible": False}, "j2k": {"irreversible": False}, "avif": {"quality": 100, "subsampling": "4:4:4"},
    "webp": {"lossless": True}, "jfif": JPEG, "jpe": JPEG,
}  # fmt: skip


@pytest.mark.parametrize("suffix", [*EXACT, *ROUNDED])
def test_colours_of_8_bits_are_taken_as_they_are(suffix, tmp_path):
    options = {**EXACT, **ROUNDED}[suffix]
    pixels, conversions = decoded(saved(tmp_path / f"x.{suffix}", Image.fromarray(RGB), **options))
    np.testing.assert_allclose(pixels.astype(int), RGB, atol=0 if suffix in EXACT else 6)
    assert conversions == []


def test_the_content_decides_the_format_and_nothing_but_images_is_opened(tmp_path):
    path = saved(tmp_path / "x.jpg", Image.fromarray(RGB), format="PNG")
    np.testing.assert_array_equal(decoded(path)[0], RGB)
    # PostScript is a program: Pillow would hand it to Ghostscript
    with pytest.raises(InputError, match="cannot identify"):
        decoded(saved(tmp_path / "y.png", Image.fromarray(RGB), format="EPS"))


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
SHARES = alpha_of(0, 128, 51)[..., None] / 255
INK = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
GREY_RGB = np.stack([GREY] * 3, axis=-1)
WHITE = "transparency laid over white"


def with_white(pixels, row, column):
    changed = pixels.copy()
    changed[row, column] = 255
    return changed


def saver(image, name="x.png", **options):
    return lambda folder: saved(folder / name, image, **options)


def png_with_gamma(gamma):
    return lambda folder: png(folder / "x.png", 2, 8, rows(RGB), (b"gAMA", struct.pack(">I", gamma)))


# how the file is made; channels that are read; the pixels and how far they may be off; names of the conversions
CONVERSIONS = {
    "grey": (saver(Image.fromarray(GREY)), 1, GREY[..., None], 0, []),
    "grey as colours": (saver(Image.fromarray(GREY)), 3, GREY_RGB, 0, ["grey to RGB"]),
    "colours as grey": (saver(Image.fromarray(RGB)), 1, (RGB @ LUMA)[..., None], 0.51, ["RGB to grey"]),
    **{
        f"a palette in {suffix}": (saver(palette_image(), f"x.{suffix}"), 3, RGB, 0, ["palette to RGB"])
        for suffix in ("png", "gif", "bmp")
    },
    "a transparent entry of a palette": (
        saver(palette_image(), transparency=7), 3, with_white(RGB, 1, 1), 0, [WHITE, "palette to RGB"],
    ),
    **{
        f"transparent colours in {suffix}": (
            saver(Image.fromarray(np.dstack([RGB, alpha_of(0, 128, 51)])), f"x.{suffix}", **options),
            3, RGB * SHARES + 255 * (1 - SHARES), SHARES % 1 > 0, [WHITE],
        )
        for suffix, options in {"png": {}, "webp": {"lossless": True}, "tif": {}}.items()
    },
    **{
        f"transparent grey as {channels}": (
            saver(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha_of(0))])),
            channels, np.stack([with_white(GREY, 0, 0)] * channels, axis=-1), 0,
            [WHITE, *(["grey to RGB"] if channels == 3 else [])],
        )
        for channels in (1, 3)
    },
    "a transparent colour": (
        saver(Image.fromarray(RGB), transparency=tuple(map(int, RGB[3, 4]))), 3, with_white(RGB, 3, 4), 0, [WHITE],
    ),
    "a transparent grey": (
        saver(Image.fromarray(GREY), transparency=int(GREY[3, 4])),
        3, np.where(np.equal(GREY_RGB, GREY[3, 4]), 255, GREY_RGB), 0, [WHITE, "grey to RGB"],
    ),
    "opaque": (
        saver(Image.fromarray(np.dstack([RGB, alpha_of()]))), 3, RGB, 0, ["alpha of fully opaque pixels dropped"],
    ),
    "printing colours": (
        saver(Image.fromarray(INK, mode="CMYK"), "x.tif"),
        3, 255 * (1 - INK[..., :3] / 255) * (1 - INK[..., 3:] / 255), 1.01, ["CMYK to RGB"],
    ),
    "a colour profile": (
        saver(Image.fromarray(RGB), icc_profile=PROFILE), 3, RGB, 0, ["colour profile or gamma not applied"],
    ),
    "the usual gamma": (png_with_gamma(45455), 3, RGB, 0, []),
    "another gamma": (png_with_gamma(100_000), 3, RGB, 0, ["colour profile or gamma not applied"]),
    "channels beyond the colours": (
        lambda folder: tiff(folder / "x.tif", np.dstack([RGB, GREY, GREY])),
        3, RGB, 0, ["further channels of a TIFF dropped"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "channels", "expected", "atol", "names"), CONVERSIONS.values(), ids=CONVERSIONS)
def test_every_conversion_has_the_right_result_and_a_name(make, channels, expected, atol, names, tmp_path):
    pixels, conversions = decoded(make(tmp_path), channels)
    assert pixels.shape == expected.shape
    assert (np.abs(pixels - expected.astype(float)) <= np.add(atol, 1e-6)).all()
    assert conversions == names


@pytest.mark.parametrize("suffix", ["png", "pbm", "bmp", "tif"])
def test_one_bit_is_black_and_white(suffix, tmp_path):
    bits = GREY > 127
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", Image.fromarray(bits)))
    np.testing.assert_array_equal(pixels[..., 0], np.where(bits, 255, 0))
    assert done in (["black and white to RGB"], ["palette to RGB"])  # a BMP of 1 bit has a palette


# EXIF 2.3, tag 274: how to turn the stored rows to see the scene
UPRIGHT = {
    **dict.fromkeys((0, 1, 9), lambda stored: stored),
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
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", Image.fromarray(RGB), **turned(orientation)))
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](RGB))
    assert done == (["turned upright by EXIF orientation"] if 2 <= orientation <= 8 else [])


def test_a_photograph_is_turned_upright(tmp_path):
    halves = np.zeros((16, 32, 3), dtype=np.uint8)
    halves[:, :16] = 255  # stored with the bright half on the left: turned clockwise it is on top
    pixels, done = decoded(saved(tmp_path / "x.jpg", Image.fromarray(halves), quality=100, **turned(6)))
    assert pixels.shape == (32, 16, 3)
    assert pixels[:14].min() > 200
    assert pixels[18:].max() < 55
    assert done == ["turned upright by EXIF orientation"]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_taken_and_counted(suffix, tmp_path):
    frames = [Image.fromarray(np.full((4, 6, 3), colour, dtype=np.uint8)) for colour in (0, 255)]
    pixels, done = decoded(saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:]))
    assert pixels.max() == 0
    assert "first of several frames" in done


def test_resizing_is_counted_with_its_method(tmp_path):
    path = saved(tmp_path / "x.png", Image.fromarray(RGB))
    assert decoded(path, image_size=4)[1] == ["resized (bilinear) and cropped to 4x4"]
    square = saved(tmp_path / "y.png", Image.fromarray(RGB[:, :4]))
    assert decoded(square, image_size=4)[1] == []


def test_every_conversion_of_a_file_is_counted(tmp_path):
    path = saved(tmp_path / "x.png", palette_image(), transparency=0, **turned(3))
    pixels, done = decoded(path, image_size=4)
    assert done == [
        "turned upright by EXIF orientation",
        "transparency laid over white",
        "palette to RGB",
        "resized (bilinear) and cropped to 4x4",
    ]
    np.testing.assert_array_equal(pixels[:3], RGB[::-1, ::-1][:3, 1:5])


SIXTEEN = RNG.integers(0, 2**16, (4, 24), dtype=np.uint16)
BIG_ENDIAN = SIXTEEN.astype(">u2")
P6 = b"P6 # a comment with 255\n6 4\n65535\n"


def write(path, content):
    path.write_bytes(content)
    return path


MORE_THAN_8_BITS = {
    "grey PNG": lambda folder: png(folder / "x.png", 0, 16, rows(BIG_ENDIAN[:, :6])),
    "RGB PNG": lambda folder: png(folder / "x.png", 2, 16, rows(BIG_ENDIAN[:, :18])),
    "LA PNG": lambda folder: png(folder / "x.png", 4, 16, rows(BIG_ENDIAN[:, :12])),
    "RGBA PNG": lambda folder: png(folder / "x.png", 6, 16, rows(BIG_ENDIAN)),
    "RGB TIFF": lambda folder: tiff(folder / "x.tif", SIXTEEN[:, :18].reshape(4, 6, 3)),
    "grey TIFF": saver(Image.fromarray(SIXTEEN), "x.tif"),
    "float TIFF": saver(Image.fromarray(SIXTEEN.astype(np.float32)), "x.tif"),
    "32-bit TIFF": saver(Image.fromarray(SIXTEEN.astype(np.int32)), "x.tif"),
    "grey PGM": saver(Image.fromarray(SIXTEEN), "x.pgm"),
    "grey JPEG 2000": saver(Image.fromarray(SIXTEEN), "x.jp2"),
    "RGB PPM": lambda folder: write(folder / "x.ppm", P6 + BIG_ENDIAN[:, :18].tobytes()),
}


@pytest.mark.parametrize("make", MORE_THAN_8_BITS.values(), ids=MORE_THAN_8_BITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_8_bits_per_channel_are_refused_in_every_format(make, channels, tmp_path):
    path = make(tmp_path)
    with Image.open(path) as image:
        image.load()  # Pillow reads it: it is not refused for a damage
    with pytest.raises(InputError, match=r"data\.root: .* more than 8 bits per channel") as caught:
        decoded(path, channels)
    assert str(path) in str(caught.value)


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


DAMAGES = {
    "empty": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-40],
    "garbage": lambda content: bytes(range(256)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "ppm", "tif", "jp2", "avif"])
def test_a_damaged_file_of_every_format_is_named(suffix, damage, tmp_path):
    image = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = saved(tmp_path / f"x.{suffix}", image)
    decoded(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(InputError, match=r"data\.root: .*cannot be read as an image: ") as caught:
        decoded(path)
    assert str(path) in str(caught.value)
    assert damage != "empty" or "the file is empty" in str(caught.value)


def test_a_small_file_of_a_huge_image_is_refused_before_it_is_unpacked(tmp_path):
    path = png(tmp_path / "x.png", 0, 8, [bytes(6)] * 4)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(InputError, match="decompression bomb"):
        decoded(path)
