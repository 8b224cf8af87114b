"""Errors of the database, provoked in writers of both networks: no log, history, alert or answer holds data.

Workers, APIs and Temporal are real. A trigger refuses with the states of a full disk, an I/O error, a cancelled
statement and so on, and quotes the whole row, as a constraint does.
"""

import json
import signal

import asyncpg
import pytest
from temporalio.client import Client
from uuid_utils.compat import uuid7

from embedded.ports import free_port
from models.streams import Network
from people.users import put_api_key, put_user
from storage.database import rows
from tests.conftest import Networks, Side
from tests.security import canaries
from tests.security.crossing_bytes import Crossing
from tests.worker.conftest import temporal, world
from tests.worker.processes import Child, World

__all__ = ["temporal", "world"]

STATES = ("53100", "58030", "23505", "22P02", "40001", "55P03", "57014", "P0001", "XX000")
"""Disk full, I/O error, constraint, wrong value, serialization, lock not available, cancelled, own error, internal."""

REFUSE = f"""
CREATE SEQUENCE refusals MINVALUE 0 START 0;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    states text[] := ARRAY[{", ".join(f"'{state}'" for state in STATES)}];
    turn bigint := nextval('refusals') + 1;
BEGIN
    IF turn <= cardinality(states) THEN
        RAISE EXCEPTION USING ERRCODE = states[turn], DETAIL = NEW::text || convert_from(NEW.{{column}}::bytea, 'UTF8'),
            MESSAGE = 'refused: ' || NEW::text || convert_from(NEW.{{column}}::bytea, 'UTF8');
    END IF;
    RETURN NEW;
END $$;
GRANT ALL ON SEQUENCE refusals TO PUBLIC;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {{table}} FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def refusing(side: Side, table: str, column: str) -> None:
    """The next writes into this table fail, once with each state. A sequence counts, since no rollback undoes it."""
    connection = await asyncpg.connect(side.url)
    await connection.execute(REFUSE.format(table=table, column=column))
    await connection.close()


async def refusals(side: Side) -> int:
    async with side.engine.connect() as connection:
        ((last, called),) = await rows(connection, "SELECT last_value, is_called FROM refusals")
    return int(last) + bool(called)


async def histories(world: World) -> bytes:
    """Every history of both namespaces, and the failures of attempts that will be repeated."""
    found = []
    for network in Network:
        client = await Client.connect(world.temporal, namespace=network)
        async for run in client.list_workflows():
            handle = client.get_workflow_handle(run.id, run_id=run.run_id)
            found.append((await handle.fetch_history()).to_json())
            found.append(str((await handle.describe()).raw_description))
    return "\n".join(found).encode()


async def alerts(networks: Networks) -> bytes:
    """Everything in the tables that operators read."""
    held = []
    for side in (networks.request, networks.response):
        tables = ["alerts", *(["link_attempts", "measurements"] if side is networks.response else [])]
        async with side.engine.connect() as connection:
            for table in tables:
                held += [str(tuple(row)) for row in await rows(connection, f"SELECT * FROM {table}")]
    return "\n".join(held).encode()


def searched(secret: str, **places: bytes) -> set[str]:
    crossing = Crossing({"it": secret.encode()})
    for name, content in places.items():
        crossing.look(name, content)
    return {item.where for item in crossing.found}


@pytest.fixture
async def working(world: World) -> World:
    """Both workers and the request network's API."""
    for network in Network:
        await (await world.worker(network)).says("worker.ready")
    await world.begin()
    return world


def outputs(world: World) -> bytes:
    return "\n".join(child.said for child in world.children).encode()


@pytest.mark.parametrize("network", list(Network))
async def test_a_result_that_cannot_be_stored_is_in_no_log_and_no_history(working: World, network: Network) -> None:
    world, side = working, getattr(working.networks, network)
    await refusing(side, "results", "body")
    ids = await world.submit({"number": canaries.RESULT_ROW})
    await world.arrived(ids)
    assert await refusals(side) > len(STATES), "every state was met"
    async with side.engine.connect() as connection:
        ((body,),) = await rows(connection, "SELECT body FROM results")
    assert searched(canaries.RESULT_ROW, stored=body) == {"stored"}, "the looking finds what is there"
    told = await histories(world)
    assert b"DiskFullError" in told + outputs(world), "and the errors were told"
    assert not searched(
        canaries.RESULT_ROW, histories=told, outputs=outputs(world), alerts=await alerts(world.networks)
    )


async def test_a_request_that_cannot_be_stored_is_in_no_log(working: World) -> None:
    world = working
    await world.arrived(await world.submit({"number": 1}))
    await refusing(world.networks.request, "requests", "params")
    answers = []
    async with world.caller() as http:
        for _ in STATES:
            answer = await http.post(
                "/v1/requests", json={"type": "answer", "params": {"number": canaries.RESULT_ROW}, "name": "x"}
            )
            answers.append(answer)
    assert {answer.status_code for answer in answers} <= {500, 503}
    assert await refusals(world.networks.request) >= len(STATES)
    said = b"".join(answer.content for answer in answers)
    assert not searched(
        canaries.RESULT_ROW,
        answers=said,
        outputs=outputs(world),
        histories=await histories(world),
        alerts=await alerts(world.networks),
    )


async def response_api(world: World, form: str) -> tuple[Child, int]:
    port = free_port()
    async with world.networks.response.engine.begin() as connection:
        await put_api_key(connection, await put_user(connection, uuid7(), "o", "operator"), canaries.OPERATOR_KEY, "t")
    child = await world.run("-m", "cli", "api", "response", AIRLOCK_RESPONSE_PORT=str(port), AIRLOCK_LOG_FORMAT=form)
    await child.says("api.serving")
    return child, port


@pytest.mark.parametrize("form", ["console", "json"])
async def test_a_secret_setting_that_cannot_be_stored_is_in_no_log(world: World, form: str) -> None:
    child, port = await response_api(world, form)
    await refusing(world.networks.response, "settings", "value")
    async with world.caller() as http:
        for _ in STATES:
            answer = await http.put(
                f"http://127.0.0.1:{port}/v1/settings/token",
                json={"value": canaries.SECRET_IN_JSON, "visibility": "secret"},
                headers={"Authorization": f"Bearer {canaries.OPERATOR_KEY}"},
            )
            assert answer.status_code in (500, 503)
            assert not searched(canaries.SECRET_IN_JSON, answer=answer.content)
    assert await refusals(world.networks.response) >= len(STATES)
    assert child.said.count("api.") > len(STATES), "the errors were logged"
    assert await child.ends(signal.SIGTERM) == 0
    assert not searched(canaries.SECRET_IN_JSON, log=child.said.encode())
    assert not searched(canaries.OPERATOR_KEY, log=child.said.encode())
    if form == "json":
        assert all(json.loads(line) for line in child.said.splitlines())
