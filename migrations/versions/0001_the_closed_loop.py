"""The closed loop: the first schema.

Revision ID: 0001
Revises: none
"""

from datetime import timedelta
from pathlib import Path

from alembic import op

from operation_agent.kit.clock import SYSTEM

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql" / revision


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg's own: a % in the SQL is no placeholder
    for file in sorted(_SQL.glob("*.sql")):
        cursor.execute(file.read_text())
    month = SYSTEM.now().replace(day=1)
    for _ in range(3):
        for parent in ("events", "decisions"):
            cursor.execute("SELECT ensure_partition(%s, %s)", (parent, month.date()))
        month = (month + timedelta(days=32)).replace(day=1)


def downgrade() -> None:
    """Drops everything: there is no earlier release to go back to."""
    op.get_bind().exec_driver_sql(
        """
        DO $$ DECLARE t text; BEGIN
          FOR t IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                     AND c.relname <> 'alembic_version'
          LOOP EXECUTE format('DROP TABLE %I CASCADE', t); END LOOP;
        END $$;
        DROP FUNCTION ensure_partition; DROP FUNCTION app_shop; DROP FUNCTION app_system;
        """
    )
