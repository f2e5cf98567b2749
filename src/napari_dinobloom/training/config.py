"""What a training run is told: one dataclass per topic, YAML presets, overrides from the command line.

A preset may name another one as its ``base``, whose values hold where it says nothing, and may give values ``by_size``
of the encoder, which hold where neither file says anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.augment import Augmentations
from napari_dinobloom.training.distillation import LossWeights
from napari_dinobloom.training.schedules import Schedules
from napari_dinobloom.training.topics import Batch, Data, Evaluation, Heads, Masks, Model, Run

PRESETS = Path(__file__).parent / "presets"


@dataclass(kw_only=True, slots=True, frozen=True)
class Config:
    """All of a training run; the defaults are the published training of DinoBloom-S, from scratch."""

    model: Model = field(default_factory=Model)
    """The encoder."""
    data: Data = field(default_factory=Data)
    """The pictures."""
    batch: Batch = field(default_factory=Batch)
    """Pictures per step."""
    heads: Heads = field(default_factory=Heads)
    """Projection heads."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Of the losses."""
    schedule: Schedules = field(default_factory=lambda: Schedules(batch=1))
    """What changes from iteration to iteration; its `batch` is always `Batch.total`."""
    masks: Masks = field(default_factory=Masks)
    """What the student does not see."""
    augmentation: Augmentations = field(default_factory=Augmentations)
    """Crops and colours."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """Labelled pictures."""
    run: Run = field(default_factory=Run)
    """Where and how."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", replace(self.schedule, batch=self.batch.total))
        if self.run.stop > self.schedule.iterations:
            raise InputError(
                f"run.stop {self.run.stop} lies after the schedule's end, schedule.iterations "
                f"{self.schedule.iterations}, where the learning rate is spent and the teacher stands still."
            )
        if self.augmentation.size != 224 or self.augmentation.local_size % 14:
            raise InputError(
                f"augmentation.size is {self.augmentation.size} and local_size {self.augmentation.local_size}: "
                "positions are those of 16 x 16 patches of 14 pixels, so use 224, and a multiple of 14."
            )
        terms = asdict(self.weights)
        if min(terms.values()) < 0 or max(terms.values()) == 0:
            raise InputError(f"weights are {terms}; none may be negative, and one must be above 0.")
        if bool(self.weights.local) != bool(self.augmentation.local_crops):
            raise InputError(
                f"weights.local is {self.weights.local} and augmentation.local_crops {self.augmentation.local_crops}: "
                "give both or none. DINOv2 has eight local crops, weights.local=0.8889 and weights.dino=0.1111."
            )
        if self.weights.ibot and self.masks.probability * self.batch.group * 2 < 1:
            raise InputError(
                f"masks.probability {self.masks.probability} masks no crop of a group of {self.batch.group} pictures, "
                "but iBOT learns from masked patches: raise it, or set weights.ibot to 0."
            )

    @property
    def last(self) -> int:
        """Iterations after which training ends."""
        return self.run.stop or self.schedule.iterations

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values for YAML and JSON; `from_dict` gives the same configuration again."""
        topics: dict[str, dict[str, Any]] = {topic: {} for topic in get_type_hints(Config)}
        for key in _KEYS:
            topic, _, name = key.partition(".")
            value = getattr(getattr(self, topic), name)
            topics[topic][name] = list(value) if isinstance(value, tuple) else value
        return topics

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from a mapping of topics to mappings; what is not said keeps its default.

        Raises
        ------
        InputError
            If a key is not known (the nearest is named), or a value is of the wrong type or cannot work.
        """
        said: dict[str, dict[str, Any]] = {}
        for topic, group in values.items():
            if not isinstance(group, Mapping):
                raise InputError(f"{topic!r} is {group!r}; it must hold keys, such as {_nearest(str(topic))!r}.")
            keys = {name: _known(f"{topic}.{name}") for name in group}
            said[topic] = {name: _typed(group[name], _KEYS[key], key) for name, key in keys.items()}
        parts = {}
        for topic, kind in get_type_hints(cls).items():
            given = said.get(topic, {}) | ({"batch": 1} if kind is Schedules else {})
            try:
                parts[topic] = kind(**given)
            except ValueError as error:
                raise InputError(f"{topic}: {error}") from error
        return cls(**parts)


def load(preset_or_path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a preset or a YAML file and put overrides over it.

    Parameters
    ----------
    preset_or_path : str or Path
        "dinobloom-paper", "dinobloom-fast", "reddino", "dinov2", "starter", "smoke", or a file like those in
        ``training/presets``. A file may begin with ``base: dinobloom-paper``.
    overrides : sequence of str
        "topic.key=value", the value in YAML: "batch.total=512", "schedule.weight_decay=[0.04, 0.4]".

    Returns
    -------
    Config
        Checked.

    Raises
    ------
    InputError
        If the file cannot be read, a key is not known (the nearest is named), or a value is of the wrong type or
        cannot work. The message names the file.
    """
    content = _content(_find(preset_or_path))
    asked: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r} says no value; write {_nearest(key)}=VALUE.")
        topic, _, name = _known(key.strip()).partition(".")
        asked.setdefault(topic, {})[name] = _parsed(text.strip(), _KEYS[key.strip()])
    sizes = content.pop("by_size", {})
    content = _over(content, asked)
    model = content.get("model")
    size = model.get("size", Model().size) if isinstance(model, Mapping) else Model().size
    try:
        if not isinstance(sizes, Mapping) or not set(sizes) <= set(get_args(_KEYS["model.size"])):
            raise InputError(f"by_size must hold sizes ({', '.join(get_args(_KEYS['model.size']))}), each with topics.")
        return Config.from_dict(_over(sizes.get(str(size), {}), content))
    except InputError as error:
        raise InputError(f"{preset_or_path}: {error}") from error


def presets() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _find(preset_or_path: str | Path) -> Path:
    """The file of a preset, or a file."""
    if str(preset_or_path) in presets():
        return PRESETS / f"{preset_or_path}.yaml"
    path = Path(preset_or_path)
    if not path.is_file():
        raise InputError(f"{path}: neither a file nor a preset; the presets are {', '.join(presets())}.")
    return path


def _content(path: Path) -> dict[str, Any]:
    """What a file says, over what its base says."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no topics; it must look like a file of {PRESETS}.")
    base = content.pop("base", None)
    if base is None:
        return content
    if base not in presets():
        raise InputError(f"{path}: base {base!r} is no preset; the presets are {', '.join(presets())}.")
    return _over(_content(PRESETS / f"{base}.yaml"), content)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one; `above` holds where both say something that is no mapping."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _over(merged[key], value) if both else value
    return merged


def _known(key: str) -> str:
    """The key itself, if there is such a setting."""
    if key not in _KEYS:
        raise InputError(f"{key!r} is no setting; the nearest is {_nearest(key)!r}.")
    return key


def _nearest(key: str) -> str:
    """The setting that looks most like `key`, its topic aside or not."""
    last = key.rpartition(".")[2]

    def alike(known: str) -> float:
        return SequenceMatcher(None, key, known).ratio() + SequenceMatcher(None, last, known.partition(".")[2]).ratio()

    return max(_KEYS, key=alike)


def _parsed(text: str, kind: Any) -> Any:
    """Value of an override: text where text is wanted ("1e3", "no", "0"), else what YAML reads."""
    if kind is str or get_origin(kind) is Literal:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} cannot be read as YAML ({error}).") from error


def _typed(value: Any, kind: Any, key: str) -> Any:
    """`value` as the type that a field is annotated with."""
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and len(value) == len(get_args(kind)):
            return tuple(_typed(part, of, key) for part, of in zip(value, get_args(kind), strict=True))
    elif get_origin(kind) is Mapping:
        if isinstance(value, Mapping):
            return {str(name): _typed(part, get_args(kind)[1], f"{key}, {name}") for name, part in value.items()}
    elif kind is float:
        with suppress(ValueError):  # YAML takes 1e-4, without a point, for text
            if isinstance(value, int | float | str) and not isinstance(value, bool) and math.isfinite(float(value)):
                return float(value)
    elif value in get_args(kind) or type(value) is kind:
        return value
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    if kind not in words:
        words[kind] = f"one of {', '.join(map(str, get_args(kind)))}"
        if get_origin(kind) is Mapping:
            words[kind] = "names and numbers, as in {bmc: 1, hehr: 2}"
        if get_origin(kind) is tuple:
            words[kind] = f"{len(get_args(kind))} numbers in brackets, as in [0.1, 0.5]"
    raise InputError(f"{key} is {value!r}; it must be {words[kind]}.")


_KEYS: dict[str, Any] = {
    f"{topic}.{part.name}": get_type_hints(kind)[part.name]
    for topic, kind in get_type_hints(Config).items()
    for part in fields(kind)
    if (kind, part.name) != (Schedules, "batch")
}
"""Type of every setting, by "topic.key"."""
