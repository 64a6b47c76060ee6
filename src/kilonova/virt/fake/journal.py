"""The fake driver's memory across a kill of its process: a file to which every change is appended.

A line is one guest as it is from then on, or that it is gone. Nothing is forced to disk: a killed process loses
nothing that it has written, and a machine that loses power loses simulated guests as well as real ones.
A line that was cut off is the last one and does not count.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from kilonova.model.states import PowerState


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A simulated guest. ``NOSTATE``: its spawn has begun and not ended."""

    server_id: str
    name: str
    power_state: PowerState
    vcpus: int
    memory_mib: int
    root_gib: int
    boots: int = 0
    """How often it was switched on or restarted."""
    image_id: str = ""
    build: str = ""
    gone: bool = False


class Journal:
    """One host's file. It is made at the first guest: idle hosts cost nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoder = msgspec.json.Encoder()

    def read(self) -> dict[str, Entry]:
        """The guests there are now."""
        return self._read()[0]

    def load(self) -> dict[str, Entry]:
        """The same, for the process that adds to the file from now on: one that has grown long is shortened."""
        guests, is_untidy = self._read()
        if is_untidy:
            self._write(guests.values())
        return guests

    def _read(self) -> tuple[dict[str, Entry], bool]:
        guests: dict[str, Entry] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return guests, False
        decoder = msgspec.json.Decoder(Entry)
        for line in lines:
            try:
                entry = decoder.decode(line)
            except msgspec.DecodeError:
                continue  # the last one, cut off by a kill; or the emptiness after a whole one
            if entry.gone:
                guests.pop(entry.server_id, None)
            else:
                guests[entry.server_id] = entry
        return guests, bool(lines[-1]) or len(lines) > 100 + 2 * len(guests)

    def add(self, entry: Entry) -> None:
        """`entry` is so from now on."""
        line = self._encoder.encode(entry) + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(line)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(line)

    def _write(self, guests: Iterable[Entry]) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        draft.write_bytes(b"".join(self._encoder.encode(guest) + b"\n" for guest in guests))
        draft.replace(self._path)
