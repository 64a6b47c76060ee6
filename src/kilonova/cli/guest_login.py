"""Logging in to a guest with the system's ssh client and a key of our own."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Login:
    """How to reach a guest: a key and the hosts known so far, in one private directory."""

    directory: Path
    user: str = "kilonova"

    @property
    def key_file(self) -> Path:
        """The private key."""
        return self.directory / "id_ed25519"

    def public_key(self) -> str:
        """The public half, as a line of ``authorized_keys``. The pair is made when first asked for."""
        public_file = self.key_file.with_suffix(".pub")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        if not (self.key_file.exists() and public_file.exists()):
            secret, public = _new_pair()
            with os.fdopen(os.open(self.key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secret)
            public_file.write_bytes(public + b" kilonova-first-run\n")
        return public_file.read_text().strip()

    def command(self, address: str) -> list[str]:
        """What a person would type to log in."""
        # The first contact with a machine that we have just made: there is nothing to compare its host key with.
        options = (
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            f"UserKnownHostsFile={self.directory / 'known_hosts'}",
        )
        return ["ssh", "-i", str(self.key_file), *(f"-o{option}" for option in options), f"{self.user}@{address}"]

    async def run(self, address: str, command: str, *, within_s: float = 25) -> tuple[int, str]:
        """Run `command` in the guest: its exit status (255: no connection) and all that it said."""
        [ssh, *words] = self.command(address)
        process = await asyncio.create_subprocess_exec(
            *(ssh, "-F/dev/null", "-oBatchMode=yes", "-oConnectTimeout=3", "-oLogLevel=ERROR", *words, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), within_s)
        except TimeoutError:
            process.kill()
            await process.wait()
            return 255, f"no end after {within_s:.0f} s"
        return process.returncode or 0, output.decode(errors="replace")


def _new_pair() -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return secret, key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
