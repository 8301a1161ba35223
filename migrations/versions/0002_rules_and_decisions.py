"""Rules, strategies and the decision engine: segments, journeys, versions, approvals, campaigns.

Revision ID: 0002
Revises: 0001
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql" / revision


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg's own: a % in the SQL is no placeholder
    for file in sorted((_SQL / "up").glob("*.sql")):
        cursor.execute(file.read_text())


def downgrade() -> None:
    """Loses what only this release knows: segments, runs, versions, approvals, campaigns."""
    cursor = op.get_bind().connection.cursor()
    for file in sorted((_SQL / "down").glob("*.sql"), reverse=True):
        cursor.execute(file.read_text())
