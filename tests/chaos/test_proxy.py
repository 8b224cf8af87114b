"""Real connections through the proxy; the server answers every request with its own bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from chaos.proxy import Corrupt, Double, Hang, Proxy, Refuse, Replay, RequestReader, Slow, Truncate

PATIENCE = 20.0


class Echo:
    """Sends everything back, and remembers what each connection brought."""

    def __init__(self) -> None:
        self.brought: list[bytearray] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        self.brought.append(mine)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                mine += data
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy("127.0.0.1", server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        server.close()


async def connected(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def said(proxy: Proxy, message: bytes) -> bytes:
    """What comes back for a message, up to its length or until the connection ends."""
    reader, writer = await connected(proxy)
    answer = b""
    try:
        writer.write(message)
        async with asyncio.timeout(PATIENCE):
            while len(answer) < len(message) and (data := await reader.read(len(message))):
                answer += data
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


async def test_bytes_pass_unchanged_while_nothing_is_wrong(proxy: Proxy) -> None:
    message = bytes(range(256)) * 1000
    assert await said(proxy, message) == message


async def test_a_cut_ends_what_is_open_and_takes_nothing_new_until_it_is_over(proxy: Proxy) -> None:
    reader, writer = await connected(proxy)
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"
    with proxy.harm(Refuse()):
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        assert await said(proxy, b"during") == b""
    writer.close()
    assert await said(proxy, b"after") == b"after"


async def test_corruption_changes_bytes_in_one_direction_only(proxy: Proxy, echo: Echo) -> None:
    message = b"x" * 1000
    with proxy.harm(harm := Corrupt("to-server", 1.0, seed=1)):
        answer = await said(proxy, message)
    assert harm.done
    assert len(answer) == len(message)
    assert answer != message
    assert bytes(echo.brought[0]) == answer
    with proxy.harm(Corrupt("to-client", 1.0, seed=1)):
        answer = await said(proxy, message)
    assert answer != message
    assert bytes(echo.brought[1]) == message


async def test_truncation_ends_the_connection_in_the_middle(proxy: Proxy, echo: Echo) -> None:
    message = b"x" * 1000
    with proxy.harm(Truncate("to-client", 1.0, seed=2)):
        answer = await said(proxy, message)
    assert 0 < len(answer) < len(message)
    assert bytes(echo.brought[0]) == message


async def test_doubling_sends_a_piece_twice(proxy: Proxy) -> None:
    reader, writer = await connected(proxy)
    with proxy.harm(Double("to-client", 1.0, seed=3)):
        writer.write(b"once")
        async with asyncio.timeout(PATIENCE):
            assert await reader.readexactly(8) == b"onceonce"
    writer.close()


async def test_a_slow_link_delivers_everything_late(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with proxy.harm(Slow(0.1, 10_000)):
        assert await said(proxy, b"x" * 1000) == b"x" * 1000
    assert loop.time() - began >= 0.4, "0.1 s and 1000 bytes at 10,000 a second, there and back"


async def test_harm_is_over_when_it_is_over_and_a_share_harms_only_a_share(proxy: Proxy) -> None:
    with proxy.harm(harm := Corrupt("to-server", 0.5, seed=4)):
        answers = [await said(proxy, b"x" * 50) for _ in range(40)]
    assert 5 < harm.done < 35
    assert sum(answer != b"x" * 50 for answer in answers) == harm.done
    assert await said(proxy, b"x" * 50) == b"x" * 50


async def test_a_replayed_request_is_sent_whole_on_a_connection_of_its_own(proxy: Proxy, echo: Echo) -> None:
    request = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    assert await said(proxy, request) == request
    with proxy.harm(Replay(1.0, seed=5)):
        assert await said(proxy, request) == request
    wanted = [request] * 5  # the second again at once, then both once more at the end
    async with asyncio.timeout(PATIENCE):
        while [bytes(each) for each in echo.brought] != wanted:  # noqa: ASYNC110, nothing tells us
            await asyncio.sleep(0.01)
    assert proxy.replayed == 3


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_requests_are_found_however_their_bytes_come(size: int) -> None:
    get = b"GET /link/v1/streams/requests/batches?after=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    post = b"POST /x HTTP/1.1\r\ncontent-length: 4\r\n\r\n\r\n\r\n"
    stream = get + post + get
    reader = RequestReader()
    found = [request for at in range(0, len(stream), size) for request in reader.read(stream[at : at + size])]
    assert found == [get, post, get]


def test_what_never_becomes_a_request_is_not_kept() -> None:
    reader = RequestReader()
    for _ in range(40):
        assert reader.read(b"x" * 100_000) == []
    assert len(reader._read) <= 1 << 20


async def test_a_link_that_hangs_lets_everything_through_when_it_is_over(proxy: Proxy) -> None:
    with proxy.harm(Hang()):
        waiting = asyncio.create_task(said(proxy, b"held up"))
        assert await said_within(waiting, 0.3) is None
    assert await said_within(waiting, PATIENCE) == b"held up"


async def said_within(waiting: "asyncio.Task[bytes]", seconds: float) -> bytes | None:
    done, _ = await asyncio.wait((waiting,), timeout=seconds)
    return waiting.result() if done else None
