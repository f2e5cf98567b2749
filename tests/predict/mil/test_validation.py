"""Cross-validation of patients: no test patient reaches training, scores are scikit-learn's, words fit figures."""

from __future__ import annotations

import numpy as np
import pytest
from grouped import by_composition
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.mil import scores, validation
from napari_dinobloom.predict.mil.validation import iter_validate, validate
from napari_dinobloom.predict.mil.verdict import Control, judge
from napari_dinobloom.progress import drain

QUICK = {"device": "cpu", "hidden": 4, "attention": 2, "members": 2, "steps": 10, "epochs": 4}


def test_scores_are_those_of_scikit_learn_also_of_resampled_patients() -> None:
    random = np.random.default_rng(0)
    code = np.arange(30) % 3
    shares = random.dirichlet(np.ones(3), 30).astype("f4")
    shares[3] = shares[6] = shares[1]
    weights = scores.bootstrap(code, 20, 0)
    assert (weights[1:] @ np.eye(3)[code] == 10).all(), "each sample has as many patients of each group"
    found = scores.metrics(shares, code, weights)
    for row, weight in zip(found, weights, strict=True):
        again = np.repeat(np.arange(30), weight.astype(int))
        truth, one = code[again], shares[again]
        expected = [f1_score(truth, one.argmax(1), average="weighted"), balanced_accuracy_score(truth, one.argmax(1))]
        expected.append(np.mean([roc_auc_score(truth == k, one[:, k]) for k in range(3)]))
        np.testing.assert_allclose(row, expected, rtol=1e-6)


def test_nothing_of_a_test_patient_reaches_the_model_that_predicts_another() -> None:
    bags, y = by_composition(20)
    pools = np.arange(20) // 2 % 5
    options = {"given": pools, "repeats": 1, "permutations": 0, **QUICK}
    before = drain(iter_validate(bags, y, **options))
    changed = [bag + 100 * (row == 0) for row, bag in enumerate(bags)]
    after = drain(iter_validate(changed, y, **options))
    beside, others = pools == pools[0], pools != pools[0]
    beside[0] = False
    for name, shares in before.shares.items():
        np.testing.assert_array_equal(after.shares[name][0, beside], shares[0, beside], err_msg=name)
        assert not np.array_equal(after.shares[name][0, others], shares[0, others]), "there it was learned from"


def test_a_planted_leak_is_refused_or_kept_in_one_fold() -> None:
    bags, y = by_composition(20)
    names = [f"p{row}" for row in range(20)]
    bags[7] = np.concatenate([bags[7], bags[2][:1]])  # a cell of patient 2 in the training of another
    options = {"names": names, "repeats": 2, "permutations": 0, **QUICK}
    with pytest.raises(InputError, match="'p2' and 'p7'"):
        drain(iter_validate(bags, y, given=np.arange(20) // 4, **options))
    found = drain(iter_validate(bags, y, **options))
    assert (found.folds[:, 2] == found.folds[:, 7]).all()
    assert any("'p2', 'p7'" in note for note in found.notes)
    assert any(note.startswith("2 patients share pictures") for note in found.nameless)
    assert not any(repr(name) in note for note in found.nameless for name in names)
    hashes = [{str(row)} for row in range(20)]
    hashes[11] = {"11", "4"}
    with pytest.raises(InputError, match="'p4' and 'p11'"):
        drain(iter_validate(by_composition(20)[0], y, sources=hashes, given=np.arange(20) // 4, **options))


def test_a_validation_says_what_it_found_and_the_same_again() -> None:
    bags, y = by_composition(24)
    options = {"repeats": 2, "permutations": 2, "folds": 3, **QUICK}
    found = validate(bags, y, **options)
    assert found.scores["model"].tolist() == [
        "gated", "mean pooling", "attention alone", "gated - mean pooling", "gated, groups shuffled",
        "mean pooling, groups shuffled", "chance",
    ]  # fmt: skip
    table = found.scores.set_index("model")
    assert table.loc["mean pooling", "weighted_f1"] > 0.9, "half of the cells tell"
    assert 0.2 < table.loc["chance", "weighted_f1"] < 0.8
    np.testing.assert_allclose(
        table.loc["gated - mean pooling", "auc"], table.loc["gated", "auc"] - table.loc["mean pooling", "auc"]
    )
    assert found.recommended == "mean pooling"
    assert [one.scores.shape for one in found.attention] == [(len(bag), 2) for bag in bags]
    assert found.deletion["bag"].tolist() == list(range(24))
    assert found.out_of_fold("gated").shape == (24, 2)
    again = validate(bags, y, **options)
    assert again.scores.equals(found.scores)
    assert again.notes == found.notes


def test_attention_is_checked_in_the_first_repeat_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, y = by_composition(12)
    checked, check = [], validation.deletion
    monkeypatch.setattr(validation, "deletion", lambda *given: checked.append(len(given[1])) or check(*given))
    found = drain(iter_validate(bags, y, repeats=2, permutations=1, folds=3, **QUICK))
    assert checked == [4, 4, 4]
    assert len(found.attention) == len(found.deletion) == 12


def test_few_patients_are_warned_of_by_number_and_fewer_refused() -> None:
    bags, y = by_composition(8)
    steps = iter_validate(bags, y, repeats=1, permutations=0, folds=2, **QUICK)
    assert "g0 has 4, g1 has 4" in next(steps).message, "before any work"
    assert "g0 has 4, g1 has 4" in drain(steps).notes[0]
    with pytest.raises(InputError, match="'g1' has 2 patients; 3 are the least"):
        drain(iter_validate(bags, ["g0"] * 6 + ["g1"] * 2, **QUICK))
    with pytest.raises(InputError, match="one fold"):
        drain(
            iter_validate(
                bags, ["g0", "g0", "g0", "g0", "g1", "g1", "g1", "g0"], given=[0, 1, 0, 1, 1, 1, 1, 0], **QUICK
            )
        )


def test_the_verdict_recommends_attention_only_where_it_is_better() -> None:
    random = np.random.default_rng(0)
    code = np.arange(80) % 2

    def shares(right: float) -> np.ndarray:
        said = np.where(random.random(80) < right, code, 1 - code)
        return np.eye(2, dtype="f4")[said][None] * 0.8 + 0.1

    good, bad = shares(0.95), shares(0.6)
    control = Control(random.permutation(code), {"gated": bad[0], "mean pooling": bad[0]})
    better = judge("gated", {"gated": good, "mean pooling": bad}, code, [control])
    assert (better.recommended, "is better than mean pooling" in better.notes[0]) == ("gated", True)
    worse = judge("gated", {"gated": bad, "mean pooling": good}, code, [])
    assert (worse.recommended, "use mean pooling" in worse.notes[0]) == ("mean pooling", True)
    same = judge("gated", {"gated": good, "mean pooling": good}, code, [])
    assert (same.recommended, "not shown to be better" in same.notes[0]) == ("mean pooling", True)
    leaking = judge(
        "gated", {"gated": good, "mean pooling": bad}, code, [Control(code, {"gated": good[0], "mean pooling": bad[0]})]
    )
    assert any("It should not be above" in note for note in leaking.notes)
