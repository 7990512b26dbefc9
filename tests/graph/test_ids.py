"""Every dimension has ids of its own, in whatever order they are asked for."""

from __future__ import annotations

import pytest
import torch

from drc.core.errors import ModelError
from drc.graph.ids import IdSpace


def test_a_dimension_keeps_its_ids() -> None:
    space = IdSpace()
    first, second = space.allocate("first", 0, 4), space.allocate("second", 0, 3)
    assert set(first.tolist()).isdisjoint(second.tolist())
    assert torch.equal(space.allocate("first", 0, 4), first)


@pytest.mark.parametrize("size", [3, 6])
def test_another_size_is_refused_and_gets_no_ids_of_the_next_dimension(size: int) -> None:
    space = IdSpace()
    space.allocate("first", 0, 4)
    space.allocate("second", 0, 3)
    for known in (space, IdSpace(space.slots)):
        with pytest.raises(ModelError, match=f"dimension 0 of first is {size} long, and was 4"):
            known.allocate("first", 0, size)


def test_known_ids_do_not_depend_on_the_order_of_asking() -> None:
    space = IdSpace()
    found = {name: space.allocate(name, 1, 5) for name in ("a", "b", "c")}
    known = IdSpace(space.slots)
    for name in ("c", "a", "b"):
        assert torch.equal(known.allocate(name, 1, 5), found[name])
    with pytest.raises(ModelError, match="dimension 1 of d was not there"):
        known.allocate("d", 1, 5)


def test_known_ids_collect_nothing() -> None:
    space = IdSpace()
    ids = space.allocate("a", 0, 6)
    known = IdSpace(space.slots)
    known.tie(ids[:3], ids[3:])
    known.freeze(ids, "a reason")
    known.mark_mixed(ids)
    known.keep_rectangular(ids.view(2, 3))
    found = known.resolve()
    assert len(set(found.label[1:].tolist())) == 6
    assert not found.frozen and not found.read and not found.grids
