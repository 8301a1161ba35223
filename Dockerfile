# syntax=docker/dockerfile:1
# Two stages: the wheels and the environment are made in the first; the second has no compiler, no pip and no root.
FROM python:3.12-slim-bookworm AS build
ENV PYTHONDONTWRITEBYTECODE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /src
RUN python -m pip install --no-cache-dir uv==0.13.8 && uv venv /opt/opagent
COPY . .
# the lock also names what only a checkout needs, so here it constrains instead of listing
RUN uv pip install --no-cache --python /opt/opagent/bin/python --constraint requirements.lock .

FROM python:3.12-slim-bookworm
RUN groupadd --system --gid 10001 opagent \
 && useradd --system --uid 10001 --gid opagent --home-dir /var/lib/opagent --create-home opagent
COPY --from=build /opt/opagent /opt/opagent
ENV PATH=/opt/opagent/bin:$PATH PYTHONUNBUFFERED=1 OPAGENT_DATA_DIR=/var/lib/opagent OPAGENT_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/opagent
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["uvicorn", "api.app:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "5"]
