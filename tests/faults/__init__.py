"""The fault matrix: every dispatcher under every fault, in real processes, judged by accounting (``tox -e faults``)."""
