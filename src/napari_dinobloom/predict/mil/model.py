"""Attention MIL: the group of a patient from a bag of cells, with how much each cell weighs (Ilse et al. 2018)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.tensors import read_header, read_tensors, write_tensors
from napari_dinobloom.predict.mil.attention import Attention
from napari_dinobloom.predict.mil.bags import (
    Float32,
    Ints,
    bag_means,
    check_bags,
    check_groups,
    class_weights,
    few_patients,
    moments,
)
from napari_dinobloom.predict.mil.folds import inner_folds
from napari_dinobloom.predict.mil.leaks import related
from napari_dinobloom.predict.mil.mean_pooling import MeanPooling, log_loss, softmax
from napari_dinobloom.predict.mil.presets import Preset, preset_of
from napari_dinobloom.predict.mil.trained_on import KEPT, TrainedOn
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from napari_dinobloom.predict.mil.network import AttentionNetwork

KIND = "attention-mil"
MEAN, ALONE = "mean pooling", "attention alone"
CHUNK = 4096
"""Cells that are looked at at once in prediction."""
PAPER_FOLDS = 4
"""The reference holds a quarter of its training patients back."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of attention in the prediction that are tried; the rest is mean pooling."""
NETWORKS = {
    "gated": ("embed", "embed_bias", "attend", "gate", "score", "by_attention", "by_mean", "bias"),
    "paper": ("attend", "attend_bias", "score", "score_bias", "first", "first_bias", "last", "last_bias"),
}
"""Parameters of each network."""


class AttentionMIL:
    """Predicts the group of a patient from the embeddings of their cells.

    With the preset ``gated`` the probabilities are those of an ensemble of attention networks and of mean pooling with
    logistic regression, mixed in the share that predicts training patients best who were held back. ``paper`` is the
    network and recipe of the DinoBloom evaluation alone; see `presets`.

    Parameters
    ----------
    preset : {"gated", "paper"} or Preset
        How the network is built and trained.
    seed : int
        Of first weights, held-back patients and random cells.
    device : str
        As `load_encoder` takes it; "auto" takes a GPU where there is one.
    **changes
        Fields of `Preset` to change.

    Attributes
    ----------
    classes_ : (K,) array of str
        Groups in sorted order.
    share_ : float
        Share of attention in the probabilities, 0 to 1; the rest is mean pooling.
    epochs_ : int
        Epochs of training that were used.
    pooling_ : MeanPooling
        The model beside it.
    trained_on_ : TrainedOn or None
        Training patients and what a model predicted that never saw them.
    about : dict
        What else the file says: encoder, crops, when and on what it was trained.
    """

    def __init__(self, preset: str | Preset = "gated", *, seed: int = 0, device: str = "auto", **changes: Any) -> None:
        self.preset = preset_of(preset, **changes)
        self.seed, self.device = seed, device
        self.classes_: NDArray[np.str_] = np.zeros(0, dtype=str)
        self.share_, self.epochs_ = 1.0, 0
        self.pooling_ = MeanPooling()
        self.trained_on_: TrainedOn | None = None
        self.about: dict[str, Any] = {}
        self._weights: dict[str, NDArray[np.float32]] = {}
        self._centre: Float32 = np.zeros(0, np.float32)
        self._spread: Float32 = np.ones(0, np.float32)
        self._network: AttentionNetwork | None = None

    def fit(
        self,
        bags: Sequence[ArrayLike],
        y: Sequence[str] | NDArray[np.str_],
        *,
        names: Sequence[str] | None = None,
        groups: Ints | None = None,
    ) -> AttentionMIL:
        """Train.

        Parameters
        ----------
        bags : sequence of (n_i, D) arrays of float
            Embeddings of the cells of each patient, one cell or more, finite.
        y : (patients,) sequence of str
            Groups; two or more, each with two patients or more.
        names : sequence of str, optional
            Patients, for messages.
        groups : (patients,) array of int, optional
            Patients with one number are held back together; by default those who share a picture.

        Returns
        -------
        AttentionMIL
            This model.

        Raises
        ------
        InputError
            If bags or groups cannot be used; the patient is named.

        Warns
        -----
        UserWarning
            If a group has fewer than 10 patients.
        """
        if few := few_patients(y):
            warnings.warn(few, UserWarning, stacklevel=2)
        return drain(self.iter_fit(bags, y, names=names, groups=groups))

    def iter_fit(
        self,
        bags: Sequence[ArrayLike],
        y: Sequence[str] | NDArray[np.str_],
        *,
        names: Sequence[str] | None = None,
        groups: Ints | None = None,
    ) -> Steps[AttentionMIL]:
        """Twin of `fit` that yields `Progress`."""
        from napari_dinobloom.encoders.device import resolve_device

        device = resolve_device(self.device)
        cells = check_bags(bags, names)
        self.classes_, code = check_groups(y, len(cells))
        related_to = related(cells) if groups is None else groups
        paper = self.preset.network == "paper"
        folds = inner_folds(code, related_to, PAPER_FOLDS if paper else self.preset.members, self.seed)
        yield Progress(0, 1, "mean pooling")
        self.pooling_ = MeanPooling().fit(bag_means(cells), code, len(self.classes_), folds)
        dim = cells[0].shape[1]
        self._centre, self._spread = (np.zeros(dim, "f4"), np.ones(dim, "f4")) if paper else moments(cells)
        from napari_dinobloom.predict.mil.training import iter_train_gated, iter_train_paper

        train = iter_train_paper if paper else iter_train_gated
        standard = [self._standard(bag) for bag in cells]
        trained = yield from train(standard, code, len(self.classes_), folds, self.preset, self.seed, device)
        self._weights, self.epochs_, self._network = trained.weights, trained.epochs, None
        if paper:
            self.share_ = 1.0
        else:
            weights = class_weights(code, len(self.classes_))
            both = [share * trained.held_back + (1 - share) * self.pooling_.held_back for share in SHARES]
            self.share_ = SHARES[int(np.argmin([log_loss(one, code, weights) for one in both]))]
        yield Progress(1, 1, "training attention")
        return self

    def predict_proba(self, bags: Sequence[ArrayLike]) -> Float32:
        """Probability of each group, (patients, classes) float32 in the order of `classes_`; rows sum to 1.

        A patient's probabilities do not depend on who else is asked for. Memory does not grow with the cells of a bag
        beyond the bag itself.

        Raises
        ------
        InputError
            If a bag has no cell, NaN, or another number of numbers than the training patients'.
        """
        return self.proba(bags)[self.preset.name]

    def proba(self, bags: Sequence[ArrayLike]) -> dict[str, Float32]:
        """Probabilities as `predict_proba` gives them, by name of the preset, and of their parts.

        Returns
        -------
        dict of str to (patients, classes) array of float32
            Also ``mean pooling`` and, for ``gated``, ``attention alone``.
        """
        cells = self._checked(bags)
        alone = np.stack([softmax(self._run(bag)[0]).mean(axis=0) for bag in cells])
        mean = self.pooling_.predict_proba(bag_means(cells))
        both = alone if self.share_ == 1 else (self.share_ * alone + (1 - self.share_) * mean).astype(np.float32)
        parts = {self.preset.name: both, MEAN: mean}
        return parts | {ALONE: alone} if self.preset.network == "gated" else parts

    def predict(self, bags: Sequence[ArrayLike]) -> NDArray[np.str_]:
        """Most probable group, (patients,) str."""
        return np.asarray(self.classes_[self.predict_proba(bags).argmax(axis=1)], dtype=np.str_)

    def attention(self, bags: Sequence[ArrayLike]) -> list[Attention]:
        """Attention of the cells of each patient, one column a class in the order of `classes_`."""
        return [Attention(self._run(bag)[1].mean(axis=0)) for bag in self._checked(bags)]

    def remember(self, bags: Sequence[ArrayLike], sources: Sequence[Iterable[str]], shares: Float32) -> None:
        """Take down training patients, hashes of their pictures, and their out-of-fold probabilities.

        `shares` is (patients, 2, K): of this model, and of mean pooling.
        """
        self.trained_on_ = TrainedOn.of(self._checked(bags), sources, shares)

    def save(self, path: str | Path) -> Path:
        """Write the model to one safetensors file and return its path."""
        if not self._weights:
            raise InputError(f"{path}: this model is not trained; call fit before save.")
        known = self.trained_on_ or TrainedOn.of([], [], np.zeros((0, 2, len(self.classes_)), np.float32))
        tensors: dict[str, NDArray[Any]] = {f"net.{name}": value for name, value in self._weights.items()}
        tensors |= {
            "centre": self._centre,
            "spread": self._spread,
            "known.keys": known.keys,
            "known.pictures": known.pictures,
            "known.shares": known.shares,
        }
        tensors |= {"mean.coef": self.pooling_.coef, "mean.intercept": self.pooling_.intercept}
        about = {
            "preset": self.preset.to_dict(),
            "classes": self.classes_.tolist(),
            "seed": self.seed,
            "share": self.share_,
            "epochs": self.epochs_,
            "strength": self.pooling_.strength,
            "about": self.about,
        }
        return write_tensors(Path(path), tensors, KIND, about)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> AttentionMIL:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is no saved model or its parts do not fit together.
        """
        path = Path(path)
        header = read_header(path, KIND, InputError)
        try:
            saved = dict(header["preset"])
            network = saved.pop("network")
            model = cls(Preset(network=network, **saved), seed=int(header["seed"]), device=device)
            names = [f"net.{name}" for name in NETWORKS[network]]
            model.classes_ = np.asarray(header["classes"], dtype=str)
            model.share_, model.epochs_ = float(header["share"]), int(header["epochs"])
            model.about = dict(header["about"])
            model.pooling_.strength = float(header["strength"])
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"{path}: not a usable model of attention MIL ({error}); train it again.") from error
        rest = ("centre", "spread", "mean.coef", "mean.intercept", "known.shares")
        dtypes = dict.fromkeys((*names, *rest), "float32") | dict.fromkeys(("known.keys", "known.pictures"), "uint64")
        model._take(path, read_tensors(path, KIND, dtypes, InputError)[0])
        return model

    def _take(self, path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take over what a file holds, if its parts fit together."""
        self._weights = {name[4:]: value for name, value in tensors.items() if name.startswith("net.")}
        self._centre, self._spread = tensors["centre"], tensors["spread"]
        self.pooling_.coef, self.pooling_.intercept = tensors["mean.coef"], tensors["mean.intercept"]
        known = TrainedOn(tensors["known.keys"], tensors["known.pictures"], tensors["known.shares"])
        self.trained_on_ = known if len(known.keys) else None
        dim, k = self._centre.size, self.classes_.size
        floats = [value for name, value in tensors.items() if not name.startswith("known.")]
        fits = (
            self._centre.shape == self._spread.shape == (dim,)
            and self.pooling_.coef.shape == (k, dim)
            and self.pooling_.intercept.shape == (k,)
            and known.keys.shape == known.pictures.shape == (len(known.keys), KEPT)
            and known.shares.shape == (len(known.keys), 2, k)
            and 0 <= self.share_ <= 1
            and all(np.isfinite(value).all() for value in floats)
        )
        if self.preset.network == "gated" and tensors["net.gate"].shape[1:] != (
            self.preset.hidden,
            self.preset.attention,
        ):
            fits = False
        try:
            self._net()
        except (RuntimeError, IndexError) as error:
            raise InputError(f"{path}: weights of the network do not fit ({error}); train it again.") from error
        if not fits:
            raise InputError(f"{path}: weights and classes do not fit together; train it again.")

    def _checked(self, bags: Sequence[ArrayLike]) -> list[Float32]:
        if not self._weights:
            raise InputError("This model is not trained: call fit, or load a trained one.")
        return check_bags(bags, dim=len(self._centre))

    def _standard(self, bag: Float32) -> Float32:
        standard: Float32 = (bag - self._centre) / self._spread
        return standard

    def _run(self, bag: Float32) -> tuple[Float32, Float32]:
        """Logits (M, K) and scores (M, n, K) of one bag."""
        from napari_dinobloom.predict.mil.network import run_bag

        logits, scores = run_bag(self._net(), self._standard(bag), CHUNK)
        return logits.numpy(), scores.numpy()

    def _net(self) -> AttentionNetwork:
        """The network, built when it is first asked."""
        if self._network is None:
            import torch

            from napari_dinobloom.encoders.device import resolve_device
            from napari_dinobloom.predict.mil.training import build

            paper = self.preset.network == "paper"
            members = 1 if paper else len(self._weights["embed"])
            network = build(self.preset, members, len(self._centre), len(self.classes_))
            network.load_state_dict({name: torch.from_numpy(value) for name, value in self._weights.items()})
            self._network = network.to(resolve_device(self.device)).eval()
        return self._network
