"""The URL of one database of a Redis server."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def redis_database(url: str, number: int) -> str:
    """The same server, another database. Its number is the path of a TCP URL, and in the query of a socket's URL."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return urlunsplit(parts._replace(path=f"/{number}"))
    query = [item for item in parse_qsl(parts.query) if item[0] != "db"]
    # urlunsplit drops the empty host of a scheme that it does not know.
    return f"unix://{parts.netloc}{parts.path}?{urlencode([*query, ('db', number)])}"
