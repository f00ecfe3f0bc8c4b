#!/usr/bin/env python3
"""Draws the validation loss of training runs, epoch by epoch, as an SVG.

    plot_learning_curve.py OUTPUT.svg LABEL=RUN_DIRECTORY ...

A run directory is what `char_lm train` leaves; its metrics.jsonl has the losses. The colours are
readable on a light and on a dark page, and the background is transparent.
"""
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 648, 52, 292  # of the plot
TEXT, GRID = "#747c86", "#747c86"
COLOURS = ("#2f81f7", "#db6d28", "#2ea043", "#a371f7")
FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""


def losses(run):
    """[(epoch, validation loss)] of a run."""
    path = pathlib.Path(run) / "metrics.jsonl"
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            metrics = json.loads(line)
        except ValueError:
            sys.exit(f"{path}:{number}: not a JSON object")
        if "valid_loss" in metrics:
            points.append((metrics["epoch"], metrics["valid_loss"]))
    if not points:
        sys.exit(f"{path}: no line has a valid_loss; train for at least one epoch")
    return points


def ticks(low, high, most=6):
    """Round numbers from below `low` to above `high`, and how many decimals they take."""
    rough = (high - low) / (most - 1) or 0.1
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [i * step for i in range(first, max(last, first + 1) + 1)], decimals


def spread(wanted, distance):
    """The wanted heights, moved apart where they are closer than `distance`."""
    placed = {}
    previous = -math.inf
    for index in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        previous = max(wanted[index], previous + distance)
        placed[index] = previous
    return [placed[i] for i in range(len(wanted))]


def text(x, y, content, anchor="middle", size=13, colour=TEXT, weight=400):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}" fill="{colour}">{escape(content)}</text>')


def draw(curves):
    """The SVG of [(label, points)]."""
    values = [loss for _, points in curves for _, loss in points]
    epochs = max(epoch for _, points in curves for epoch, _ in points)
    levels, decimals = ticks(min(values), max(values))

    def x(epoch):
        return LEFT + (RIGHT - LEFT) * (epoch - 1) / max(1, epochs - 1)

    def y(loss):
        return BOTTOM - (BOTTOM - TOP) * (loss - levels[0]) / (levels[-1] - levels[0])

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             f'width="{WIDTH}" height="{HEIGHT}" {FONT} role="img">',
             "<title>Validation loss by epoch</title>",
             text(LEFT, 24, "Validation loss, nats per character", "start", 15, weight=600)]
    for level in levels:
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y(level):.1f}" y2="{y(level):.1f}" '
                     f'stroke="{GRID}" stroke-opacity="0.25"/>')
        parts.append(text(LEFT - 10, y(level) + 4.5, f"{level:.{decimals}f}", "end"))
    every = math.ceil(epochs / 12)
    for epoch in range(1, epochs + 1):
        if epoch == 1 or epoch % every == 0:
            parts.append(text(x(epoch), BOTTOM + 22, str(epoch)))
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 42, "epoch"))

    heights = spread([y(points[-1][1]) for _, points in curves], 32)
    for (label, points), colour, height in zip(curves, COLOURS, heights):
        path = " ".join(f"{x(epoch):.1f},{y(loss):.1f}" for epoch, loss in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" '
                     'stroke-linejoin="round" stroke-linecap="round"/>')
        for epoch, loss in points:
            parts.append(f'<circle cx="{x(epoch):.1f}" cy="{y(loss):.1f}" r="3.2" '
                         f'fill="{colour}"><title>{escape(label)}, epoch {epoch}: {loss:.4f}'
                         "</title></circle>")
        end = x(points[-1][0]) + 12
        parts.append(text(end, height - 2, label, "start", 14, colour, 600))
        parts.append(text(end, height + 13, f"{points[-1][1]:.3f}", "start", 12, colour))
    return "\n".join(parts + ["</svg>", ""])


def main(arguments):
    if len(arguments) < 2 or not all("=" in run for run in arguments[1:]):
        sys.exit(__doc__.strip())
    runs = [run.split("=", 1) for run in arguments[1:]]
    if len(runs) > len(COLOURS):
        sys.exit(f"plot_learning_curve.py: {len(COLOURS)} runs at most")
    curves = [(label, losses(run)) for label, run in runs]
    pathlib.Path(arguments[0]).write_text(draw(curves), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
