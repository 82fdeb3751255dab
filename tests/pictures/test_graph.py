"""The picture of a graph: everything on the tape is in it, in order, apart, readable, and not too much at once."""

import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.attention import scaled_dot_product_attention_composed
from tinytorch.transformers import layer_norm_composed

SVG = "{http://www.w3.org/2000/svg}"
RED = "#c62828"


def leaf(values, **settings):
    return tt.tensor(values, requires_grad=True, **settings)


def product_and_sum():
    a, b, c = leaf([2.0]), leaf([-3.0]), leaf([10.0])
    return a * b + c, {"a": a, "b": b, "c": c}


class TwoLayers(tt.Module):
    def __init__(self):
        generator = tt.Generator(0)
        self.hidden = tt.Linear(2, 8, generator=generator)
        self.head = tt.Linear(8, 1, generator=generator)

    def forward(self, x):
        return self.head(tt.relu(self.hidden(x)))


def two_layers():
    model = TwoLayers()
    return tt.mse_loss(model(tt.ones(4, 2)), tt.zeros(4, 1)), model


def gpt(n_layer=2, **settings):
    config = tt.GPTConfig(vocab_size=11, n_positions=8, n_layer=n_layer, n_head=2, n_embd=4, **settings)
    model = tt.GPT(config, tt.Generator(0))
    logits = model(tt.tensor([[1, 2, 3]]))
    return tt.cross_entropy(logits.flatten(0, 1), tt.tensor([2, 3, 4])), model


def composed_attention():
    q, k, v = (tt.randn(1, 2, 4, 3, generator=tt.Generator(seed)).requires_grad_() for seed in range(3))
    return scaled_dot_product_attention_composed(q, k, v, is_causal=True).sum(), {"q": q, "k": k, "v": v}


def random_graph(seed):
    """25 sums and products of whatever there is: long arrows, shared inputs, twice the same input."""
    rng = np.random.default_rng(seed)
    tensors = [leaf([1.0, 2.0]) for _ in range(4)]
    for _ in range(25):
        x, y = (tensors[i] for i in rng.integers(max(0, len(tensors) - 9), len(tensors), 2))
        tensors.append(x + y if rng.random() < 0.5 else x * y)
    total = tensors[-1]
    for x in tensors[4:-1]:
        total = total + x
    return total, None


def a_square():
    x = leaf([3.0])
    return x * x, {"x": x}


GRAPHS = {
    "one": lambda: (leaf([1.0]).exp(), None),
    "square": a_square,
    "sum": product_and_sum,
    "mlp": two_layers,
    "attention": composed_attention,
    "gpt": gpt,
    "gpt-tied": lambda: gpt(tie_word_embeddings=True),
    "gpt-deep": lambda: gpt(n_layer=9),
    "gpt-unnamed": lambda: (gpt()[0], None),
    **{f"random-{seed}": lambda seed=seed: random_graph(seed) for seed in range(4)},
}
every_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


def parse(picture):
    return ElementTree.fromstring(picture._repr_svg_())


def texts(element):
    return [text.text for text in element.iter(f"{SVG}text")]


def titles(picture):
    return [box.title for box in picture.boxes]


def box_called(picture, title):
    (box,) = [box for box in picture.boxes if box.title == title]
    return box


def arrows(picture):
    return [(picture.boxes[source].title, picture.boxes[target].title) for source, target in picture.edges]


# ---- what is in it


def test_the_picture_says_what_was_computed_from_what():
    y, names = product_and_sum()
    picture = tt.draw_graph(y, names)
    assert sorted(titles(picture)) == ["a", "add", "b", "c", "mul", "output"]
    assert sorted(arrows(picture)) == [("a", "mul"), ("add", "output"), ("b", "mul"), ("c", "add"), ("mul", "add")]
    assert box_called(picture, "a").texts() == ["a", "(1,)", "[2]"]
    assert box_called(picture, "mul").texts() == ["mul", "(1,)"]
    assert box_called(picture, "output").texts() == ["output", "(1,)", "[4]"]
    assert set(texts(parse(picture))) == {"a", "b", "c", "mul", "add", "output", "(1,)", "[2]", "[-3]", "[10]", "[4]"}


def test_one_operation():
    x = leaf([0.0])
    picture = tt.draw_graph(x.exp(), {"x": x})
    assert arrows(picture) == [("x", "exp"), ("exp", "output")]


def test_an_input_that_is_taken_twice_has_two_arrows():
    y, names = a_square()
    assert arrows(tt.draw_graph(y, names)) == [("x", "mul"), ("x", "mul"), ("mul", "output")]


def test_a_leaf_that_several_operations_use_is_one_box():
    x = leaf([1.0, 2.0])
    picture = tt.draw_graph(x.exp() * tt.relu(x), {"x": x})
    assert sorted(arrows(picture)) == [
        ("exp", "mul"), ("mul", "output"), ("relu", "mul"), ("x", "exp"), ("x", "relu")
    ]  # fmt: skip
    layers = {box.title: box.layer for box in picture.boxes}
    assert layers == {"x": 0, "exp": 1, "relu": 1, "mul": 2, "output": 3}


@every_graph
def test_without_a_limit_every_operation_leaf_and_edge_is_drawn(graph):
    output, names = graph()
    operations, leaves, edges, waiting = set(), set(), 1, [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node in operations:
            continue
        operations.add(node)
        for edge in filter(None, node.inputs):
            edges += 1
            if hasattr(edge[0], "rule"):
                waiting.append(edge[0])
            else:
                leaves.add(edge[0])
    picture = tt.draw_graph(output, names, limit=10**6)
    kinds = [box.kind for box in picture.boxes]
    assert (kinds.count("operation"), kinds.count("leaf"), kinds.count("output")) == (len(operations), len(leaves), 1)
    assert len(kinds) == len(operations) + len(leaves) + 1
    assert len(picture.edges) == edges
    assert sorted(box.title for box in picture.boxes if box.kind == "operation") == sorted(n.name for n in operations)


def test_a_module_names_its_parameters():
    loss, model = two_layers()
    picture = tt.draw_graph(loss, model)
    shapes = {box.title: box.lines[0] for box in picture.boxes if box.kind == "leaf"}
    assert shapes == {name: str(parameter.shape) for name, parameter in model.named_parameters()}


def test_modules_and_tensors_can_be_named_together():
    loss, model = two_layers()
    picture = tt.draw_graph(loss, {"net": model, "loss": loss})
    assert {"net.hidden.weight", "net.head.bias", "loss"} <= set(titles(picture))
    assert box_called(picture, "mean").texts() == ["mean", "()"]  # the loss itself is not shown twice


def test_a_named_tensor_on_the_way_shows_its_values_with_its_operation():
    x = leaf([1.0, 2.0])
    h = x * 3
    picture = tt.draw_graph(h.sum(), {"x": x, "h": h})
    assert box_called(picture, "mul").texts() == ["mul", "h (2,)", "[3, 6]"]


def test_leaves_without_a_name_are_still_drawn():
    picture = tt.draw_graph(leaf([1.0]) * tt.Parameter(np.ones(1)))
    assert {"tensor", "parameter"} <= set(titles(picture))


def test_few_values_are_shown_and_many_summed_up():
    x, y, z = leaf([[1.0, -2.5], [0.125, 1000.0]]), leaf(np.arange(7.0)), leaf(np.zeros((2, 4)))
    picture = tt.draw_graph(x.sum() + y.sum() + z.sum(), {"x": x, "y": y, "z": z})
    assert box_called(picture, "x").lines == ["(2, 2)", "[[1, -2.5], [0.125, 1e+03]]"]
    assert box_called(picture, "y").lines == ["(7,) float64", "0 to 6, mean 3"]
    assert box_called(picture, "z").lines == ["(2, 4) float64", "all 0"]


def test_values_that_are_not_finite_are_shown():
    x = leaf([np.inf, -np.inf, *range(6)])
    y = leaf([np.nan] * 8)
    picture = tt.draw_graph((x * y).sum(), {"x": x, "y": y})
    assert box_called(picture, "x").lines[1] == "-inf to inf, mean nan"
    assert box_called(picture, "y").lines[1] == "nan to nan, mean nan"


def test_zero_has_no_sign():
    x = leaf([-0.0])
    assert box_called(tt.draw_graph(x.exp(), {"x": x}), "x").lines[1] == "[0]"


def test_an_empty_tensor_is_drawn():
    x = leaf(np.zeros((0, 3), np.float32))
    assert box_called(tt.draw_graph(x.sum(), {"x": x}), "x").lines == ["(0, 3)", "[]"]


def test_gradients_are_shown_once_they_are_there():
    y, names = product_and_sum()
    assert box_called(tt.draw_graph(y, names), "a").gradient == ""
    y.backward(retain_graph=True)
    picture = tt.draw_graph(y, names)
    assert [box_called(picture, name).gradient for name in "abc"] == ["grad [-3]", "grad [2]", "grad [1]"]
    assert "grad [-3]" in texts(parse(picture))


def test_numbers_can_be_left_out():
    y, names = product_and_sum()
    y.backward(retain_graph=True)
    picture = tt.draw_graph(y, names, values=False)
    assert {text for box in picture.boxes for text in box.texts()} == {"a", "b", "c", "mul", "add", "output", "(1,)"}


def test_the_picture_keeps_what_it_showed():
    y, names = product_and_sum()
    picture = tt.draw_graph(y, names)
    before = picture._repr_svg_()
    y.backward()
    assert picture._repr_svg_() == before


# ---- what is wrong


def red(element):
    return [group for group in element if RED in {rect.get("stroke") for rect in group.iter(f"{SVG}rect")}]


def test_a_wrong_gradient_is_red_and_nothing_else_is():
    y, names = product_and_sum()
    y.backward(retain_graph=True)
    svg = parse(tt.draw_graph(y, names, wrong=["b"]))
    (box,) = red(svg)
    assert texts(box) == ["b", "(1,)", "[-3]", "wrong: grad [2]"]
    assert [text.text for text in svg.iter(f"{SVG}text") if text.get("fill") == RED] == ["wrong: grad [2]"]
    assert red(parse(tt.draw_graph(y, names))) == []


def test_one_wrong_name_needs_no_list():
    y, names = product_and_sum()
    names["bias"] = names.pop("b")
    assert [texts(box)[0] for box in red(parse(tt.draw_graph(y, names, wrong="bias")))] == ["bias"]


def test_a_missing_gradient_is_wrong_too():
    y, names = product_and_sum()
    assert box_called(tt.draw_graph(y, names, wrong=["b"]), "b").gradient == "wrong: no gradient"
    y.backward(retain_graph=True)
    assert box_called(tt.draw_graph(y, names, values=False, wrong=["b"]), "b").gradient == "wrong: gradient"


def test_a_wrong_leaf_that_the_graph_never_reached_stands_alone():
    y, names = product_and_sum()
    forgotten = leaf([1.0])
    picture = tt.draw_graph(y, {**names, "forgotten": forgotten}, wrong=["forgotten"])
    assert box_called(picture, "forgotten").gradient == "wrong: not part of this graph"
    assert "forgotten" not in {title for arrow in arrows(picture) for title in arrow}
    assert "forgotten" not in titles(tt.draw_graph(y, {**names, "forgotten": forgotten}))


def test_a_wrong_parameter_is_drawn_beside_the_box_of_its_module():
    loss, model = gpt()
    picture = tt.draw_graph(loss, model, limit=12, wrong=["h.1.mlp.c_fc.bias"])
    assert [texts(box)[0] for box in red(parse(picture))] == ["h.1.mlp.c_fc.bias"]
    assert ("h.1.mlp.c_fc.bias", "h.1") in arrows(picture)


# ---- where it is


def svg_boxes(svg):
    """(left, top, right, bottom) of each box, as drawn."""
    rects = [group.find(f"{SVG}rect") for group in svg.findall(f"{SVG}g") if group.get("class") != "edge"]
    corners = [tuple(float(rect.get(key)) for key in ("x", "y", "width", "height")) for rect in rects]
    return [(x, y, x + width, y + height) for x, y, width, height in corners]


def svg_lines(svg):
    """Points along every drawn piece of every arrow."""
    for path in svg.iter(f"{SVG}path"):
        at = None
        for letter, numbers in re.findall(r"([MLC])([-\d., ]+)", path.get("d")):
            points = np.array([[float(n) for n in pair.split(",")] for pair in numbers.split()])
            t = np.linspace(0, 1, 30)[:, None]
            if letter == "L":
                yield at + t * (points[0] - at)
            elif letter == "C":
                a, b, c = points
                yield (1 - t) ** 3 * at + 3 * t * (1 - t) ** 2 * a + 3 * t**2 * (1 - t) * b + t**3 * c
            at = points[-1]


@every_graph
def test_every_edge_goes_to_a_later_layer(graph):
    picture = tt.draw_graph(*graph())
    layers = [box.layer for box in picture.boxes]
    assert all(layers[source] < layers[target] for source, target in picture.edges)
    starts = [(box.x if picture.horizontal else box.y) for box in picture.boxes]
    ends = [box.x + box.width if picture.horizontal else box.y + box.height for box in picture.boxes]
    assert all(ends[source] < starts[target] for source, target in picture.edges)


@every_graph
def test_boxes_are_apart_and_on_the_page(graph):
    svg = parse(tt.draw_graph(*graph()))
    boxes = svg_boxes(svg)
    for (left, top, right, bottom), (left2, top2, right2, bottom2) in combinations(boxes, 2):
        assert right + 8 < left2 or right2 + 8 < left or bottom + 8 < top2 or bottom2 + 8 < top
    width, height = float(svg.get("width")), float(svg.get("height"))
    assert all(min(box[:2]) >= 8 and box[2] <= width - 8 and box[3] <= height - 8 for box in boxes)


@every_graph
def test_no_arrow_runs_through_a_box_or_off_the_page(graph):
    svg = parse(tt.draw_graph(*graph()))
    points = np.concatenate(list(svg_lines(svg)))
    for left, top, right, bottom in svg_boxes(svg):
        inside = (points > [left + 0.2, top + 0.2]) & (points < [right - 0.2, bottom - 0.2])
        assert not inside.all(axis=1).any()
    assert points.min() > 4 and (points < [float(svg.get("width")) - 4, float(svg.get("height")) - 4]).all()


@every_graph
def test_arrows_begin_and_end_at_their_boxes(graph):
    picture = tt.draw_graph(*graph())
    assert len(picture.lines) == len(picture.edges)
    for line, (source, target) in zip(picture.lines, picture.edges):
        a, b = picture.boxes[source], picture.boxes[target]
        if picture.horizontal:
            assert line[0] == pytest.approx((a.x + a.width, a.y + a.height / 2))
            assert line[-1][0] == pytest.approx(b.x) and b.y < line[-1][1] < b.y + b.height
        else:
            assert line[0] == pytest.approx((a.x + a.width / 2, a.y + a.height))
            assert line[-1][1] == pytest.approx(b.y) and b.x < line[-1][0] < b.x + b.width


def test_arrow_heads_point_at_their_boxes_side_by_side():
    y, names = a_square()
    svg = parse(tt.draw_graph(y, names))
    (left, top, _, bottom) = svg_boxes(svg)[1]
    tips = [tuple(map(float, head.get("points").split()[0].split(","))) for head in svg.iter(f"{SVG}polygon")]
    assert [x for x, _ in tips[:2]] == pytest.approx([left, left], abs=0.1)
    assert top < tips[0][1] < tips[1][1] - 8 < bottom


@every_graph
def test_texts_are_inside_their_boxes(graph):
    for group in parse(tt.draw_graph(*graph())).findall(f"{SVG}g"):
        if group.get("class") == "edge":
            continue
        rect = group.find(f"{SVG}rect")
        left, top, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        for text in group.iter(f"{SVG}text"):
            size = float(text.get("font-size", 11))
            half = 0.62 * size * len(text.text) / 2  # the widest of the usual monospaced fonts
            middle, line = float(text.get("x")), float(text.get("y"))
            assert left + 5 < middle - half and middle + half < left + width - 5
            assert top + 5 < line - 0.75 * size and line + 0.25 * size < top + height - 4


def crossings(picture):
    """How many pairs of arrows cross, where every arrow goes to the next layer, from left to right."""
    assert picture.horizontal
    arriving = {}
    for line, (source, target) in zip(picture.lines, picture.edges):
        assert picture.boxes[source].layer + 1 == picture.boxes[target].layer
        arriving.setdefault(picture.boxes[target].layer, []).append((line[0][1], line[-1][1]))
    pairs = [pair for lines in arriving.values() for pair in combinations(lines, 2)]
    return sum((start - start2) * (end - end2) < 0 for (start, end), (start2, end2) in pairs)


def test_a_tree_is_drawn_without_crossings():
    level = [leaf([float(i)]) * leaf([1.0]) for i in range(16)]
    while len(level) > 1:
        level = [a + b for a, b in zip(level[::2], level[1::2])]
    assert crossings(tt.draw_graph(level[0])) == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1), (2, 1, 0)])
def test_boxes_are_put_in_an_order_without_crossings(order):
    """Products of neighbours in a row of four, whatever the order in which they are stacked."""
    row = [leaf([1.0]).exp() for _ in range(4)]
    assert crossings(tt.draw_graph(tt.stack([row[i] * row[i + 1] for i in order]))) == 0


@every_graph
def test_arrows_that_come_from_above_arrive_above(graph):
    picture = tt.draw_graph(*graph())
    across = 1 if picture.horizontal else 0
    arriving = {}
    for line, (_, target) in zip(picture.lines, picture.edges):
        arriving.setdefault(target, []).append((line[-3][across], line[-1][across]))
    for lines in arriving.values():
        assert [end for _, end in sorted(lines)] == sorted(end for _, end in lines)


@every_graph
def test_no_piece_of_an_arrow_is_drawn_twice(graph):
    """Arrows from one box share their way; drawn twice, it would be darker."""
    pieces = [tuple(map(tuple, line.round(2))) for line in svg_lines(parse(tt.draw_graph(*graph()))) if np.ptp(line)]
    assert len(pieces) == len(set(pieces))


def test_a_leaf_stands_right_before_its_use():
    y, names = product_and_sum()
    layers = {box.title: box.layer for box in tt.draw_graph(y, names).boxes}
    assert layers == {"a": 0, "b": 0, "mul": 1, "c": 1, "add": 2, "output": 3}


def test_long_arrows_are_straight():
    """The residual stream of a GPT passes each block in one straight line."""
    loss, model = gpt()
    picture = tt.draw_graph(loss, model, limit=30)
    around = [line for line in picture.lines if len(line) > 6]
    assert len(around) == 4  # two additions in each of two blocks
    for line in around:
        assert len({round(x, 6) for x, _ in line[2:-2]}) == 1


def test_small_graphs_go_from_left_to_right_and_large_ones_down():
    assert tt.draw_graph(*two_layers()).horizontal
    picture = tt.draw_graph(*gpt())
    assert not picture.horizontal
    assert picture.size[0] < picture.size[1]


# ---- large graphs


def test_up_to_200_boxes_nothing_is_folded_and_beyond_it_is():
    def boxes(operations):
        y = x = leaf([1.0])
        for _ in range(operations):
            y = y + 1
        return len(tt.draw_graph(y, {"x": x}).boxes)

    assert (boxes(198), boxes(199)) == (200, 3)


def test_a_chain_of_5000_operations_is_one_box():
    y = x = leaf([1.0, 2.0])
    for _ in range(2500):
        y = (y + 1) * 0.5
    picture = tt.draw_graph(y, {"x": x})
    assert titles(picture) == ["x", "5,000 operations", "output"]
    assert picture.boxes[1].lines == ["(2,)", "2500 add, 2500 mul"]
    assert arrows(picture) == [("x", "5,000 operations"), ("5,000 operations", "output")]


def test_leaves_that_only_a_chain_uses_are_in_its_box():
    weights = [leaf([0.99, 1.01]) for _ in range(300)]
    y = x = leaf([1.0, 1.0])
    for weight in weights:
        y = y * weight
    y.backward(np.ones(2, np.float32), retain_graph=True)
    picture = tt.draw_graph(y, {"x": x})
    box = box_called(picture, "300 operations")
    assert box.lines == ["(2,)", "300 mul", "602 numbers in leaves"]  # also the first factor is used only here
    gradients = np.concatenate([leaf.grad.numpy() for leaf in [x, *weights]])
    assert float(box.gradient.split()[-1]) == pytest.approx(np.linalg.norm(gradients), rel=1e-2)


@pytest.mark.parametrize("limit", [2, 3, 5, 10, 20, 30, 40, 60, 76, 77])
@pytest.mark.parametrize("named", [True, False])
def test_no_more_boxes_than_the_limit(limit, named):
    loss, model = gpt()
    picture = tt.draw_graph(loss, model if named else None, limit=limit)
    assert len(picture.boxes) <= limit
    assert (limit == 77) == (len(picture.boxes) == 77)  # 39 operations, 37 leaves and the output
    layers = [box.layer for box in picture.boxes]
    assert all(layers[source] < layers[target] for source, target in picture.edges)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("limit", [2, 7, 20])
def test_folding_never_makes_a_circle(seed, limit):
    picture = tt.draw_graph(random_graph(seed)[0], limit=limit)
    layers = [box.layer for box in picture.boxes]
    assert len(picture.boxes) <= limit
    assert all(layers[source] < layers[target] for source, target in picture.edges)


def test_a_gpt_is_drawn_as_its_modules():
    loss, model = gpt()
    picture = tt.draw_graph(loss, model)
    assert len(picture.boxes) <= 60
    groups = [box.title for box in picture.boxes if box.kind == "group"]
    parts = ["ln_1", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
    assert sorted(groups) == sorted(
        ["wte", "wpe", "ln_f", "lm_head", *(f"h.{i}.{part}" for i in range(2) for part in parts)]
    )
    assert box_called(picture, "h.0.mlp.c_fc").lines == ["Linear (1, 3, 16)", f"{16 * 4 + 16} parameters"]
    assert ("h.1.ln_1", "h.1.attn.k_proj") in arrows(picture)
    assert [box.title for box in picture.boxes if box.kind == "leaf"] == []


def test_a_deeper_gpt_is_drawn_as_its_blocks():
    loss, model = gpt(n_layer=12)
    loss.backward(retain_graph=True)
    picture = tt.draw_graph(loss, model)
    blocks = [f"h.{i}" for i in range(12)]
    assert titles(picture) == [
        "wte", "wpe", "add", *blocks, "ln_f", "lm_head", "flatten", "cross_entropy", "output"
    ]  # fmt: skip
    assert list(pairwise(blocks)) == [arrow for arrow in arrows(picture) if set(arrow) <= set(blocks)]
    for i, block in enumerate(model.h):
        box = box_called(picture, f"h.{i}")
        assert box.lines == ["Block (1, 3, 4)", f"{sum(p.numel() for p in block.parameters())} parameters"]
        norm = math.sqrt(sum(float((p.grad.numpy() ** 2).sum()) for p in block.parameters()))
        assert float(box.gradient.split()[-1]) == pytest.approx(norm, rel=1e-2)


def test_halfway_the_parts_of_a_block_are_drawn():
    loss, model = gpt()
    picture = tt.draw_graph(loss, model, limit=25)
    block = ["h.1.ln_1", "h.1.attn", "add", "h.1.ln_2", "h.1.mlp", "add"]
    assert titles(picture)[9:15] == block
    assert "MultiHeadAttention (1, 3, 4)" in box_called(picture, "h.1.attn").lines


def test_blocks_without_end_are_put_together():
    loss, model = gpt(n_layer=12)
    picture = tt.draw_graph(loss, model, limit=4)
    assert len(picture.boxes) <= 4
    assert picture.boxes[0].title == "wte to h.2"
    assert picture.boxes[0].lines[0] == "Embedding, Block (1, 3, 4)"


def test_a_parameter_of_two_modules_is_drawn_beside_them():
    loss, model = gpt(tie_word_embeddings=True)
    picture = tt.draw_graph(loss, model)
    assert [arrow for arrow in arrows(picture) if arrow[0] == "wte.weight"] == [
        ("wte.weight", "wte"), ("wte.weight", "lm_head")
    ]  # fmt: skip


class Recurrent(tt.Module):
    def __init__(self):
        self.cell = tt.Linear(3, 3, generator=tt.Generator(0))

    def forward(self, steps):
        h = tt.zeros(1, 3)
        for _ in range(steps):
            h = self.cell(h).tanh()
        return h


def test_a_module_that_runs_again_is_drawn_again():
    model = Recurrent()
    picture = tt.draw_graph(model(4), model, limit=10)
    assert arrows(picture) == [
        ("cell", "tanh"), ("tanh", "cell"), ("cell", "tanh"), ("tanh", "cell"), ("cell", "tanh"), ("tanh", "cell"),
        ("cell", "tanh"), ("tanh", "output"),
    ]  # fmt: skip
    assert [box.lines for box in picture.boxes if box.title == "cell"] == [
        ["Linear (1, 3)", "12 parameters"], *[["Linear (1, 3)"]] * 3
    ]  # fmt: skip


def test_operations_between_those_with_parameters_belong_to_the_module():
    class Norm(tt.Module):
        def __init__(self):
            self.weight, self.bias = tt.Parameter(np.ones(4)), tt.Parameter(np.zeros(4))

        def forward(self, x):
            return ((x * self.weight).tanh() + self.bias).exp()

    model = tt.Sequential(Norm(), Norm())
    picture = tt.draw_graph(model(tt.ones(2, 4)).sum(), model, limit=10)
    assert titles(picture) == ["0", "exp", "1", "exp", "sum", "output"]  # the last operation of a call is not known


def test_a_composed_layer_norm_is_in_its_block(monkeypatch):
    monkeypatch.setattr(sys.modules[tt.LayerNorm.__module__], "layer_norm", layer_norm_composed)
    loss, model = gpt()
    picture = tt.draw_graph(loss, model, limit=30)
    assert {"h.0", "h.1", "ln_f", "lm_head"} <= set(titles(picture))
    assert len(picture.boxes) <= 30


# ---- texts


AWKWARD = ["<&>\"'", "]]>", "a\nb", "nul\x00", "&amp;", "\ud800", "\ufffe", "50% \\n", "Gewicht ä 重み"]


@pytest.mark.parametrize("name", AWKWARD, ids=ascii)
def test_any_name_is_escaped(name, tmp_path):
    x = leaf([1.0])
    picture = tt.draw_graph(x.exp(), {name: x})
    picture.save(tmp_path / "graph.svg")
    svg = ElementTree.parse(tmp_path / "graph.svg").getroot()
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    assert texts(svg)[:2] == [shown, "(1,)"]
    assert len(svg) == 1 + 1 + 2 + 3  # title, page, edges, boxes: nothing broke out


def test_long_names_are_cut_and_shown_in_full_on_hovering():
    x = leaf([1.0])
    name = "encoder." * 20 + "weight"
    box = next(group for group in parse(tt.draw_graph(x.exp(), {name: x})) if group.get("class") == "leaf")
    shown = texts(box)[0]
    assert len(shown) == 60 and shown.startswith("encoder.encoder.") and shown.endswith(".weight") and "…" in shown
    assert name in box.find(f"{SVG}title").text


def test_wide_characters_get_wide_boxes():
    def width(name):
        x = leaf([1.0])
        return tt.draw_graph(x.exp(), {name: x}).boxes[0].width

    assert width("重" * 20) == width("w" * 40) > width("w" * 20)


# ---- where it goes


def test_it_shows_itself_in_a_notebook_on_white():
    picture = tt.draw_graph(*product_and_sum())
    svg = parse(picture)
    page = svg.find(f"{SVG}rect")
    assert (page.get("width"), page.get("height"), page.get("fill")) == (svg.get("width"), svg.get("height"), "#ffffff")
    assert svg.get("viewBox") == f"0 0 {svg.get('width')} {svg.get('height')}"
    assert list(svg.iter(f"{SVG}style")) == []  # in a notebook it would style the whole page


def test_saving_writes_the_svg(tmp_path):
    picture = tt.draw_graph(*product_and_sum())
    for path in (tmp_path / "graph.svg", str(tmp_path / "GRAPH.SVG")):
        picture.save(path)
        with open(path, encoding="utf-8") as file:
            assert file.read() == picture._repr_svg_()


def test_the_repr_is_short():
    assert repr(tt.draw_graph(*product_and_sum())) == "GraphPicture(2 operations, 3 leaves, 6 boxes)"
    assert repr(tt.draw_graph(leaf([1.0]).exp())) == "GraphPicture(1 operation, 1 leaf, 3 boxes)"


def test_dot_has_all_boxes_and_edges():
    y, names = product_and_sum()
    y.backward(retain_graph=True)
    picture = tt.draw_graph(y, names, wrong=["c"])
    dot = picture.to_dot()
    assert dot.startswith("digraph {\n") and dot.endswith("}\n")
    nodes = dict(re.findall(r'^  (n\d+) \[label="(.*?)",', dot, re.MULTILINE))
    assert [label.split("\\n") for label in nodes.values()] == [box.texts() for box in picture.boxes]
    edges = re.findall(r"^  (n\d+) -> (n\d+);$", dot, re.MULTILINE)
    assert [(nodes[a].split("\\n")[0], nodes[b].split("\\n")[0]) for a, b in edges] == arrows(picture)
    (red_line,) = [line for line in dot.splitlines() if RED in line]
    assert 'label="c\\n(1,)\\n[10]\\nwrong: grad [1]"' in red_line


def test_dot_escapes_names():
    x = leaf([1.0])
    assert '[label="say \\"hi\\" \\\\n\\n(1,)' in tt.draw_graph(x.exp(), {'say "hi" \\n': x}).to_dot()


# ---- what cannot be drawn


def test_a_graph_that_backward_consumed_says_so():
    y, names = product_and_sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"freed the graph from 'add' on.*retain_graph=True"):
        tt.draw_graph(y, names)


def test_a_graph_of_which_backward_consumed_a_part_says_so():
    trunk = leaf([1.0]).exp()
    (trunk * 2).backward()
    with pytest.raises(RuntimeError, match="freed the graph from 'exp' on"):
        tt.draw_graph(trunk * 3)


@pytest.mark.parametrize("make", [lambda: tt.ones(2), lambda: tt.ones(2) * 2, lambda: leaf([1.0])])
def test_a_tensor_without_a_graph_says_so(make):
    with pytest.raises(RuntimeError, match="has no graph"):
        tt.draw_graph(make())


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="needs a tensor, but got ndarray"):
        tt.draw_graph(np.ones(2))


@pytest.mark.parametrize(
    ("names", "message"),
    [([("a", 1)], "needs a dict {name: tensor} or a Module, but got list"), ({"a": 1.0}, "'a' is float")],
)
def test_names_of_another_kind_are_refused(names, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        tt.draw_graph(leaf([1.0]).exp(), names)


def test_wrong_names_that_nobody_has_are_refused():
    y, names = product_and_sum()
    with pytest.raises(ValueError, match=r"but got 'd'. Leaves with a name: a, b, c\."):
        tt.draw_graph(y, names, wrong=["a", "d"])
    with pytest.raises(ValueError, match="none: pass names"):
        tt.draw_graph(y, wrong=["a"])
    with pytest.raises(ValueError, match="but got 'y'"):
        tt.draw_graph(y, {**names, "y": y}, wrong=["y"])


def test_wrong_names_are_compared_with_the_first_few():
    loss, model = gpt()
    with pytest.raises(ValueError, match=r"wte\.weight, .*h\.0\.attn\.k_proj\.bias, …\.$"):
        tt.draw_graph(loss, model, wrong=["nobody"])


@pytest.mark.parametrize("limit", [1, 0, -3])
def test_a_limit_without_room_is_refused(limit):
    with pytest.raises(ValueError, match=f"at least 2 boxes.*got {limit}"):
        tt.draw_graph(leaf([1.0]).exp(), limit=limit)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.svg, but got .*graph\.png"):
        tt.draw_graph(leaf([1.0]).exp()).save(tmp_path / "graph.png")
    assert list(tmp_path.iterdir()) == []
