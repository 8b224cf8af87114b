"""A server that is not who it should be, or not well: what it answers is believed only where its signature fits."""

import socket
import time
from dataclasses import replace

import pytest

from exchange.carriers.http import MAX_RETRY_AFTER, LinkClient
from exchange.errors import BadSignature, ClockSkew, LinkError, LinkPaused, LinkUnavailable, Malformed, Oversize
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.keys import LinkKeys
from exchange.wire.messages import Receipt
from models.streams import StreamName
from tests.link.conftest import Crossing
from tests.link.false_server import Answer, Asked, answering, http_answer
from tests.link.strangers import other_keys

RESULTS = StreamName.RESULTS


async def answered_by(crossing: Crossing, answer: Answer) -> LinkError:
    """What the client makes of these answers to a pushed batch; nothing may be marked delivered by them."""
    await crossing.enqueue(RESULTS, b"{}")
    async with answering(answer) as url:
        client = LinkClient(url, crossing.signer(), 2)
        with pytest.raises(LinkError) as refused:
            await replace(crossing.delivery, link=client).drain(RESULTS, lambda _: None)
        await client.aclose()
    sender = await crossing.sender()
    assert (sender.delivered, sender.stopped) == (0, None)
    return refused.value


def receipt(crossing: Crossing, keys: LinkKeys | None = None, received: int = 1, head: str = "0" * 64) -> bytes:
    signing = keys or crossing.networks.request.keys
    note = Receipt(
        link="test", stream=RESULTS, epoch=1, received=received, applied=0, head=head, quarantined=0,
        key_id=signing.key_id,
    )  # fmt: skip
    return note.to_wire(signing)


def signed(crossing: Crossing, question: Asked, status: int, body: bytes, keys: LinkKeys | None = None) -> bytes:
    signer = HttpSigner(keys or crossing.networks.request.keys, "test")
    return http_answer(status, body, **{HEADER: signer.sign_response(question.signature, status, body)})


@pytest.mark.parametrize("status", [200, 204, 404, 409, 422, 423])
async def test_an_unsigned_answer_is_not_believed(crossing: Crossing, status: int) -> None:
    body = receipt(crossing) if status == 200 else b'{"expected": 1, "detail": "go back"}'
    error = await answered_by(crossing, lambda _: http_answer(status, b"" if status == 204 else body))
    assert isinstance(error, BadSignature)


async def test_a_proxy_on_the_way_may_refuse_a_size_without_a_signature(crossing: Crossing) -> None:
    error = await answered_by(crossing, lambda _: http_answer(413, b"<h1>too large</h1>"))
    assert isinstance(error, Oversize)


@pytest.mark.parametrize("status", [200, 409, 422])
async def test_an_answer_signed_by_a_stranger_is_not_believed(crossing: Crossing, status: int) -> None:
    stranger = other_keys(crossing.networks.request.keys, crossing.networks.request.keys.key_id)
    body = receipt(crossing) if status == 200 else b'{"expected": 1}'
    error = await answered_by(crossing, lambda question: signed(crossing, question, status, body, stranger))
    assert isinstance(error, BadSignature)


async def test_an_answer_to_another_question_is_not_believed(crossing: Crossing) -> None:
    """A true answer of the true server, kept and given to the next call."""
    kept: list[bytes] = []

    def answer(question: Asked) -> bytes:
        kept.append(signed(crossing, question, 200, receipt(crossing)))
        return kept[0]

    async with answering(answer) as url:
        client = LinkClient(url, crossing.signer())
        assert (await client.state(RESULTS)).received == 1
        with pytest.raises(BadSignature):
            await client.state(RESULTS)
        await client.aclose()


async def test_an_old_answer_is_not_believed(crossing: Crossing) -> None:
    class Old(HttpSigner):
        def sign_response(self, request_header: str, status: int, body: bytes) -> str:
            moment = str(int(time.time()) - 400)
            text = self._response_text(request_header, status, body, moment, "0" * 32)
            return self._header("response", text, moment, "0" * 32)

    old, body = Old(crossing.networks.request.keys, "test"), receipt(crossing)
    error = await answered_by(
        crossing, lambda asked: http_answer(200, body, **{HEADER: old.sign_response(asked.signature, 200, body)})
    )
    assert isinstance(error, ClockSkew)


async def test_a_receipt_that_the_answer_carries_is_checked_by_itself(crossing: Crossing) -> None:
    own = crossing.networks.response.keys
    error = await answered_by(crossing, lambda question: signed(crossing, question, 200, receipt(crossing, own)))
    assert error.kind == "unknown-key"
    error = await answered_by(crossing, lambda question: signed(crossing, question, 200, b"{}\nAAAA"))
    assert isinstance(error, Malformed)
    error = await answered_by(crossing, lambda question: signed(crossing, question, 204, b""))
    assert isinstance(error, Malformed)


async def test_a_receiver_that_asks_for_ever_for_earlier_batches_is_given_up_for_now(crossing: Crossing) -> None:
    problem = b'{"expected": 1, "detail": "once more"}'
    error = await answered_by(crossing, lambda question: signed(crossing, question, 409, problem))
    assert isinstance(error, LinkUnavailable)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirection_is_not_followed(crossing: Crossing, status: int) -> None:
    followed: list[Asked] = []

    def remember(question: Asked) -> bytes:
        followed.append(question)
        return b""

    async with answering(remember) as elsewhere:
        await answered_by(crossing, lambda _: http_answer(status, Location=elsewhere))
    assert followed == []


async def test_an_answer_without_end_is_cut_off_and_a_compressed_one_is_not_inflated(crossing: Crossing) -> None:
    error = await answered_by(crossing, lambda _: http_answer(200, b"x" * 20_000_000))
    assert isinstance(error, Oversize)
    error = await answered_by(crossing, lambda _: http_answer(200, b"\x1f\x8b" + b"0" * 100, Content_Encoding="gzip"))
    assert isinstance(error, BadSignature)


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (503, "7", 7.0),
        (429, "0", 0.0),
        (503, None, None),
        (503, "Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER),
        (429, "9" * 400, MAX_RETRY_AFTER),
        (503, "-5", None),
        (503, "soon", None),
        (503, "\xb2", None),
        (503, "Fri, 31 Dec 9999 23:59:59", None),
    ],
)
async def test_who_asks_to_wait_is_heard_within_reason(
    crossing: Crossing, status: int, header: str | None, seconds: float | None
) -> None:
    headers = {"Retry_After": header} if header is not None else {}
    error = await answered_by(crossing, lambda _: http_answer(status, b'{"detail": "busy"}', **headers))
    assert isinstance(error, LinkUnavailable)
    assert error.retry_after == seconds
    assert "busy" in str(error)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"detail": ' + b"9" * 10_000 + b"}", b"\xff", b"5", b'{"detail": null}']
)
@pytest.mark.parametrize("status", [401, 503, 500])
async def test_a_refusal_with_nonsense_for_a_reason_is_still_a_refusal(
    crossing: Crossing, status: int, body: bytes
) -> None:
    error = await answered_by(crossing, lambda _: http_answer(status, body))
    assert isinstance(error, LinkPaused if status == 401 else LinkUnavailable)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx",
        b"HTTP/1.1 999 \xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_link_that_does_not_answer(crossing: Crossing, answer: bytes) -> None:
    assert isinstance(await answered_by(crossing, lambda _: answer), LinkUnavailable | BadSignature)


async def test_a_call_that_gets_no_answer_in_time_says_so(crossing: Crossing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = LinkClient(f"http://127.0.0.1:{silent.getsockname()[1]}", crossing.signer(), 0.2)
        with pytest.raises(LinkUnavailable, match="GET /link/v1/streams/results: ReadTimeout"):
            await client.state(RESULTS)
        await client.aclose()
