"""The graph that autograd recorded, drawn as SVG: operations, the leaves they came from, values and gradients."""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

import numpy as np

from .. import device as devices
from ..layers import Parameter
from .layout import arrange
from .recording import Names, Recording, fold

MOST_BOXES, MOST_BOXES_OF_A_MODEL = 200, 60
MOST_ELEMENTS, MOST_CHARACTERS = 6, 60

TITLE, TEXT, LEADING, PADDING = 13, 11, 15, 9  # heights in pixels
WIDTH = 0.63  # of a character, in heights: monospaced fonts have 0.55 to 0.62
FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, QUIET, ARROWS, RED = "#1b2733", "#52606d", "#7b8794", "#c62828"
FILL_AND_LINE = {
    "operation": ("#e3eefb", "#3d74b5"),
    "group": ("#ece6f8", "#6a4fb3"),
    "leaf": ("#fff6dc", "#b7862a"),
    "output": ("#e1f3e4", "#35834a"),
    "wrong": ("#fdeaea", RED),
}


@dataclass
class Box:
    """One box of a picture: what it stands for, its lines of text, and, once placed, where it is."""

    kind: str  # a key of FILL_AND_LINE, but never "wrong"
    title: str
    lines: list = field(default_factory=list)
    gradient: str = ""
    wrong: bool = False
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    def texts(self):
        return [self.title, *self.lines, *([self.gradient] if self.gradient else [])]

    @property
    def width(self):
        title, *others = (_columns(_cut(text)) for text in self.texts())
        return max(44, 2 * PADDING + WIDTH * max([title * TITLE, *(columns * TEXT for columns in others)]))

    @property
    def height(self):
        return 2 * PADDING + TITLE + LEADING * (len(self.texts()) - 1)


def draw_graph(output, names=None, values=True, wrong=(), limit=None):
    """Draw how `output` was computed, as autograd recorded it: a picture that shows itself in a notebook.

    names: `{name: tensor}`, or a module for the names of its parameters, or a dict with modules among its values;
    leaves without a name are called 'tensor' or 'parameter'. values: show the numbers of leaves, named tensors and the
    output, and the gradients of leaves: all where there are at most 6, else their range and mean. wrong: names of
    leaves to draw in red, as having a wrong gradient. limit: the most boxes to draw, by default 60 where `names` has a
    module and 200 otherwise; beyond, operations share a box for each module, or, outside of modules, each chain.

    Inputs that need no gradient are not on the tape, and so not in the picture. Raises RuntimeError where the tensor
    has no graph, or backward() has freed it (draw first, or keep it with retain_graph=True); TypeError for what is no
    tensor; ValueError for unknown names in `wrong` and a limit below 2.
    """
    recording, names = Recording(output), Names(names)
    if limit is None:
        limit = MOST_BOXES_OF_A_MODEL if names.modules else MOST_BOXES
    if limit < 2:
        raise ValueError(
            f"limit needs at least 2 boxes, one for the operations and one for the output, but got {limit}."
        )
    wrong = _find_wrong(wrong, names)
    boxes, edges = _boxes(recording, names, output, values, wrong, limit)
    return GraphPicture(boxes, edges, len(recording.operations), len(recording.leaves))


class GraphPicture:
    """A drawn graph: `boxes`, and `edges` as pairs of their numbers. Shows itself in Jupyter; `save` writes an SVG."""

    def __init__(self, boxes, edges, operations, leaves):
        self.boxes, self.edges = boxes, edges
        self._counts = f"{operations} {'operation' if operations == 1 else 'operations'}, "
        self._counts += f"{leaves} {'leaf' if leaves == 1 else 'leaves'}, {len(boxes)} boxes"
        layout = arrange([(box.width, box.height) for box in boxes], edges)
        for box, layer, (x, y) in zip(boxes, layout.layers, layout.corners):
            box.layer, box.x, box.y = layer, x, y
        self.lines, self.size, self.horizontal = layout.lines, layout.size, layout.horizontal

    def save(self, path):
        """Write the picture to `path`, which needs to end in .svg. Raises ValueError otherwise."""
        if not os.fspath(path).lower().endswith(".svg"):
            raise ValueError(f"save writes SVG, and needs a path that ends in .svg, but got {os.fspath(path)!r}.")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._repr_svg_())

    def to_dot(self):
        """The graph in the language of Graphviz, for its `dot` and for editors."""
        lines = ["digraph {", "  rankdir=LR;", '  node [shape=box, style="filled", fontname="monospace"];']
        for i, box in enumerate(self.boxes):
            fill, line = FILL_AND_LINE["wrong" if box.wrong else box.kind]
            label = "\\n".join(_clean(text).replace("\\", "\\\\").replace('"', '\\"') for text in box.texts())
            style = ', style="rounded,filled"' if box.kind in ("operation", "group") else ""
            lines.append(f'  n{i} [label="{label}", color="{line}", fillcolor="{fill}"{style}];')
        lines += [f"  n{source} -> n{target};" for source, target in self.edges]
        return "\n".join([*lines, "}", ""])

    def _repr_svg_(self):
        width, height = (round(size) for size in self.size)
        drawn = set()  # the pieces of lines so far: those that edges share would be darker if drawn twice
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" font-family="{FONT}" font-size="{TEXT}">',
            f"<title>Graph of {self._counts}</title>",
            f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',  # for notebooks with a dark page
            *(_svg_of_edge(line, self.horizontal, drawn) for line in self.lines),
            *(_svg_of_box(box) for box in self.boxes),
            "</svg>",
        ]
        return "\n".join(parts)

    def __repr__(self):
        return f"GraphPicture({self._counts})"


# ---- from the recording to boxes


def _find_wrong(wrong, names):
    """The tensors named in `wrong`, which need to be leaves; one that the graph never reached is one, too."""
    leaves = {name: tensor for tensor, name in names.tensors.items() if tensor.is_leaf and tensor.requires_grad}
    wrong = [wrong] if isinstance(wrong, str) else wrong
    for name in wrong:
        if name not in leaves:
            known = ", ".join([*leaves][:8]) + (", …" if len(leaves) > 8 else "") or "none: pass names={name: tensor}"
            raise ValueError(f"wrong needs names of leaves, but got {name!r}. Leaves with a name: {known}.")
    return {leaves[name]: None for name in wrong}  # an ordered set; `in` a list would compare values


def _boxes(recording, names, output, values, wrong, limit):
    """Boxes and edges; sources come before their targets."""
    groups, held = fold(recording, names, limit, wrong)
    computed = {tensor.grad_fn: tensor for tensor in names.tensors if tensor.grad_fn not in (None, output.grad_fn)}
    boxes, number, edges = [], {}, []
    for leaf in [leaf for leaf in wrong if leaf not in recording.users] + recording.leaves:
        if leaf not in held:
            number[leaf] = len(boxes)
            boxes.append(_leaf_box(leaf, names, values, leaf in wrong, leaf in recording.users))
    for group in groups:
        inside = [leaf for leaf, holder in held.items() if holder is group]
        boxes.append(_group_box(group, inside, recording, names, computed, values))
        number.update((node, len(boxes) - 1) for node in group.operations)
    for group in groups:
        target = number[group.operations[-1]]
        came = [(number[s], target) for node in group.operations for s in recording.inputs[node] if s in number]
        if len(group.operations) > 1 or group.modules:  # x * x has two arrows, a module one from each neighbour
            came = [edge for edge in dict.fromkeys(came) if edge[0] != target]
        edges += came
    lines = [_shape(output), *([_numbers(output)] if values else [])]
    boxes.append(Box("output", names.tensors.get(output, "output"), lines))
    return boxes, [*edges, (number[output.grad_fn], len(boxes) - 1)]


def _leaf_box(leaf, names, values, wrong, reached):
    box = Box("leaf", names.tensors.get(leaf, type(leaf).__name__.lower()), [_shape(leaf)], wrong=wrong)
    if values:
        box.lines.append(_numbers(leaf))
        box.gradient = f"grad {_numbers(leaf.grad)}" if leaf.grad is not None else ""
    if not reached:
        box.gradient = "wrong: not part of this graph"
    elif wrong:
        box.gradient = f"wrong: {box.gradient or ('no gradient' if leaf.grad is None else 'gradient')}"
    return box


def _group_box(group, inside, recording, names, computed, values):
    last, count = group.operations[-1], len(group.operations)
    shape = str(recording.shapes[last])
    if not group.modules and count == 1:
        box = Box("operation", last.name, [shape])
        if last in computed:
            tensor = computed[last]
            box.lines = [f"{names.tensors[tensor]} {_shape(tensor)}", *([_numbers(tensor)] if values else [])]
        return box
    if group.modules:
        ends = dict.fromkeys((group.modules[0], group.modules[-1]))
        kinds = dict.fromkeys(type(names.modules[name]).__name__ for name in group.modules)
        box = Box("group", " to ".join(ends), [f"{', '.join(kinds)} {shape}"])
    else:
        few = ", ".join(node.name for node in group.operations[:3])
        box = Box("group", few if count <= 3 else f"{count:,} operations", [shape])
    if count > 3 and len(group.modules) != 1:
        box.lines.append(_most_common(group.operations))
    if inside:
        learned = all(isinstance(leaf, Parameter) for leaf in inside)
        numbers = sum(leaf.numel() for leaf in inside)
        box.lines.append(f"{numbers:,} {'parameters' if learned else 'numbers in leaves'}")
    if values and inside and all(leaf.grad is not None for leaf in inside):
        squares = [np.sum(devices.to_numpy(leaf.grad.data).astype(np.float64) ** 2) for leaf in inside]
        box.gradient = f"grad norm {_number(np.sqrt(sum(squares)))}"
    return box


def _most_common(operations, kinds=3):
    counts = Counter(node.name for node in operations).most_common()
    text = ", ".join(f"{count} {name}" for name, count in counts[:kinds])
    return text + (", …" if len(counts) > kinds else "")


def _shape(tensor):
    return f"{tensor.shape}" if tensor.dtype == np.float32 else f"{tensor.shape} {tensor.dtype}"


def _numbers(tensor):
    """The values of a tensor where they are few, else their range and mean."""
    array = devices.to_numpy(tensor.data).astype(np.float64)
    if array.size <= MOST_ELEMENTS:
        text = np.array2string(array, separator=", ", formatter={"float_kind": _number}, max_line_width=10_000)
        return " ".join(text.split())  # matrices, too, on one line
    with np.errstate(all="ignore"):  # infinities and NaN are shown, not warned of
        low, high, mean = (_number(value) for value in (array.min(), array.max(), array.mean()))
    return f"all {low}" if array.min() == array.max() else f"{low} to {high}, mean {mean}"


def _number(value):
    return f"{value + 0.0:.3g}"  # + 0.0 makes 0 of -0


# ---- from boxes to SVG


def _clean(text):
    """`text` without what XML forbids or what is not seen."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _cut(text):
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[: half - 1]}…{text[-half:]}"


def _columns(text):
    """How many characters wide: those of East Asian scripts count twice."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _svg_of_edge(line, horizontal, drawn):
    steps = [f"M{_point(line[0])}"]
    for i, piece in enumerate(pairwise(line)):
        (x0, y0), (x, y) = piece
        if piece in drawn:
            steps.append(f"M{_point((x, y))}")
        elif i % 2 == 0:
            steps.append(f"L{_point((x, y))}")
        else:  # leaves and arrives in the direction of the straight pieces on either side
            bends = [((x0 + x) / 2, y0), ((x0 + x) / 2, y)] if horizontal else [(x0, (y0 + y) / 2), (x, (y0 + y) / 2)]
            steps.append("C" + " ".join(map(_point, [*bends, (x, y)])))
        drawn.add(piece)
    x, y = line[-1]
    head = [(x, y), (x - 8, y - 4), (x - 8, y + 4)] if horizontal else [(x, y), (x - 4, y - 8), (x + 4, y - 8)]
    return (
        f'<g class="edge"><path d="{" ".join(steps)}" fill="none" stroke="{ARROWS}" stroke-width="1.4"/>'
        f'<polygon points="{" ".join(map(_point, head))}" fill="{ARROWS}"/></g>'
    )


def _point(point):
    return f"{point[0]:.1f},{point[1]:.1f}"


def _svg_of_box(box):
    fill, line = FILL_AND_LINE["wrong" if box.wrong else box.kind]
    radius = 10 if box.kind in ("operation", "group") else 1
    texts = [_clean(text) for text in box.texts()]
    parts = [
        f'<g class="{box.kind}{" wrong" if box.wrong else ""}"><title>{escape("; ".join(texts))}</title>',
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius}" '
        f'fill="{fill}" stroke="{line}" stroke-width="{2.2 if box.wrong else 1.3}"/>',
    ]
    for i, text in enumerate(texts):
        height = box.y + PADDING + TITLE - 2 + LEADING * i
        style = f'fill="{INK}" font-size="{TITLE}" font-weight="bold"' if i == 0 else f'fill="{QUIET}"'
        if box.wrong and box.gradient and i == len(texts) - 1:
            style = f'fill="{RED}" font-weight="bold"'
        middle = box.x + box.width / 2
        parts.append(
            f'<text x="{middle:.1f}" y="{height:.1f}" text-anchor="middle" {style}>{escape(_cut(text))}</text>'
        )
    return "".join([*parts, "</g>"])
