"""``python -m eventpact``."""

from eventpact.cli import main

raise SystemExit(main())
