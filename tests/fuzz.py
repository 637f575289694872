r"""Inputs for everything public, made from signatures: good values, and what nobody should pass.

``python -m tests.fuzz callables 500`` (or ``commands 100``) prints a JSON document: how many
inputs, seconds, peak memory, and the failures by name. An answer, or an error of the library,
is right; anything else (another exception, a traceback, a call of more than 30 s) is a failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
import typing
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
from PIL import Image

import geomem
from geomem.errors import GeomemError

PACKAGES = ("spectra", "operators", "data", "dimension", "manifolds", "exact")
LONG = {  # long work by design, or only there to be derived from
    *("Sweep", "LocalExecutor", "RayExecutor", "Executor", "Denoiser", "ExactDenoiser"),
    *("check_denoiser", "check_dimension_method", "check_probe", "check_spectrum_method"),
}
ALLOWED = {  # failures that are right, with the reason
    "NotImplementedError": "a method that a class of one's own must provide says so",
}
SECONDS = 30


class TooLong(BaseException):
    r"""A call that does not come back; no ``except Exception`` may swallow it."""


# ------------------------------------------------------------------------------ values


def bad(rng: random.Random) -> Any:
    r"""Something that hardly any parameter wants."""
    objects: list[Any] = [None, b"x", [], {}, (), [[1.0], [2.0, 3.0]], ["a"], "\0", int]
    choices: list[Callable[[], Any]] = [
        *(lambda v=v: v for v in (math.nan, math.inf, -math.inf, -1, 0, -0.5, 1e-300, 1e300)),
        *(lambda v=v: v for v in (2**70, -(10**18), 10**400, 32.9, True, 1j, "", "x", "nowhere")),
        *(lambda v=v: v for v in objects),
        *(lambda v=v: v for v in (Path("nowhere"), np.float32(0.5), np.int64(-3), "é" * 300)),
        object,
        lambda: lambda *a: None,
        lambda: np.zeros(0),
        lambda: np.full(4, np.nan),
        lambda: np.array(["a", "b"]),
        lambda: np.ones((2, 2, 2, 2), dtype=np.uint8),
        lambda: np.random.default_rng(0).normal(size=(3, 4)),
        lambda: torch.zeros(0),
        lambda: torch.zeros(0, 4),
        lambda: torch.full((4,), math.nan),
        lambda: torch.full((3, 4), math.inf),
        lambda: torch.tensor(-1.0),
        lambda: torch.tensor(math.nan),
        lambda: torch.ones(4, dtype=torch.int64),
        lambda: torch.ones(4, dtype=torch.bool),
        lambda: torch.ones(4, dtype=torch.complex64),
        lambda: torch.ones(3, 4, dtype=torch.float16),
        lambda: torch.randn(2, 1, 3, 3),
        lambda: torch.randn(5),
        lambda: torch.randn(3, 5),
        lambda: -torch.eye(4),
    ]
    return rng.choice(choices)()


def good(annotation: Any, name: str, rng: random.Random) -> Any:
    r"""Something that a parameter of this annotation may well want; bad where none is known."""
    if get_origin(annotation) is Annotated:
        return good(get_args(annotation)[0], name, rng)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return rng.choice(inner)
    if origin in (Union, types.UnionType):
        return good(rng.choice(inner), name, rng)
    if origin is tuple and inner[1:] != (Ellipsis,):
        return tuple(good(a, name, rng) for a in inner)
    if origin in (tuple, list) or getattr(origin, "__name__", "") in ("Sequence", "Iterable"):
        values = [good(inner[0], name, rng) for _ in range(rng.randint(1, 4))]
        return values if origin is list else tuple(values)
    g = torch.Generator().manual_seed(rng.randrange(1000))
    kinds = {
        "NoneType": lambda: None,
        "int": lambda: rng.choice([1, 2, 3, 4, 16]),
        "float": lambda: rng.choice([0.1, 0.5, 0.9, 1.0, 3.0]),
        "bool": lambda: rng.random() < 0.5,
        "str": lambda: rng.choice(["digits", "linear", "soft-count", "local-dimension", "a"]),
        "Path": lambda: Path(rng.choice(["nowhere", ".", "images.npy", "folder/new.json"])),
        "Tensor": lambda: tensor(name, rng, g),
        "ndarray": lambda: tensor(name, rng, g).double().numpy(),
        "Denoiser": lambda: denoiser(rng, g),
        "ExactDenoiser": lambda: denoiser(rng, g),
        "LinearOperator": lambda: geomem.Matrix(torch.randn(4, 4, generator=g)),
        "Generator": lambda: rng.choice([g, np.random.default_rng(0)]),
        "ImageData": lambda: geomem.ImageData.of("some", np.random.rand(40, 4)),
        "Estimate": lambda: geomem.Estimate(0.5, 0.1),
        "Manifold": lambda: geomem.LinearManifold(torch.ones(2), 4),
        "Spectrum": lambda: geomem.spectrum(geomem.Matrix(torch.eye(4)), geomem.Dense()),
    }
    kind = getattr(origin or annotation, "__name__", str(annotation))
    return kinds[kind]() if kind in kinds else bad(rng)


def tensor(name: str, rng: random.Random, g: torch.Generator) -> torch.Tensor:
    r"""A tensor of four coordinates, a batch of them, a square, or a level."""
    if "sigma" in name or name in ("t", "level", "levels"):
        return rng.choice([torch.tensor(0.5), torch.tensor([0.1, 0.5, 2.0]), torch.ones(3)])
    shape = rng.choice([(4,), (3, 4), (3, 4), (4, 4), (6, 4), (2, 1, 2, 2)])
    values = torch.randn(*shape, generator=g)
    values = values @ values.T if shape == (4, 4) else values
    return values.abs() if rng.random() < 0.2 else values.to(rng.choice([torch.float32] * 2))


def denoiser(rng: random.Random, g: torch.Generator) -> Any:
    r"""A denoiser of four coordinates."""
    gaussian = geomem.GaussianDenoiser(torch.zeros(4), torch.eye(4))
    return rng.choice([gaussian, geomem.EmpiricalDenoiser(torch.randn(6, 4, generator=g))])


def arguments(function: Callable[..., Any], rng: random.Random) -> dict[str, Any]:
    r"""Arguments by name for one call."""
    owner: Any = function if isinstance(function, type) else None
    try:
        hints = typing.get_type_hints(owner.__init__ if owner else function, include_extras=True)
    except Exception:
        hints = {}
    if owner is not None and dataclasses.is_dataclass(owner):
        with contextlib.suppress(Exception):
            hints = typing.get_type_hints(owner, include_extras=True)
    wrong = rng.choice([0.0, 0.0, 0.3, 0.7])
    chosen = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is not parameter.empty and rng.random() < 0.5:
            continue
        annotation = hints.get(parameter.name, Any)
        made = bad(rng) if rng.random() < wrong else good(annotation, parameter.name, rng)
        chosen[parameter.name] = made
    return chosen


# --------------------------------------------------------------------------- callables


def public_callables() -> dict[str, Callable[..., Any]]:
    r"""Everything callable that the package and its subpackages name as public."""
    found = {}
    for module in ("", *PACKAGES):
        package = importlib.import_module(f"geomem.{module}".rstrip("."))
        for name in package.__all__:
            value = getattr(package, name)
            exception = isinstance(value, type) and issubclass(value, BaseException)
            protocol = getattr(value, "_is_protocol", False)
            abstract = inspect.isabstract(value) or get_origin(value) is not None
            if callable(value) and name not in LONG and not (exception or protocol or abstract):
                found[name] = value
    return found


def methods(value: Any) -> list[tuple[str, Callable[..., Any]]]:
    r"""How an object of ours is called; all its public methods where that is asked for."""
    if not type(value).__module__.startswith("geomem"):
        return []
    every = bool(os.environ.get("GEOMEM_FUZZ_METHODS"))
    names = [n for n in dir(type(value)) if n == "__call__" or (every and not n.startswith("_"))]
    found = [(n, inspect.getattr_static(type(value), n)) for n in names]
    return [(n, getattr(value, n)) for n, f in found if inspect.isfunction(f)]


def call(name: str, function: Callable[..., Any], rng: random.Random, failed: Counter[str]) -> Any:
    r"""One call: what it returns, or None after an error, which is counted if it is not ours."""
    given = arguments(function, rng)

    def positional() -> Any:
        kinds = inspect.signature(function).parameters
        only = [k for k in given if kinds[k].kind is inspect.Parameter.POSITIONAL_ONLY]
        rest = {k: v for k, v in given.items() if k not in only}
        return function(*(given[k] for k in only), **rest)

    try:
        signal.alarm(SECONDS)
        return positional()
    except GeomemError:
        return None
    except (Exception, TooLong) as error:
        if type(error).__name__ not in ALLOWED:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "/geomem/" in f.filename] or list(frames)
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            text = re.sub(r"\d{3,}", "#", str(error))[:80].partition("\n")[0]
            said = f"{name}: {type(error).__name__} ({text}) at {where}"
            if said not in failed and os.environ.get("GEOMEM_FUZZ_ARGUMENTS"):
                said += f" with {given!r:.600}"
            failed[said] += 1
        return None
    finally:
        signal.alarm(0)


def fuzz_callables(count: int, rng: random.Random, failed: Counter[str]) -> int:
    r"""Calls each public callable in turn, and the methods of what comes back."""
    public = sorted(public_callables().items())
    done = 0
    while done < count:
        name, function = public[done % len(public)] if rng.random() < 0.5 else rng.choice(public)
        value = call(name, function, rng, failed)
        done += 1
        for method, bound in methods(value):
            call(f"{name}.{method}", bound, rng, failed)
            done += 1
    return done


# ---------------------------------------------------------------------------- commands


def words(value: Any) -> list[str]:
    r"""A value as the words of an option."""
    if isinstance(value, (tuple, list)):
        return [w for v in value for w in words(v)]
    return [str(value)]


SMALL = {
    "steps": "2", "levels": "2", "points": "8", "samples": "2", "draws": "1", "sources": "8",
    "sizes": "16", "directions": "1", "processes": "1", "jacobian_points": "0", "sigmas": ".3 1",
    "variances": "1 .5 .1", "largest": "100", "num_samples": "50", "cases": "broken.json",
    "data": "images.npy", "run": "run", "run_folder": "run", "out": "out", "dimension_points": "0",
}  # fmt: skip
NUMBERS = ["nan", "inf", "-1", "0", "1e400", "9" * 30, "2.5", "1e-300", "1", "7", "1000000"]
TEXTS = [
    *("x", "", " ", "None", "é", "a" * 300, "~nosuchuser/x", "/", "/dev/null", "images.npy", "run"),
    *("folder", "text.csv", "broken.json", "split.json", "all", "cuda", "[]", "{}", "-", "a=b"),
    *("threshold(above=2)", "ray:1", "soft-count", "digits", "linear", "nan.npy", "lost.Module:X"),
]


def options(command: Any) -> list[tuple[str, Any, bool]]:
    r"""The options of a command and its groups: name, annotation, whether it must be given."""
    found = []
    hints = typing.get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        annotation = hints[field.name]
        plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        if dataclasses.is_dataclass(plain):
            found += options(plain)
        else:
            no_default = field.default is dataclasses.MISSING
            required = no_default and field.default_factory is dataclasses.MISSING
            found.append((field.name, annotation, required))
    return found


def command_line(name: str, command: Any, rng: random.Random) -> list[str]:
    r"""Arguments for one run of a command: small ones, but for a few that may be anything."""
    line, known = name.split(), options(command)
    odd = rng.sample([o for o, *_ in known], min(len(known), rng.choice([0, 1, 1, 2, 3])))
    for option, annotation, required in known:
        kind = str(annotation)
        if option in odd and "bool" in kind:
            line.append(f"--{option.replace('_', '-')}")
            continue
        if option in odd:
            numeric = ("int" in kind or "float" in kind) and rng.random() < 0.9
            value = [rng.choice(NUMBERS if numeric else TEXTS)]
            value = words(good_of(annotation, rng)) if rng.random() < 0.3 else value
        elif option in SMALL and (required or command.__name__ != "ResumeCommand"):
            value = SMALL[option].split()
        else:
            continue
        positional = "ositional" in kind
        line += value if positional else [f"--{option.replace('_', '-')}", *value]
    return line


def good_of(annotation: Any, rng: random.Random) -> Any:
    r"""A good value for an option of an annotation that may be wrapped several times."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return good(annotation, "", rng)


def fuzz_commands(count: int, rng: random.Random, failed: Counter[str]) -> int:
    r"""Runs commands in this process, in a folder of their own."""
    from geomem.cli.main import COMMANDS, load_command, run
    from geomem.cli.sweep import ResumeCommand

    found: dict[str, Any] = {}
    for name, (where, _) in COMMANDS.items():
        command = load_command(where)
        if isinstance(command, dict):
            found |= {f"{name} {sub}": inner for sub, inner in command.items()}
        elif name != "demo":
            found[name] = command
    found["sweep "] = ResumeCommand
    make_files(Path.cwd())
    small = "--sizes 16 --steps 2 --levels 2 --points 8 --samples 2 --processes 1 --out run"
    status: Any
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = run(["sweep", "--data", "images.npy", *small.split()])
    assert status == 0
    for k in range(count):
        name = list(found)[k % len(found)]
        line = command_line(name, found[name], rng)
        out, err = io.StringIO(), io.StringIO()
        shutil.rmtree("out", ignore_errors=True)
        Path("out").unlink(missing_ok=True)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                signal.alarm(2 * SECONDS)
                status = run(line)
        except SystemExit as stop:
            status = stop.code
        except TooLong:
            status = "too long"
        except BaseException as error:
            status = repr(error)
        finally:
            signal.alarm(0)
        said = err.getvalue()
        if status not in (0, 1, 2, 3) or "Traceback" in said or "a fault of geomem" in said:
            reason = next((x for x in said.splitlines() if "fault" in x), "")[:200]
            failed[f"geomem {' '.join(map(repr, line))[:400]}: {status} {reason}"] += 1
        elif os.environ.get("GEOMEM_FUZZ_ARGUMENTS"):
            print(line, status, said[-200:], file=sys.__stderr__)
    return count


def make_files(folder: Path) -> None:
    r"""A few files for paths to meet."""
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(60, 4)))
    np.save(folder / "nan.npy", np.full((60, 4), np.nan))
    (folder / "folder").mkdir()
    for k in range(12):
        Image.fromarray(np.full((8, 8), k, dtype=np.uint8)).save(folder / "folder" / f"{k}.png")
    (folder / "text.csv").write_text("file,value\na,1\n", encoding="utf-8")
    (folder / "broken.json").write_text('{"a": [', encoding="utf-8")


def main(what: str, count: int, seed: int = 0) -> None:
    r"""Fuzzes, and prints what was found as one JSON document."""

    def stop(number: int, frame: object) -> None:
        raise TooLong(f"more than {SECONDS} s")

    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, stop)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    failed: Counter[str] = Counter()
    rng, start = random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        fuzz = fuzz_callables if what == "callables" else fuzz_commands
        done = fuzz(count, rng, failed)
        os.chdir("/")
    document = {
        "inputs": done,
        "seconds": round(time.monotonic() - start, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "failures": dict(failed),
    }
    print(json.dumps(document, indent=1, ensure_ascii=True))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
