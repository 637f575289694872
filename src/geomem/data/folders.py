r"""A folder of pictures, and the account of what was read, left out, and why.

Hidden files and folders are passed over. Links are followed, each real folder is read once. A
folder ``train`` beside ``test``, ``val``, ``valid`` or ``validation``, at any depth, is the
official training part, and the others are the official test part, which is held out; without a
``train``, pictures outside of such folders are the training part. Where all pictures lie in
folders below, the first folder (after the part's) is their class.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geomem.compute.progress import Forecast
from geomem.data.captions import read_captions
from geomem.data.framing import Framing
from geomem.data.pictures import Form, is_picture, read_form, read_picture
from geomem.data.reading import Decoded, IntArray, printable, reading, refuse_pickle, unicode_name
from geomem.errors import InputError

TRAIN_NAMES = frozenset(["train", "training"])
TEST_NAMES = frozenset(["test", "testing", "val", "valid", "validation"])
SYSTEM_NAMES = frozenset(["__macosx", "$recycle.bin", "@eadir", "lost+found"])


@dataclass
class _Found:
    r"""What a walk through a folder found: relative paths of files, and what was passed over."""

    pictures: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: int = 0
    broken_links: list[str] = field(default_factory=list)
    read_twice: list[str] = field(default_factory=list)


def read_folder(folder: Path, framing: Framing | None = None) -> Decoded:
    r"""All pictures of a folder, as one array.

    Arguments:
        folder: The folder.
        framing: How pictures are brought to one size; they must have one if not given.

    Raises:
        InputError: If a picture cannot be used as it is, if they differ in size, if there are
            none, or if they do not fit into the free memory.
    """
    where = printable(folder)
    if folder.resolve().parent == folder.resolve():
        raise InputError(f"{where} is the whole file system; pass the folder of the pictures")
    found = _walk(folder)
    if not found.pictures:
        for other in found.others:
            refuse_pickle(folder / other)
        count = f" ({_suffixes(found.others)})" if found.others else ""
        raise InputError(f"there are no images in {where}{count}; pass a folder of PNG or JPEG")
    names, num_train = _official_parts(found.pictures)
    forms = _read_forms(folder, names, framing)
    channels = 1 if all(form.grey for form in forms) else 3
    width, height = forms[0].size if framing is None else framing.framed(*forms[0].size)
    shape = (len(names), channels, height, width)
    Forecast(0, 2 * math.prod(shape) + 16 * width * height).check_memory(
        "shrink the pictures, or use fewer of them"
    )
    pixels = np.empty(shape, np.uint8)
    for row, name, form in zip(pixels, names, forms, strict=True):
        picture = read_picture(folder / name, form, channels)
        row[...] = picture if framing is None else framing(picture)
    labels, classes = _classes(names)
    files = tuple(unicode_name(name) for name in names)
    account = _account(found, forms, num_train, classes)
    return Decoded(
        pixels,
        labels=labels,
        classes=classes,
        files=files,
        num_train=num_train,
        account=account if framing is None else f"{account}; {framing}",
        captions=read_captions(folder, files),
    )


def _walk(top: Path) -> _Found:
    # Links to folders come after all real folders, so that what is reached both ways has its
    # real name, and a link to a folder above ends where it began.
    found, seen = _Found(), set()
    waiting, linked = [""], list[str]()
    while waiting or linked:
        here = waiting.pop() if waiting else linked.pop(0)
        with reading(top / here):
            status = os.stat(top / here)
            entries = sorted(os.scandir(top / here), key=lambda entry: entry.name)
        if (status.st_dev, status.st_ino) in seen:
            found.read_twice.append(here)
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                found.hidden += 1
            elif os.path.isdir(entry.path):  # never raises
                (linked if entry.is_symlink() else waiting).append(name)
            elif not os.path.exists(entry.path):
                found.broken_links.append(name)
            elif os.path.isfile(entry.path) and is_picture(top / name):
                found.pictures.append(name)
            else:  # a pipe would wait for ever, a device has no end
                found.others.append(name)
    return found


def _official_parts(names: Sequence[str]) -> tuple[list[str], int | None]:
    r"""The pictures with the training part first, and how many those are, if there are parts."""
    parts = [_part(name) for name in names]
    training = "train" if "train" in parts else None
    ordered = sorted(names)
    if "test" not in parts or training not in parts:
        return ordered, None
    test = {name for name, part in zip(names, parts, strict=True) if part == "test"}
    first = [name for name in ordered if name not in test]
    return [*first, *sorted(test)], len(first)


def _part(name: str) -> str | None:
    for folder in name.lower().split("/")[:-1]:
        if folder in TRAIN_NAMES or folder in TEST_NAMES:
            return "train" if folder in TRAIN_NAMES else "test"
    return None


def _classes(names: Sequence[str]) -> tuple[IntArray | None, tuple[str, ...] | None]:
    below = []
    for name in names:
        folders = name.split("/")[:-1]
        parts = [f for f in folders if f.lower() in TRAIN_NAMES | TEST_NAMES]
        if parts:
            folders.remove(parts[0])
        if not folders:
            return None, None
        below.append(unicode_name(folders[0]))
    classes, labels = np.unique(np.array(below), return_inverse=True)
    if not 2 <= len(classes) <= len(names) // 2:  # a folder for each picture is no class
        return None, None
    return labels.reshape(-1).astype(np.int64), tuple(str(c) for c in classes)


def _read_forms(folder: Path, names: Sequence[str], framing: Framing | None) -> list[Form]:
    # Headers only: all that is wrong is found before anything large is decoded.
    forms, refused = list[Form](), list[InputError]()
    for name in names:
        try:
            forms.append(read_form(folder / name))
        except InputError as error:
            refused.append(error)
    if refused:
        more = f" ({len(refused) - 1} other pictures cannot be used either)"
        raise InputError(f"{refused[0]}{more if refused[1:] else ''}")
    shown = [form.size if framing is None else framing.framed(*form.size) for form in forms]
    sizes = [f"{width}x{height}" for width, height in shown]
    other = next((k for k, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        count = f" ({len(set(sizes))} sizes in all)" if len(set(sizes)) > 2 else ""
        raise InputError(
            f"{printable(folder / names[0])} is {sizes[0]} pixels and "
            f"{printable(folder / names[other])} is {sizes[other]}{count}; "
            "bring all images to one size, as `size` and `crop` do"
        )
    return forms


def _account(
    found: _Found, forms: Sequence[Form], num_train: int | None, classes: Sequence[str] | None
) -> str:
    said = [f"{len(forms):,} pictures read"]
    if num_train is not None:
        said.append(
            f"{num_train:,} of the training part, {len(forms) - num_train:,} of test or "
            "validation folders, which are held out"
        )
    if classes is not None:
        said.append(f"{len(classes)} folders taken as classes")
    notes = Counter(note for form in forms for note in form.notes)
    said += [f"{count:,} {note}" for note, count in sorted(notes.items())]
    if found.read_twice:
        said.append(f"{_some(found.read_twice)} leads to a folder that was read already")
    if found.broken_links:
        said.append(f"left out {_some(found.broken_links)}: broken links")
    if found.others:
        said.append(
            f"left out {len(found.others):,} files that are no pictures ({_suffixes(found.others)})"
        )
    if found.hidden:
        said.append(f"left out {found.hidden:,} hidden files or folders")
    return "; ".join(said)


def _suffixes(names: Sequence[str]) -> str:
    suffixes = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
    return ", ".join(f"{printable(s)} {count:,}" for s, count in suffixes.most_common(6))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1:,} more" if names[1:] else ""
    return f"{printable(names[0])}{more}"
