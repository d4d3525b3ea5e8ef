"""One image file as 8-bit pixels; every conversion has a name, by which it is counted."""

import io
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

from robust_arch.errors import InputError

# Pillow's name of a format, and the suffixes of its files; the content decides which of the formats a file has
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

_RESAMPLING = Image.Resampling.BILINEAR
_GAMMA = 1 / 2.2  # as PNG states it
_HEADER = 4096  # bytes that hold the header of a PPM file, comments included

# colours of the modes of Pillow that are read; modes of more bits, and those that it cannot convert, are refused
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

    def __call__(self, content: bytes, name: str) -> tuple[np.ndarray, list[str]]:
        """The pixels, (C, H, W) uint8, and the names of the conversions.

        content: of the file. name: of the file, for errors.

        Raises:
            InputError: for anything but a whole image of at most 8 bits per channel.
        """
        image, conversions = self.image(content, name)
        return pixels_of(image), conversions

    def image(self, content: bytes, name: str) -> tuple[Image.Image, list[str]]:
        """The same as an image of Pillow."""
        try:
            if not content:
                raise ValueError("the file is empty")
            with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as file:
                return self._convert(file, content)
        except Exception as error:  # decoders raise a dozen kinds for a damaged file
            raise InputError(f"data.root: {name} cannot be read as an image: {error}") from None

    def _convert(self, file: Image.Image, content: bytes) -> tuple[Image.Image, list[str]]:
        _require_few_bits(file, content)
        conversions = []
        if getattr(file, "is_animated", False):
            conversions.append("first of several frames")
        if file.info.get("icc_profile") or abs(file.info.get("gamma", _GAMMA) - _GAMMA) > 0.001:
            conversions.append("colour profile or gamma not applied")
        if file.format == "TIFF" and _tag(file, ExifTags.Base.SamplesPerPixel, 1) > len(file.getbands()):
            conversions.append("further channels of a TIFF dropped")
        image: Image.Image = file
        if file.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
            image = ImageOps.exif_transpose(file)
            conversions.append("turned upright by EXIF orientation")
        colours, wanted = _COLOURS[image.mode], MODES[self.channels]
        if image.has_transparency_data:
            image, conversion = _without_alpha(image)
            conversions.append(conversion)
        if colours != _COLOURS[wanted]:
            conversions.append(f"{colours} to {_COLOURS[wanted]}")
        image, size = image.convert(wanted), self.image_size
        if size is not None and image.size != (size, size):
            image = _resize_and_crop(image, size)
            conversions.append(f"resized ({_RESAMPLING.name.lower()}) and cropped to {size}x{size}")
        return image, conversions


def pixels_of(image: Image.Image) -> np.ndarray:
    """(C, H, W) uint8 of an image in one of MODES."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _tag(file: Image.Image, tag: int, default: Any) -> Any:
    """The value of a TIFF's tag."""
    return file.tag_v2.get(tag, default)  # type: ignore[attr-defined]


def _without_alpha(image: Image.Image) -> tuple[Image.Image, str]:
    """The image as a viewer shows it, in RGB, and the name of the conversion."""
    straight = image.convert("LA") if image.mode == "La" else image  # premultiplied grey has no other conversion
    rgba = straight.convert("RGBA")
    least, _ = rgba.getchannel("A").getextrema()
    if least == 255:
        return rgba.convert("RGB"), "alpha of fully opaque pixels dropped"
    background = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(background, rgba).convert("RGB"), "transparency laid over white"


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (with antialiasing), then crop the centre."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), _RESAMPLING).crop((left, top, left + size, top + size))


def _require_few_bits(file: Image.Image, content: bytes) -> None:
    """Raise ValueError if Pillow would reduce more than 8 bits per channel, or cannot convert the mode."""
    if file.mode.startswith(("I", "F")) or _bits_per_channel(file, content) > 8:
        raise ValueError("it has more than 8 bits per channel; convert it to 8 first")
    if file.mode not in _COLOURS:
        raise ValueError(f"its mode is {file.mode}; expected one of {', '.join(_COLOURS)}")


def _bits_per_channel(file: Image.Image, content: bytes) -> int:
    """The number in the file's header: of colours, Pillow silently keeps the most significant 8 bits."""
    match file.format:
        case "PNG":
            return content[24]
        case "TIFF":
            return int(max(_tag(file, ExifTags.Base.BitsPerSample, (1,))))
        case "PPM":
            fields = re.sub(rb"#[^\n\r]*", b"", content[:_HEADER]).split(None, 4)
            return 1 if fields[0] in (b"P1", b"P4") else int(fields[3]).bit_length()
        case "JPEG2000":  # the most of any component, from the SIZ segment (ISO/IEC 15444-1, A.5.1)
            start = content.index(b"\xff\x4f\xff\x51") + 40
            (components,) = struct.unpack_from(">H", content, start)
            return max((content[start + 2 + 3 * number] & 0x7F) + 1 for number in range(components))
        case "AVIF":
            flags = content[content.index(b"av1C") + 6]  # after the name: version, profile and level, flags
            return 10 if flags & 0x40 else 8
    return 8
