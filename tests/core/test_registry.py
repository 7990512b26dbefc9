"""Names that modules of a package register."""

from __future__ import annotations

import pytest

from drc.core.errors import UsageError
from drc.core.registry import Registry


def test_names_are_unique_and_the_nearest_is_offered() -> None:
    things: Registry[int] = Registry("kind of thing", "drc.selection.criteria")
    things.add("second", 2)
    things.add("first", 1)
    assert things.names() == ["first", "second"]
    assert things.get("first") == 1
    with pytest.raises(ValueError, match="the kind of thing 'first' is already registered"):
        things.add("first", 3)
    with pytest.raises(UsageError, match="no kind of thing is called 'fist'; did you mean first"):
        things.get("fist")
