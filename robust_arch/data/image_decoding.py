"""One image file as 8-bit pixels; everything that is done to them has a name, by which it is counted."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from robust_arch.errors import InputError

# Pillow's name of a format, and the suffixes of its files; a file's content decides which of the formats it is
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif",),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MODES = {1: "L", 3: "RGB"}  # by number of channels

_UPRIGHT = "turned upright by EXIF orientation"
_FIRST_FRAME = "first of several frames"
_NO_PROFILE = "colour profile or gamma not applied"
_EXTRA = "further channels of a TIFF dropped"
_BACKGROUND = "white"
_FLATTENED = f"transparency laid over {_BACKGROUND}"
_OPAQUE = "alpha of fully opaque pixels dropped"
_RESAMPLING = Image.Resampling.BILINEAR
_GAMMA = 1 / 2.2  # as PNG states it
_BITS = 8
_HEADER = 4096  # bytes that hold the header of a PPM file, comments included

# the colours of each of Pillow's modes that is read; modes of more bits, and those that it cannot convert, are refused
_COLOURS = {
    "1": "black and white", "L": "grey", "LA": "grey", "La": "grey", "P": "palette", "PA": "palette", "RGB": "RGB",
    "RGBA": "RGB", "RGBa": "RGB", "RGBX": "RGB", "CMYK": "CMYK", "YCbCr": "YCbCr",
}  # fmt: skip


@dataclass(frozen=True)
class Decoder:
    """Reads image files as arrays of one form.

    Attributes:
        channels: 3 (RGB) or 1 (grey).
        image_size: side of the square images in pixels; None keeps the file's own size.
    """

    channels: int
    image_size: int | None

    def __call__(self, path: Path) -> tuple[np.ndarray, list[str]]:
        """The pixels, (C, H, W) uint8, and the names of the conversions that made them.

        Raises:
            InputError: for a file that is no whole image of at most 8 bits per channel.
        """
        try:
            if not path.stat().st_size:
                raise ValueError("the file is empty")
            with Image.open(path, formats=tuple(FORMATS)) as file:
                image, conversions = self._convert(file, path)
        except Exception as error:  # the decoders raise a dozen kinds for a damaged file
            raise InputError(f"data.root: {path} cannot be read as an image: {error}") from None
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0), conversions

    def _convert(self, file: Image.Image, path: Path) -> tuple[Image.Image, list[str]]:
        _require_few_bits(file, path)
        conversions = []
        if getattr(file, "is_animated", False):
            conversions.append(_FIRST_FRAME)
        if _has_other_colours(file):
            conversions.append(_NO_PROFILE)
        if file.format == "TIFF" and _samples(file) > len(file.getbands()):
            conversions.append(_EXTRA)
        image: Image.Image = file
        if file.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
            image = ImageOps.exif_transpose(file)
            conversions.append(_UPRIGHT)
        colours, wanted = _COLOURS[image.mode], MODES[self.channels]
        if image.has_transparency_data:
            image, conversion = _without_alpha(image)
            conversions.append(conversion)
        if colours != _COLOURS[wanted]:
            conversions.append(f"{colours} to {_COLOURS[wanted]}")
        image = image.convert(wanted)
        if self.image_size is not None and image.size != (self.image_size, self.image_size):
            image = _resize_and_crop(image, self.image_size)
            conversions.append(
                f"resized ({_RESAMPLING.name.lower()}) and cropped to {self.image_size}x{self.image_size}"
            )
        return image, conversions


def _has_other_colours(file: Image.Image) -> bool:
    """Whether the file says what its numbers mean: a colour profile, or in a PNG a gamma that is not the usual one."""
    return bool(file.info.get("icc_profile")) or abs(file.info.get("gamma", _GAMMA) - _GAMMA) > 0.001


def _samples(file: Image.Image) -> int:
    """Channels in a TIFF."""
    return int(file.tag_v2.get(ExifTags.Base.SamplesPerPixel, 1))  # type: ignore[attr-defined]


def _without_alpha(image: Image.Image) -> tuple[Image.Image, str]:
    """The image as a viewer shows it, in RGB, and the name of what was done."""
    straight = image.convert("LA") if image.mode == "La" else image  # premultiplied grey has no other conversion
    rgba = straight.convert("RGBA")
    least, _ = rgba.getchannel("A").getextrema()
    if least == 255:
        return rgba.convert("RGB"), _OPAQUE
    return Image.alpha_composite(Image.new("RGBA", rgba.size, _BACKGROUND), rgba).convert("RGB"), _FLATTENED


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` (with antialiasing), then the centre."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), _RESAMPLING).crop((left, top, left + size, top + size))


def _require_few_bits(file: Image.Image, path: Path) -> None:
    """Raise ValueError where Pillow would cut more than 8 bits per channel down, or cannot convert the mode."""
    if file.mode.startswith(("I", "F")) or _bits_per_channel(file, path) > _BITS:
        raise ValueError(f"it has more than {_BITS} bits per channel; convert it to {_BITS} first")
    if file.mode not in _COLOURS:
        raise ValueError(f"its mode is {file.mode}; expected one of {', '.join(_COLOURS)}")


def _bits_per_channel(file: Image.Image, path: Path) -> int:
    """As the file's header has them: Pillow gives the most significant 8 of colours and does not tell."""
    match file.format:
        case "PNG":
            return path.read_bytes()[24]
        case "TIFF":
            bits: tuple[int, ...] = file.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))  # type: ignore[attr-defined]
            return max(bits)
        case "PPM":
            fields = re.sub(rb"#[^\n\r]*", b"", path.read_bytes()[:_HEADER]).split(None, 4)
            return 1 if fields[0] in (b"P1", b"P4") else int(fields[3]).bit_length()
        case "JPEG2000":
            return _jpeg2000_bits(path.read_bytes())
        case "AVIF":
            content = path.read_bytes()
            flags = content[content.index(b"av1C") + 6]  # after the name: version, profile and level, flags
            return 10 if flags & 0x40 else 8
    return 8


def _jpeg2000_bits(content: bytes) -> int:
    """The most of any component, from the SIZ segment (ISO/IEC 15444-1, A.5.1)."""
    start = content.index(b"\xff\x4f\xff\x51") + 40
    (components,) = struct.unpack_from(">H", content, start)
    return max((content[start + 2 + 3 * number] & 0x7F) + 1 for number in range(components))
