"""What a partition is called, and that nobody who has one partition sees anything of it."""

import pickle
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError
from temporalio.converter import DataConverter

from api.request import create_app
from configuration.cadences import DEFAULT_CADENCES, EXPORT_RESULTS, EXPORT_SETTINGS
from configuration.settings import RequestSettings
from models.outcomes import PullProgress
from models.streams import BatchRef, Network, StreamName, in_order, partition_of, pull_workflow_id
from scheduling.definitions import same_schedule, schedule_for
from tests.api_request.serving import settings_for
from tests.conftest import Networks

REQUESTS, RESULTS = StreamName.REQUESTS, StreamName.RESULTS


class Named(BaseModel):
    stream: StreamName


def test_a_partition_is_a_stream_of_its_own_name_and_knows_its_kind() -> None:
    third = StreamName("results.3")
    assert (third, third.value, str(third), f"{third}") == ("results.3",) * 4
    assert (third.kind, third.number, third.sender, third.is_snapshot) == (RESULTS, 3, Network.RESPONSE, False)
    assert (REQUESTS.at(5).receiver, REQUESTS.at(5).at(2), REQUESTS.at(5).at(0)) == (
        Network.RESPONSE,
        "requests.2",
        REQUESTS,
    )
    assert RESULTS.at(3) is third
    assert pickle.loads(pickle.dumps(third)) is third
    assert Named.model_validate_json('{"stream": "results.3"}').stream is third
    assert Named(stream=third).model_dump_json() == '{"stream":"results.3"}'


@pytest.mark.parametrize("name", ["results.0", "results.8", "results.01", "results.", "settings.1", "health.2", "x.1"])
def test_there_are_no_other_partitions(name: str) -> None:
    with pytest.raises(ValueError):
        StreamName(name)
    with pytest.raises(ValidationError):
        Named.model_validate({"stream": name})


def test_who_goes_through_the_streams_sees_the_four() -> None:
    assert StreamName("requests.1").number == 1  # it is there, and yet:
    assert list(StreamName) == ["settings", "requests", "results", "health"]
    assert Named.model_json_schema()["$defs"]["StreamName"]["enum"] == list(StreamName)
    with pytest.raises(ValidationError, match="'settings', 'requests', 'results' or 'health'"):
        Named.model_validate({"stream": "nothing"})


def test_partitions_follow_their_kind_in_every_list() -> None:
    mixed = [RESULTS.at(2), StreamName.HEALTH, REQUESTS.at(1), RESULTS, RESULTS.at(2), StreamName.SETTINGS, REQUESTS]
    assert in_order(mixed) == ["settings", "requests", "requests.1", "results", "results.2", "health"]


def test_a_users_partition_is_the_same_for_ever_in_every_process() -> None:
    users = [UUID(int=number) for number in range(8)]
    assert [partition_of(user, 4) for user in users] == [1, 3, 0, 2, 0, 2, 0, 2]
    assert {partition_of(user, 1) for user in users} == {0}
    assert [partition_of(user, 4) % 2 for user in users] == [partition_of(user, 2) for user in users]


def test_users_are_spread_evenly() -> None:
    counted = [0] * 8
    for number in range(8000):
        counted[partition_of(UUID(int=number), 8)] += 1
    assert all(800 < count < 1200 for count in counted)


def test_with_one_partition_workflows_have_the_names_and_arguments_that_they_always_had() -> None:
    assert PullProgress().model_dump_json() == '{"batches":0,"records":0}'
    assert PullProgress(partition=3).model_dump_json() == '{"batches":0,"records":0,"partition":3}'
    assert [pull_workflow_id(stream) for stream in REQUESTS.partitions(3)] == [
        "pull-requests",
        "pull-requests-1",
        "pull-requests-2",
    ]
    group = BatchRef(stream=REQUESTS, epoch=1, sequence=7)
    assert group.workflow_id("execute") == "execute-requests-1.7"
    assert '"stream":"requests"' in group.model_dump_json()


def test_only_the_export_of_results_is_told_of_partitions_and_only_where_there_are_several() -> None:
    def arguments(schedule_id: str, partitions: int) -> list[object]:
        return list(schedule_for(schedule_id, DEFAULT_CADENCES[schedule_id], partitions).action.args)  # type: ignore[attr-defined]

    assert [arguments(EXPORT_RESULTS, partitions) for partitions in (1, 4)] == [[], [4]]
    assert [arguments(EXPORT_SETTINGS, partitions) for partitions in (1, 4)] == [[], []]


def test_a_schedule_for_another_number_of_partitions_is_another_schedule() -> None:
    one, two, four = (schedule_for(EXPORT_RESULTS, DEFAULT_CADENCES[EXPORT_RESULTS], count) for count in (1, 2, 4))
    converter = DataConverter.default
    assert same_schedule(four, four, converter)
    assert not same_schedule(one, four, converter)
    assert not same_schedule(two, four, converter)


@pytest.mark.parametrize("partitions", [0, 9])
def test_there_are_one_to_eight(networks: Networks, partitions: int) -> None:
    with pytest.raises(ValidationError):
        settings_for(networks, partitions=partitions)
    assert RequestSettings.model_fields["partitions"].default == 1


def test_the_documented_api_is_the_same_whatever_the_number(networks: Networks) -> None:
    documents = [create_app(settings_for(networks, partitions=partitions)).openapi() for partitions in (1, 8)]
    assert documents[0] == documents[1]
