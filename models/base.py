"""The declarative base: names every constraint, so that migrations can change them on both databases."""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import BigInteger, ColumnElement, Index, MetaData, literal, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

from models.types import id_type

Id = Annotated[str, mapped_column(id_type())]
Micros = Annotated[int, mapped_column(BigInteger)]
"""Micro-credits."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of only the rows that match `where`, the same on both databases."""
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


def written(value: str) -> ColumnElement[str]:
    """A value that stands in the SQL itself: only so can a database tell that a partial index has all the rows."""
    return literal(value, literal_execute=True)
