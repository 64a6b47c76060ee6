"""Key pairs: public keys that users have put into the cloud."""

from datetime import datetime

import msgspec


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A public key under a name, owned by a user. The cloud never keeps a private key."""

    id: int = 0
    user_id: str
    name: str
    type: str = "ssh"
    fingerprint: str
    public_key: str
    created_at: datetime
