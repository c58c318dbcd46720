"""The images: real MNIST where it can be had, scikit-learn's handwritten digits where it cannot.

Sources, in this order: the folder that the environment variable STOPCTL_MNIST names; a cached download; the
digits that come with scikit-learn. A folder that is named must be right: a wrong one is an error.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray

from stopctl.core.errors import StopctlError
from stopctl.demo.problem import PIXELS, Floats, Integers, split

FOLDER = "STOPCTL_MNIST"
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
TIMEOUT = 5.0  # seconds without an answer after which a mirror is given up
SHA256 = {  # of the files as they are without gzip
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_TEST_SHARE = 10_000 / 70_000


class DataError(StopctlError):
    """Image files that are missing, unreadable or not the official ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images as float32 (n, 784) in [0, 1], labels as int64 (n,) in 0..9, and where they are from."""

    train_x: Floats
    train_y: Integers
    valid_x: Floats
    valid_y: Integers
    test_x: Floats
    test_y: Integers
    name: str
    """"mnist" or "digits"."""
    source: str
    """Which images, from where, and why not from a better source: for people."""


def load(seed: int) -> Dataset:
    """The images, the training ones split by the seed; the test images are the same for every seed.

    Raises:
        DataError: STOPCTL_MNIST names a folder that does not hold the four official files.
    """
    folder = os.environ.get(FOLDER)
    if folder:
        return _mnist(seed, lambda name: read(_find(Path(folder), name)), f"MNIST from {FOLDER}={folder}")
    failures = []
    for mirror in MIRRORS:
        try:
            return _mnist(seed, partial(_fetch, mirror), f"MNIST from {_cache()}")
        except (OSError, DataError) as error:  # every error of requests is an OSError
            failures.append(f"{mirror} {type(error).__name__}")
    return _digits(seed, f"MNIST cannot be had: {', '.join(failures)}; {FOLDER} can name a folder with it")


def read(path: Path) -> bytes:
    """The official IDX file at path, unpacked if its name ends in .gz, and verified.

    Raises:
        DataError: it cannot be read or unpacked, or its SHA-256 is not the official one.
    """
    name = path.name.removesuffix(".gz")
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    digest = hashlib.sha256(raw).hexdigest()
    if digest != SHA256[name]:
        raise DataError(
            f"{path} is not the official {name}: its SHA-256 is {digest}, expected {SHA256[name]}"
        )
    return raw


def _find(folder: Path, name: str) -> Path:
    """The file of this name in the folder, plain or gzipped."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(
        f"{FOLDER} is {folder}, where there is neither {name} nor {name}.gz; "
        f"it must be the folder of the files {', '.join(SHA256)}, each as it is or gzipped"
    )


def _cache() -> Path:
    return Path(pooch.os_cache("stopctl")) / "mnist"


def _fetch(mirror: str, name: str) -> bytes:
    """The file from the cache, downloaded if it is not there; a damaged one is deleted, for the next try."""
    pooch.get_logger().setLevel("WARNING")
    path = Path(
        pooch.retrieve(
            f"{mirror}{name}.gz",
            known_hash=None,  # read() knows the hash of what is inside
            fname=f"{name}.gz",
            path=_cache(),
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
        )
    )
    try:
        return read(path)
    except DataError:
        path.unlink(missing_ok=True)
        raise


def _mnist(seed: int, get: Callable[[str], bytes], source: str) -> Dataset:
    """The dataset out of four raw files; the hash has settled that their headers are the official ones."""
    images_of = {n: np.frombuffer(get(n), np.uint8, offset=16 if "idx3" in n else 8) for n in SHA256}
    train_x, train_y, test_x, test_y = images_of.values()
    return _dataset(
        seed, _scaled(train_x, 255), train_y, _scaled(test_x, 255), test_y, name="mnist", source=source
    )


def _digits(seed: int, why: str) -> Dataset:
    """1,797 handwritten digits, 8x8 pixels linearly enlarged to 28x28; the last seventh is for the test."""
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    # Column by column: what every one of the 28 points takes of each of the 8 pixels.
    enlarge = np.stack([np.interp(np.linspace(0, 7, 28), np.arange(8), unit) for unit in np.eye(8)], axis=1)
    large = _scaled(enlarge @ small.reshape(-1, 8, 8) @ enlarge.T, 16)
    train = len(labels) - round(len(labels) * _TEST_SHARE)
    source = f"scikit-learn's {len(labels):,} handwritten digits, enlarged to 28x28 ({why})"
    return _dataset(
        seed, large[:train], labels[:train], large[train:], labels[train:], name="digits", source=source
    )


def _scaled(pixels: NDArray[Any], largest: int) -> Floats:
    return pixels.reshape(-1, PIXELS).astype(np.float32) / np.float32(largest)


def _dataset(
    seed: int, x: Floats, y: NDArray[Any], test_x: Floats, test_y: NDArray[Any], *, name: str, source: str
) -> Dataset:
    train, valid = split(seed, len(y))
    labels = y.astype(np.int64)
    return Dataset(
        x[train], labels[train], x[valid], labels[valid], test_x, test_y.astype(np.int64), name, source
    )
