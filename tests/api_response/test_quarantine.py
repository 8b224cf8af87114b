"""Operators retry and drop what their network could not take; only its own records."""

from exchange.transfer.quarantine_store import quarantine
from models.streams import StreamName
from tests.activities.crossing import cross, new_id, request_record, table
from tests.api_response.conftest import Api


async def test_records_are_listed_retried_and_dropped(api: Api) -> None:
    body = request_record(new_id())
    batch = await cross(api.networks, StreamName.REQUESTS, [body, b"torn"])
    async with api.networks.response.engine.begin() as connection:
        for record, content in ((1, body), (2, b"torn")):
            await quarantine(connection, batch, [(record, content, "of another version")])
    listed = (await api.http.get("/v1/quarantine")).json()["records"]
    assert [(item["record"], item["reason"], item["size"]) for item in listed] == [
        (1, "of another version", len(body)),
        (2, "of another version", 4),
    ]
    after = (await api.http.get("/v1/quarantine", params={"after_epoch": 1, "after_record": 1})).json()["records"]
    assert [item["record"] for item in after] == [2]
    retried = await api.http.post("/v1/quarantine/1/1/retry")
    assert (retried.status_code, retried.json()["refused"]) == (200, None)
    stays = await api.http.post("/v1/quarantine/1/2/retry")
    assert stays.json()["refused"].startswith("not a request: ")
    assert (await api.http.post("/v1/quarantine/1/2/drop", json={"reason": " "})).status_code == 422
    dropped = await api.http.post("/v1/quarantine/1/2/drop", json={"reason": "garbage"})
    assert (dropped.json()["dropped_by"], dropped.json()["drop_reason"]) == ("olga", "garbage")
    assert (await api.http.get("/v1/quarantine")).json()["records"] == []
    assert len((await api.http.get("/v1/quarantine", params={"dropped": True})).json()["records"]) == 1
    assert (await api.http.post("/v1/quarantine/1/2/retry")).status_code == 409
    assert (await api.http.post("/v1/quarantine/1/3/drop", json={"reason": "x"})).status_code == 404
    assert len(await table(api.networks.response, "SELECT request_id FROM requests")) == 1
