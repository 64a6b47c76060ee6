"""Long work: one row a task, one row for each step done, and who may work on what."""

import sqlalchemy as sa

from kilonova.store.tables.base import CELL, Json, Serial, Timestamp, Uuid

tasks = sa.Table(
    "tasks",
    CELL,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(64), nullable=False),
    sa.Column("step", sa.Integer, nullable=False, comment="index of the step that is next"),
    sa.Column("undoing", sa.Boolean, nullable=False, default=False),
    sa.Column("payload", Json, nullable=False, comment="emptied when the task ends"),
    sa.Column("failure", Json, nullable=True, comment="step, host, code and message of what went wrong"),
    sa.Column("attempt", sa.Integer, nullable=False, default=1, comment="of the whole task"),
    sa.Column("tries", sa.Integer, nullable=False, default=0, comment="of the step that is next"),
    sa.Column("take_overs", sa.Integer, nullable=False, server_default="0", comment="workers that died in that step"),
    sa.Column("epoch", sa.BigInteger, nullable=False, default=0),
    sa.Column("lease_owner", Uuid, nullable=True),
    sa.Column("lease_until", Timestamp, nullable=True),
    sa.Column("due_at", Timestamp, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False, default=""),
    sa.Column("outcome", sa.String(16), nullable=True, comment="done, failed or superseded; null: live"),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("finished_at", Timestamp, nullable=True),
    sa.Index("tasks_due", "outcome", "due_at"),
    sa.Index("tasks_owner", "lease_owner", "outcome"),
    sa.Index("tasks_finished", "finished_at"),
)

task_subjects = sa.Table(
    "task_subjects",
    CELL,
    sa.Column("subject", sa.String(64), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False, comment="grows with every lease; agents refuse smaller ones"),
    sa.Column("live_task", Uuid, nullable=True, comment="at most one live task a subject"),
)

task_steps = sa.Table(
    "task_steps",
    CELL,
    sa.Column("id", Serial, primary_key=True),
    sa.Column("task_id", Uuid, nullable=False),
    sa.Column("step", sa.String(64), nullable=False),
    sa.Column("undoing", sa.Boolean, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("host", sa.String(255), nullable=True),
    sa.Column("started_at", Timestamp, nullable=False),
    sa.Column("finished_at", Timestamp, nullable=False),
    sa.Column("result", sa.String(16), nullable=False, comment="done, failed, retry"),
    sa.Column("detail", sa.Text, nullable=False, default=""),
    sa.Index("task_steps_task", "task_id", "id"),
)
