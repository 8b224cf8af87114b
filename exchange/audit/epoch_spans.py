"""Which batches of which epochs form a stream's chain. An epoch follows a batch; later batches before it are void."""

from collections.abc import Sequence

from exchange.audit.summaries import EpochSpan, StreamHead


def chain_of(spans: Sequence[EpochSpan]) -> list[tuple[int, int]]:
    """Each epoch that is not void, with its last batch, oldest first. Follows the epochs back from the newest."""
    by_epoch = {span.epoch: span for span in spans}
    epoch, last = spans[-1].epoch, spans[-1].through
    chain = [(epoch, last)]
    while (span := by_epoch[epoch]).previous_epoch in by_epoch and span.previous_epoch < epoch:
        epoch, last = span.previous_epoch, span.previous_sequence
        chain.append((epoch, last))
    return chain[::-1]


def in_common(sender: StreamHead, receiver: StreamHead) -> list[tuple[int, int]]:
    """The part of the sender's chain that the receiver must have. Batches newer than its end are in flight."""
    return [
        (epoch, min(last, receiver.sequence) if epoch == receiver.epoch else last)
        for epoch, last in chain_of(sender.epochs)
        if epoch <= receiver.epoch
    ]


def disagreements(sender: StreamHead, receiver: StreamHead) -> dict[int, str]:
    """Epochs on which the two sides differ, and how.

    An epoch that the receiver does not know yet is in flight. Void epochs are ignored.
    """
    there, here = ({span.epoch: span for span in head.epochs} for head in (sender, receiver))
    found: dict[int, str] = {}
    for epoch, _ in chain_of(receiver.epochs):
        if epoch not in there:
            found[epoch] = "its sender knows no such epoch: a restored backup?"
    for epoch, _ in chain_of(sender.epochs):
        if epoch > receiver.epoch:
            break
        if epoch not in here:
            found[epoch] = "the epoch is not known here"
        elif _begins_after(here[epoch]) != _begins_after(there[epoch]):
            begun, wanted = (".".join(map(str, _begins_after(span))) for span in (here[epoch], there[epoch]))
            found[epoch] = f"it begins after batch {begun} here, after {wanted} at its sender"
    return found


def _begins_after(span: EpochSpan) -> tuple[int, int]:
    return span.previous_epoch, span.previous_sequence
