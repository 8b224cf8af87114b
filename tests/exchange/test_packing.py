"""Records into batches and out again: nothing lost, nothing added, nothing out of order, every bound kept."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import LinkError, Malformed, Oversize
from exchange.transfer import sealing
from exchange.transfer.sealing import split
from exchange.wire.batch import pack, unpack
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS, Manifest
from models.streams import StreamName

RECORD = st.binary(max_size=60).map(lambda content: content.replace(b"\n", b" "))


def manifest_of(payload: bytes, raw_bytes: int, count: int) -> Manifest:
    return Manifest(
        link="test", stream=StreamName.RESULTS, epoch=1, sequence=1, first_record=1, last_record=count, count=count,
        raw_bytes=raw_bytes, payload_bytes=len(payload), payload_sha256=hashlib.sha256(payload).hexdigest(),
        previous="0" * 64, key_id="0" * 16, sealed_at=datetime.now(UTC),
    )  # fmt: skip


@given(st.lists(RECORD, max_size=50))
@settings(deadline=None)
def test_what_was_packed_is_unpacked(records: list[bytes]) -> None:
    raw_bytes, payload = pack(records)
    assert raw_bytes == sum(len(record) + 1 for record in records)
    assert unpack(manifest_of(payload, raw_bytes, len(records)), payload) == records


@given(st.lists(RECORD, max_size=20), st.integers(-3, 3), st.integers(-2, 2))
@settings(deadline=None)
def test_a_manifest_that_says_another_size_or_count_is_found_out(
    records: list[bytes], bytes_off: int, count_off: int
) -> None:
    raw_bytes, payload = pack(records)
    if not (bytes_off or count_off) or raw_bytes + bytes_off < 0 or len(records) + count_off < 0:
        return
    with pytest.raises(Malformed):
        unpack(manifest_of(payload, raw_bytes + bytes_off, len(records) + count_off), payload)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_a_payload_of_any_bytes_is_records_or_a_link_error(payload: bytes) -> None:
    try:
        unpack(manifest_of(payload, 10, 1), payload)
    except LinkError:
        pass


def test_several_frames_or_bytes_after_the_frame_are_no_way_to_hide_records() -> None:
    frame = zstandard.compress(b"{}\n")
    for payload in (frame + zstandard.compress(b"{}\n"), frame + b"more"):
        with pytest.raises(Malformed):
            unpack(manifest_of(payload, 6, 2), payload)


def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    payload = compressor.compress(b"{}\n") + compressor.flush()
    with pytest.raises(Malformed):
        unpack(manifest_of(payload, 3, 1), payload)


def test_a_payload_that_inflates_beyond_its_manifest_takes_no_more_memory_than_it_says() -> None:
    payload = zstandard.compress(bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            unpack(manifest_of(payload, 1000, 1), payload)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


def test_the_bounds_of_a_batch_are_its_bounds() -> None:
    assert pack([b""] * MAX_RECORDS)[0] == MAX_RECORDS
    assert pack([b"x" * (MAX_RAW_BYTES - 1)])[0] == MAX_RAW_BYTES
    with pytest.raises(Oversize):
        pack([b""] * (MAX_RECORDS + 1))
    with pytest.raises(Oversize):
        pack([b"x" * MAX_RAW_BYTES])


@pytest.fixture(scope="module")
def _small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "MAX_RECORDS", 4)
        patch.setattr(sealing, "MAX_RAW_BYTES", 100)
        yield


@pytest.mark.usefixtures("_small_batches")
@given(st.lists(st.binary(max_size=99), max_size=40))
@settings(deadline=None)
def test_splitting_keeps_order_and_bounds_and_fills_each_batch(records: list[bytes]) -> None:
    runs = split(records)
    assert [record for run in runs for record in run] == records
    sizes = [sum(len(record) + 1 for record in run) for run in runs]
    assert all(run and len(run) <= 4 and size <= 100 for run, size in zip(runs, sizes, strict=True))
    for run, size, following in zip(runs, sizes, runs[1:], strict=False):
        assert len(run) == 4 or size + len(following[0]) + 1 > 100


@pytest.mark.usefixtures("_small_batches")
def test_a_record_may_fill_a_batch_and_no_more() -> None:
    assert split([b"x" * 99]) == [[b"x" * 99]]
    assert split([b"x" * 49] * 3) == [[b"x" * 49] * 2, [b"x" * 49]]  # two fill a batch to the last byte
    with pytest.raises(Oversize):
        split([b"", b"x" * 100])
