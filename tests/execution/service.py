"""A real HTTP server for the tests: answers as it is told and remembers what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """Answers (status, headers, body) in turn, the last one for ever; a status of 0 never answers."""

    url: str = ""
    answers: Sequence[tuple[int, dict[str, str], bytes]] = ((200, {}, b"[]"),)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.answers = [(status, headers, body)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(Asked(method, path, headers, body))
                status, extra, content = self.answers[min(len(self.asked), len(self.answers)) - 1]
                if not status:
                    await reader.read()
                    break
                lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
                lines += [f"{name.replace('_', '-')}: {value}" for name, value in extra.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    """On a free port of the loopback address."""
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    try:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield service
    finally:
        server.close()
