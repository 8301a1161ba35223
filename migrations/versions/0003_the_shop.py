"""The shop: its catalogue, orders with lines, syncs, changes made there, privacy requests.

Revision ID: 0003
Revises: 0002
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql" / revision


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()  # psycopg's own: a % in the SQL is no placeholder
    for file in sorted((_SQL / "up").glob("*.sql")):
        cursor.execute(file.read_text())


def downgrade() -> None:
    """Loses what only this release knows: catalogue, order lines, syncs, shop changes, code pools, privacy requests."""
    cursor = op.get_bind().connection.cursor()
    for file in sorted((_SQL / "down").glob("*.sql"), reverse=True):
        cursor.execute(file.read_text())
