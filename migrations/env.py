"""Alembic's entry point. The connection comes from `migrations.run`, which also makes the application role."""

from __future__ import annotations

from alembic import context


def main() -> None:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


main()
