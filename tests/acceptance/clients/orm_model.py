"""The table of the SQLAlchemy examples."""

from __future__ import annotations

from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    app: Mapped[str]
    who: Mapped[str]
    changes: Mapped[int] = mapped_column(default=1)
