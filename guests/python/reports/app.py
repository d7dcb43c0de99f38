"""Figures about all accounts, from PostgreSQL.

pg8000 is used as anywhere else. The connection stays with the instance from one call to the next, and is made
anew when the server has closed it.
"""

import os
from urllib.parse import unquote, urlsplit

import pg8000.dbapi
from componentize_py_types import Err
from tabulate import tabulate
from wit_world import exports
from wit_world.imports.types import LedgerError_Unavailable

_connection = None

_QUERY = """
    select name, account.cents, count(transfer.id)
    from account left join transfer on name in (sender, receiver)
    group by name order by name"""


def _connect() -> pg8000.dbapi.Connection:
    url = urlsplit(os.environ["DATABASE_URL"])
    return pg8000.dbapi.connect(
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        host=url.hostname,
        port=url.port or 5432,
        database=url.path.lstrip("/"),
        timeout=3,
        # There is no TLS in Python here, which would be asked for first.
        ssl_context=False,
    )


def _rows(query: str) -> tuple:
    """Runs a query that only reads: if it fails on the connection of an earlier call, again on a new one."""
    global _connection
    kept, _connection = _connection, None
    if kept is not None:
        try:
            return _run(kept, query)
        except (pg8000.Error, OSError):
            pass
    return _run(_connect(), query)


def _run(connection: pg8000.dbapi.Connection, query: str) -> tuple:
    global _connection
    cursor = connection.cursor()
    cursor.execute(query)
    rows = cursor.fetchall()
    # Else the next call would be in the same transaction.
    connection.commit()
    _connection = connection
    return rows


class Reports(exports.Reports):
    def table(self) -> str:
        try:
            rows = _rows(_QUERY)
        except (pg8000.Error, OSError, KeyError) as failure:
            # Of a connection that cannot be made, pg8000 has the reason as its cause.
            cause = f" ({failure.__cause__})" if failure.__cause__ else ""
            raise Err(LedgerError_Unavailable(f"{type(failure).__name__}: {failure}{cause}"))
        shown = [(name, f"{cents / 100:.2f}", transfers) for name, cents, transfers in rows]
        return tabulate(shown, headers=["account", "balance", "transfers"], disable_numparse=True)
