r"""One picture: which files count, which decoders may run, and what a viewer would show of it.

Only raster decoders run, chosen by what a file holds and not by its name: Pillow would hand a
PostScript file of any name to an interpreter. A picture is what is seen: turned as its EXIF tag
says, in sRGB, one frame, no see-through pixels, 8 bits a channel. What cannot be had without a
choice (which of 50 frames, which background, which 8 of 16 bits) is refused by name.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomem.data.reading import PixelArray, printable, reading
from geomem.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {  # of the decoders that may run; TGA has no mark of its own and is tried last
    "PNG": ".apng .png",
    "JPEG": ".jfif .jif .jpe .jpeg .jpg .mpo",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "WEBP": ".webp",
    "JPEG2000": ".j2c .j2k .jp2 .jpc .jpf .jpx",
    "AVIF": ".avif .avifs",
    "QOI": ".qoi",
    "PPM": ".pbm .pgm .pnm .ppm",
    "SGI": ".bw .rgb .rgba .sgi",
    "PCX": ".pcx",
    "TIFF": ".tif .tiff",
    "TGA": ".tga",
}
IMAGE_SUFFIXES = frozenset(" ".join(SUFFIXES.values()).split())
GREY = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# EXIF tag 274 -> Pillow's transposition: mirrored, by 180 degrees, upside down, ...
TURNS: dict[int, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
SAME = 3  # grey levels that a profile may change without being another colour space


@dataclass(frozen=True)
class Form:
    r"""What the header of a picture says.

    Attributes:
        size: Width and height, as shown.
        grey: Whether it has no colour.
        notes: What is done to its pixels, as in ``turned as their EXIF tag says``.
    """

    size: tuple[int, int]
    grey: bool
    notes: tuple[str, ...]


def is_picture(path: Path) -> bool:
    r"""Whether a file counts: by its suffix, or else by what it holds.

    TIFF under another name does not: cameras keep their raw files in it, with a thumbnail.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    from PIL import Image

    try:
        with Image.open(path, formats=_decoders(but=("TIFF", "TGA"))):
            return True
    except Exception:  # whatever a decoder makes of a text or a table, it is no picture
        return False


def read_form(path: Path) -> Form:
    r"""The header of a picture; nothing is decoded.

    Raises:
        InputError: If it cannot be taken as it is, see above.
    """
    with _open(path) as image:
        size, notes = image.size, []
        orientation = _orientation(image)
        if orientation != 1:
            notes.append("turned as their EXIF tag says")
        if orientation >= 5 and image.format != "TIFF":  # Pillow has turned those already
            size = (size[1], size[0])
        if image.format == "MPO":
            notes.append("with further views, of which the first was read")
        profile = image.info.get("icc_profile")
        if profile:
            converter = _to_srgb(profile, _space(image))
            if converter is None:
                notes.append("with a broken colour profile, ignored")
            elif converter is not _unchanged:
                notes.append("converted from their colour profile to sRGB")
        elif image.mode == "CMYK":
            notes.append("converted from CMYK without a profile")
        return Form(size, image.mode in GREY, tuple(notes))


def read_picture(path: Path, form: Form, channels: int) -> PixelArray:
    r"""The pixels as shown.

    Arguments:
        path: The file.
        form: What :func:`read_form` said of it.
        channels: 1, or 3 for colour.

    Returns:
        uint8 with shape (channels, H, W).
    """
    with _open(path) as image:
        image.load()
        see_through = "A" in image.getbands() or "transparency" in image.info
        if see_through and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
            raise InputError(
                f"{printable(path)} has transparent pixels; flatten it onto a background first"
            )
        turn = TURNS.get(_orientation(image))
        shown = image if turn is None or image.format == "TIFF" else image.transpose(turn)
        if shown.size != form.size:
            raise InputError(
                f"{printable(path)} is {form.size} pixels and {shown.size} once turned as "
                "its EXIF tag says; turn the pixels themselves and save it again"
            )
        profile, space = image.info.get("icc_profile"), _space(image)
        plain = shown.convert(space)
        converter = _to_srgb(profile, space) if profile else None
        plain = converter(plain) if converter else plain
        decoded = np.asarray(plain.convert("L" if channels == 1 else "RGB"))
    return decoded[None] if channels == 1 else decoded.transpose(2, 0, 1)


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    formats = _decoders(but=() if path.suffix.lower() == ".tga" else ("TGA",))
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd tags and of large pictures
        try:
            image = Image.open(path, formats=formats)
        except Image.DecompressionBombError as error:
            raise InputError(f"{printable(path)} is too large a picture; shrink it") from error
        except UnidentifiedImageError as error:
            raise InputError(
                f"{printable(path)} cannot be read as a picture; get it again, save it as PNG, or "
                "move it out of the folder"
            ) from error
        with image:
            problem = _problem(image, path)
            if problem:
                raise InputError(f"{printable(path)} {problem}")
            yield image


@cache
def _decoders(but: tuple[str, ...]) -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # errors are told by us alone
    return tuple(name for name in SUFFIXES if name in Image.OPEN and name not in but)


def _problem(image: Image.Image, path: Path) -> str | None:
    frames = _count_frames(image)
    if frames > 1:
        return f"has {frames} frames or pages; save those that you mean as pictures of their own"
    if _is_deep(image, path):
        return (
            "has more than 8 bits a channel, which Pillow would cut; convert the images to 8 bits, "
            "or save them all as one float32 .npy"
        )
    if image.mode not in (*GREY, *COLOUR):
        return f"has pixels of mode {image.mode}; convert the images to grey or RGB"
    return None


def _count_frames(image: Any) -> int:
    if image.format == "MPO":  # a photograph with its depth, its light or smaller copies
        return 1
    count = int(getattr(image, "n_frames", 1))
    if image.format != "TIFF" or count == 1:
        return count
    pages = 0
    for k in range(count):
        image.seek(k)
        pages += not int(image.tag_v2.get(254, 0)) & 1  # 1: a smaller copy of another page
    image.seek(0)
    return pages


def _is_deep(image: Any, path: Path) -> bool:
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return True
    if image.format in ("JPEG2000", "AVIF"):
        with path.open("rb") as stream:
            head = stream.read(2**16)
        at = head.find(b"\xff\x4f\xff\x51")  # SIZ: after 38 bytes, a byte of depth each channel
        if image.format == "JPEG2000" and at >= 0:
            return any((depth & 127) + 1 > 8 for depth in head[at + 42 :: 3][: head[at + 41]])
        at = head.find(b"av1C")
        return image.format == "AVIF" and at >= 0 and bool(head[at + 6] & 0x40)
    for tile in image.tile:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if image.format == "PPM" and any(isinstance(a, int) and a > 255 for a in args[1:]):
            return True
        raw = args[0] if args else None
        if isinstance(raw, str) and re.search(";(16|32|64)", raw) and not raw.startswith("BG"):
            return True  # 16 bits of BGR are 5 a channel
    return False


def _orientation(image: Any) -> int:
    from PIL import Image

    try:  # Pillow's own getexif of a PNG decodes all of it first
        value = Image.Image.getexif(image).get(0x0112, 1)
    except Exception:  # a broken tag turns nothing
        return 1
    return value if value in range(1, 9) else 1


# ---------------------------------------------------------------------- colour profiles


def _space(image: Image.Image) -> str:
    return "L" if image.mode in GREY else "CMYK" if image.mode == "CMYK" else "RGB"


def _unchanged(image: Image.Image) -> Image.Image:
    return image


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, space: str) -> Callable[[Image.Image], Image.Image] | None:
    r"""What brings pixels of a space to sRGB; None for a profile that is broken or of another."""
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, space, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None

    def convert(image: Image.Image) -> Image.Image:
        shown = ImageCms.applyTransform(image, transform)
        assert shown is not None
        return shown.getchannel(1) if space == "L" else shown

    if space == "CMYK":
        return convert
    levels = np.arange(0, 256, 1 if space == "L" else 17, dtype=np.uint8)
    grid = levels[None] if space == "L" else np.stack(np.meshgrid(*[levels] * 3), -1)
    flat = grid.reshape(1, -1) if space == "L" else grid.reshape(1, -1, 3)
    change = np.asarray(convert(Image.fromarray(flat))).astype(int) - flat
    return _unchanged if np.abs(change).max() <= SAME else convert
