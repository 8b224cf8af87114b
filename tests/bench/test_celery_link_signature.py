"""What crosses the Celery build's link is what was sent, or it is refused."""

import pytest

from bench.celery.link_signature import fits, sign

SIGNATURE = sign("key", "POST", "/link/results", b'{"results":[]}')


def test_what_was_signed_fits() -> None:
    assert fits("key", "POST", "/link/results", b'{"results":[]}', SIGNATURE)


@pytest.mark.parametrize(
    ("key", "method", "target", "body"),
    [
        ("other", "POST", "/link/results", b'{"results":[]}'),
        ("key", "GET", "/link/results", b'{"results":[]}'),
        ("key", "POST", "/link/settings", b'{"results":[]}'),
        ("key", "POST", "/link/results", b'{"results":[0]}'),
    ],
)
def test_anything_else_does_not(key: str, method: str, target: str, body: bytes) -> None:
    assert not fits(key, method, target, body, SIGNATURE)


def test_a_signature_that_is_no_ascii_is_refused_and_breaks_nothing() -> None:
    assert not fits("key", "POST", "/link/results", b"", "ü")
