"""The thirteen data sets of DinoBloom (Koch et al. 2024, Table 1): where their pictures, classes and patients stand.

One line of the table is one data set. Its pattern is matched against the end of a picture's path; the groups ``label``,
``patient`` and ``split`` say what the path tells. Layouts are those of the public archives; ``verified`` are those that
were read for real. Training and evaluation read it; what is trained on and what is kept apart, they say themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.inputs import Source

_PBC = {
    "BA": "basophil",
    "BNE": "neutrophil_band",
    "EO": "eosinophil",
    "ERB": "erythroblast",
    "LY": "lymphocyte",
    "MMY": "metamyelocyte",
    "MO": "monocyte",
    "MY": "myelocyte",
    "PLATELET": "platelet",
    "PMY": "promyelocyte",
    "SNE": "neutrophil_segmented",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """Where the pictures of a data set lie and what their paths tell."""

    pattern: str
    """Regular expression for the end of a path, without regard to case; empty where the data set is not public."""
    split: Literal["train", "held out", "by picture", "by patient", "by folder"] = "train"
    """All for training; none; a fifth of each class kept out, as pictures or as patients; or as the folders say."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Class names for what the path says, where that is short."""
    fields: bool = False
    """Whether a picture is a whole field, which the reference kept whole."""
    source: str
    """Where the layout was read."""
    verified: bool = False
    """Whether it was run on real files."""


DATASETS: dict[str, DataSet] = {
    "bmc": DataSet(
        pattern=r"(?:(?P<split>train|test)/)?(?P<label>[A-Z]{3})/(?:\d+-\d+/)?[A-Z]{3}_\d+\.jpe?g",
        split="by picture",
        source="BM_cytomorphology_data/ABE/1-28/ABE_00001.jpg, TCIA AXH3-T579; DinoBloom splits/bm_test.csv",
    ),
    "hehr": DataSet(
        pattern=r"(?:(?P<split>train|test)/)?(?P<label>control|PML_RARA|NPM1|CBFB_MYH11|RUNX1_RUNX1T1)/(?P<patient>[^/]+)/[^/]+\.tiff?",
        split="by patient",
        source="data/NPM1/<patient>/image_0.tif, TCIA AML-Cytomorphology_MLL_Helmholtz, 6PPE-4020",
    ),
    "matek": DataSet(
        pattern=r"(?P<label>[A-Z]{3})/[A-Z]{3}_\d+\.tiff?",
        source="AML-Cytomorphology_LMU/NGS/NGS_7366.tiff, TCIA; DinoBloom matek_test.csv",
    ),
    "acevedo": DataSet(
        pattern=r"(?P<label>[A-Z]+)_\d+\.jpe?g",
        split="held out",
        labels=_PBC,
        source="PBC_dataset_normal_DIB/<class>/BNE_1234.jpg, Mendeley snkd93bnjr; classes as in DinoBloom pca2.ipynb",
        verified=True,
    ),
    "raabin": DataSet(
        pattern=r"(?P<split>train|test-?[AB]?)/(?P<label>[^/]+)/(?P<patient>\d+(?:-\d+)+)_[^/]+\.jpe?g",
        split="by folder",
        source="Train/Lymphocyte/95-8-8-2_29_1.jpg, raabindata.com; DinoBloom splits/raabin_train.csv; patient = smear",
    ),
    "nuclick": DataSet(
        pattern=r"images/[^/]+\.(?:png|jpe?g)",
        fields=True,
        source="guess: <split>/images/*.png beside masks, NuClick (Alemi Koohbanani et al. 2020)",
    ),
    "warty_pig": DataSet(
        pattern=r"(?P<label>[^/]+)/[^/]+\.(?:png|jpe?g|bmp)",
        source="guess: one folder per class, Alipo-on et al. 2022 (IEEE DataPort)",
    ),
    "lisc": DataSet(
        pattern=r"Main Dataset/(?P<label>baso|eosi|lymp|mono|neut|mixt)/\d+\.bmp",
        labels={
            "baso": "basophil",
            "eosi": "eosinophil",
            "lymp": "lymphocyte",
            "mono": "monocyte",
            "neut": "neutrophil",
        },
        source="LISC Database/Main Dataset/Baso/49.bmp, Rezatofighi and Soltanian-Zadeh 2011",
    ),
    "chula": DataSet(
        pattern=r"Dataset/\d+\.jpe?g",
        fields=True,
        source="Chula-RBC-12-Dataset/Dataset/141.jpg, github.com/Chula-PIC-Lab/Chula-RBC-12-Dataset",
    ),
    "sslseg": DataSet(
        pattern=r"(?:Dataset ?[12]/\d{3}\.bmp|d[12]/\d{3}\.png)",
        source="Dataset 1/001.bmp (001.png is its mask), github.com/zxaoyou/segmentation_WBC; ours d1/001.png",
        verified=True,
    ),
    "bccd": DataSet(
        pattern=r"(?:JPEGImages|images)/BloodImage_\d+\.jpe?g",
        fields=True,
        source="BCCD/JPEGImages/BloodImage_00000.jpg, github.com/Shenggan/BCCD_Dataset; ours images/",
        verified=True,
    ),
    "aslan": DataSet(
        pattern=r"images/image-\d+\.png",
        fields=True,
        source="images/image-1.png, github.com/draaslan/blood-cell-detection-dataset",
    ),
    "la": DataSet(pattern="", source="LabAnonymous: not released (probably MLL23, zenodo.org/records/14277609)"),
}
"""By name. The layouts of ``nuclick`` and ``warty_pig`` are guesses, those of the others were seen in code or lists."""


@dataclass(frozen=True, slots=True)
class Found:
    """A picture of a data set and what its path tells.

    Attributes
    ----------
    path : Path
        The file.
    file : str
        POSIX path below the folder that was named.
    label : str
        Class as the path spells it, ``""`` where it names none.
    patient : str
        Patient or smear, ``""`` where the path names none.
    split : str
        ``train`` or ``test`` where a folder says so, else ``""``.
    """

    path: Path
    file: str
    label: str
    patient: str
    split: str


def find_dataset(name: str) -> DataSet:
    """Look a data set up.

    Raises
    ------
    InputError
        If the name is not known or the data set not public.
    """
    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=1, cutoff=0.0)
        raise InputError(f"Data set {name!r} is not known; the nearest is {near[0]!r}. Known: {', '.join(DATASETS)}.")
    data = DATASETS[name]
    if not data.pattern:
        raise InputError(f"Data set {name!r} cannot be read: {data.source}. Give its pictures in a manifest.")
    return data


def match(name: str, sources: Iterable[Source]) -> list[Found]:
    """Pictures that are laid out as a data set, in the order given.

    Raises
    ------
    InputError
        As `find_dataset`.
    """
    matcher = re.compile(rf"(?:^|/){find_dataset(name).pattern}$", re.IGNORECASE)
    found = []
    for source in sources:
        hit = matcher.search(source.path.as_posix())
        if hit:
            said = {key: value or "" for key, value in hit.groupdict().items()}
            split = said.get("split", "").casefold()
            split = "test" if split.startswith("test") else split
            found.append(Found(source.path, source.file, said.get("label", ""), said.get("patient", ""), split))
    return found
