r"""Pictures: what a viewer shows is what arrives, and what needs a choice is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from geomem.data import load_data
from tests.data.files import GREY, RGB, RNG, refuses, write_images

TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # stored -> shown, EXIF 2.32, tag 274
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def png(pixels: np.ndarray, kind: int) -> bytes:
    r"""A 16-bit PNG; 0 is grey, 2 colour, 4 grey with alpha, 6 colour with alpha."""

    def chunk(name: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + end

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def profile(space: bytes, gamma: float) -> bytes:
    r"""A colour profile of version 2 made by hand: wide primaries, or grey."""

    def xyz(*v: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(u * 65536)) for u in v)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249), b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(81)
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        primaries = {"r": (0.61, 0.31, 0.02), "g": (0.21, 0.63, 0.06), "b": (0.15, 0.06, 0.75)}
        for k, v in primaries.items():
            tags[f"{k}XYZ".encode()] = xyz(*v)
            tags[f"{k}TRC".encode()] = curve
    at, table, body = 132 + 12 * len(tags), b"", b""
    for key, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(padded))
        body += padded
    head = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ "
    )
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pictures_are_turned_as_every_viewer_turns_them(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == "webp" else {}
    for k in range(2):
        image = Image.fromarray(RGB[k])
        image.save(tmp_path / f"{k}.{suffix}", exif=exif.tobytes(), **options)
    data = load_data(str(tmp_path))
    expected = [TURNED[orientation](RGB[k]).transpose(2, 0, 1) for k in range(2)]
    assert np.array_equal(data.pixels, np.stack(expected))
    assert ("2 turned as their EXIF tag says" in str(data.account)) == (orientation > 1)


def test_a_broken_tag_turns_nothing(tmp_path: Path) -> None:
    for k in range(2):
        Image.fromarray(GREY[k]).save(tmp_path / f"{k}.png", exif=b"Exif\0\0MM\0*junk")
    assert np.array_equal(load_data(str(tmp_path)).pixels[:, 0], GREY[:2])


DEEP = RNG.integers(20000, 20256, (8, 8, 4))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("grey.png", png(DEEP[..., :1], 0)),
        ("colour.png", png(DEEP[..., :3], 2)),
        ("alpha.png", png(DEEP[..., :2], 4)),
        ("colour and alpha.png", png(DEEP, 6)),
        ("colour.ppm", b"P6\n8 8\n65535\n" + DEEP[..., :3].astype(">u2").tobytes()),
        ("twelve.ppm", b"P6\n8 8\n4095\n" + (DEEP[..., :3] % 4096).astype(">u2").tobytes()),
        ("grey.pgm", b"P5\n8 8\n65535\n" + DEEP[..., 0].astype(">u2").tobytes()),
        ("plain.ppm", b"P3\n1 1\n1000\n1 2 3\n"),
        ("float.pfm", b"Pf\n8 8\n-1.0\n" + DEEP[..., 0].astype("<f4").tobytes()),
    ],
)
def test_more_than_8_bits_a_channel_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    for k in range(2):
        (tmp_path / f"{k} {name}").write_bytes(content)
    refuses(tmp_path, f"0 {name}", "more than 8 bits", "(1 other pictures")


@pytest.mark.parametrize("form", ["JPEG2000", "TIFF"])
def test_deep_pictures_of_other_codecs_are_refused(tmp_path: Path, form: str) -> None:
    for k in range(2):
        Image.fromarray(DEEP[..., k].astype(np.uint16)).save(tmp_path / f"{k}.x", format=form)
        (tmp_path / f"{k}.x").rename(tmp_path / f"{k}.{'jp2' if form == 'JPEG2000' else 'tif'}")
    refuses(tmp_path, "more than 8 bits")


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_the_depth_of_jpeg_2000_and_avif_is_read_from_their_headers(
    tmp_path: Path, depth: int
) -> None:
    # Pillow writes both with 8 bits only: the byte of the depth is changed here.
    for name, mark, at, byte in (
        ("a.jp2", b"\xff\x4f\xff\x51", 48, depth - 1),
        ("b.avif", b"av1C", 6, 0x40 * (depth > 8)),
    ):
        folder = tmp_path / name[0]
        folder.mkdir()
        for k in range(2):
            Image.fromarray(RGB[k]).save(folder / f"{k}{name}")
            content = bytearray((folder / f"{k}{name}").read_bytes())
            place = content.find(mark) + at
            assert place > at
            content[place] = byte if byte else content[place]
            (folder / f"{k}{name}").write_bytes(content)
        if depth > 8:  # libavif compares two headers and may refuse first
            refuses(folder, "more than 8 bits" if name == "a.jp2" else "b.avif")
        else:
            assert load_data(str(folder)).item_shape == (3, 5, 7)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_several_frames_are_refused_and_counted(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(image) for image in RGB[:5]]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    for k in range(2):
        path = tmp_path / f"{k}.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    refuses(tmp_path, f"0.{suffix} has 5 frames or pages")


def test_smaller_copies_and_further_views_are_no_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(RGB[0]), Image.fromarray(RGB[0, ::2, ::2])]
    pages[1].encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=pages[:1], quality=95)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    data = load_data(str(tmp_path))
    assert np.array_equal(data.pixels[0], RGB[0].transpose(2, 0, 1))
    assert "1 with further views" in str(data.account)


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
        b"8BPS\0\1" + bytes(30),
        b"",
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "tga"])
def test_only_raster_decoders_run_whatever_a_file_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, suffix: str
) -> None:
    def run(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a program was run: {args}")

    monkeypatch.setattr("subprocess.check_call", run)
    monkeypatch.setattr("subprocess.Popen", run)
    write_images(tmp_path, {"a.png": GREY[0]})
    (tmp_path / f"b.{suffix}").write_bytes(content)
    refuses(tmp_path, f"b.{suffix}", "cannot be read")
    (tmp_path / f"b.{suffix}").rename(tmp_path / "b.eps")
    write_images(tmp_path, {"c.png": GREY[1]})
    assert "left out 1 files that are no pictures (.eps 1)" in str(load_data(str(tmp_path)).account)


def test_wide_colours_are_shown_in_srgb(tmp_path: Path) -> None:
    wide, same = profile(b"RGB ", 2.2), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = Image.fromarray(RGB[0])
    image.save(tmp_path / "a.png", icc_profile=wide)
    image.save(tmp_path / "b.png", icc_profile=same.tobytes())
    image.save(tmp_path / "c.png", icc_profile=b"junk")
    image.save(tmp_path / "d.png")
    data = load_data(str(tmp_path))
    source = ImageCms.ImageCmsProfile(io.BytesIO(wide))
    shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"))
    assert np.array_equal(data.pixels[0], np.asarray(shown).transpose(2, 0, 1))
    assert not np.array_equal(data.pixels[0], data.pixels[3])
    assert len(set(data.digests()[1:])) == 1  # sRGB stays as it is to the last bit
    assert "1 converted from their colour profile to sRGB" in str(data.account)
    assert "1 with a broken colour profile, ignored" in str(data.account)


def test_grey_profiles_are_followed_too(tmp_path: Path) -> None:
    for k, gamma in enumerate((1.0, 2.2)):
        image = Image.fromarray(GREY[k])
        image.save(tmp_path / f"{k}.png", icc_profile=profile(b"GRAY", gamma))
    data = load_data(str(tmp_path))
    assert data.item_shape == (1, 5, 7)
    linear = GREY[0] / 255  # IEC 61966-2-1, of linear light
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    off = np.abs(data.pixels[0, 0] - 255 * expected)
    assert off[GREY[0] > 15].max() < 2.5  # in the dark the tables of 8 bits are coarse
    assert np.abs(data.pixels[1, 0].astype(int) - GREY[1]).max() < 8


def test_palettes_and_opaque_alpha_are_colour(tmp_path: Path) -> None:
    opaque = np.concatenate([RGB[0], np.full((5, 7, 1), 255, np.uint8)], axis=2)
    write_images(tmp_path, {"a.png": opaque})
    Image.fromarray(RGB[1]).quantize(64).save(tmp_path / "b.png")
    data = load_data(str(tmp_path))
    assert np.array_equal(data.pixels[0], RGB[0].transpose(2, 0, 1))
    assert np.array_equal(data.pixels[1], RGB[1].transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_pixels_are_refused(tmp_path: Path, mode: str) -> None:
    clear = np.concatenate([RGB[0], RGB[1, ..., :1]], axis=2)
    image = Image.fromarray(clear)
    options: dict[str, Any] = {}
    if mode in ("P", "L"):
        image = image.convert("RGB").convert(mode)
        options = {"transparency": int(np.asarray(image)[0, 0])}
    image.convert(mode).save(tmp_path / "a.png", **options)
    write_images(tmp_path, {"b.png": RGB[1]})
    refuses(tmp_path, "a.png", "transparent")


def test_other_colour_spaces_are_converted_or_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB[0]).convert("CMYK").save(tmp_path / "a.tif")
    write_images(tmp_path, {"b.png": RGB[0], "c.png": RGB[1]})
    data = load_data(str(tmp_path))
    assert np.abs(data.pixels[0].astype(int) - data.pixels[1]).max() <= 1
    assert "1 converted from CMYK" in str(data.account)
    Image.fromarray(RGB[0]).convert("LAB").save(tmp_path / "a.tif")
    refuses(tmp_path, "a.tif", "mode LAB")


def test_too_large_pictures_are_refused_undecoded(tmp_path: Path) -> None:
    for k in range(2):
        content = bytearray(png(DEEP[..., :1], 0))
        content[16:26] = struct.pack(">IIBB", 60000, 60000, 8, 0)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        (tmp_path / f"{k}.png").write_bytes(content)
    refuses(tmp_path, "0.png", "too large")


@pytest.mark.parametrize("square", [True, False])
def test_a_tag_behind_the_pixels_is_seen_too(tmp_path: Path, square: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for k in range(2):
        pixels = GREY[k, :, : 5 if square else 7]
        Image.fromarray(pixels).save(tmp_path / f"{k}.png", exif=exif.tobytes())
        content = (tmp_path / f"{k}.png").read_bytes()
        start = content.index(b"eXIf") - 4
        stop = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
        moved = content[:start] + content[stop:-12] + content[start:stop] + content[-12:]
        (tmp_path / f"{k}.png").write_bytes(moved)
    if square:
        expected = np.stack([TURNED[6](GREY[k, :, :5]) for k in range(2)])
        assert np.array_equal(load_data(str(tmp_path)).pixels[:, 0], expected)
    else:
        refuses(tmp_path, "0.png", "once turned as its EXIF tag says")
