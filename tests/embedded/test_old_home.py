"""A home that an unreleased version made: `airlock up` says so in one sentence and leaves it as it was."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg

from configuration.home import CLONE
from embedded.databases import create_databases
from embedded.home import Home
from embedded.ports import free_port
from embedded.postgres import Postgres
from embedded.supervisor import Supervisor


async def make_old(root: Path, supervisor: Supervisor) -> None:
    with Home.open(root) as home:
        postgres = Postgres(home, free_port())
        await postgres.initialise()
        await supervisor.start(postgres.spec())
        connection = await asyncpg.connect((await create_databases(postgres, home)).request)
        await connection.execute("CREATE TABLE schema_versions (version_num varchar(32) PRIMARY KEY)")
        await connection.execute("INSERT INTO schema_versions VALUES ('exchange_0007'), ('request_0004')")
        await connection.close()
        await supervisor.stop()


async def test_up_names_what_made_the_home_and_what_to_do(tmp_path: Path, supervisor: Supervisor) -> None:
    await make_old(tmp_path / "old", supervisor)
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli", "up", "--free-ports"],
        cwd=CLONE,
        env={**os.environ, "AIRLOCK_HOME": str(tmp_path / "old")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1
    [sentence] = [line for line in output.splitlines() if "unreleased version" in line]
    assert "exchange_0007, request_0004" in sentence
    assert "move AIRLOCK_HOME (.airlock by default) away" in sentence
    assert "Traceback" not in output
    assert not (tmp_path / "old" / "up.json").exists()
