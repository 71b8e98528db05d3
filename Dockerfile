# One instance of Parley. It needs DATABASE_URL and PARLEY_SECRET; several instances also need REDIS_URL.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/parley
COPY requirements.lock ./
RUN /opt/parley/bin/pip install --require-hashes -r requirements.lock
# The code comes after the libraries: a change of it leaves their layer as it is.
COPY pyproject.toml README.md ./
COPY server ./server
COPY handlers ./handlers
COPY storage ./storage
COPY rules ./rules
COPY sql ./sql
RUN /opt/parley/bin/pip install --no-deps --no-build-isolation .
# What built it, and what could install more, is not needed to run it.
RUN /opt/parley/bin/pip uninstall --yes editables hatchling packaging pathspec pluggy tomlkit trove-classifiers setuptools pip

FROM python:3.11-slim-bookworm
RUN pip uninstall --yes setuptools wheel pip \
    && useradd --system --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin parley \
    && install --directory --mode=0700 --owner=parley /data
COPY --from=build /opt/parley /opt/parley
ENV PATH=/opt/parley/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PARLEY_DATA=/data \
    PARLEY_HOST=0.0.0.0 \
    PARLEY_PORT=8080 \
    PARLEY_LOG=json
USER 10001
WORKDIR /data
EXPOSE 8080
# The image has no curl; an answer other than 200 raises, which is exit code 1.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PARLEY_PORT\"]}/readyz', timeout=2)"]
CMD ["parley", "serve"]
