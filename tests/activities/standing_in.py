"""Stands for Temporal where a test needs nothing of it but whom it would have told."""

from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode


class Told(Client):
    """Notes which workflows were signalled. None of them exists."""

    def __init__(self) -> None:
        self.workflows: list[str] = []

    def get_workflow_handle(self, workflow_id: str, **_: object) -> WorkflowHandle[Any, Any]:
        return Noted(self, workflow_id)


class Noted(WorkflowHandle[Any, Any]):
    """What a caller may hand over besides, mypy checks where it is handed over."""

    def __init__(self, told: Told, workflow_id: str) -> None:
        self._told = told
        self._workflow_id = workflow_id

    async def signal(self, signal: Any, *_: Any, **__: Any) -> None:
        self._told.workflows.append(f"{signal} {self._workflow_id}")
        raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")
