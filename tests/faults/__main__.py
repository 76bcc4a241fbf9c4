"""``python -m faults``, which is what ``tox -e faults`` runs."""

from faults.cli import main

raise SystemExit(main())
