from __future__ import annotations

import hashlib

from napari_dinobloom.encoders.splits import held_out, unseen_by_starter


def test_rule_is_the_hash_of_the_name() -> None:
    names = [f"pbc/basophil/BA_{i}.jpg" for i in range(2000)]
    wanted = [int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 100 < 15 for name in names]
    assert [held_out(name) for name in names] == wanted
    assert 0.12 < sum(wanted) / len(wanted) < 0.18


def test_only_pictures_of_the_starters_data_set_can_have_been_seen() -> None:
    names = [f"BA_{i}.jpg" for i in range(100, 600)]
    rule = [held_out(f"pbc/basophil/{name}") for name in names]
    for folder in ("", "pbc/basophil/", "PBC_dataset_normal_DIB/basophil/"):
        assert [unseen_by_starter(folder + name) for name in names] == rule
    assert all(unseen_by_starter(f"lab/{i}.png") and unseen_by_starter(f"XYZ_{i}000.jpg") for i in range(100))
