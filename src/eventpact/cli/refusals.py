"""Refusals of a disk or a database that reach the command line: one line each, with the place and the reason."""

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from eventpact.environment import CannotStartError
from eventpact.infrastructure.persistence.opening import explain
from eventpact.settings import Settings


@contextmanager
def in_one_line(settings: Settings | None) -> Generator[None]:
    """Turn what a disk, a network or a database refuses into an error that the command line prints.

    Raises:
        CannotStartError: in place of an error that names a file or a database, and not a fault of the program.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads the output any more
    except OSError as error:
        # Of a file that was to be renamed the new name counts, which is the one that somebody knows.
        place = error.filename2 or error.filename
        reason = error.strerror or str(error) or type(error).__name__
        raise CannotStartError(reason if place is None else f"{place}: {reason}") from error
    except UnicodeError as error:
        raise CannotStartError(f"a text cannot be read or written: {error}") from error
    except SQLAlchemyError as error:
        raise CannotStartError(explain(error, settings.database_url if settings else "")) from error
