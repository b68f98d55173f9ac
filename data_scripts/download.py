"""Files from public addresses, or from a local folder, put into place whole or not at all.

Every file goes through the same steps: bytes arrive under another name, their content is checked,
and only then does a rename, which the file system does in one step, give the file its name. A run
that is killed leaves at worst a hidden folder beside it, ``.<name>.download``. The next run
continues from there with an HTTP Range request, which pooch by itself does not do.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

Check = Callable[[Path], None]  # raises ValueError where the content is not what it should be


BLOCK = 1 << 14  # bytes read at a time; at most so many are lost when the line breaks


class DownloadError(RuntimeError):
    """No address gave the file; says what each of them answered."""


class ResumingDownloader:
    """A downloader for ``pooch.retrieve`` that continues where the last attempt broke off.

    Args:
        part: where the bytes are collected. It stays there when a download breaks off.
        attempts: how often to connect before giving up.
        pause: seconds to wait after a failed attempt; doubled each time.
        timeout: seconds without an answer after which an attempt has failed.
        progress: whether to show a progress bar.
    """

    def __init__(
        self,
        part: Path,
        *,
        attempts: int = 5,
        pause: float = 1.0,
        timeout: float = 30.0,
        progress: bool = True,
    ):
        self.part = part
        # The server's name for this version of the file. Without it a file that has changed
        # on the server since would be glued to the beginning of the old one.
        self.tag = part.with_name(part.name + ".tag")
        self.attempts = attempts
        self.pause = pause
        self.timeout = timeout
        self.progress = progress

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        """Download ``url``, then rename it to ``output_file`` (the signature is pooch's).

        Raises:
            requests.RequestException: when the last attempt has failed, or at once where the
                server says that there is no such file.
        """
        for attempt in range(self.attempts):
            try:
                self._continue(url)
                break
            except requests.RequestException as error:
                answer = error.response
                refused = answer is not None and answer.status_code in (401, 403, 404, 410)
                if refused or attempt == self.attempts - 1:
                    raise
                time.sleep(self.pause * 2**attempt)
        os.replace(self.part, output_file)
        self.tag.unlink(missing_ok=True)

    def _continue(self, url: str) -> None:
        """One attempt: append what is missing to the part file."""
        have = self.part.stat().st_size if self.part.exists() else 0
        tag = self.tag.read_text(encoding="utf-8") if self.tag.exists() else ""
        # Compressed on the way, the bytes could neither be counted nor continued.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if tag:
                headers["If-Range"] = tag
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            if answer.status_code == 416:  # there is nothing after `have`
                if answer.headers.get("Content-Range") == f"bytes */{have}":
                    return  # because that is all: only the last rename was missing
                self._forget()
                raise requests.ConnectionError(f"{url}: the server has fewer than {have:,} bytes")
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # the whole file comes: changed meanwhile, or no ranges served
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                self._forget()
                raise requests.ConnectionError(f"{url}: another range came than was asked for")
            self._remember(answer)
            self._append(url, answer, have)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _remember(self, answer: requests.Response) -> None:
        tag = answer.headers.get("ETag", "")
        if not tag or tag.startswith("W/"):  # If-Range takes no weak tag
            tag = answer.headers.get("Last-Modified", "")
        self.tag.write_text(tag, encoding="utf-8")

    def _append(self, url: str, answer: requests.Response, have: int) -> None:
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            desc=self.part.name.removesuffix(".part"),
            total=total,
            initial=have,
            unit="B",
            unit_scale=True,
            disable=not self.progress,
        )
        with bar, self.part.open("r+b" if have else "wb") as file:
            file.seek(have)
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
            seen = file.tell()
        if total is not None and seen != total:
            raise requests.ConnectionError(f"{url}: broke off at {seen:,} of {total:,} bytes")


def download(
    urls: Sequence[str],
    target: Path,
    check: Check,
    *,
    known_hash: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Fetch ``target`` from the first of ``urls`` that gives the right content.

    Args:
        urls: addresses of the same file, in the order in which to try them.
        target: the final path. What is there already and passes ``check`` stays.
        check: looks at the content, decompressed where it is compressed.
        known_hash: a checksum of the file as it is transferred, in pooch's form
            (``"md5:..."``), where the source publishes one.
        options: of ``ResumingDownloader``.

    Raises:
        DownloadError: where no address gave it, with the reason for each.
    """
    if _passes(target, check):
        return target
    # A folder of its own, so that what a killed run leaves (pooch's temporary file among it)
    # lies in one place and goes with it.
    folder = target.with_name(f".{target.name}.download")
    folder.mkdir(parents=True, exist_ok=True)
    arrived = folder / "unchecked"
    part = folder / f"{target.name}.part"
    downloader = ResumingDownloader(part, progress=progress, **options)
    pooch.get_logger().setLevel("WARNING")  # it would advise to pin a hash; `check` knows better
    failures: list[str] = []
    for url in urls:
        try:
            # Already there? From a run that was killed before its last rename.
            if not _passes(arrived, check):
                arrived.unlink(missing_ok=True)
                pooch.retrieve(
                    url, known_hash, fname=arrived.name, path=folder, downloader=downloader
                )
                check(arrived)
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{url}: {error}")
            arrived.unlink(missing_ok=True)
            continue
        os.replace(arrived, target)
        shutil.rmtree(folder, ignore_errors=True)
        return target
    if not part.exists():  # nothing to continue from
        shutil.rmtree(folder, ignore_errors=True)
    raise DownloadError(
        f"could not get {target.name}. What each address answered:\n  "
        + "\n  ".join(failures)
        + "\nWith a local copy, use --from DIR."
    )


def copy(source: Path, target: Path, check: Check) -> Path:
    """Copy a local file to ``target``, checking it and what arrives; whole or not at all.

    Raises:
        ValueError: from ``check``, of ``source``; then ``target`` is as it was before.
    """
    if _passes(target, check):
        return target
    check(source)  # so that an error names the user's own file
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        # Content only: the original may be read-only, the copy should not be.
        shutil.copyfile(source, part)
        check(part)
        os.replace(part, target)
    except (ValueError, OSError):
        part.unlink(missing_ok=True)
        raise
    return target


def _passes(path: Path, check: Check) -> bool:
    if not path.is_file():
        return False
    try:
        check(path)
    except ValueError:
        return False
    return True
