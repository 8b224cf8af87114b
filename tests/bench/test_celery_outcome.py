"""Whether a request without a result is lost, or late."""

import base64
import json
from collections import Counter
from dataclasses import replace

from bench.celery.outcome import ACCEPTED, Found, arguments, judge
from chaos.judging import Census, Fate
from chaos.ledger import Ledger, Sent

ID = "01a20000-0000-7000-8000-000000000001"
REQUEST = {"type": "airport", "params": {"iata": "ZZZ"}}
ONCE = Counter([ID])
PLACES = {
    ACCEPTED: ONCE,
    "requests of the response network": ONCE,
    "results of the response network": Counter[str](),
    "results of the request network": Counter[str](),
}
AT_ONCE = frozenset({ACCEPTED})
NOWHERE = Found(Census(PLACES, AT_ONCE, {"key": [ID]}), {}, frozenset(), 0, 0, 0)


def accepted_without_result() -> Ledger:
    sent = Sent("key", 1.0, [REQUEST], refused=False, answers=[(1.1, [ID])])
    return Ledger(sent={"key": sent}, ended="impatient")


def test_a_request_that_nothing_works_on_is_lost_and_named_once() -> None:
    assert [(each.fate, each.what) for each in judge(accepted_without_result(), NOWHERE)] == [(Fate.LOST, ID)]


def test_a_request_whose_message_is_in_the_broker_is_late() -> None:
    found = replace(NOWHERE, pending=frozenset({ID}))
    assert [(each.fate, each.what) for each in judge(accepted_without_result(), found)] == [(Fate.UNANSWERED, ID)]


def test_a_result_that_came_after_the_load_had_ended_is_late() -> None:
    found = replace(NOWHERE, arrived={ID: 99.0})
    assert [(each.fate, each.what) for each in judge(accepted_without_result(), found)] == [(Fate.UNANSWERED, ID)]


def test_a_submission_without_an_answer_was_never_accepted_and_is_not_lost() -> None:
    ledger = Ledger(sent={"key": Sent("key", 1.0, [REQUEST], refused=False)}, ended="impatient")
    nothing = replace(NOWHERE, census=Census({}, frozenset(), {}))
    assert [(each.fate, each.what) for each in judge(ledger, nothing)] == [(Fate.UNANSWERED, "key")]


def test_a_key_that_stands_for_other_requests_is_doubled() -> None:
    other = Census(PLACES, AT_ONCE, {"key": [ID.replace("1a2", "1a3")]})
    assert Fate.DOUBLED in {each.fate for each in judge(accepted_without_result(), replace(NOWHERE, census=other))}


def test_the_ids_in_a_message_are_those_of_its_arguments() -> None:
    def message(*positional: object) -> dict[str, str]:
        body = json.dumps([positional, {}, {"chain": None}])
        return {"body": base64.b64encode(body.encode()).decode()}

    assert list(arguments([message([ID]), message(), message(60)])) == [ID]
