"""The ledger held against what must be: every discrepancy by name. Knows neither Airlock nor its databases."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from chaos.ledger import Accepted, Ledger, Read, digest


class Fate(StrEnum):
    """What can have gone wrong."""

    LOST = "lost"
    """It was accepted, and is not there."""
    DOUBLED = "doubled"
    """It is there more often than it was asked for."""
    ALTERED = "altered"
    """It is there, and says something else."""
    UNANSWERED = "unanswered"
    """It was asked for, or accepted, and no answer came."""
    REFUSED = "refused"
    """It was refused and should not have been."""
    LEFT = "left running"
    """A workflow that runs although its work is done, or cannot go on."""
    BROKEN = "broken"
    """A part of the system, or of the check, ended as it must not."""


@dataclass(frozen=True)
class Discrepancy:
    """One difference between what must be and what is."""

    fate: Fate
    what: str
    """A request id, an idempotency key, or the name of a setting."""
    expected: str
    found: str

    def as_json(self) -> dict[str, Any]:
        """What the summary prints."""
        return asdict(self) | {"fate": self.fate.value}

    def __str__(self) -> str:
        return f"{self.fate.value}: {self.what}: expected {self.expected}; found {self.found}"


class Answerable(Protocol):
    """What `expected` gives: it knows how a result differs."""

    def difference(self, body: Mapping[str, Any]) -> tuple[str, str] | None:
        """What it must say and what it says instead; None when it does not differ."""


def never(_body: Mapping[str, Any]) -> bool:
    """No failure is excused."""
    return False


def judge_answers(
    ledger: Ledger,
    expected: Callable[[str, Mapping[str, Any]], Answerable],
    excused: Callable[[Mapping[str, Any]], bool] = never,
) -> Iterator[Discrepancy]:
    """What the load generator itself could see.

    ``excused`` says of a result that is not the expected one whether it is the honest answer to a fault: a failure
    with the reason that its source was away.
    """
    yield from _judge_acceptances(ledger)
    for accepted in ledger.accepted():
        read = ledger.results.get(accepted.request_id)
        if read is None:
            yield _without_result(ledger, accepted)
        else:
            yield from _judge_result(ledger, accepted, read, expected, excused)


def _judge_acceptances(ledger: Ledger) -> Iterator[Discrepancy]:
    """Each key has one list of ids, as long as its body, and no id belongs to two keys."""
    owners: dict[str, str] = {}
    for key, sent in ledger.sent.items():
        if not sent.answers:
            if not sent.refusals:
                yield Discrepancy(Fate.UNANSWERED, key, "the submission to be answered", "no answer")
            elif not sent.refused:
                status, text = sent.refusals[0]
                yield Discrepancy(Fate.REFUSED, key, "the submission to be accepted", f"{status} {text}")
            elif (status := sent.refusals[0][0]) != 422:
                yield Discrepancy(Fate.REFUSED, key, "the answer 422", f"{status} {sent.refusals[0][1]}")
            continue
        _, first = sent.answers[0]
        if sent.refused:
            yield Discrepancy(Fate.ALTERED, key, "the submission to be refused with 422", f"accepted as {first}")
        if sent.refusals:
            yield Discrepancy(Fate.ALTERED, key, f"the ids {first} for each repetition", str(sent.refusals[0]))
        if len(first) != len(sent.requests):
            fate = Fate.LOST if len(first) < len(sent.requests) else Fate.DOUBLED
            yield Discrepancy(fate, key, f"{len(sent.requests)} ids", f"{len(first)}: {first}")
        for _, again in sent.answers[1:]:
            if again != first:
                yield Discrepancy(Fate.DOUBLED, key, f"the ids {first} for each repetition", str(again))
        for request_id in first:
            if owners.setdefault(request_id, key) != key:
                yield Discrepancy(Fate.ALTERED, request_id, f"one owner, {owners[request_id]}", f"{key} as well")
        for request_id, times in Counter(first).items():
            if times > 1:
                yield Discrepancy(Fate.LOST, request_id, f"an id for each request of {key}", f"this one {times} times")


def _without_result(ledger: Ledger, accepted: Accepted) -> Discrepancy:
    told = ledger.missing.get(accepted.request_id)
    fate = Fate.LOST if told else Fate.UNANSWERED
    return Discrepancy(fate, accepted.request_id, f"a result ({accepted.type})", told or "none")


def _judge_result(
    ledger: Ledger,
    accepted: Accepted,
    read: Read,
    expected: Callable[[str, Mapping[str, Any]], Answerable],
    excused: Callable[[Mapping[str, Any]], bool],
) -> Iterator[Discrepancy]:
    request_id = accepted.request_id
    if read.body.get("request_id") != request_id:
        yield Discrepancy(Fate.ALTERED, request_id, "its own result", f"that of {read.body.get('request_id')}")
    difference = expected(accepted.type, accepted.params).difference(read.body)
    if difference is not None and not excused(read.body):
        wanted, found = difference
        yield Discrepancy(Fate.ALTERED, request_id, f"{wanted} for {accepted.type} {accepted.params}", found)
    if (told := ledger.missing.get(request_id)) is not None:
        yield Discrepancy(Fate.LOST, request_id, "the result that was read before", told)
    first = digest(read.body)
    for again in ledger.again.get(request_id, []):
        if again != first:
            yield Discrepancy(Fate.ALTERED, request_id, f"the same result again (SHA-256 {first})", again)


def judge_settings(ledger: Ledger, there: Mapping[str, Any]) -> Iterator[Discrepancy]:
    """The settings as the request network shows them: each as it was accepted last, and no secret one."""
    for name, setting in sorted(ledger.settings.items()):
        if setting.secret:
            if name in there:
                yield Discrepancy(Fate.ALTERED, name, "a secret setting not to cross", repr(there[name]))
        elif setting.accepted_changes and name not in there and not setting.doubtful:
            yield Discrepancy(Fate.LOST, name, repr(setting.accepted), "no such setting")
        elif name in there and there[name] not in _possible(
            setting.accepted_changes, setting.accepted, setting.doubtful
        ):
            yield Discrepancy(Fate.ALTERED, name, repr(setting.accepted), repr(there[name]))


def _possible(changes: int, accepted: Any, doubtful: list[Any]) -> list[Any]:
    return [*([accepted] if changes else []), *doubtful]


@dataclass(frozen=True)
class Census:
    """What is really there, counted where it is kept."""

    places: Mapping[str, Counter[str]]
    """Name of a place → how often each request id is there. With its result each must be in each place once."""
    at_once: frozenset[str]
    """Places where a request must be as soon as it is accepted, whether or not it has a result yet."""
    by_key: Mapping[str, list[str]]
    """Idempotency key → the ids that it stands for."""
    quarantined: int = 0


def judge_census(ledger: Ledger, census: Census) -> Iterator[Discrepancy]:
    """Every request with a result is in every place once, any other where it was accepted, and nothing else is there.

    Only a submission that was sent and never answered may be there or not: then wholly, and once.
    """
    wanted = {accepted.request_id for accepted in ledger.accepted()}
    answered = wanted & ledger.results.keys()
    for key, ids in sorted(census.by_key.items()):
        sent = ledger.sent.get(key)
        if sent is not None and not sent.answers and not sent.refused:
            if len(ids) != len(sent.requests):
                yield Discrepancy(Fate.ALTERED, key, f"{len(sent.requests)} ids or none", str(ids))
            wanted.update(ids)
            answered.update(ids)  # nobody waited for them, but everybody else
        elif sent is None or not sent.answers or sent.answers[0][1] != ids:
            yield Discrepancy(
                Fate.DOUBLED, key, str(sent.answers[0][1] if sent and sent.answers else "no ids"), str(ids)
            )
    for place, counted in census.places.items():
        for request_id in sorted((wanted if place in census.at_once else answered) - counted.keys()):
            yield Discrepancy(Fate.LOST, request_id, f"once among {place}", "not there")
        for request_id, times in sorted(counted.items()):
            if request_id not in wanted:
                yield Discrepancy(Fate.DOUBLED, request_id, f"nothing among {place} that was not accepted", "there")
            elif times != 1:
                yield Discrepancy(Fate.DOUBLED, request_id, f"once among {place}", f"{times} times")
    if census.quarantined:
        yield Discrepancy(Fate.BROKEN, "quarantine", "no records set aside", f"{census.quarantined}")
