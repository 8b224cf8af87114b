"""The production shape, read from what `docker-compose config` makes of the file: the two networks stay apart."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CLONE = Path(__file__).resolve().parents[2]
COMPOSE = Path(sys.executable).parent / "docker-compose"
NETWORKS = ("request", "response")
ONE_SHOTS = {f"{network}-{job}" for network in NETWORKS for job in ("temporal-schema", "temporal-setup", "migrate")}
LINK = {"request-api", "response-worker"}
PARTS = (
    "postgres",
    "redis",
    "temporal-schema",
    "temporal",
    "temporal-setup",
    "temporal-ui",
    "migrate",
    "api",
    "worker",
)

Compose = dict[str, Any]


def resolved(*files: str, **variables: str) -> Compose:
    """The compose files as Docker Compose understands them, without a `.env` or the caller's AIRLOCK_ variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "COMPOSE_"))}
    command = [str(COMPOSE), "--project-directory", str(CLONE), "--env-file", os.devnull]
    for file in files:
        command += ["-f", str(CLONE / file)]
    command += ["config", "--format", "json"]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    compose: Compose = json.loads(done.stdout)
    return compose


@pytest.fixture(scope="module")
def compose() -> Compose:
    return resolved("docker-compose.yml")


def side(service: str) -> str:
    return service.partition("-")[0]


def other(network: str) -> str:
    return "response" if network == "request" else "request"


def isolation_faults(compose: Compose) -> list[str]:
    """Every way in which a container could reach the other network's, in words. Empty when they are apart."""
    faults = []
    members: dict[str, set[str]] = {}
    for name, service in compose["services"].items():
        if side(name) not in NETWORKS:
            faults.append(f"{name} belongs to neither network")
        if (
            service.get("network_mode")
            or service.get("links")
            or service.get("extra_hosts")
            or service.get("privileged")
        ):
            faults.append(f"{name} goes round the networks")
        if any("docker.sock" in str(volume.get("source", "")) for volume in service.get("volumes", [])):
            faults.append(f"{name} holds the Docker socket")
        for network in service["networks"]:
            members.setdefault(network, set()).add(name)
    for network, names in members.items():
        if network == "link":
            if names != LINK:
                faults.append(f"link joins {sorted(names)}")
        elif len({side(name) for name in names}) > 1:
            faults.append(f"{network} joins {sorted(names)}")
    faults += [
        f"{network} has a route to the outside"
        for network in ("request", "response", "link")
        if not compose["networks"][network].get("internal")
    ]
    docker_names = [network.get("name") for network in compose["networks"].values()]
    if len(set(docker_names)) != len(docker_names):
        faults.append("two networks are one in Docker")
    return faults


def own_faults(compose: Compose) -> list[str]:
    """Every variable, secret, file, volume or dependency that belongs to the other network."""
    faults = []
    for name, service in compose["services"].items():
        own = {key: value for key, value in service.items() if key != "networks"}
        if name == "response-worker":
            # The one thing that it is told of the other side, and its name for it.
            own["environment"] = {
                key: value
                for key, value in own["environment"].items()
                if (key, value) != ("AIRLOCK_RESPONSE_LINK_URL", "http://request-api:8000")
            }
        text = json.dumps(own).replace(str(CLONE), "").replace("urllib.request", "urllib")
        found = re.findall(rf"[\w/.-]*{other(side(name))}[\w/.-]*", text, re.IGNORECASE)
        faults += [f"{name} holds {thing}" for thing in found]
    return faults


def test_it_is_valid(compose: Compose) -> None:
    assert compose["name"] == "airlock"


def test_each_network_has_its_own_of_everything(compose: Compose) -> None:
    assert set(compose["services"]) == {f"{network}-{part}" for network in NETWORKS for part in PARTS}
    for network in NETWORKS:
        data = {volume["source"] for volume in compose["services"][f"{network}-postgres"]["volumes"]}
        assert data == {f"{network}-postgres"}


def test_the_two_networks_are_apart(compose: Compose) -> None:
    assert isolation_faults(compose) == []


@pytest.mark.parametrize(
    ("service", "network"),
    [
        ("request-worker", "link"),
        ("response-api", "link"),
        ("request-api", "response"),
        ("response-worker", "request"),
        ("response-postgres", "request-edge"),
        ("request-temporal-ui", "response-edge"),
    ],
)
def test_a_wrong_network_is_seen(compose: Compose, service: str, network: str) -> None:
    wrong = copy.deepcopy(compose)
    wrong["services"][service]["networks"][network] = None
    assert any(service in fault for fault in isolation_faults(wrong))


def test_other_ways_round_are_seen(compose: Compose) -> None:
    for change in ({"network_mode": "host"}, {"extra_hosts": ["request-api=host-gateway"]}, {"privileged": True}):
        wrong = copy.deepcopy(compose)
        wrong["services"]["response-redis"] |= change
        assert isolation_faults(wrong) == ["response-redis goes round the networks"]
    wrong = copy.deepcopy(compose)
    del wrong["networks"]["response"]["internal"]
    assert isolation_faults(wrong) == ["response has a route to the outside"]
    wrong = copy.deepcopy(compose)
    wrong["networks"]["response-edge"]["name"] = wrong["networks"]["request-edge"]["name"]
    assert isolation_faults(wrong) == ["two networks are one in Docker"]


def test_only_what_publishes_or_calls_out_is_on_an_edge(compose: Compose) -> None:
    edges = {
        network: {name for name, service in compose["services"].items() if f"{network}-edge" in service["networks"]}
        for network in NETWORKS
    }
    assert edges == {
        "request": {"request-api", "request-worker", "request-temporal-ui"},
        "response": {"response-api", "response-temporal-ui"},
    }
    assert set(compose["networks"]) == {"request", "request-edge", "link", "response", "response-edge"}


def test_the_way_to_sources_is_opened_for_the_response_worker_alone() -> None:
    opened = resolved("docker-compose.yml", "deploy/sources.yml")
    assert isolation_faults(opened) == []
    assert {name for name, service in opened["services"].items() if "response-sources" in service["networks"]} == {
        "response-worker"
    }


def test_only_the_request_api_is_published_to_the_outside(compose: Compose) -> None:
    published = {
        name: [(port.get("host_ip", "everywhere"), port["published"], port["target"]) for port in service["ports"]]
        for name, service in compose["services"].items()
        if service.get("ports")
    }
    assert published == {
        "request-api": [("everywhere", "8000", 8000)],
        "request-temporal-ui": [("127.0.0.1", "8233", 8080)],
        "response-api": [("127.0.0.1", "8001", 8001)],
        "response-temporal-ui": [("127.0.0.1", "8234", 8080)],
    }


def test_a_published_port_does_not_change_where_the_api_listens() -> None:
    moved = resolved("docker-compose.yml", AIRLOCK_REQUEST_PORT="9000")["services"]["request-api"]
    assert [(port["published"], port["target"]) for port in moved["ports"]] == [("9000", 8000)]
    assert moved["environment"]["AIRLOCK_REQUEST_PORT"] == "8000"


def test_nothing_of_the_other_network_is_handed_over(compose: Compose) -> None:
    assert own_faults(compose) == []


def test_something_of_the_other_network_is_seen(compose: Compose) -> None:
    wrong = copy.deepcopy(compose)
    wrong["services"]["request-api"]["environment"]["AIRLOCK_RESPONSE_DATABASE_URL"] = "x"
    wrong["services"]["request-worker"]["secrets"].append({"source": "airlock_response_redis_url"})
    wrong["services"]["response-redis"]["secrets"].append({"source": "request_redis_password"})
    wrong["services"]["response-worker"]["environment"]["AIRLOCK_RESPONSE_LINK_URL"] = "http://request-postgres:5432"
    seen = " ".join(own_faults(wrong))
    assert all(name in seen for name in ("request-api holds", "request-worker holds", "response-redis holds"))
    assert "response-worker holds" in seen


def test_airlock_gets_its_own_networks_secrets_as_files(compose: Compose) -> None:
    for network in NETWORKS:
        for part in ("migrate", "api", "worker"):
            service = compose["services"][f"{network}-{part}"]
            names = {secret.get("target") or secret["source"] for secret in service["secrets"]}
            assert {f"airlock_{network}_database_url", f"airlock_{network}_redis_url"} <= {
                name.removeprefix("/run/secrets/") for name in names
            }
            (keys,) = service["volumes"]
            assert keys["source"].endswith(f"deploy/secrets/keys/{network}")
            assert keys["target"] == service["environment"][f"AIRLOCK_{network.upper()}_KEYS"]
            assert keys["read_only"]
            assert not keys["bind"].get("create_host_path"), "a missing directory must be an error, not made empty"
    assert all("/deploy/secrets/" in secret["file"] for secret in compose["secrets"].values())


def test_no_environment_holds_a_secret(compose: Compose) -> None:
    for name, service in compose["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|PWD|SECRET|TOKEN|DATABASE_URL|REDIS_URL|SOURCES|API_KEY", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
            assert not re.search(r"://[^/]*@", str(value)), f"{name}: {variable}"


def test_what_runs_on_is_watched_and_restarted(compose: Compose) -> None:
    for name, service in compose["services"].items():
        if name in ONE_SHOTS:
            assert service["restart"].startswith("on-failure"), name
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert not service["healthcheck"].get("disable"), name


def test_every_container_is_confined(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        if not name.endswith("-postgres"):
            assert service["read_only"], name
            assert not service.get("cap_add"), name


def test_images_are_pinned_and_none_sets_itself_up(compose: Compose) -> None:
    for name, service in compose["services"].items():
        image, _, tag = service["image"].rpartition(":")
        assert image, name
        assert tag not in ("", "latest"), name
        assert "auto-setup" not in service["image"], name
    server, tools = (compose["services"][f"request-{part}"]["image"] for part in ("temporal", "temporal-schema"))
    assert server.rpartition(":")[2] == tools.rpartition(":")[2], "a server and its schema are of one version"


def test_what_is_needed_first_comes_first(compose: Compose) -> None:
    for network in NETWORKS:
        waits = {
            part: {
                needed.removeprefix(f"{network}-"): how["condition"].removeprefix("service_")
                for needed, how in compose["services"][f"{network}-{part}"].get("depends_on", {}).items()
            }
            for part in PARTS
        }
        assert waits["temporal-schema"] == {"postgres": "healthy"}
        assert waits["temporal"] == {"temporal-schema": "completed_successfully"}
        assert waits["temporal-setup"] == {"temporal": "healthy"}
        assert waits["migrate"] == {"postgres": "healthy"}
        assert waits["api"]["migrate"] == "completed_successfully"
        assert not any("temporal" in needed for needed in waits["api"]), "data is accepted while Temporal is down"
        assert waits["worker"]["migrate"] == waits["worker"]["temporal-setup"] == "completed_successfully"


def test_workers_scale_and_may_drain(compose: Compose) -> None:
    for network in NETWORKS:
        worker = compose["services"][f"{network}-worker"]
        assert worker["stop_grace_period"] == "40s"
        assert not worker.get("ports"), "a published port would allow one worker only"
        assert not worker.get("container_name")


def test_mounted_files_exist(compose: Compose) -> None:
    for config in compose["configs"].values():
        assert Path(config["file"]).is_file(), config["file"]


def test_redis_is_a_cache_only() -> None:
    lines = (CLONE / "deploy/redis.conf").read_text().splitlines()
    assert {'save ""', "appendonly no", "maxmemory-policy allkeys-lru"} <= set(lines)
    assert any(line.startswith("maxmemory ") for line in lines)


def test_the_setup_job_makes_the_search_attributes() -> None:
    script = (CLONE / "deploy/temporal-setup.sh").read_text()
    made = dict(re.findall(r"^attribute (\w+) (\w+)$", script, re.MULTILINE))
    assert made == {"AirlockStream": "Keyword", "AirlockBatch": "Int", "AirlockRecords": "Int"}


PINNED = {
    "POSTGRES_IMAGE": ("postgres", 2),
    "REDIS_IMAGE": ("redis", 2),
    "TEMPORAL_IMAGE": ("temporalio/server", 2),
    "TEMPORAL_ADMIN_TOOLS_IMAGE": ("temporalio/admin-tools", 4),
    "TEMPORAL_UI_IMAGE": ("temporalio/ui", 2),
}


def test_every_image_from_a_registry_can_be_pinned_by_its_digest() -> None:
    digest = "@sha256:" + "0a" * 32
    pinned = resolved(
        "docker-compose.yml",
        PYTHON_IMAGE=f"python:3.13{digest}",
        **{name: f"{image}:1{digest}" for name, (image, _) in PINNED.items()},
    )
    images = [service["image"] for service in pinned["services"].values()]
    for image, services in PINNED.values():
        assert images.count(f"{image}:1{digest}") == services
    assert {image for image in images if digest not in image} == {"airlock:local"}
    assert pinned["services"]["request-migrate"]["build"]["args"] == {"PYTHON_IMAGE": f"python:3.13{digest}"}
    bases = re.findall(r"^FROM (\S+)", (CLONE / "Dockerfile").read_text(), re.M)
    assert bases == ["${PYTHON_IMAGE}"] * 2
