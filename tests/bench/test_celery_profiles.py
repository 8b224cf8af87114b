"""The configurations that are compared: the first is what Celery and Redis do by themselves."""

from bench.celery.profiles import PROFILES


def test_documented_is_what_celery_and_redis_do_when_nothing_is_set() -> None:
    documented = PROFILES["documented"]
    assert documented.broker_options == {"visibility_timeout": 3600}
    assert documented.redis_options["save"] == "3600 1 300 100 60 10000"
    assert documented.redis_options["appendonly"] == "no"


def test_tuned_looks_often_enough_for_its_timeout_and_writes_every_command() -> None:
    tuned = PROFILES["tuned"]
    options = tuned.broker_options
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] < tuned.visibility_timeout
    assert tuned.redis_options["appendonly"] == "yes"
    assert tuned.sweep_after is None


def test_the_broker_never_drops_messages_to_make_room() -> None:
    assert {profile.redis_options["maxmemory-policy"] for profile in PROFILES.values()} == {"noeviction"}
