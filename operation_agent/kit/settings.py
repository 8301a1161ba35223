"""Configuration from the environment (`OPAGENT_…`, nested with `__`) and nowhere else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every field is an environment variable: `data_dir` is OPAGENT_DATA_DIR."""

    model_config = SettingsConfigDict(env_prefix="OPAGENT_", env_nested_delimiter="__", extra="ignore")

    data_dir: Path = Field(Path("var"), description="Embedded PostgreSQL, Redis, admin.json and secret.key live here")
    host: str = Field("127.0.0.1", description="Address the API listens on")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on")
    secret_key: str | None = Field(None, description="At least 32 characters; made and kept in data_dir when absent")
    database_url: str | None = Field(None, description="postgresql://…; absent: the embedded PostgreSQL")
    redis_url: str | None = Field(None, description="redis://…; absent: the embedded Redis")
    broker_url: str | None = Field(None, description="Celery's broker; absent: redis_url")
    worker_concurrency: int = Field(2, ge=1, le=64, description="Processes of one Celery worker")
    log_json: bool = Field(False, description="Log as JSON lines")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    body_limit_bytes: int = Field(512 * 1024, description="Largest request body of the tracking API (Segment's limit)")
    webhook_limit_bytes: int = Field(4 * 1024 * 1024, description="Largest webhook body")
    batch_limit: int = Field(1000, description="Most events in one /v1/batch")
    public_url: str | None = Field(None, description="Address under which providers reach us; absent: http://host:port")


@cache
def settings() -> Settings:
    """Read once per process. Tests that change the environment call `settings.cache_clear()`."""
    return Settings()
