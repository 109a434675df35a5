# SPDX-License-Identifier: Apache-2.0
"""`backstride explain`: a layer by its numbers, or those of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.text import Text

from backstride import convert
from backstride._command.files import write_png
from backstride._command.terminal import refusals, refuse, show
from backstride._explain.arithmetic import Padding
from backstride._explain.explanation import document, explanation
from backstride._explain.picture import picture
from backstride._explain.report import COLUMNS, tables
from backstride._explain.scene import Scene, svg
from backstride._explain.spelling import Options, framework, lengths, read
from backstride._files import whole_file

INPUT = "16"


class Named(NamedTuple):
    """A layer of a file, or that of the options, which has no name."""

    name: str
    layer: convert.ConvTranspose
    input: tuple[int, ...]
    padding: Padding | None


def explain(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(help="A file of Keras, ONNX or safetensors, whose layers are explained.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(metavar="5|5x4", help="Taps, of all axes or of each.")] = None,
    stride: Annotated[str | None, typer.Option(metavar="2|2x1", help="Strides; 1 if not given.")] = None,
    padding: Annotated[
        str | None,
        typer.Option(
            "--padding",
            "--pad",
            "--pads",
            metavar="same|valid|2|1,2|1,2x0,1",
            help="A name, numbers or pairs, as the framework takes them. Without --from: same, if not given, or valid, "
            "or pairs of what is cut off.",
        ),
    ] = None,
    input: Annotated[str, typer.Option(metavar="16|16x20", help="Lengths of the input.")] = INPUT,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "--output-shape", metavar="31|31x40", help="Lengths of the result, if several are legal."
        ),
    ] = None,
    dilation: Annotated[str | None, typer.Option(metavar="1|1x2", help="Dilations; 1 if not given.")] = None,
    groups: Annotated[int | None, typer.Option(help="Groups of channels.")] = None,
    in_channels: Annotated[int | None, typer.Option(help="Channels of the input.")] = None,
    out_channels: Annotated[int | None, typer.Option(help="Channels of the result.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a PyTorch state dict as MODEL: JSON with its layers' arguments."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, max=3, help="Axes; by default as many as the options have numbers, or 2.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", help="The framework whose arguments these are, such as torch."),
    ] = None,
    output_padding: Annotated[
        str | None, typer.Option(metavar="1|1x0", help="With --from keras, torch, onnx ...")
    ] = None,
    auto_pad: Annotated[str | None, typer.Option(metavar="SAME_UPPER", help="With --from onnx.")] = None,
    use_consistent_padding: Annotated[
        bool | None, typer.Option("--use-consistent-padding", help="With --from jax.")
    ] = None,
    channels_first: Annotated[
        bool, typer.Option("--channels-first", help="Arrays have channels before the axes.")
    ] = False,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="The layer has no bias.")] = False,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Show the call of this framework, or several; all if not given."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="Explain this layer of MODEL alone.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, no tables.")] = False,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the layer, as a PNG file.")] = None,
    svg_file: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the layer, as an SVG file.")
    ] = None,
) -> None:
    """Say what a transposed convolution does: its arithmetic, its pitfalls, and its name in every framework.

    backstride explain --kernel 5 --stride 2 --padding same --input 16

    backstride explain --kernel 4 --stride 2 --from torch --pad 1 --input 8x8 --png layer.png

    backstride explain MODEL.onnx
    """
    if (model is None) == (kernel is None):
        refuse("explain takes --kernel and what else is known of a layer, or a file with layers, MODEL")
    _refuse_others(context, model is None)
    try:
        frameworks = [framework(name) for names in to or () for name in names.split(",")] or list(convert.FRAMEWORKS)
        if model is None:
            options = Options(**{field.name: context.params[field.name] for field in fields(Options)})
            layers = [Named("", *read(options, framework(source) if source else None))]
        else:
            layers = list(_of_file(model, config, input, only))
        explained = [(name, explanation(layer, sizes, named, frameworks)) for name, layer, sizes, named in layers]
    except OSError as error:
        refuse(f"cannot read {str(error.filename or model)!r}: {error.strerror or error}")
    except (ValueError, TypeError, ImportError) as error:
        refuse(" ".join(str(error).split()))
    for file in filter(None, (png, svg_file)):
        if len(layers) > 1:
            refuse(f"a picture is of one layer; give --layer one of {', '.join(each.name for each in layers)}")
        with refusals(file):
            _draw(picture(layers[0].layer, layers[0].input), file)
    if as_json:
        documents = [{"name": name, **document(each)} for name, each in explained]
        whole = {"file": str(model), "layers": documents} if model else document(explained[0][1])
        typer.echo(json.dumps(whole, indent=2, allow_nan=False))
    else:
        for n, (name, each) in enumerate(explained):
            title = Text("\n" if n else "").append(name, style="bold underline")
            show([title, *tables(each)] if name else tables(each), COLUMNS)


def _refuse_others(context: typer.Context, by_numbers: bool) -> None:
    """Refuses options that say nothing here: those of layers with a file, or those of files without."""
    meaningless = (
        {"config", "only"} if by_numbers else {field.name for field in fields(Options)} - {"input"} | {"source"}
    )
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name in meaningless and given and given.name == "COMMANDLINE":
            refuse(f"{parameter.opts[0]} is for {'a file, MODEL' if by_numbers else '--kernel; MODEL says it itself'}")
    for name in "png", "svg":
        file = context.params["png" if name == "png" else "svg_file"]
        if file is not None and file.suffix.lower() != f".{name}":
            refuse(f"--{name} takes a name that ends in .{name}, not {str(file)!r}")


def _of_file(path: Path, config: Path | None, input: str, only: str | None) -> Iterator[Named]:
    """The layers of a file, or the one of a certain name."""
    found = convert.load(path, config)
    names = [layer.name for layer in found]
    if not found:
        raise ValueError(f"{str(path)!r} has no transposed convolutions")
    if only is not None and only not in names:
        raise ValueError(f"{str(path)!r} has no layer {only!r}; it has {', '.join(names)}")
    for each in found:
        if only in (None, each.name):
            yield Named(each.name, each.layer, lengths(input, each.layer.rank), None)


def _draw(scene: Scene, path: Path) -> None:
    """The drawing as the kind of file that its name says."""
    if path.suffix.lower() == ".png":
        from backstride._explain.png import image

        write_png(image(scene), path)
    else:
        with whole_file(path) as file:
            file.write(svg(scene).encode())
