"""How quickly the work of a killed worker moves to another one: within ten seconds. Each bound has its reason."""

from datetime import timedelta

HEARTBEAT_SECONDS = 3.0
"""Between two heartbeats of an activity: a third of the timeout, so that two may be lost."""
HEARTBEAT_TIMEOUT = timedelta(seconds=9)
"""After this time without a heartbeat, Temporal gives an activity to another worker."""
TASK_TIMEOUT = timedelta(seconds=8)
"""After this time Temporal gives a workflow task of a killed worker to another one. A task takes milliseconds; the
default of 10 s would be longer than the heartbeat timeout."""
STICKY_TIMEOUT = timedelta(seconds=5)
"""How long a workflow's next task waits for the worker that did the last one. The default of 10 s would be too long for
a worker that was killed."""
WORKER_HEARTBEAT = timedelta(seconds=10)
"""How often a worker reports to Temporal that it lives; the default is a minute."""
LEASE_SECONDS = 12.0
"""How long a run attends to a subject without renewing that (`storage.attendance`). It is longer than the heartbeat
timeout, after which the same run goes on with another worker: a killed worker does not cause a second run."""
RENEW_SECONDS = 4.0
"""Between two renewals: a third of the lease, so that two may fail."""
