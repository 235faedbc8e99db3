"""A Flask site on SQLAlchemy: the extension, eight threads of requests."""

from __future__ import annotations

from contextlib import suppress

import flask
import sqlalchemy as sa
from sqlalchemy.orm import Session

from cdc_audit.client import audit_context
from cdc_audit.client.flask import Audit
from cdc_audit.client.sqlalchemy import audited
from tests.acceptance.clients.crowd import DSN, UndoneError, other, work_in_threads
from tests.acceptance.clients.orm_model import Order

engine = audited(
    sa.create_engine(DSN.replace("postgresql://", "postgresql+psycopg://"), pool_size=3, max_overflow=0)
)
app = flask.Flask(__name__)
Audit(app, user=lambda: {"user_id": flask.request.headers.get("X-User")})


@app.post("/order/<step>")
def order(step: str) -> str:
    user = flask.request.headers["X-User"]
    mine = Order(app="flask_site", who=user)
    if step == "retry":
        with suppress(UndoneError), Session(engine) as session, session.begin():
            session.add(Order(app="flask_site", who="nobody"))
            session.flush()
            raise UndoneError
    with Session(engine) as session, session.begin():
        if step == "read":
            session.get(Order, 1)
            return ""
        if step == "insert":
            session.get(Order, 1)
        session.add(mine)
        if step == "insert_and_update":
            session.flush()
            mine.changes += 1
        if step == "two_users":
            session.flush()
            with audit_context(user_id=other(user)):
                session.add(Order(app="flask_site", who=other(user)))
                session.flush()
    return ""


def main() -> None:
    def request(user: str, step: str) -> None:
        answer = app.test_client().post(f"/order/{step}", headers={"X-User": user})
        assert answer.status_code == 200

    work_in_threads(request)
    engine.dispose()


if __name__ == "__main__":
    main()
