"""Options that several commands have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_dinobloom.console import accepting

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder

StudyFolder = Annotated[Path, typer.Argument(help="Study folder, NAME.dinobloom.")]
MoreInputs = Annotated[list[str] | None, typer.Argument(help="Images to add; none: those the study has.")]
Neighbours = Annotated[int | None, typer.Option("--neighbours", help="Neighbours of a cell in the map.")]
MinDist = Annotated[float | None, typer.Option(help="How densely the map packs, 0 to 1.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the map.")]
Inputs = Annotated[list[str], typer.Argument(help="Images, slides, folders, globs (PNG, JPEG, TIFF, OME-Zarr, SVS).")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Study folder, NAME.dinobloom.")]
UnderPseudonyms = Annotated[
    bool, typer.Option("--pseudonyms", help="Numbers in place of patients, slides, files and readers.")
]
Specimen = Annotated[Literal["blood", "marrow"] | None, typer.Option(help="Which cells the differential counts.")]
SchemeName = Annotated[
    str | None,
    typer.Option("--scheme", help="Lines of the differential: five-part, pbc, matek, bmc, a .yaml file; or none."),
]
Counted = Annotated[
    Literal["all", "reviewed"] | None,
    typer.Option("--count", help="Count all cells, or those that a person has reviewed or labelled."),
]
PixelSize = Annotated[float | None, typer.Option(help="Micrometres per pixel; else from the file or the red cells.")]
CellsFlag = Annotated[bool | None, typer.Option("--cells", help="Each picture is one cell; no segmentation.")]
SegmenterName = Annotated[
    Literal["learned", "cellpose"] | None, typer.Option("--segmenter", help="What finds the cells.")
]
Search = Annotated[
    Literal["monolayer", "all"] | None,
    typer.Option("--search", help="Where cells of a whole slide are sought: where red cells lie singly, or all over."),
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="File or folder of marked cells: label images, CSV, GeoJSON, VOC, YOLO."),
]
AcceptLicence = Annotated[
    bool | None,
    typer.Option("--accept-licence", help="Accept the terms of segmenter and encoder; else you are asked once."),
]
SlideFrom = Annotated[
    str | None,
    typer.Option(help="Slide of a file: folder, folder:2, file, a regular expression with one group, a CSV."),
]
PatientFrom = Annotated[str | None, typer.Option(help="Patient of a file: slide, or as --slide-from.")]
EncoderName = Annotated[str | None, typer.Option("--encoder", help="Encoder by name, or a file of weights.")]
Device = Annotated[
    str | None, typer.Option("--device", "--devices", help="auto, cpu, mps, cuda, cuda:1; or several: 0,1,2,3.")
]
Precision = Annotated[Literal["auto", "float32", "bf16"] | None, typer.Option(help="Number format of the encoder.")]
Pooling = Annotated[
    Literal["own", "class", "class+mean"] | None,
    typer.Option(help="The encoder's own, the class token, or with it the mean patch token."),
]
Embeddings = Annotated[
    Literal["float32", "bf16"] | None, typer.Option(help="How embeddings are kept; bf16 takes half the disk.")
]
MaxMemory = Annotated[
    float | None, typer.Option("--max-memory", help="GiB that the encoder may take; 0 does not limit it.")
]
StainName = Annotated[
    Literal["none", "reinhard", "macenko"] | None,
    typer.Option("--stain", help="Recolour each slide's crops to the stain of the reference before embedding."),
]
AdaptTo = Annotated[
    Literal["auto", "none", "restandardise", "reinhard", "macenko"] | None,
    typer.Option("--adapt", help="Bring cells of another stain nearer to the reference; auto: only on clear evidence."),
]
AtlasName = Annotated[
    str | None, typer.Option("--atlas", help="auto, none, or an atlas or a probe: a name of `atlas list`, or a file.")
]
VotesOf = Annotated[int | None, typer.Option("--k", help="Reference cells that vote on a cell; 0: the atlas' number.")]
VoteMetric = Annotated[
    Literal["own", "euclidean", "cosine"] | None,
    typer.Option("--metric", help="Distance between cells; own: that of the atlas."),
]
VoteWeights = Annotated[
    Literal["own", "uniform", "distance"] | None,
    typer.Option("--weights", help="Weight of a vote; own: that of the atlas."),
]
Fov = Annotated[float | None, typer.Option("--fov-um", help="Side of the square around a cell, micrometres.")]
FovDiameters = Annotated[
    float | None, typer.Option("--fov-diameters", help="The same in white-cell diameters, where no scale is known.")
]
Interpolation = Annotated[Literal["bilinear", "bicubic", "lanczos"] | None, typer.Option(help="How crops are resized.")]
MaskNeighbours = Annotated[
    bool | None, typer.Option("--mask-neighbours/--keep-neighbours", help="Paint other white cells in a crop over.")
]

Retry = Annotated[
    bool,
    typer.Option("--retry", help="Try pictures again that were set aside: unreadable, or they ended their workers."),
]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", help="Share the work among this many processes of one core each.")
]
SchedulerAddress = Annotated[
    str | None, typer.Option("--scheduler", help="Dask scheduler whose workers do the work: tls://HOST:PORT.")
]
ClusterKind = Annotated[
    Literal["slurm"] | None, typer.Option("--cluster", help="Ask for workers as jobs; say how many with --gpus.")
]
GpuCount = Annotated[int | None, typer.Option("--gpus", help="Jobs of one graphics card each, for --cluster.")]
ClusterConfig = Annotated[
    Path | None, typer.Option("--cluster-config", help="YAML of queue, account, walltime, cores, memory of a job.")
]
Bind = Annotated[
    str | None, typer.Option("--bind", help="Address or network interface to listen at; else only 127.0.0.1.")
]
TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="Certificate of the authority of scheduler and workers.")]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="Your own certificate.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Key of your own certificate.")]


def load(encoder: str, device: str | None, precision: Any, accept_licence: bool | None) -> Encoder:
    """Load an encoder whose terms, where it has any, are accepted."""
    from napari_dinobloom.encoders.encoder import load_encoder

    return accepting(lambda _: load_encoder(encoder, device or "auto", precision or "auto"), bool(accept_licence))
