r"""Records: one finished unit of work, one netCDF file, there whole or not at all.

A run folder holds

    config.json          what was asked for, and the digest of the study
    study.json           what is measured of every subject: data, points, levels, probes
    subjects/000017.json what is known of a subject; more may be appended at any time
    records/000017.nc    what the study's probes returned of it
    networks/            the trained networks, safetensors and JSON
    findings.nc          the numbers that follow from the records
    summary.json         the same in short; the same study and seed, the same bytes
    provenance/          every session's command, times and versions
    report.html          the page, drawn from records and findings alone

so an interrupted run is a shorter run, any number of processes can fill one folder, and a
unit done twice is the same bytes renamed over itself. A record ends in the sha256 of all that
stands before it, its study and its subject: what does not match is not believed. Other readers
of netCDF do not see that end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from geomem.compute.files import (
    atomic_write_bytes,
    atomic_write_text,
    create_exclusive,
    make_folder,
)
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.measure.study import digest_of
from geomem.measure.subject import Description
from geomem.runs.netcdf import bytes_of, dataset_of_bytes

SCHEMA_VERSION = 2
TRAILER = b"\ngeomem-record-sha256 "
PLACES = (
    *("data", "split", "groups", "labels", "held_out", "reserved", "captions", "network"),
    *("model", "base", "reference", "repeat"),
)
AGAIN = "run the same command again, and it is done anew"


class ChangedRecord(InputError):  # noqa: N818  (a state, and one that a run mends)
    r"""A record that is not what was measured of its subject in this run."""


@dataclass(frozen=True)
class RunFolder:
    r"""A folder that holds a run.

    Attributes:
        path: The folder.
        config: What was asked for, as plain JSON values.
        study: The content of its study.
    """

    path: Path
    config: dict[str, Any]
    study: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        r"""Opens an existing run.

        Raises:
            InputError: If there is none, or it was written by another version.
        """
        path = Path(path)
        config, study = (read_json(path / name) for name in ("config.json", "study.json"))
        if config.get("study") != digest_of(study):
            raise InputError(
                f"{path / 'study.json'} is not the study that this run was started with; bring "
                "the old file back, or start the run anew in another folder"
            )
        return cls(path, config, study)

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        study: Mapping[str, Any],
        subjects: Sequence[Description] = (),
    ) -> RunFolder:
        r"""Starts a run, or goes on with one of the same config and study.

        Checking and claiming are one atomic step: of several processes that start different
        runs in one folder, one gets it and the others are refused.

        Arguments:
            path: The folder.
            config: What was asked for.
            study: The content of the study.
            subjects: The subjects that are known from the start, in their order.

        Raises:
            InputError: If the folder holds another run, or something else.
        """
        path = Path(path)
        wanted = {"schema_version": SCHEMA_VERSION, **config, "study": digest_of(study)}
        wanted = json.loads(json.dumps(wanted, allow_nan=False))
        if not (path / "config.json").exists():
            check_free(path)
            make_folder(path.parent)
            make_folder(path, private=True)
            create_exclusive(path / "config.json", json_text(wanted).encode())
        there = read_json(path / "config.json")
        if _without_places(there) != _without_places(wanted):
            raise InputError(_other_run(path, there, wanted))
        if not (path / "study.json").exists():  # the claimer ended, or has not come to it yet
            atomic_write_text(path / "study.json", json_text(study))
        folder = cls(path, there, json.loads(json.dumps(study)))
        for number, subject in enumerate(subjects):
            place = folder.subject_path(number)
            if not place.exists():
                create_exclusive(place, json_text(subject.to_json()).encode())
            if Description(**read_json(place, versioned=False)) != subject:
                raise InputError(f"{place} is another subject than {subject}; start anew elsewhere")
        return folder

    # --------------------------------------------------------------------------- subjects

    def subject_path(self, number: int) -> Path:
        return self.path / "subjects" / f"{number:06d}.json"

    @property
    def subjects(self) -> list[Description]:
        r"""The subjects, in the order of their numbers; there may be more the next time."""
        paths = sorted((self.path / "subjects").glob("[0-9]*.json"))
        found = {int(p.stem): Description(**read_json(p, versioned=False)) for p in paths}
        return [found[number] for number in range(len(found)) if number in found]

    def subject(self, number: int) -> Description:
        r"""One subject by its number."""
        return Description(**read_json(self.subject_path(number), versioned=False))

    def append(self, subject: Description) -> int:
        r"""Adds a subject to the run, and returns its number; others may add at the same time."""
        number = len(self.subjects)
        while not create_exclusive(
            self.subject_path(number), json_text(subject.to_json()).encode()
        ):
            number += 1
        return number

    # ---------------------------------------------------------------------------- records

    def record_path(self, number: int) -> Path:
        return self.path / "records" / f"{number:06d}.nc"

    def missing(self, numbers: Sequence[int] | None = None) -> list[int]:
        r"""The subjects whose record is not there, or is not what it should be.

        Raises:
            InputError: If a record cannot be read for lack of permission, say.
        """
        wanted = range(len(self.subjects)) if numbers is None else numbers
        return [number for number in wanted if not self._is_done(number)]

    def _is_done(self, number: int) -> bool:
        if not self.record_path(number).exists():
            return False
        try:
            self.verified(number)
        except ChangedRecord:
            return False
        return True

    def write_record(self, number: int, record: xr.Dataset) -> None:
        r"""Writes the record of a subject, whole or not at all."""
        record = record.assign_attrs(
            schema_version=SCHEMA_VERSION,
            study=self.config["study"],
            subject=json.dumps(self.subject(number).to_json(), sort_keys=True),
            number=number,
        )
        content = bytes_of(record)
        seal = TRAILER + self._seal(number, content).encode()
        # Never into a folder that was taken away meanwhile: a stub of it would come back.
        place = self.record_path(number)
        atomic_write_bytes(place, content + seal, inside=self.path, private=True)

    def _seal(self, number: int, content: bytes) -> str:
        # Of what was measured, of which subject, in which study.
        mine = json.dumps([self.config["study"], number, self.subject(number).to_json()])
        return hashlib.sha256(content + mine.encode()).hexdigest()

    def verified(self, number: int) -> bytes:
        r"""The bytes of a record, without their trailer, if it is what it should be.

        Raises:
            ChangedRecord: If it was changed since, or is of another run or subject.
            InputError: If it cannot be read.
        """
        path = self.record_path(number)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); mend its permissions and go on"
            ) from error
        content, _, digest = raw.rpartition(TRAILER)
        if self._seal(number, content).encode() != digest:
            raise ChangedRecord(
                f"{path} is not what was measured of {self.subject(number)} in this run: it was "
                f"changed since, is truncated, or of another run; {AGAIN}"
            )
        return content

    def read_record(self, number: int) -> xr.Dataset:
        r"""Reads the record of a subject.

        Raises:
            ChangedRecord: If it was changed since, or is of another run or subject; doing the
                run again makes it anew.
        """
        path, content = self.record_path(number), self.verified(number)
        advice = f"{path} needs it; free some"
        return dataset_of_bytes(content, lambda n: Forecast(0, 2.0 * n).check_memory(advice))

    def records(self) -> Iterator[tuple[int, xr.Dataset]]:
        r"""The subjects that are done, with their records, in the order of their numbers."""
        for number in range(len(self.subjects)):
            if self.record_path(number).exists():
                yield number, self.read_record(number)

    def records_digest(self) -> str:
        r"""The sha256 of all records that are there: findings belong to just these."""
        state = hashlib.sha256(self.config["study"].encode())
        for number in range(len(self.subjects)):
            path = self.record_path(number)
            if path.exists():
                state.update(f"{number} ".encode() + path.read_bytes()[-64:])
        return state.hexdigest()


def check_free(path: Path) -> None:
    r"""Refuses a folder that holds something else than a run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; choose a folder for the run")
    if path.is_dir():
        rest = [p for p in path.iterdir() if not p.name.startswith(".")]
        # Looked for after the rest: another process may start this very run meanwhile.
        if rest and not (path / "config.json").exists():
            raise InputError(
                f"{path} is not empty and holds no run ({rest[0].name}); choose another `out`"
            )


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    # Where data lie is no matter: what they are is in the study, by digest.
    return {k: v for k, v in config.items() if k not in PLACES}


def _other_run(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = dict.fromkeys([*wanted, *there])
    names = [k for k in keys if there.get(k) != wanted.get(k) and k not in ("study", *PLACES)]
    if not names:
        return (
            f"{path} was started with other data: images, split, groups or labels have changed "
            "since; bring the old ones back, or choose another `out`"
        )
    said = ", ".join(f"{k}: {there.get(k)} there, {wanted.get(k)} asked" for k in names[:3])
    return f"{path} holds a run of another config ({said}); choose another `out`, or move it aside"


def json_text(content: Mapping[str, Any]) -> str:
    r"""JSON with sorted keys, so that the same content is the same bytes."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_json(path: Path, *, versioned: bool = True) -> dict[str, Any]:
    r"""Reads a JSON object of a run.

    Raises:
        InputError: If it is missing, damaged, or of another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{path.parent} holds no run ({path.name} is missing); pass the folder of a run"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend that first") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); move the run aside") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (it holds no object); move the run aside")
    if versioned and content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {content.get('schema_version')}, this geomem reads "
            f"{SCHEMA_VERSION}; use the geomem that wrote it"
        )
    return content
