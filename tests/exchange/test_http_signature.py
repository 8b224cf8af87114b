"""Signatures over the link's messages: they fit one message, one direction, one time, and nothing else."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import BadSignature, ClockSkew, LinkError, UnknownKey
from exchange.wire.http_signature import HttpSigner
from tests.exchange.pairs import key_pair

ONE, OTHER = (HttpSigner(keys, "test") for keys in key_pair(2))
METHOD, TARGET, BODY = "POST", "/link/v1/streams/results/batches?a=1", b"body"
HEADER = ""
"""Signed by `_fresh` for each test: a run of the whole suite takes longer than a signature is good for."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global HEADER
    HEADER = ONE.sign_request(METHOD, TARGET, BODY)


@given(st.sampled_from(["GET", "POST"]), st.text(), st.binary())
@settings(deadline=None)
def test_what_was_signed_is_verified(method: str, target: str, body: bytes) -> None:
    target = target.encode("utf-8", "replace").decode()
    header = ONE.sign_request(method, target, body)
    OTHER.verify_request(header, method, target, body)
    answer = OTHER.sign_response(header, 200, body)
    ONE.verify_response(answer, header, 200, body)


def test_every_part_of_a_request_is_covered() -> None:
    OTHER.verify_request(HEADER, METHOD, TARGET, BODY)
    for other in [
        ("PUT", TARGET, BODY),
        (METHOD, TARGET + "0", BODY),
        (METHOD, TARGET, BODY + b"0"),
        (METHOD, "", b""),
    ]:
        with pytest.raises(BadSignature):
            OTHER.verify_request(HEADER, *other)
    with pytest.raises(BadSignature):
        HttpSigner(OTHER.keys, "other").verify_request(HEADER, METHOD, TARGET, BODY)


def test_a_request_is_no_answer_and_an_answer_no_request() -> None:
    answer = OTHER.sign_response(HEADER, 200, BODY)
    with pytest.raises(LinkError):
        OTHER.verify_response(HEADER, HEADER, 200, BODY)
    with pytest.raises(LinkError):
        ONE.verify_request(answer, METHOD, TARGET, BODY)


def test_a_signer_does_not_believe_its_own_signature() -> None:
    with pytest.raises(UnknownKey):
        ONE.verify_request(HEADER, METHOD, TARGET, BODY)


def test_no_two_signatures_are_the_same() -> None:
    assert len({ONE.sign_request(METHOD, TARGET, BODY) for _ in range(50)}) == 50


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_header_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(HEADER)))
    end = data.draw(st.integers(start, min(len(HEADER), start + 20)))
    changed = HEADER[:start] + data.draw(st.text(max_size=20)) + HEADER[end:]
    if changed == HEADER:
        return
    with pytest.raises(LinkError):
        OTHER.verify_request(changed, METHOD, TARGET, BODY)


@given(st.text())
def test_any_text_is_refused(header: str) -> None:
    with pytest.raises(BadSignature):
        OTHER.verify_request(header, METHOD, TARGET, BODY)


@pytest.mark.parametrize("seconds", [-301, 301, -(10**9), 10**10])
def test_a_time_too_far_off_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    now = time.time()
    header = ONE.sign_request(METHOD, TARGET, BODY)
    monkeypatch.setattr(time, "time", lambda: now - seconds)
    with pytest.raises(ClockSkew) as refused:
        OTHER.verify_request(header, METHOD, TARGET, BODY)
    assert refused.value.extra["server_time"] == int(now - seconds)


@pytest.mark.parametrize("seconds", [-298, 298])
def test_a_time_a_little_off_is_accepted(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    now = time.time()
    header = ONE.sign_request(METHOD, TARGET, BODY)
    monkeypatch.setattr(time, "time", lambda: now - seconds)
    OTHER.verify_request(header, METHOD, TARGET, BODY)


def test_the_clock_is_told_to_nobody_who_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is checked before the time, which is why it may be told."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1000)
    with pytest.raises(BadSignature):
        OTHER.verify_request(HEADER, METHOD, TARGET, BODY + b"0")
