"""The ``eventpact`` command, one module a subcommand."""
