"""A broker's password stands in no log line and no error."""

import pytest

from kilonova.rpc.transports.base import masked


@pytest.mark.parametrize(
    ("url", "said", "told"),
    [
        ("amqp://cloud:pa55word@h:5672/", "login of cloud with pa55word failed", "login of cloud with *** failed"),
        ("amqp://cloud:p%40ss%2Fw@h/", "p@ss/w and p%40ss%2Fw", "*** and ***"),
        ("nats://h:4222", "nothing secret", "nothing secret"),
        ("tls://cloud@h", "cloud at h", "cloud at h"),
    ],
)
def test_password_is_masked_in_whichever_spelling(url: str, said: str, told: str) -> None:
    assert masked(said, url) == told
