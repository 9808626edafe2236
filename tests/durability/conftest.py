"""What the durability tests share: the worker that is killed, and a PostgreSQL server of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """A folder whose owner may run PostgreSQL, which refuses root. It lies where that owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    owner = _owner()
    if owner is not None:
        os.chown(folder, *owner)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(postgres_folder: Path) -> Iterator[str]:
    """The connection string of a PostgreSQL server, ready for checkpoints, that lives as long as the tests.

    It listens on a socket in that folder only: no port is taken, and nobody else can connect.
    """
    module = pytest.importorskip(
        "langgraph.checkpoint.postgres",
        reason='not installed: pip install langgraph-checkpoint-postgres "psycopg[binary]"',
        exc_type=ImportError,  # psycopg raises one when it finds no libpq
    )
    binaries = _binaries()
    owner = _owner()
    user = {} if owner is None else {"user": owner[0], "group": owner[1], "extra_groups": []}

    def call(name: str, *arguments: str) -> None:
        with (postgres_folder / "output").open("ab") as output:  # not a pipe: the server inherits it
            done = subprocess.run(
                [binaries / name, "-D", str(postgres_folder / "data"), *arguments],
                cwd=postgres_folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **user,
            )
        assert done.returncode == 0, (postgres_folder / "output").read_text()

    call("initdb", "--no-sync", "--auth=trust", "--username=tests", "--encoding=UTF8", "--locale=C")
    call("pg_ctl", "start", "-w", "-o", f"-k {postgres_folder} -c listen_addresses=''")
    try:
        address = f"postgresql://tests@/postgres?host={postgres_folder}"
        with module.PostgresSaver.from_conn_string(address) as saver:
            saver.setup()
        yield address
    finally:
        call("pg_ctl", "stop", "-w", "-m", "immediate")


def _binaries() -> Path:
    """The folder of PostgreSQL's server programs, which Debian leaves out of PATH."""
    places = [os.environ.get("PATH", ""), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    found = shutil.which("initdb", path=os.pathsep.join(places))
    if found is None:
        pytest.skip("PostgreSQL's `initdb` and `pg_ctl` are not installed: apt-get install postgresql")
    return Path(found).resolve().parent


def _owner() -> tuple[int, int] | None:
    """User and group that run PostgreSQL, if this is root; None for those of the tests."""
    if os.geteuid() != 0:
        return None
    import pwd  # not on Windows

    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
