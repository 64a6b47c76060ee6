"""A host's cache of images: each is fetched once, checked, and used by every guest made from it."""

import asyncio
import hashlib
import os
from pathlib import Path

import httpx

from kilonova.base.log import get_logger
from kilonova.model.disk_format import HEADER_BYTES, inspect
from kilonova.model.errors import BadRequest, HypervisorUnavailable, ImageUnusable
from kilonova.model.guest import ImageRef
from kilonova.virt.driver import ImageSource

log = get_logger(__name__)

FINAL = frozenset({401, 403, 404, 410})


class ImageCache(ImageSource):
    """Files named by the image's hash, below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fetching: dict[str, asyncio.Task[str]] = {}
        self._checked: set[str] = set()
        self.bytes_moved = 0
        """Bytes fetched since start."""

    def prepare(self) -> None:
        """Make the directory, and clear away what a crash left half fetched."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o755)
        for part in self._directory.glob("*.part"):
            part.unlink()

    async def path_of(self, image: ImageRef) -> str:
        key = image.hash_value
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._get(image))
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        # One guest's cancellation must not end the download that others wait for.
        return await asyncio.shield(task)

    async def _get(self, image: ImageRef) -> str:
        path = self._directory / f"{image.hash_value[:64]}.{image.disk_format}"
        if path.exists():
            if image.hash_value in self._checked or await asyncio.to_thread(_sha512, path) == image.hash_value:
                self._checked.add(image.hash_value)
                return str(path)
            log.warning("cached image is damaged and is fetched again", image=image.id)
            path.unlink()
        await self._fetch(image, path)
        self._checked.add(image.hash_value)
        log.info("image fetched", image=image.id, size=image.size)
        return str(path)

    async def _fetch(self, image: ImageRef, path: Path) -> None:
        part = path.with_suffix(".part")
        digest, size = hashlib.sha512(), 0
        try:
            with part.open("wb") as file:
                async with (
                    httpx.AsyncClient(timeout=60, trust_env=False) as http,
                    http.stream("GET", image.url, headers={"X-Kilonova-Ticket": image.ticket}) as answer,
                ):
                    if answer.status_code in FINAL:
                        raise ImageUnusable(f"Image {image.id} cannot be fetched: HTTP {answer.status_code}.")
                    if answer.status_code != 200:
                        raise HypervisorUnavailable(f"The image service answered HTTP {answer.status_code}.")
                    async for chunk in answer.aiter_bytes(1024 * 1024):
                        size += len(chunk)
                        if size > image.size:
                            raise ImageUnusable(f"Image {image.id} is larger than its {image.size} bytes.")
                        await asyncio.to_thread(_take, file, digest, chunk)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            self.bytes_moved += size
            if digest.hexdigest() != image.hash_value:
                raise ImageUnusable(f"Image {image.id} has another checksum than it should.")
            with part.open("rb") as file:
                inspect(file.read(HEADER_BYTES), image.disk_format)
            part.chmod(0o644)
            part.rename(path)
        except httpx.HTTPError as error:
            raise HypervisorUnavailable(f"The image service cannot be reached: {error}.") from error
        except BadRequest as error:
            raise ImageUnusable(error.detail) from None
        finally:
            part.unlink(missing_ok=True)

    def prune(self, in_use: set[str]) -> int:
        """Remove cached files whose path is not in `in_use`; how many."""
        gone = 0
        for path in self._directory.iterdir():
            if str(path) not in in_use and path.suffix != ".part":
                path.unlink()
                gone += 1
        return gone


def _take(file: object, digest: "hashlib._Hash", chunk: bytes) -> None:
    file.write(chunk)  # type: ignore[attr-defined]
    digest.update(chunk)


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
