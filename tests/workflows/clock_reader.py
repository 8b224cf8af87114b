"""A workflow that does what none may do."""

from datetime import datetime

from temporalio import workflow


@workflow.defn
class ClockReader:
    """Reads the clock, so that a replay goes another way."""

    @workflow.run
    async def run(self) -> str:
        return datetime.now().isoformat()  # noqa: DTZ005
