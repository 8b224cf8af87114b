"""How long the one that waited longest did wait."""

from bench.celery.run import longest_wait
from chaos.ledger import Ledger, Read, Sent

REQUEST = {"type": "airport", "params": {"iata": "IST"}}


def test_a_request_with_a_result_waited_until_it_was_read() -> None:
    assert longest_wait(_ledger({"a": 15.0, "b": 40.0}), ended=100.0) == 30.0


def test_a_request_without_a_result_waits_until_the_end() -> None:
    assert longest_wait(_ledger({"a": 15.0}), ended=100.0) == 90.0


def test_nothing_accepted_waits_for_nothing() -> None:
    assert longest_wait(Ledger(), ended=100.0) == 0.0


def _ledger(answered_at: dict[str, float]) -> Ledger:
    sent = Sent("key", 10.0, [REQUEST, REQUEST], refused=False, answers=[(11.0, ["a", "b"])])
    return Ledger(sent={"key": sent}, results={name: Read(at, {}) for name, at in answered_at.items()})
