"""`python worker.py [response|request]`: runs a network's workflows and activities, or those of both networks.

Any number of workers may run, on any number of machines. SIGTERM and SIGINT let work under way finish within 30 s; then
the exit code is 0.
"""

import importlib.util
import os
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parent
if importlib.util.find_spec("temporalio") is None:
    # This Python lacks the requirements; the launcher finds the one that has them.
    os.execv(sys.executable, [sys.executable, str(CLONE / "airlock"), "worker", *sys.argv[1:]])

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from temporalio.runtime import Runtime
from temporalio.service import RPCError
from temporalio.worker import Worker

from configuration.home import home_directory
from configuration.logs import configure_logs
from configuration.settings import SETTINGS, NetworkSettings, RequestSettings, ResponseSettings
from configuration.timing import WORKER_HEARTBEAT
from models.errors import AirlockError, ConfigurationError, describe
from models.printable import printable
from models.streams import Network
from orchestration.client import sdk_runtime
from wiring.request_worker import request_worker
from wiring.response_worker import response_worker

log = structlog.get_logger("worker")


@asynccontextmanager
async def running_worker(settings: NetworkSettings, runtime: Runtime) -> AsyncIterator[Worker]:
    """This network's worker, ready to run. Its connections are closed after the block."""
    match settings:
        case RequestSettings():
            opened = request_worker(settings, runtime)
        case ResponseSettings():
            opened = response_worker(settings, runtime)
        case _:
            raise ConfigurationError(f"there is no worker for {settings!r}")
    async with opened as worker:
        yield worker


async def run(networks: Sequence[Network]) -> None:
    """Run the workers of these networks until SIGTERM or SIGINT."""
    runtime = sdk_runtime("WARN", WORKER_HEARTBEAT)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    settings = [SETTINGS[network].load() for network in networks]
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(running_worker(loaded, runtime)) for loaded in settings]
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        signalled = asyncio.create_task(stopping.wait())
        ready_files = [_ready_file(network) for network in networks]
        for network, worker in zip(networks, workers, strict=True):
            log.info("worker.ready", network=network.value, task_queue=worker.task_queue, pid=os.getpid())
        await asyncio.wait((*tasks, signalled), return_when=asyncio.FIRST_COMPLETED)
        log.info("worker.stopping", networks=[network.value for network in networks])
        for file in ready_files:
            _no_longer_ready(file)
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        signalled.cancel()
        await asyncio.gather(*tasks)
    log.info("worker.stopped")


def _ready_file(network: Network) -> Path:
    """Write the file that shows a health check that the worker runs, and its pid."""
    file = home_directory() / f"worker-{network}.ready"
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.write_text(f"{os.getpid()}\n")
    return file


def _no_longer_ready(file: Path) -> None:
    """Delete the file, unless another worker of this home has replaced it."""
    with suppress(FileNotFoundError):
        if file.read_text().strip() == str(os.getpid()):
            file.unlink()


def _complain(text: str) -> None:
    for line in text.split("\n"):
        print(printable(line), file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """Run the workers. Returns the exit code: 0 after a signal, 2 for a wrong configuration, otherwise 1."""
    names = [network.value for network in Network]
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if len(arguments) > 1 or any(argument not in names for argument in arguments):
        print(f"usage: python worker.py [{'|'.join(names)}]", file=sys.stderr)
        return 2
    configure_logs()
    try:
        asyncio.run(run([Network(argument) for argument in arguments] or list(Network)))
    except ConfigurationError as error:
        _complain(f"worker: {error}")
        return 2
    except AirlockError as error:
        _complain(f"worker: {error}")
        return 1
    except (RuntimeError, RPCError) as error:
        _complain(f"worker: {describe(error)}. Is Temporal running, and are its address and namespace right?")
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # temporalio 1.35 sometimes crashes while Python 3.11 shuts down, after all work is done.
    os._exit(code)
