"""``python -m eventpact``."""

from eventpact.cli.main import main

raise SystemExit(main())
