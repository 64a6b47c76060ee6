"""The epochs an agent has seen, kept in a file, so that an agent that is started again refuses what it refused before.

One line is added for each epoch, so a command costs one short write; the file is written anew, with one line
a server, when it is read. It outlives a kill of the process; after a loss of power the conductor's
records (`guests_of`) teach the epochs again.
"""

from pathlib import Path


class EpochBook:
    """One host's file of epochs."""

    def __init__(self, path: Path, *, remembered: int = 20_000) -> None:
        """`remembered`: servers that stay in the file; it is written anew when it has twice as many lines."""
        self._path = path
        self._remembered = remembered
        self._lines = 0

    def read(self) -> dict[str, int]:
        """Server id to the highest epoch seen, oldest first. A line that was cut off by a crash is left out."""
        text = self._path.read_text(errors="replace") if self._path.exists() else ""
        seen: dict[str, int] = {}
        for line in text.splitlines(keepends=True):
            server_id, _, epoch = line.rstrip("\n").partition(" ")
            if line.endswith("\n") and server_id and epoch.isdecimal():
                seen[server_id] = max(int(epoch), seen.pop(server_id, 0))
        seen = dict(list(seen.items())[-self._remembered :])
        if text:
            draft = self._path.with_name(self._path.name + ".new")
            draft.write_text("".join(f"{server_id} {epoch}\n" for server_id, epoch in seen.items()))
            draft.replace(self._path)
        self._lines = len(seen)
        return seen

    def record(self, server_id: str, epoch: int) -> None:
        """Remember `epoch` for a server; it is in the file when this returns."""
        if self._lines >= 2 * self._remembered:
            self.read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(f"{server_id} {epoch}\n")
        self._lines += 1
