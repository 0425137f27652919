"""`make lint`: do the migrations make exactly the schema that the models describe, on both databases?"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app import create_app
from extensions import db
from models.base import Base
from tests import databases


@contextmanager
def _urls(folder: Path) -> Iterator[list[str]]:
    sqlite = databases.Sqlite(folder)
    postgresql = databases.Postgresql(folder, databases.postgresql_root(folder))
    with sqlite.copy() as first, postgresql.copy() as second:
        yield [first, second]
    postgresql.close()


def differences(url: str, folder: Path) -> list[str]:
    """What the models have and the migrated database lacks, or the other way round."""
    app = create_app(databases.make_settings(folder / "instance", url))
    with app.app_context(), db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        found = [str(difference) for difference in compare_metadata(context, Base.metadata)]
    with app.app_context():
        db.engine.dispose()
    return found


def main() -> int:
    logging.disable(logging.INFO)
    status = 0
    with tempfile.TemporaryDirectory() as name, _urls(Path(name)) as urls:
        for url in urls:
            for difference in differences(url, Path(name)):
                print(f"{url.partition(':')[0]}: {difference}", file=sys.stderr)  # noqa: T201 - a command's output
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
