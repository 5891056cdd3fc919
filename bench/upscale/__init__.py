"""Upscale one georeferenced image of any size with a registered model, onto a finer grid of the same outline.

The image is read, predicted and written tile by tile. What has to wait is the overlap between a row of tiles and the
next one, so memory grows with the tile and a little with the width of the image, never with its area.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import rasterio
from rasterio.env import get_gdal_config, set_gdal_config

from bench import __version__
from bench.core import provenance
from bench.core.device import resolve_device
from bench.core.errors import ItemError, RfbenchError, one_line, unknown
from bench.core.files import atomic_path, digest
from bench.core.image import RGB, Image, Unit
from bench.core.progress import Progress
from bench.data.bands import check_sensor
from bench.data.meaning import Side
from bench.data.normalise import Fitted
from bench.data.readers import containers
from bench.metrics.base import Reference
from bench.models.call import Answer, Model, Window
from bench.upscale.percentiles import exact_percentiles
from bench.upscale.result import Estimate, Look, Output, Writer
from bench.upscale.seams import Axis, Seams
from bench.upscale.source import Raster, filled

__all__ = ["Estimate", "Output", "upscale"]

_TILE_PX = 256  # for models that set no limit of their own
_SMALLEST_TILE_PX = 8
_LARGEST_SCALE = 16.0
_DRAWS = 4  # as in a run


def upscale(
    source: str | Path,
    target: str | Path,
    *,
    model: str,
    scale: float = 5.0,
    caption: str = "",
    uncertainty: bool = False,
    draws: int | None = None,
    estimate: Estimate = "sample",
    seed: int = 0,
    output: Output = "display",
    unit: Unit = "reflectance",
    input_scale: float | None = None,
    offset: float | None = None,
    bands: str | None = None,
    sensor: str | None = None,
    nodata: float | None = None,
    normalisation: str | None = None,
    gamma: float | None = None,
    tile: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    progress: bool = False,
) -> Path:
    """Write an image of h x w pixels as a GeoTIFF of round(scale h) x round(scale w), with the same CRS and outline.

    A pixel of the result has no data where the source pixel under its centre has none. ``target`` appears when it is
    whole; a failure leaves what was there before. An image that fits into one tile gets the model's answer to the
    whole image; larger ones are blended where tiles overlap. The noise of a stochastic model belongs to (seed, the
    source's name without ending, draw) and the place in the image, not to the tile.

    Parameters
    ----------
    source, target : an image file (``bench.data.readers.SUFFIXES``), a VRT of images beside it, an image in a zip or a
        part of a netCDF or HDF file by its name; a ``.tif`` in an existing folder, overwritten.
    model : ``NAME[:key=value,...]``, as ``rfbench run --model``.
    scale : 1 to 16, whole or not.
    caption : for models that read one.
    uncertainty : add the band ``uncertainty``: the standard deviation of the draws (K - 1 in the denominator), or the
        one that the model gives, as root mean square over the image bands and in their unit; and the model's maps, a
        band each, in their own unit. The file is float32 then, NaN without data; the numbers of its image bands are
        the same as without.
    draws : K of a stochastic model for ``uncertainty`` and ``estimate="mean"``; 4 by default.
    estimate : ``sample`` (draw 0) or ``mean`` (of the draws).
    output : ``display``: uint8, display range times 255, rounded as for the benchmark's image metrics, with a mask.
        ``reflectance``: uint16, reflectance times 10000 from 1 to 65535, and 0 without data; a model that answers in
        display range is taken back by the range it declares (``Adapter.output_side``), else by the input's.
        ``float``: float32, display range in [0, 1], NaN without data.
    unit, input_scale, offset, bands, sensor, nodata : what the stored numbers mean where the file does not tell, or
        tells wrongly. Reflectance is (stored + offset) / input_scale; by default the file's own scale and offset hold,
        else 10000 (1 for floats) and 0. ``bands`` names all bands in their order, such as ``"B G R NIR"``; ``sensor``
        says which band ``B4`` is, or those of a file that names none.
    normalisation, gamma : from reflectance to display range; by default what the model declares
        (``Adapter.input_side``), else ``fixed[0,3000]`` and 1. Percentiles are exact and of the whole image, which is
        read twice more for them.
    tile : side of a tile in pixels of the source; by default the largest that the model takes, else 256.
    device, dtype : ``auto``, ``cpu`` or ``cuda[:N]``; ``float32``, ``float16`` or ``bfloat16``.
    progress : show progress on stderr.

    Returns
    -------
    ``target``.

    Raises
    ------
    RfbenchError
        In one line: a file that is missing, corrupt or lacks bands; numbers that do not go with ``unit``; an unknown
        model; an option out of range; a model that cannot give what is asked; a file that cannot be written.

    Warns
    -----
    UserWarning
        The image has no georeference, or its numbers look like those of another scale or offset.
    """
    source, target = Path(source), Path(target)
    _check_paths(source, target)
    _check_choices(scale, draws, estimate, output)
    found = Model(model, device=resolve_device(device), dtype=dtype)
    count = _draws(found, draws, uncertainty, estimate)
    tile = _tile_px(found, tile, scale)
    overlap = min(found.spec.overlap_px, tile // 2)
    _warn_of_habits(found, scale, caption)
    side = _input_side(found, unit, input_scale, offset, bands, sensor, nodata, normalisation, gamma)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), Raster(source, side) as raster:
        raster.select(_needed(found, output, raster.names))
        size = (round(raster.size[0] * scale), round(raster.size[1] * scale))
        with _bounded_cache(tile * raster.bytes_per_row):
            raster.warn_of_odd_values()
            fitted = _fit(raster, side, tile)
            look = Look(found.label, output, estimate, uncertainty, fitted, _way_back(found, output, side, fitted))
            provenance.deterministic()
            found.load()
            found.adapter.prepare([caption])
            tags = _tags(found, fitted) | {
                "SCALE": f"{scale:g}", "CAPTION": caption, "SEED": seed, "IMAGE_ID": source.stem, "DRAWS": count,
                "ESTIMATE": estimate, "OUTPUT": output, "TILE": f"{tile} px, overlap {overlap} px", "DTYPE": dtype,
            }  # fmt: skip
            rows, columns = (Axis(raster.size[i], size[i], tile, overlap) for i in (0, 1))
            ask = _Asker(found, source, caption, fitted, seed, count)
            with atomic_path(target) as temporary, Writer(temporary, target, raster, rows, columns, tags) as writer:
                with _progress(progress, len(rows.tiles) * len(columns.tiles), found.label) as tick:
                    _mosaic(raster, rows, columns, ask, look, writer, tick)
                if not writer.begun:
                    raise RfbenchError(f"{source} holds no pixel with data, expected some; there is nothing to upscale")
    return target


def _mosaic(
    raster: Raster, rows: Axis, columns: Axis, ask: _Asker, look: Look, writer: Writer, tick: Callable[[], None]
) -> None:
    """Read, predict, blend and write, a tile at a time. Tiles without a valid pixel are not predicted."""
    seams = Seams(rows.parts, columns.parts)
    for r, row in enumerate(rows.tiles):
        for c, column in enumerate(columns.tiles):
            image = raster.read(row.start, column.start, row.stop - row.start, column.stop - column.start)
            layers = None
            if image.valid.any():
                size = (row.out_stop - row.out_start, column.out_stop - column.out_start)
                answered = look.layers(ask(filled(image), size, (row.start, column.start)))
                layers = answered[rows.inside(r), columns.inside(c)]
            finished = seams.add(r, c, layers)
            if finished is not None:
                blended, covered = finished
                valid = image.valid[np.ix_(rows.under(r, len(covered)), columns.under(c, covered.shape[1]))]
                writer.write(look, rows.parts[r].out_start, columns.parts[c].out_start, blended, valid & covered)
            tick()


@dataclass(frozen=True)
class _Asker:
    """Puts one tile to the model. Raises RfbenchError where the model fails."""

    model: Model
    source: Path
    caption: str
    fitted: Fitted | None
    seed: int
    draws: int

    def __call__(self, image: Image, size: tuple[int, int], offset: tuple[int, int]) -> Answer:
        name = self.source.stem
        window = Window(
            id=name,
            scene_id=name,
            lr=image,
            size=size,
            fitted=self.fitted,
            normalisation={},
            caption=self.caption,
            reference=Reference(name, name, None, None, None, None, image, image.valid),
            offset=offset,
        )
        (answer,) = self.model.predict([window], run_seed=self.seed, draws=self.draws)
        if isinstance(answer, ItemError):
            raise RfbenchError(f"{self.source}, tile at row {offset[0]}, column {offset[1]}: {answer}")
        if self.model.retreats:
            warnings.warn(f"{answer.notes[-1]}; --tile of that size saves the failed attempts", stacklevel=1)
            self.model.retreats.clear()
        return answer


def _fit(raster: Raster, side: Side, tile: int) -> Fitted | None:
    """The normalisation with the limits of the whole image; None for an image that is read without R, G, B."""
    if not set(RGB) <= set(raster.bands):
        return None
    form = side.declared
    if form.kind == "percentile":
        low, high = exact_percentiles(lambda: raster.valid_pixels(tile), [form.low, form.high])
        return Fitted(str(form), side.unit, RGB, tuple(map(float, low)), tuple(map(float, high)), side.gamma)
    return form.fit(Image(np.zeros((1, 1, 3), np.float32), side.unit, RGB, np.ones((1, 1), bool)), side.gamma)


def _way_back(model: Model, output: Output, side: Side, fitted: Fitted | None) -> Fitted | None:
    """What takes display values to reflectance for ``--output reflectance``; None where the answer is reflectance."""
    unit = side.unit if model.spec.output_unit == "native" else model.spec.output_unit
    if output != "reflectance" or unit == "reflectance":
        return None
    declared = model.adapter.output_side() if model.spec.output_unit == "display" else None
    if declared is not None:
        if declared.unit != "reflectance" or declared.declared.kind != "fixed":
            raise RfbenchError(
                f"--output reflectance: {model.label} was trained on images normalised by {declared.declared}, which "
                "has no way back; use --output display"
            )
        nothing = Image(np.zeros((1, 1, 3), np.float32), "reflectance", RGB, np.ones((1, 1), bool))
        return declared.declared.fit(nothing, declared.gamma)
    if model.spec.output_unit != "display" or fitted is None or fitted.unit != "reflectance":
        raise RfbenchError(
            f"--output reflectance: the input is in unit '{side.unit}', expected reflectance; use --output display"
        )
    return fitted


@contextlib.contextmanager
def _bounded_cache(source_bytes: int) -> Iterator[None]:
    """Keep GDAL's cache of blocks at what one row of tiles reads; by itself it fills a twentieth of the memory."""
    before = get_gdal_config("GDAL_CACHEMAX")
    set_gdal_config("GDAL_CACHEMAX", 16 * 2**20 + source_bytes)
    try:
        yield
    finally:
        set_gdal_config("GDAL_CACHEMAX", before)


@contextlib.contextmanager
def _progress(wanted: bool, total: int, label: str) -> Iterator[Callable[[], None]]:
    if not wanted:
        yield lambda: None
        return
    with Progress(total, 0, label, ("tiles",), unit="tiles") as bar:
        yield lambda: bar.advance("tiles")


def _tags(model: Model, fitted: Fitted | None) -> dict[str, object]:
    """How the image was made: the version, the model with the hashes that its adapter tells, the normalisation."""
    return {
        **{key.upper(): value for key, value in model.adapter.identity().items() if isinstance(value, str)},
        "VERSION": __version__,
        "MODEL": model.label,
        "IDENTITY": digest(model.identity()),
        "NORMALISATION": json.dumps(fitted.record()) if fitted else "none",
    }


# --- what is asked --------------------------------------------------------------------------------------------


def _check_paths(source: Path, target: Path) -> None:
    if not containers.names_a_file(source):
        raise RfbenchError(f"{source} is missing")
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise RfbenchError(
            f"{target}: found the ending '{one_line(target.suffix, 20)}', expected .tif; a GeoTIFF is made"
        )
    if not target.parent.is_dir():
        raise RfbenchError(f"the folder {target.parent} is missing; make it, or choose another")
    if target.is_dir():
        raise RfbenchError(f"{target} is a folder, expected the name of a file")
    if target.exists() and source.exists() and target.samefile(source):
        raise RfbenchError(f"{target} is the input itself; choose another name for the result")


def _check_choices(scale: float, draws: int | None, estimate: str, output: str) -> None:
    if not 1 <= scale <= _LARGEST_SCALE:
        raise RfbenchError(f"--scale: found {scale:g}, expected a number from 1 to {_LARGEST_SCALE:g}")
    if draws is not None and draws < 1:
        raise RfbenchError(f"--draws: found {draws}, expected 1 or more")
    for name, found, known in (("estimate", estimate, get_args(Estimate)), ("output", output, get_args(Output))):
        if found not in known:
            raise unknown(name, found, known)


def _draws(model: Model, draws: int | None, uncertainty: bool, estimate: str) -> int:
    """How many draws are made; RfbenchError where the number does not go with what is asked."""
    several = uncertainty or estimate == "mean"
    if not model.spec.stochastic:
        if estimate == "mean" or (draws or 1) > 1:
            raise RfbenchError(f"{model.label} has no draws; leave --draws and --estimate mean out")
        return 1
    if not several:
        if (draws or 1) > 1:
            raise RfbenchError(
                "--draws: one draw makes the image; ask for --uncertainty or --estimate mean with several"
            )
        return 1
    if draws == 1:
        raise RfbenchError("--draws: found 1, expected 2 or more for a spread or a mean")
    return draws or _DRAWS


def _tile_px(model: Model, tile: int | None, scale: float) -> int:
    largest = model.spec.largest_tile_px(scale)
    if tile is None:
        return largest or _TILE_PX
    if tile < _SMALLEST_TILE_PX or (largest is not None and tile > largest):
        limit = f"{_SMALLEST_TILE_PX} to {largest}" if largest else f"{_SMALLEST_TILE_PX} or more"
        raise RfbenchError(f"--tile: found {tile}, expected {limit} px, what {model.label} takes")
    return tile


def _warn_of_habits(model: Model, scale: float, caption: str) -> None:
    if caption and not model.spec.supports_prompt:
        warnings.warn(f"{model.label} reads no captions; this one changes nothing", stacklevel=1)
    factors = model.spec.scale_factors
    if factors is not None and scale not in factors:
        made = " or ".join(f"x{f}" for f in factors)
        warnings.warn(f"{model.label} makes {made}; its answer is resized to x{scale:g}", stacklevel=1)


def _input_side(
    model: Model,
    unit: Unit,
    scale: float | None,
    offset: float | None,
    bands: str | None,
    sensor: str | None,
    nodata: float | None,
    normalisation: str | None,
    gamma: float | None,
) -> Side:
    """What the stored numbers mean and how they become display range: the user's word, else the model's, else usual."""
    declared = model.adapter.input_side() or Side()
    if declared.unit != unit:  # a range of reflectance says nothing about a picture
        declared = Side(unit=unit)
    side = Side(
        unit=unit,
        bands=bands,
        scale=scale,
        offset=offset,
        sensor=check_sensor(sensor) if sensor else None,
        nodata=nodata,
        normalisation=normalisation or declared.normalisation,
        gamma=declared.gamma if gamma is None else gamma,
    )
    _ = side.declared
    return side


def _needed(model: Model, output: Output, names: tuple[str, ...]) -> tuple[str, ...]:
    """The bands that are read: the model's own (all, for a model that takes any), and R G B where display is wanted."""
    wanted = model.spec.bands or (names if output == "reflectance" else RGB)
    if output != "reflectance" or model.spec.unit == "display":
        wanted = (*wanted, *RGB)
    return tuple(dict.fromkeys(wanted))
