from __future__ import annotations

import hashlib

from napari_dinobloom.encoders.splits import held_out


def test_rule_is_the_hash_of_the_name() -> None:
    names = [f"pbc/basophil/BA_{i}.jpg" for i in range(2000)]
    wanted = [int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 100 < 15 for name in names]
    assert [held_out(name) for name in names] == wanted
    assert 0.12 < sum(wanted) / len(wanted) < 0.18
