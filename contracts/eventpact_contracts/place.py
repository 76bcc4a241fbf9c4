"""Places in the matrix: the column and the row of a contract test. The plugin imports it at every start of pytest."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

__all__ = ["Place", "place_of"]


@dataclass(frozen=True)
class Place:
    """The place of a contract test in the matrix.

    Attributes:
        column: the contract class, with its parameters other than the law.
        law: the ID of the law, which is the row.
        kind: the subject of the contract: "dispatcher" or "handler".
    """

    column: str
    law: str
    kind: str


def place_of(item: pytest.Item) -> Place | None:
    """The place of a test in the matrix; None for a test of something else."""
    kind = getattr(getattr(item, "cls", None), "contract_of", None)
    if kind is None:
        return None
    name = getattr(item, "originalname", item.name)
    parameters = item.callspec if hasattr(item, "callspec") else None
    identity = parameters.id if parameters else ""
    if parameters and name == "test_law":
        law = parameters.params["law"].id
        own = re.search(rf"(?:^|(?<=-)){law}-[^-]+(?:$|-)", identity)
        identity = identity.replace(own[0], "", 1).rstrip("-") if own else identity
    elif name == "test_everything_together":
        law = "all"
    elif found := re.match(r"test_([A-Z]\d+)(?:_|$)", name):
        law = found[1]
    else:
        return None
    class_id = item.nodeid.partition("[")[0].rpartition("::")[0]
    return Place(f"{class_id}[{identity}]" if identity else class_id, law, kind)
