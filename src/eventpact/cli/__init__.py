"""The ``eventpact`` command, one module a subcommand; ``verify`` is the contract kit's.

A module has ``run``, which takes the options and the settings, and returns the exit code. Where a file, a broker, a
database or a setting is not as it must be, it raises, and ``main`` prints that in one line.
"""
