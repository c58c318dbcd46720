"""Objects by their keys, wherever a URL says: create-only, never from a cache, tried until a deadline."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from stopctl.core.errors import DamagedError, SettingError
from stopctl.core.words import on_one_line
from stopctl.mirror.folder import Folder, checked
from stopctl.mirror.remote import Remote

log = logging.getLogger("stopctl")

PACKAGES = {"s3": 's3fs: pip install "stopctl[s3]"', "gs": "gcsfs: pip install gcsfs"} | {
    "az": "adlfs: pip install adlfs",
    "memory": 'fsspec: pip install "stopctl[s3]"',
}
"""The schemes that go through fsspec, and what each needs."""

DEADLINE = 60.0
"""Seconds for which an operation is tried again."""

FIRST, LONGEST = 0.1, 8.0
"""Seconds between two tries; each pause is twice the one before."""

PART = 16 << 20
"""Bytes of a part of a file, of which two travel at once."""

PARTS = 10_000
"""Parts that an object may have."""

PLAIN = {"endpoint_url", "region_name", "profile", "account_name", "project"}
"""Options whose values an error may show."""

GONE = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
"""What S3 says of credentials that were good."""

TAKEN = {"PreconditionFailed", "412"}
"""What S3 says of a key that is taken."""

TRANSIENT = {
    "IncompleteBody",
    "BadDigest",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",
}
"""What it says of a request that came badly, and may come well."""

FINAL = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG, errno.EMSGSIZE}
"""What trying again does not mend."""

CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
}
CONNECTION = {"HTTPClientError", "IncompleteReadError", "ClientPayloadError", "ClientConnectionError"}
"""Classes of botocore and aiohttp that are no OSErrors, by name: neither is imported here."""

Answer = TypeVar("Answer")
MEMORY = threading.RLock()
"""fsspec's objects in memory are single buffers, with one place to read at."""


def remote(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    deadline: float = DEADLINE,
    shared: bool = False,
) -> Remote:
    """The store that a URL names; nothing is reached for before the first operation.

    Args:
        url: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``, ``file:///absolute/path``
            for a second disk, or ``memory://name`` for tests.
        options: what fsspec's file system of that scheme takes (for S3 ``key``, ``secret``, ``profile``,
            ``client_kwargs={"endpoint_url": ...}``). They are never written anywhere.
        deadline: seconds for which an operation is tried again.
        shared: use one file system for all stores with the same options, as fsspec does; it is not closed.

    Raises:
        SettingError: no such URL, one with a secret in it, or a package that it needs is not installed.
    """
    scheme, place = _split(url)
    given = dict(options or {})
    if not all(isinstance(name, str) for name in given):
        raise SettingError("mirror_options: write a dict of names, as fsspec takes them")
    if scheme == "file":
        if given:
            raise SettingError(f"mirror_options={{{', '.join(given)}}}: file:// takes none")
        return Folder(url, Path(os.path.realpath(place)))
    objects = Objects(url, scheme, place, given, deadline, shared=shared)
    objects.check_packages()
    return objects


def probe(store: Remote) -> None:
    """Make sure that a store keeps what two writers rely on; what is left of broken uploads goes.

    An object is created, listed and created again, which must be refused.

    Raises:
        SettingError: the store takes the second one, or does not list the first.
        OSError: the store cannot be reached or written.
    """
    key = f"probe/{secrets.token_hex(8)}"
    store.create(key, b"1")
    try:
        if key not in store.list("probe/"):
            raise SettingError(
                f"mirror={store.url!r}: an object that was just written is not listed, so that two writers "
                "could not see each other: use a store with consistent listings, as S3, GCS and Azure have"
            )
        store.create(key, b"2")
    except FileExistsError:
        pass
    else:
        raise SettingError(
            f"mirror={store.url!r}: the store takes a second object of the same key (it passes over "
            "If-None-Match), so that two writers could not be kept apart: use one that refuses it"
        )
    finally:
        store.delete([key])
    if isinstance(store, Objects | Folder):
        store.sweep()


class Counted:
    """The same store, which tells `tick` the bytes of each file that has come or gone."""

    def __init__(self, store: Remote) -> None:
        self.url = store.url
        self.tick: Callable[[int], object] = lambda size: None
        self.create, self.read, self.list = store.create, store.read, store.list
        self.delete, self.close = store.delete, store.close
        self._store = store

    def upload(self, key: str, path: Path) -> None:
        """Send a local file."""
        self._store.upload(key, path)
        self.tick(path.stat().st_size)

    def download(self, key: str, path: Path, limit: int) -> None:
        """Receive an object into a local file."""
        self._store.download(key, path, limit)
        self.tick(path.stat().st_size)


class Objects:
    """A `Remote` over fsspec. Each process makes its own file system, when it first needs one."""

    def __init__(
        self, url: str, scheme: str, root: str, options: dict[str, Any], deadline: float, *, shared: bool
    ) -> None:
        self.url = url
        self._scheme = scheme
        self._root = root
        self._options = options
        self._deadline = deadline
        self._shared = shared
        self._made: dict[int, Any] = {}
        self._making = threading.Lock()
        self._closed = threading.Event()
        self._clock = time.monotonic

    def __repr__(self) -> str:
        return f"<objects at {self.url}>"

    def check_packages(self) -> None:
        """SettingError unless what the scheme needs is installed."""
        try:
            import fsspec

            fsspec.get_filesystem_class(self._scheme)
        except ImportError as error:
            needs = PACKAGES[self._scheme] if error.name != "fsspec" else PACKAGES["memory"]
            raise SettingError(f"mirror={self.url!r} needs {needs} ({error})") from error

    def create(self, key: str, data: bytes) -> None:
        """Write an object; FileExistsError where there is one of that key."""
        path = self._path(key)
        self._try(key, lambda fs: fs.pipe_file(path, data, mode="create"))

    def upload(self, key: str, path: Path) -> None:
        """Send a local file, in parts where it is large; FileExistsError where there is such an object."""
        place, size = self._path(key), path.stat().st_size
        how: dict[str, Any] = {}
        if self._scheme == "s3":
            how = {"chunksize": max(PART, -(-size // PARTS)), "max_concurrency": 2}

        def send(fs: Any) -> None:
            if self._scheme == "memory":
                fs.pipe_file(place, path.read_bytes(), mode="create")
            else:
                fs.put_file(str(path), place, mode="create", **how)

        self._try(key, send)

    def read(self, key: str, limit: int) -> bytes:
        """An object's bytes; DamagedError where they are more than `limit`, FileNotFoundError without one."""
        path = self._path(key)

        def some(fs: Any) -> bytes:
            try:
                found: bytes = fs.cat_file(path, start=0, end=limit + 1)
                return found
            except OSError as error:
                if _code(error) != "InvalidRange":
                    raise
                return b""  # so S3 says that there is no first byte

        data = self._try(key, some)
        if len(data) > limit:
            raise DamagedError(f"{self.url}/{key}: more than {limit} bytes")
        return data

    def download(self, key: str, path: Path, limit: int) -> None:
        """Write an object to a local file; DamagedError and FileNotFoundError as of `read`."""
        there = self._path(key)
        s3 = self._scheme == "s3"
        fresh: dict[str, Any] = {"refresh": True} if s3 else {}
        how: dict[str, Any] = {"chunksize": PART, "max_concurrency": 2} if s3 else {}
        if (size := self._try(key, lambda fs: fs.info(there, **fresh))["size"]) > limit:
            raise DamagedError(f"{self.url}/{key}: {size} bytes, more than {limit}")
        self._try(key, lambda fs: fs.get_file(there, str(path), **how))

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`, sorted, as the store has them now."""

        def names(fs: Any) -> list[str]:
            return [str(name) for name in fs.find(self._root, prefix=prefix)]

        start = f"{self._root}/".lstrip("/")
        found = (name.lstrip("/").removeprefix(start) for name in self._try(prefix, names))
        return sorted(key for key in found if key.startswith(prefix) and not key.endswith("/"))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over."""
        for key in keys:
            path = self._path(key)
            with contextlib.suppress(FileNotFoundError):
                self._try(key, lambda fs: fs.rm_file(path))  # noqa: B023

    def sweep(self) -> None:
        """Abort multipart uploads that were broken off: they are not seen, and cost."""
        if self._scheme != "s3":
            return
        bucket, _, start = self._root.partition("/")
        prefix = f"{start}/" if start else ""

        def abort(fs: Any) -> None:
            more: dict[str, str] = {}
            while True:
                page = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **more)
                for one in page.get("Uploads", []):
                    names = {"Key": one["Key"], "UploadId": one["UploadId"]}
                    fs.call_s3("abort_multipart_upload", Bucket=bucket, **names)
                if not page.get("IsTruncated"):
                    return
                more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

        try:
            self._try("", abort)
        except FileNotFoundError:
            pass  # another one has aborted it
        except OSError as error:
            log.warning(
                "%s: what uploads that were broken off have left cannot be looked for (%s): give the bucket "
                "a lifecycle rule that aborts incomplete multipart uploads, they cost",
                self.url,
                error.strerror,
            )

    def close(self) -> None:
        """Close the connections; what is tried again just now is not tried any more."""
        self._closed.set()
        self._drop()

    def _path(self, key: str) -> str:
        return f"{self._root}/{'/'.join(checked(key))}"

    def _try(self, key: str, work: Callable[[Any], Answer]) -> Answer:
        """What `work` answers, tried again until the deadline where trying again may help."""
        end, pause, denied = self._clock() + self._deadline, FIRST, False
        while True:
            try:
                with MEMORY if self._scheme == "memory" else contextlib.nullcontext():
                    return work(self._fs())
            except Exception as error:
                failed = _sorted_out(error)
                again = _may_be_mended(failed)
                if isinstance(failed, PermissionError):  # credentials that expired are read anew
                    again = _code(failed) in GONE or not denied
                    self._drop()
                    denied, self._shared = True, False
                if not again or self._clock() + pause > end or self._closed.wait(pause):
                    raise self._told(key, failed) from self._cause(error)
                log.info("%s: %s; trying again", self.url, self._masked(on_one_line(str(failed))))
                pause = min(2 * pause, LONGEST)

    def _fs(self) -> Any:
        """This process' file system. A forked child keeps its parent's: to close that would break it."""
        with self._making:
            if os.getpid() not in self._made:
                self._made[os.getpid()] = self._make()
            return self._made[os.getpid()]

    def _make(self) -> Any:
        import fsspec

        options = {"use_listings_cache": False} | self._options | {"skip_instance_cache": not self._shared}
        if self._scheme == "s3":  # its own tries would add up with ours
            config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": 60}
            options["config_kwargs"] = config | dict(options.get("config_kwargs") or {})
        fs = fsspec.filesystem(self._scheme, **options)
        if self._scheme == "s3":
            fs.retries = 1
        return fs

    def _drop(self) -> None:
        with self._making:
            made = self._made.pop(os.getpid(), None)
        if not self._shared and (creator := getattr(made, "_s3creator", None)) is not None:
            made.close_session(made.loop, creator)

    def _told(self, key: str, error: Exception) -> Exception:
        """The same error, with the object's name before what is wrong, and without secrets."""
        text = self._masked(
            on_one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        )
        where = f"{self.url}/{key}" if key else self.url
        if isinstance(error, FileExistsError):
            return FileExistsError(errno.EEXIST, "there is such an object", where)
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, f"there is no such object or bucket ({text})", where)
        if isinstance(error, PermissionError):
            return PermissionError(errno.EACCES, f"the store refuses: {text}", where)
        if isinstance(error, TypeError | ValueError):
            return SettingError(f"{where}: {type(error).__name__}: {text}: see mirror_options")
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        return OSError(code, text, where)

    def _masked(self, text: str) -> str:
        for secret in self._secrets(self._options):
            text = text.replace(secret, "(masked)")
        return text

    def _secrets(self, options: Any, name: str = "") -> Iterator[str]:
        if isinstance(options, Mapping):
            for key, value in options.items():
                yield from self._secrets(value, str(key))
        elif isinstance(options, list | tuple):
            for value in options:
                yield from self._secrets(value, name)
        elif isinstance(options, str) and len(options) > 3 and (name not in PLAIN or "@" in options):
            yield options

    def _cause(self, error: BaseException) -> BaseException | None:
        """An error to be shown as the cause of another: none if it has a secret in its text."""
        one: BaseException | None = error
        while one is not None:
            if self._masked(str(one)) != str(one):
                return None
            one = one.__cause__ or one.__context__
        return error


def _code(error: BaseException | None) -> str:
    """S3's word for what is wrong."""
    response = getattr(error, "response", None) or getattr(
        getattr(error, "__cause__", None), "response", None
    )
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(code)


def _sorted_out(error: Exception) -> Exception:
    """What a library has raised, as the OSError that it is."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if _code(error) in TAKEN:
        return FileExistsError(errno.EEXIST, str(error))
    if names & CREDENTIALS:
        return PermissionError(errno.EACCES, str(error))
    if names & CONNECTION:
        return ConnectionError(errno.ECONNABORTED, str(error) or type(error).__name__)
    if _code(error) in GONE and not isinstance(error, PermissionError):
        denied = PermissionError(errno.EACCES, str(error))
        denied.__cause__ = error
        return denied
    return error


def _may_be_mended(error: Exception) -> bool:
    if isinstance(error, FileExistsError | FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return False
    return isinstance(error, OSError) and (error.errno not in FINAL or _code(error) in TRANSIENT)


def _split(url: object) -> tuple[str, str]:
    """(scheme, where) of a URL; nothing of one that may hold a secret is shown."""
    if not isinstance(url, str):
        raise SettingError(
            f"mirror={url!r}: write a URL, such as s3://bucket/prefix or file:///mnt/disk/runs"
        )
    scheme, sep, rest = url.partition("://")
    if not sep or scheme not in {*PACKAGES, "file"}:
        shown = scheme[:20] if sep else url if "@" not in url else "..."
        raise SettingError(
            f"mirror={shown!r}: no such scheme; write s3://bucket/prefix, gs://..., az://... or file:///mnt/disk/runs"
        )
    if "?" in rest or "#" in rest or "@" in rest.partition("/")[0]:
        raise SettingError(
            f"mirror={scheme + '://...'!r}: keys, tokens and queries in a URL would be written down with it: "
            "write them in mirror_options={...}, or leave them to the environment"
        )
    place = rest.rstrip("/")
    if scheme == "file":
        if not place.startswith("/") or any(part in ("", ".", "..") for part in place[1:].split("/")):
            raise SettingError(
                f"mirror={url!r}: write an absolute path after three slashes: file:///mnt/disk/runs"
            )
        return scheme, place
    if any(part in ("", ".", "..") for part in place.split("/")):
        raise SettingError(f"mirror={url!r}: write {scheme}://bucket/prefix, without empty parts or dots")
    return scheme, f"/{place}" if scheme == "memory" else place
