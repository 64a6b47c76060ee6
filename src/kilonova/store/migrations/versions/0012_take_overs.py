"""Tasks count the workers that died in the step that is next"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tasks",
        sa.Column(
            "take_overs", sa.Integer, nullable=False, server_default="0", comment="workers that died in that step"
        ),
    )


def downgrade() -> None:
    op.drop_column("tasks", "take_overs")
