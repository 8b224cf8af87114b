# syntax=docker/dockerfile:1
# Airlock's one image: both networks' APIs, workers and migrations. docker-compose.yml says which a container is.

# Give it with its digest to build from the same bytes each time: deploy/README.md.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY requirements/run.txt deploy/without-servers.sed /tmp/
# --no-deps: the file is complete, so nothing that it does not name, with its hash, gets in; pip check proves that.
RUN sed -E -f /tmp/without-servers.sed /tmp/run.txt > /tmp/requirements.txt \
    && /opt/venv/bin/pip install --require-hashes --no-deps -r /tmp/requirements.txt \
    && /opt/venv/bin/pip check \
    && /opt/venv/bin/python -m compileall -q /opt/venv

FROM ${PYTHON_IMAGE}

# A number and not a name, so that an orchestrator can see that it is not root.
RUN groupadd --gid 10001 airlock \
    && useradd --uid 10001 --gid airlock --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin airlock \
    && install -d -o airlock -g airlock -m 0700 /var/lib/airlock
COPY --from=build /opt/venv /opt/venv
COPY . /app
WORKDIR /app
# Compiled here, since the root filesystem is read-only when it runs.
RUN /opt/venv/bin/python -m compileall -q /app

# AIRLOCK_HOME holds a worker's ready file and nothing that must survive; compose puts it in memory.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AIRLOCK_HOME=/var/lib/airlock \
    AIRLOCK_LOG_FORMAT=json
USER 10001:10001
ENTRYPOINT ["python", "-m", "cli"]
