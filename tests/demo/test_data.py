from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests
from sklearn.datasets import load_digits

from stopctl.demo import data, problem

TRAIN, TEST = 120, 30


def _raw(n: int, seed: int) -> tuple[bytes, bytes]:
    """Small IDX files with the official headers' lengths: images and labels."""
    random = np.random.default_rng(seed)
    header = (2051).to_bytes(4, "big") + n.to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
    images = header + random.integers(0, 256, n * 784, np.uint8).tobytes()
    labels = (2049).to_bytes(4, "big") + n.to_bytes(4, "big") + random.integers(0, 10, n, np.uint8).tobytes()
    return images, labels


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files by the official names, whose hashes are the expected ones for this test."""
    contents = dict(zip(data.SHA256, (*_raw(TRAIN, 0), *_raw(TEST, 1)), strict=True))
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in contents.items()}
    monkeypatch.setattr(data, "SHA256", hashes)
    return contents


@pytest.fixture
def folder(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with these files, half of them gzipped, named by the environment."""
    for number, (name, raw) in enumerate(files.items()):
        if number % 2:
            (tmp_path / name).write_bytes(raw)
        else:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(raw))
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, an empty cache, and no network."""

    def retrieve(url: str, **_: object) -> str:
        raise requests.ConnectionError(url)

    monkeypatch.delenv(data.FOLDER, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(pooch, "retrieve", retrieve)


def test_folder_gives_all_images_scaled_and_split(folder: Path, files: dict[str, bytes]) -> None:
    dataset = data.load(seed=3)
    train, valid = problem.split(3, TRAIN)
    pixels = np.frombuffer(files["train-images-idx3-ubyte"][16:], np.uint8).reshape(TRAIN, 784)
    labels = np.frombuffer(files["train-labels-idx1-ubyte"][8:], np.uint8)
    assert np.array_equal(dataset.train_x, pixels[train].astype(np.float32) / np.float32(255))
    assert np.array_equal(dataset.valid_x, pixels[valid].astype(np.float32) / np.float32(255))
    assert np.array_equal(dataset.train_y, labels[train])
    assert np.array_equal(dataset.valid_y, labels[valid])
    assert dataset.test_x.shape == (TEST, 784)
    assert {dataset.train_x.dtype, dataset.valid_x.dtype, dataset.test_x.dtype} == {np.dtype(np.float32)}
    assert {dataset.train_y.dtype, dataset.valid_y.dtype, dataset.test_y.dtype} == {np.dtype(np.int64)}
    assert dataset.name == "mnist"
    assert dataset.source == f"MNIST from STOPCTL_MNIST={folder}"


def test_missing_file_is_named_with_both_names_and_the_folder(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(data.DataError) as caught:
        data.load(seed=3)
    assert str(caught.value) == (
        f"STOPCTL_MNIST is {folder}, where there is neither t10k-images-idx3-ubyte nor "
        "t10k-images-idx3-ubyte.gz; it must be the folder of the files train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each as it is or gzipped"
    )


def test_wrong_hash_names_the_file_and_both_hashes(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(data.DataError) as caught:
        data.load(seed=3)
    assert str(caught.value) == (
        f"{path} is not the official train-labels-idx1-ubyte: its SHA-256 is {found}, expected {expected}"
    )


@pytest.mark.parametrize("cut", ["half", "no gzip at all", "a directory"])
def test_unreadable_file_is_named(folder: Path, cut: str) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    if cut == "a directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(whole[: len(whole) // 2] if cut == "half" else b"no gzip at all")
    with pytest.raises(data.DataError) as caught:
        data.load(seed=3)
    assert str(caught.value).startswith(f"{path} cannot be read: ")


@dataclass
class Server:
    """A web server on this machine: path -> what is sent there, and the paths that were asked for."""

    address: str
    pages: dict[str, bytes]
    asked: list[str]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Two mirrors, /one/ and /two/, both empty at first, and an empty cache."""
    pages: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{web.server_port}"
        monkeypatch.delenv(data.FOLDER, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(data, "MIRRORS", (f"{address}/one/", f"{address}/two/"))
        monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
        yield Server(address, pages, asked)
        web.shutdown()
        thread.join()


def _serve(server: Server, mirror: str, files: dict[str, bytes]) -> list[str]:
    pages = {f"/{mirror}/{name}.gz": gzip.compress(raw) for name, raw in files.items()}
    server.pages.update(pages)
    return list(pages)


def test_download_is_verified_and_cached(files: dict[str, bytes], server: Server, tmp_path: Path) -> None:
    pages = _serve(server, "one", files)
    first, again = data.load(seed=3), data.load(seed=3)
    assert server.asked == pages  # the second time nothing is asked for
    for dataset in (first, again):
        assert dataset.name == "mnist"
        assert dataset.source == f"MNIST from {tmp_path / 'stopctl' / 'mnist'}"
        assert len(dataset.train_y) == 110


def test_a_mirror_without_the_files_is_given_up_for_the_next(files: dict[str, bytes], server: Server) -> None:
    pages = _serve(server, "two", files)
    assert data.load(seed=3).name == "mnist"
    assert server.asked == ["/one/train-images-idx3-ubyte.gz", *pages]


@pytest.mark.parametrize("damage", [b"<html>", gzip.compress(b"other contents")], ids=["page", "gzip"])
def test_a_wrong_download_is_deleted_and_fetched_from_the_next_mirror(
    damage: bytes, files: dict[str, bytes], server: Server
) -> None:
    _serve(server, "one", files)
    server.pages["/one/train-labels-idx1-ubyte.gz"] = damage
    _serve(server, "two", files)
    assert data.load(seed=3).name == "mnist"
    # The images of the first mirror are right, and stay.
    assert server.asked[:3] == [
        "/one/train-images-idx3-ubyte.gz",
        "/one/train-labels-idx1-ubyte.gz",
        "/two/train-labels-idx1-ubyte.gz",
    ]


def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(
    files: dict[str, bytes], server: Server, tmp_path: Path
) -> None:
    for mirror in ("one", "two"):
        _serve(server, mirror, files)
    data.load(seed=3)
    path = tmp_path / "stopctl" / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    server.asked.clear()
    assert data.load(seed=3).name == "mnist"
    assert server.asked == ["/two/t10k-images-idx3-ubyte.gz"]


@pytest.mark.usefixtures("unreachable")
def test_without_a_network_every_mirror_is_tried_and_the_digits_are_used() -> None:
    dataset = data.load(seed=3)
    assert dataset.name == "digits"
    assert dataset.source.startswith(
        "scikit-learn's 1,797 handwritten digits, enlarged to 28x28 (MNIST cannot be"
    )
    assert all(f"{mirror} ConnectionError" in dataset.source for mirror in data.MIRRORS)
    assert dataset.train_x.shape == (1_412, 784)
    assert dataset.valid_x.shape == (128, 784)
    assert dataset.test_x.shape == (257, 784)
    everything = np.concatenate([dataset.train_x, dataset.valid_x, dataset.test_x])
    assert everything.dtype == np.float32
    assert everything.min() == 0
    assert everything.max() == 1
    assert set(dataset.train_y) == set(range(10))


@pytest.mark.usefixtures("unreachable")
def test_digits_are_enlarged_linearly() -> None:
    small = load_digits().images[-257:] / 16
    large = data.load(seed=3).test_x.reshape(-1, 28, 28)
    assert np.allclose(large[:, ::27, ::27], small[:, ::7, ::7], atol=1e-6)
    points, pixels = np.linspace(0, 7, 28), np.arange(8)
    assert np.allclose(large[9, 0], np.interp(points, pixels, small[9, 0]), atol=1e-6)
    assert np.allclose(large[9, :, -1], np.interp(points, pixels, small[9, :, -1]), atol=1e-6)


def test_test_images_are_the_same_for_every_seed(folder: Path) -> None:
    one, other = data.load(seed=3), data.load(seed=4)
    assert np.array_equal(one.test_x, other.test_x)
    assert not np.array_equal(one.valid_x, other.valid_x)


def test_the_official_files_are_accepted(online: dict[str, str]) -> None:
    dataset = data.load(seed=3)
    assert (len(dataset.train_y), len(dataset.valid_y), len(dataset.test_y)) == (55_000, 5_000, 10_000)
    everything = np.concatenate([dataset.train_y, dataset.valid_y])
    assert np.bincount(everything).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
