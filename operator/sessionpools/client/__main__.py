"""`sessionpools`: what users run on their own machines."""

from collections.abc import Sequence

from sessionpools.client.cli.main import app


def main(arguments: Sequence[str] | None = None) -> None:
    app(args=None if arguments is None else list(arguments), prog_name="sessionpools")


if __name__ == "__main__":
    main()
