"""Whose word counts about a key, what a retired and a revoked key are still good for, and how a refusal reads."""

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.errors import LinkPaused, Malformed, UnknownKey
from exchange.link_keys.lists import KeyEntry, KeyList, key_list, take_key_list
from exchange.link_keys.live_keys import LiveKeys
from exchange.link_keys.states import key_states, revoke, trust_file
from exchange.link_keys.store import put_link_key
from exchange.transfer.outgoing import batch_after
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.keys import LinkKeys, key_id_of, keys_of_sender, load_link_keys
from exchange.wire.manifest import verify_manifest
from exchange.wire.messages import Receipt
from models.errors import Conflict, NotFound
from models.streams import Network, StreamName
from storage.database import connect
from tests.activities.crossing import LINK, one
from tests.api_request.serving import AWAY, settings_for
from tests.keys.world import World
from tests.link.strangers import other_keys

RESPONSE, REQUEST = Network.RESPONSE, Network.REQUEST


def entry(private: Ed25519PrivateKey, **more: object) -> KeyEntry:
    return KeyEntry.model_validate({"public_key": private.public_key().public_bytes_raw().hex()} | more)


async def told(world: World, network: Network, *own: KeyEntry, signing: LinkKeys) -> bool:
    """Have a network take a list of the other's, as if it had come over the link."""
    keys = world.live(network)
    await keys.refresh()
    other = RESPONSE if network is REQUEST else REQUEST
    message = KeyList(link=LINK, network=other, own=own, known=(), key_id=signing.key_id)
    async with keys.engine.begin() as connection:
        return await take_key_list(connection, keys, LINK, KeyList.from_wire(keys, message.to_wire(signing)))


async def trusted(world: World, network: Network) -> set[str]:
    keys = world.live(network)
    await keys.refresh()
    return set(keys.trusted)


async def seal(world: World, keys: LinkKeys) -> None:
    async with world.networks.response.engine.begin() as connection:
        await Sealer(keys, LINK).seal(connection, StreamName.RESULTS, [b'{"n":1}'])


async def test_a_batch_sealed_before_the_rotation_is_delivered_after_the_retirement(world: World) -> None:
    old = load_link_keys(world.networks.response.keys_directory)
    await seal(world, old)
    done = await world.rotate(RESPONSE)
    await world.end_overlap(REQUEST, done.before)
    assert await trusted(world, REQUEST) == {done.now}
    with pytest.raises(LinkPaused, match=f"{old.key_id} is no longer trusted, it retired at 20"):
        await world.drain(await refused(world, old))
    await world.drain(world.live(RESPONSE))
    assert await one(world.networks.request, "SELECT count(*) FROM received_batches") == 1


async def refused(world: World, keys: LinkKeys) -> LinkKeys:
    """These keys, once every process over there has seen that they ended."""
    link = world.client(keys)
    try:
        while True:
            await link.state(StreamName.RESULTS)
    except LinkPaused:
        return keys


async def test_a_batch_of_a_revoked_key_is_refused_whoever_brings_it(world: World) -> None:
    old = load_link_keys(world.networks.response.keys_directory)
    await seal(world, old)
    done = await world.rotate(RESPONSE)
    keys = world.live(RESPONSE)
    text = await revoke(keys, old.key_id)
    assert text == f"key {old.key_id} is revoked."
    await world.exchange().once()
    assert await trusted(world, REQUEST) == {done.now}
    with pytest.raises(LinkPaused, match=f"{old.key_id} is no longer trusted, it was revoked at 20"):
        await world.drain(keys)
    assert await one(world.networks.request, "SELECT count(*) FROM received_batches") == 0
    states = {key.key_id: key.state for key in await key_states(world.live(REQUEST)) if key.owner is RESPONSE}
    assert states == {done.before: "revoked", done.now: "trusted"}


async def test_a_stranger_is_told_that_its_key_was_never_introduced(world: World) -> None:
    stranger = other_keys(load_link_keys(world.networks.response.keys_directory))
    target = "/link/v1/streams/results"
    signature = HttpSigner(stranger, LINK).sign_request("GET", target, b"")
    async with httpx.AsyncClient(base_url=world.urls[0], trust_env=False) as http:
        answer = await http.get(target, headers={HEADER: signature})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:airlock:problem:unknown-key")
    assert f"key '{stranger.key_id}' is not trusted here, it was never introduced" in answer.json()["detail"]


async def test_what_a_process_has_not_seen_it_looks_up_when_it_meets_it(two_processes: World) -> None:
    world = two_processes
    fresh = Ed25519PrivateKey.generate()
    old = load_link_keys(world.networks.response.keys_directory)
    new = replace(old, signing=fresh, key_id=key_id_of(fresh.public_key()))
    for url in world.urls:
        await world.client(old, url).state(StreamName.RESULTS)
    assert await told(world, REQUEST, entry(fresh), signing=old)
    await world.client(new, world.urls[1]).state(StreamName.RESULTS)
    await seal(world, new)
    await world.drain(old, world.urls[0])


async def test_a_batch_of_a_key_that_is_new_to_the_process_is_taken(world: World) -> None:
    """The call is signed by a key that the process knows, what it brings by one that it does not."""
    fresh = Ed25519PrivateKey.generate()
    old = load_link_keys(world.networks.response.keys_directory)
    new = replace(old, signing=fresh, key_id=key_id_of(fresh.public_key()))
    await seal(world, new)
    link = world.client(old)
    await link.state(StreamName.RESULTS)
    assert await told(world, REQUEST, entry(fresh), signing=old)
    await world.drain(old)


async def test_a_list_is_believed_only_from_a_trusted_key_that_does_not_retire(world: World) -> None:
    old = load_link_keys(world.networks.response.keys_directory)
    mallory = other_keys(old)
    with pytest.raises(UnknownKey):
        await told(world, REQUEST, entry(mallory.signing), signing=mallory)
    done = await world.rotate(RESPONSE)
    assert await told(world, REQUEST, entry(mallory.signing), entry(old.signing), signing=old) is False
    ending = entry(load_link_keys(world.networks.response.keys_directory).signing, revoked=True)
    assert await told(world, REQUEST, ending, signing=old) is False
    assert await trusted(world, REQUEST) == {done.before, done.now}


async def test_a_list_ends_any_key_but_the_one_that_signs_it(world: World) -> None:
    old = load_link_keys(world.networks.response.keys_directory)
    assert await told(world, REQUEST, entry(old.signing, revoked=True), signing=old) is False
    assert await trusted(world, REQUEST) == {old.key_id}


async def test_what_was_revoked_is_never_trusted_again(world: World) -> None:
    old = load_link_keys(world.networks.response.keys_directory)
    done = await world.rotate(RESPONSE)
    new = load_link_keys(world.networks.response.keys_directory)
    assert await told(world, REQUEST, entry(old.signing, revoked=True), signing=new)
    assert await told(world, REQUEST, entry(old.signing), signing=new) is False
    assert await trusted(world, REQUEST) == {done.now}
    file = world.networks.request.keys_directory / "trusted" / f"{old.key_id}.pem"
    assert file.exists()  # and does not help
    with pytest.raises(Conflict, match="was revoked"):
        await trust_file(world.live(REQUEST), file)


async def test_nobody_can_introduce_the_receivers_own_key_or_speak_for_another_link(world: World) -> None:
    response, request = (load_link_keys(world.side(network).keys_directory) for network in (RESPONSE, REQUEST))
    with pytest.raises(Malformed, match="this network's own"):
        await told(world, REQUEST, entry(request.signing), signing=response)
    keys = world.live(REQUEST)
    for link, network in (("other", RESPONSE), (LINK, REQUEST)):
        message = KeyList(link=link, network=network, own=(), known=(), key_id=response.key_id)
        with pytest.raises(Malformed, match="came to request"):
            async with keys.engine.begin() as connection:
                await take_key_list(connection, keys, LINK, message)


async def test_a_list_of_many_keys_fits_its_message_and_names_the_newest(world: World) -> None:
    keys = world.live(RESPONSE)
    made = [Ed25519PrivateKey.generate().public_key() for _ in range(40)]
    for public in made:
        for owner, known in ((RESPONSE, public), (REQUEST, Ed25519PrivateKey.generate().public_key())):
            async with keys.engine.begin() as connection:
                await put_link_key(connection, key_id_of(known), owner, known.public_bytes_raw(), None)
    async with keys.engine.begin() as connection:
        ours = await key_list(connection, keys, LINK)
    assert [own.key_id for own in ours.own] == [keys.key_id, *map(key_id_of, made[-11:])]
    assert len(ours.known) == 12
    assert KeyList.from_wire(keys_of_sender(keys, StreamName.RESULTS, RESPONSE), ours.to_wire(keys)) == ours


async def test_what_was_begun_with_a_key_is_signed_with_it(world: World) -> None:
    keys = world.live(RESPONSE)
    await keys.refresh()
    receipt = Receipt(
        link=LINK, stream=StreamName.REQUESTS, epoch=1, received=0, applied=0, head="0" * 64, quarantined=0,
        key_id=keys.key_id,
    )  # fmt: skip
    await world.rotate(RESPONSE)
    await keys.refresh()
    assert keys.key_id != receipt.key_id
    assert Receipt.from_wire(world.live(REQUEST), receipt.to_wire(keys)) == receipt


async def test_stored_batches_stay_verifiable_on_both_sides_after_the_retirement(world: World) -> None:
    await world.push(world.live(RESPONSE))
    done = await world.rotate(RESPONSE)
    await world.end_overlap(REQUEST, done.before)
    async with world.networks.response.engine.connect() as connection:
        batch = await batch_after(connection, StreamName.RESULTS, 1, 0)
    assert batch is not None
    for network in Network:
        keys = world.live(network)
        await keys.refresh()
        stored = keys_of_sender(keys, StreamName.RESULTS, network)
        assert verify_manifest(stored, batch.manifest, batch.signature).key_id == done.before


async def test_the_key_that_signs_cannot_be_revoked_and_a_successor_can(world: World) -> None:
    keys = world.live(REQUEST)
    with pytest.raises(Conflict, match="rotate --network request"):
        await revoke(keys, keys.key_id)
    with pytest.raises(NotFound, match="keys list --network request"):
        await revoke(keys, "0" * 16)
    with pytest.raises(Exception, match="not confirmed"):
        await world.rotate(REQUEST, patience=0)
    (waiting,) = [key for key in await key_states(keys) if key.state == "successor"]
    await revoke(keys, waiting.key_id)
    assert not (keys.directory / "next.pem").exists()
    assert {key.key_id: key.state for key in await key_states(keys) if key.owner is REQUEST} == {
        keys.key_id: "signing",
        waiting.key_id: "revoked",
    }


async def test_a_lost_key_is_replaced_by_hand(world: World, tmp_path: Path) -> None:
    old = load_link_keys(world.networks.response.keys_directory)
    request = world.live(REQUEST)
    assert "the link pauses until airlock keys trust" in await revoke(request, old.key_id)
    fresh = Ed25519PrivateKey.generate()
    new = replace(old, signing=fresh, key_id=key_id_of(fresh.public_key()))
    await refused(world, old)
    file = tmp_path / "new.pem"
    file.write_bytes(
        fresh.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert await trust_file(request, file) == new.key_id
    await world.push(new)
    (state,) = [key for key in await key_states(request) if key.key_id == new.key_id]
    assert (state.state, state.introduced_by) == ("trusted", "operator")


async def test_while_the_database_is_away_what_was_known_stays_and_nothing_is_believed_before_it_answered(
    world: World,
) -> None:
    keys = world.live(REQUEST)
    old = load_link_keys(world.networks.response.keys_directory)
    await keys.refresh()
    away = settings_for(world.networks, database_url=f"postgresql://a:b@{AWAY}/none")
    engine = connect(away.database_url.get_secret_value(), 2, "test")
    fresh = LiveKeys(engine, REQUEST, keys.directory)
    with pytest.raises(OSError):
        await fresh.know(old.key_id)
    vars(keys).update(engine=engine)
    await keys.know("0" * 16)
    assert set(keys.trusted) == {old.key_id}
