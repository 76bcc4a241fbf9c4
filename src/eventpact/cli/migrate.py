"""``eventpact migrate``: brings the database to the newest schema."""

import argparse

from eventpact.infrastructure.persistence.opening import (
    open_database,
    open_folder,
    open_secret,
    secret_fingerprint,
    state,
)
from eventpact.settings import Settings


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Migrate the database and, if asked to, accept the secret."""
    if settings.database is None or (options.new_secret and settings.secret is None):
        open_folder(settings.data_dir)
    database = open_database(settings.database_url, migrate=True)
    print("the database has the newest schema")
    if options.new_secret:
        secret = settings.secret.get_secret_value().encode() if settings.secret else open_secret(settings.data_dir)
        state(database, "secret", secret_fingerprint(secret))
        print("the secret is accepted; codes that were mailed with the one before are void")
    database.close()
    return 0
