"""The command line as a whole."""

from sessionpools.client.cli import batches, pools, services
from sessionpools.client.cli.account import hash_password, login, logout, whoami
from sessionpools.client.cli.common import group
from sessionpools.client.cli.local import run
from sessionpools.client.cli.logs import logs
from sessionpools.client.cli.server import status

__all__ = ["app"]

app = group(
    """Warm Python interpreters for web services.

    \b
    sessionpools run score.py                     serve it on this machine, without a cluster
    sessionpools login http://localhost:12800     the commands below are for a server
    sessionpools publish score.py --version v1
    sessionpools pools set score v1 --initial 5 --max 10 --watch
    sessionpools call score v1 bmi=32.1

    Environment: SESSIONPOOLS_URL and SESSIONPOOLS_TOKEN instead of a login, NO_COLOR.

    Exit codes: 0 done; 1 refused or failed; 2 wrong use, nothing was sent; 3 not logged in, or not allowed; 4 there is
    no such thing; 5 what was waited for has not come; 6 no answer; 130 interrupted.
    """
)
app.command()(run)
app.command()(login)
app.command()(logout)
app.command()(whoami)
app.add_typer(services.app, name="services")
app.command()(services.publish)
app.command()(services.call)
app.add_typer(pools.app, name="pools")
app.command()(pools.usage)
app.command()(logs)
app.add_typer(batches.app, name="batch")
app.command()(status)
app.command("hash-password")(hash_password)
