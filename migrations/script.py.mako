"""${message}

Revision ${up_revision}, after ${down_revision or "nothing"}.

LOCKS. This runs on live books, on PostgreSQL in one transaction that holds every lock it takes until it commits:
- ADD COLUMN takes an ACCESS EXCLUSIVE lock: short without a default or with a constant one; a volatile default
  rewrites the whole table. Add it nullable, fill it in batches, then make it NOT NULL.
- A new CHECK or FOREIGN KEY scans the table under its lock: add it NOT VALID, VALIDATE it in a later revision.
- CREATE INDEX stops every write to its table while it builds: on usage_records and ledger_entries use
  postgresql_concurrently inside `with op.get_context().autocommit_block():`, in a revision of its own.
- On SQLite batch mode copies the whole table while every writer waits.
Code of the release before must keep working on the new schema. Delete this note once each point is answered.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
