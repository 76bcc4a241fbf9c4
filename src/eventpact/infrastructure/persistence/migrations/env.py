"""Run by Alembic, with the connection that ``Database.migrate`` or the ``alembic`` command gives."""

from alembic import context

from eventpact.infrastructure.persistence.database import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
