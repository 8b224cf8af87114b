"""Keys are known by their SHA-256 alone and looked up, never compared piece by piece: time tells nothing of one."""

import ast
import hashlib
from pathlib import Path
from uuid import UUID

import pytest

from configuration.home import CLONE
from fulfilment.catalog import Caller, Catalog, CurrentCatalog
from models.errors import Unauthenticated
from people.users import find_caller
from storage.database import rows
from tests.security.conftest import Airlock

KEY = "alk_the-key"


class Watched(bytes):
    """A stored hash that notes each time it is compared to another."""

    compared = 0

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        Watched.compared += 1
        return bytes.__eq__(self, other)


class Given(CurrentCatalog):
    """Holds a catalog that needs no database."""

    def __init__(self, catalog: Catalog) -> None:
        self._given = catalog

    async def get(self) -> Catalog:
        return self._given


async def test_a_hash_that_is_not_known_is_compared_with_none_however_much_it_begins_like_one() -> None:
    known = hashlib.sha256(KEY.encode()).digest()
    others = [hashlib.sha256(b"%d" % number).digest() for number in range(1000)]
    callers: dict[bytes, Caller] = {
        Watched(sha256): Caller(UUID(int=1), "somebody", "user") for sha256 in (known, *others)
    }
    catalog = Given(Catalog(1, 1, callers))
    Watched.compared = 0
    for length in range(32):
        with pytest.raises(Unauthenticated):
            await catalog.caller(known[:length] + bytes(32 - length))
    assert Watched.compared == 0, "bytes were compared before the whole hash was equal"
    assert (await catalog.caller(known)).name == "somebody"


def test_no_code_that_sees_a_key_compares_it() -> None:
    """Where keys come in, the only comparisons are with the scheme's name and a length."""
    tree = ast.parse((CLONE / "api" / "bearer.py").read_text())
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert sorted(compared) == ["len(key) > MAX_KEY_CHARACTERS", "scheme.lower() != 'bearer'"]
    for path in (CLONE / "api").rglob("*.py"):
        text = path.read_text()
        assert path.name == "bearer.py" or '"authorization"' not in text.lower().replace('"authorization: ', ""), path


async def test_neither_database_holds_a_key(airlock: Airlock) -> None:
    """Only hashes of keys: who reads a database, or Redis, can call nobody."""
    keys = {airlock.operator.key, next(airlock.users).key}
    for side in (airlock.networks.request, airlock.networks.response):
        async with side.engine.connect() as connection:
            for (table,) in await rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                for column in ("sha256", "records", "label"):
                    found = await rows(
                        connection,
                        "SELECT 1 FROM information_schema.columns WHERE table_name = :t AND column_name = :c",
                        t=table,
                        c=column,
                    )
                    if not found:
                        continue
                    for (content,) in await rows(connection, f"SELECT {column} FROM {table}"):
                        text = bytes(content) if isinstance(content, memoryview | bytes) else str(content).encode()
                        assert not [key for key in keys if key.encode() in text], (table, column)
    async with airlock.networks.response.engine.connect() as connection:
        sha256 = hashlib.sha256(airlock.operator.key.encode()).digest()
        assert await find_caller(connection, sha256) is not None
        assert await find_caller(connection, sha256[:31] + b"\0") is None
        assert await find_caller(connection, airlock.operator.key.encode()) is None


def test_private_keys_are_readable_by_their_owner_alone(key_root: Path) -> None:
    private = list(key_root.rglob("signing.pem"))
    assert len(private) == 2
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert not [path for path in key_root.rglob("*.pem") if "trusted" in path.parts and b"PRIVATE" in path.read_bytes()]
