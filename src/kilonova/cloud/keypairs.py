"""What a user can do with key pairs."""

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from kilonova.cloud.answers import once
from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest
from kilonova.model.keypair import KeyPair
from kilonova.store.queries import keypairs, quotas
from kilonova.store.transactions import Tx

MAX_PUBLIC_KEY = 16384
"""Characters of a public key at most."""

_NAME = re.compile(r"[A-Za-z0-9 _.@-]+")


class KeyPairs:
    """Use cases of key pairs. A private key is made on request, given out once, and never kept."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def get(self, user_id: str, name: str) -> KeyPair:
        """One key pair.

        Raises:
            NotFound
        """
        return await self._store.read(keypairs.get, user_id, name)

    async def page(self, user_id: str, *, limit: int = 1000, marker: str | None = None) -> list[KeyPair]:
        """A page of a user's key pairs, by name."""
        return await self._store.read(keypairs.list_page, user_id, limit=limit, marker=marker)

    async def create(
        self, ctx: RequestContext, user_id: str, name: str, *, public_key: str | None, type: str = "ssh"
    ) -> tuple[KeyPair, str | None]:
        """Import a public key, or make a pair; the private key comes back only now.

        Raises:
            BadRequest: the name or the key is not usable.
            AlreadyExists, QuotaExceeded
        """
        if type != "ssh":
            raise BadRequest(f"Key pairs of type '{type}' are not supported; use 'ssh'.")
        if not _NAME.fullmatch(name) or name.strip() != name:
            raise BadRequest(
                "Keypair data is invalid: Keypair name contains unsafe characters; allowed are letters, digits, "
                "space, and any of '@._-'."
            )
        private_key = None
        if public_key is None:
            public_key, private_key = _generate()
        made = KeyPair(
            user_id=user_id,
            name=name,
            type=type,
            fingerprint=fingerprint(public_key),
            public_key=public_key,
            created_at=self._parts.clock.now(),
        )
        insert = once(ctx, self._parts.clock, _insert, gives=lambda _: (made, private_key))
        await self._store.run(insert, made)
        return made, private_key

    async def delete(self, user_id: str, name: str) -> None:
        """Forget a key pair. Servers that were made with it keep the key.

        Raises:
            NotFound
        """
        await self._store.run(_delete, user_id, name)


def _insert(tx: Tx, keypair: KeyPair) -> None:
    quotas.take(tx, keypair.user_id, {"key_pairs": 1})
    keypairs.insert(tx, keypair)


def _delete(tx: Tx, user_id: str, name: str) -> None:
    keypairs.delete(tx, user_id, name)
    quotas.give_back(tx, user_id, {"key_pairs": 1})


def _generate() -> tuple[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} Generated-by-Kilonova", private.decode()


def fingerprint(public_key: str) -> str:
    """MD5 of the key's bytes in pairs with colons, as the Compute API shows it (it protects nothing).

    Raises:
        BadRequest: not an OpenSSH public key that is safe to use.
    """
    try:
        if len(public_key) > MAX_PUBLIC_KEY or "\n" in public_key.strip():
            raise ValueError("too long, or more than one line")
        key = serialization.load_ssh_public_key(public_key.encode())
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
            raise ValueError("RSA keys need 2048 bits at least")
        blob = base64.b64decode(public_key.split()[1])
    except (ValueError, IndexError, binascii.Error, UnsupportedAlgorithm, UnicodeEncodeError) as error:
        raise BadRequest(f"Keypair data is invalid: failed to generate fingerprint ({error})") from None
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))
