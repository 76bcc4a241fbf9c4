"""The ``eventpact`` command, one module a subcommand; ``verify`` is the contract kit's."""
