"""The plots draw the numbers that they are given, write PNGs, open no window, and refuse what cannot be drawn."""

import io
import math
import struct
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

import tinytorch as tt

PNG = b"\x89PNG\r\n\x1a\n"


def png_size(content):
    assert content[:8] == PNG
    return struct.unpack(">II", content[16:24])


def history_of(losses, evaluations=()):
    return {
        "step": list(range(1, len(losses) + 1)),
        "loss": list(losses),
        "eval_step": [step for step, _ in evaluations],
        "eval_loss": [loss for _, loss in evaluations],
    }


def rows_of_softmax(*shape):
    return tt.softmax(tt.randn(*shape, generator=tt.Generator(0)) * 2)


POINTS, CLASSES = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, -1.0]]), np.array([0, 1, 1])
PLOTS = {
    "loss": lambda **path: tt.plot_loss(history_of([2.0, 1.0]), **path),
    "attention": lambda **path: tt.plot_attention(rows_of_softmax(2, 3, 3), list("abc"), **path),
    "states": lambda **path: tt.plot_states(np.eye(3, 5), list("abc"), title="an eye", **path),
    "boundary": lambda **path: tt.plot_decision_boundary(lambda x: x[:, 0] - 1, POINTS, CLASSES, **path),
    "images": lambda **path: tt.show_images(tt.rand(3, 4, 5), titles=["one", "two", "three"], **path),
}
every_plot = pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS.keys())


# ---- all of them


@every_plot
def test_a_plot_is_a_figure_and_a_png_where_asked(plot, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    for path in (tmp_path / "plot.png", str(tmp_path / "without_an_ending")):
        figure = plot(path=path)
        assert isinstance(figure, Figure)
        with open(path, "rb") as file:
            assert png_size(file.read()) == tuple((figure.get_size_inches() * figure.dpi).astype(int))


@every_plot
def test_nothing_is_written_unless_asked(plot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plot()
    assert list(tmp_path.iterdir()) == []


@every_plot
def test_a_figure_shows_itself_in_a_notebook(plot):
    assert min(png_size(plot()._repr_png_())) >= 80


def test_nothing_of_pyplot_is_used():
    program = (
        "import sys, tinytorch as tt; assert 'matplotlib' not in sys.modules; tt.show_images(tt.rand(1, 2, 2)); "
        "tt.plot_attention(tt.ones(1, 1)); tt.plot_states(tt.ones(1, 1)); "
        "tt.plot_decision_boundary(lambda x: x[:, 0], [[0.0, 1.0]], [1]); "
        "tt.plot_loss({'step': [1], 'loss': [1.0], 'eval_step': []}); print('matplotlib.pyplot' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout == "False\n"


# ---- the loss


@pytest.mark.parametrize(
    "history",
    [history_of([2.0]), history_of([2.0], [(1, 3.0)]), history_of(np.geomspace(4, 0.1, 120), [(60, 1.0), (120, 0.2)])],
    ids=["one-step", "one-step-evaluated", "long"],
)
def test_plot_loss_draws_what_the_history_says(history):
    figure = tt.plot_loss(history, title="a run")
    (axes,) = figure.axes
    assert axes.get_title() == "a run"
    assert min(figure.get_size_inches() * figure.dpi) >= 400
    raw, mean, *held_out = [np.array(line.get_xydata()) for line in axes.lines]
    assert_array_equal(raw, np.column_stack([history["step"], history["loss"]]))
    window = len(raw) - len(mean) + 1
    assert_array_equal(mean[:, 0], raw[window - 1 :, 0])
    assert_allclose(mean[:, 1], [raw[i : i + window, 1].mean() for i in range(len(mean))])
    assert [line.tolist() for line in held_out] == (
        [[list(pair) for pair in zip(history["eval_step"], history["eval_loss"])]] if history["eval_step"] else []
    )


def test_the_history_of_a_trainer_can_be_drawn_once_it_has_a_step():
    model = tt.Linear(1, 1)
    trainer = tt.Trainer(model, tt.SGD(model.parameters(), lr=0.1), [tt.ones(2, 1)], lambda m, x: (m(x) ** 2).mean())
    with pytest.raises(ValueError, match="at least one step"):
        tt.plot_loss(trainer.history)
    trainer.fit(3)
    assert tt.plot_loss(trainer.history).axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]


def test_plot_loss_compares_several_histories_each_in_a_colour_of_its_own():
    histories = {"one": history_of([3.0, 2.0], [(2, 2.5)]), "other": history_of([4.0, 1.0], [(2, 1.5)])}
    lines = tt.plot_loss(histories).axes[0].lines
    assert [line.get_label() for line in lines[:3]] == ["one, each step", "one, mean of 1", "one, held out"]
    assert [line.get_ydata().tolist() for line in lines] == [[3, 2], [3, 2], [2.5], [4, 1], [4, 1], [1.5]]
    first, second = ({line.get_color() for line in part} for part in (lines[:3], lines[3:]))
    assert len(first) == len(second) == 1 and first != second


@pytest.mark.parametrize("histories", [{}, {"one": history_of([1.0]), "other": history_of([])}])
def test_plot_loss_needs_a_step_in_each_history(histories):
    with pytest.raises(ValueError, match="at least one step"):
        tt.plot_loss(histories)


# ---- attention


def panels(figure):
    """The axes with an image: without the scale of colours."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("heads", [1, 3, 4, 6])
def test_each_head_has_a_panel_with_its_weights(heads):
    weights = rows_of_softmax(heads, 5, 5)
    figure = tt.plot_attention(weights)
    drawn = panels(figure)
    assert len(drawn) == heads and len(figure.axes) == heads + 1
    for axes, expected in zip(drawn, weights.numpy()):
        assert_allclose(axes.images[0].get_array(), expected)
        assert axes.images[0].get_clim() == (0, pytest.approx(weights.max().item()))
    assert [axes.get_title() for axes in drawn] == ([f"head {i}" for i in range(heads)] if heads > 1 else [""])


def test_one_matrix_is_one_panel():
    weights = rows_of_softmax(2, 7)
    (axes,) = panels(tt.plot_attention(weights.numpy()))
    assert_allclose(axes.images[0].get_array(), weights.numpy())


def test_queries_are_rows_and_keys_are_columns():
    (axes,) = panels(tt.plot_attention(rows_of_softmax(2, 3), ["you", "are"], ["<s>", "je", "suis"]))
    assert (tick_labels(axes.yaxis), tick_labels(axes.xaxis)) == (["you", "are"], ["<s>", "je", "suis"])
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("query", "key")


def test_tokens_that_attend_to_themselves_are_on_both_sides_of_every_panel():
    for axes in panels(tt.plot_attention(rows_of_softmax(2, 3, 3), list("abc"))):
        assert tick_labels(axes.yaxis) == tick_labels(axes.xaxis) == ["a", "b", "c"]


def test_tokens_label_only_the_queries_where_there_are_more_keys():
    (axes,) = panels(tt.plot_attention(rows_of_softmax(2, 3), ["a", "b"]))
    assert tick_labels(axes.yaxis) == ["a", "b"]
    assert "a" not in tick_labels(axes.xaxis)


def test_what_cannot_be_seen_is_made_visible():
    tokens = [" the", "\n", "\t", "", "\x00", r"$\x$", 7]
    figure = tt.plot_attention(rows_of_softmax(7, 7), tokens)
    assert tick_labels(panels(figure)[0].yaxis) == ["␣the", "↵", "⇥", "''", "\\x00", r"$\x$", "7"]
    assert figure._repr_png_()[:8] == PNG  # dollars are no mathematics, and the font has all signs


@pytest.mark.parametrize("shape", [(3,), (2, 2, 3, 3), (0, 3), (2, 0, 0)])
def test_attention_of_other_shapes_is_refused(shape):
    with pytest.raises(ValueError, match=r"needs weights \(L, S\) or \(heads, L, S\).*weights\[0\]"):
        tt.plot_attention(tt.zeros(*shape))


def test_scores_are_not_taken_for_attention_weights():
    with pytest.raises(ValueError, match=r"at least 0, but got -1\. Pass them after softmax"):
        tt.plot_attention([[0.5, -1.0]])
    with pytest.raises(ValueError, match="NaN or infinity"):
        tt.plot_attention([[0.5, math.nan]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"tokens": ["a"]}, "tokens needs one label for each of the 2 queries, but got 1"),
        ({"key_tokens": list("abcd")}, "key_tokens needs one label for each of the 3 keys, but got 4"),
    ],
)
def test_a_wrong_number_of_tokens_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        tt.plot_attention(rows_of_softmax(2, 3), **labels)


# ---- states


@pytest.mark.parametrize("kind", [np.asarray, tt.tensor, list], ids=["array", "tensor", "list"])
def test_time_runs_to_the_right_and_each_channel_is_a_row_of_its_own_size(kind):
    states = np.array([[0.5, -300.0, 0.0], [-0.25, 0.0, 0.0], [1.0, 150.0, 0.0], [2.0, 75.0, 0.0]])
    (axes,) = panels(tt.plot_states(kind(states)))
    drawn = axes.images[0]
    assert_allclose(drawn.get_array(), [[0.25, -0.125, 0.5, 1], [-1, 0, 0.5, 0.25], [0, 0, 0, 0]])
    assert drawn.get_clim() == (-1, 1)
    red, white, blue = (np.array(drawn.to_rgba([[value]]))[0, 0, :3] for value in (1.0, 0.0, -1.0))
    assert red[0] > red[2] and blue[2] > blue[0] and white.min() > 0.95
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("step", "channel", "")


def test_states_have_the_tokens_that_were_read_below_them():
    (axes,) = panels(tt.plot_states(np.eye(4), ["def", " ", "\n", "$x"], title="$a_1"))
    assert tick_labels(axes.xaxis) == ["def", "␣", "↵", "$x"]
    assert (axes.get_xlabel(), axes.get_title()) == ("token", "$a_1")


def test_a_picture_of_many_states_stays_on_the_screen():
    width, height = tt.plot_states(np.ones((5000, 400))).get_size_inches()
    assert width <= 12 and height <= 8


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (3, 0)])
def test_states_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"needs states \(T, channels\).*one sequence"):
        tt.plot_states(tt.zeros(*shape))


def test_states_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="tokens needs one label for each of the 2 steps, but got 3"):
        tt.plot_states(np.ones((2, 5)), list("abc"))
    with pytest.raises(ValueError, match="States with NaN or infinity"):
        tt.plot_states([[1.0, math.inf]])


# ---- decision boundaries


def points_and_classes(classes):
    rng = np.random.default_rng(0)
    return rng.uniform([-2, 5], [3, 6], (30, 2)), np.arange(30) % classes


def grid(image):
    """The middles of the cells of an image, rows from low to high."""
    left, right, low, high = image.get_extent()
    rows, columns = image.get_array().shape
    x = left + (right - left) * (np.arange(columns) + 0.5) / columns
    y = low + (high - low) * (np.arange(rows) + 0.5) / rows
    return np.stack(np.meshgrid(x, y), axis=-1)


def linear_model(weight, bias):
    model = tt.Linear(2, len(weight))
    model.load_state_dict({"weight": np.array(weight, np.float32), "bias": np.array(bias, np.float32)})
    return model


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=str)
@pytest.mark.parametrize("names", [(0, 1), (-1, 1)], ids=str)
def test_one_score_draws_two_regions(shape, names):
    x, y = points_and_classes(2)
    figure = tt.plot_decision_boundary(
        lambda x: (x[:, 0] + 3 * x[:, 1] - 17).reshape(*shape), x, np.array(names)[y], resolution=40
    )
    (axes,) = figure.axes
    (image,) = axes.images
    points = grid(image)
    assert image.get_array().shape == (40, 40) and image.origin == "lower"
    assert_array_equal(image.get_array(), points[..., 0] + 3 * points[..., 1] > 17)
    assert 0.2 < image.get_array().mean() < 0.8
    for number, drawn in enumerate(axes.collections):
        assert_array_equal(drawn.get_offsets(), x[y == number])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(name) for name in names]


@pytest.mark.parametrize("kind", [np.asarray, tt.tensor, lambda a: a.tolist()], ids=["array", "tensor", "list"])
def test_the_highest_of_many_scores_wins(kind):
    x, y = points_and_classes(3)
    weight, bias = [[1, 0], [-1, 0], [0, 4]], [0, 0, -22]
    (axes,) = tt.plot_decision_boundary(linear_model(weight, bias), kind(x), kind(y), resolution=30).axes
    expected = (grid(axes.images[0]) @ np.array(weight).T + bias).argmax(axis=-1)
    assert_array_equal(axes.images[0].get_array(), expected)
    assert set(expected.flat) == {0, 1, 2}
    assert [len(drawn.get_offsets()) for drawn in axes.collections] == [10, 10, 10]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2"]


def test_each_region_has_the_pale_colour_of_its_class():
    x, y = points_and_classes(3)
    (axes,) = tt.plot_decision_boundary(linear_model([[1, 0], [-1, 0], [0, 4]], [0, 0, -22]), x, y, resolution=5).axes
    for number, drawn in enumerate(axes.collections):
        region = np.array(axes.images[0].to_rgba(np.array([[number]])))[0, 0, :3]
        assert_allclose(region, 0.35 * drawn.get_facecolor()[0, :3] + 0.65, atol=1e-6)


def test_two_scores_may_tell_minus_one_from_one():
    x, y = points_and_classes(2)
    (axes,) = tt.plot_decision_boundary(linear_model([[1, 0], [-1, 0]], [0, 1]), x, 2 * y[:, None] - 1).axes
    assert_array_equal(axes.images[0].get_array(), grid(axes.images[0])[..., 0] < 0.5)
    assert_array_equal(axes.collections[1].get_offsets(), x[y == 1])


def test_probabilities_are_cut_at_a_half_and_scores_at_zero_unless_told():
    x, y = points_and_classes(2)

    def drawn(model, **settings):
        image = tt.plot_decision_boundary(model, x, y, resolution=21, **settings).axes[0].images[0]
        return image.get_array(), grid(image)[..., 0]

    def probability(x):
        return tt.sigmoid(x[:, 0] * 2)

    regions, across = drawn(probability)
    assert_array_equal(regions, across > 0)
    regions, across = drawn(lambda x: x[:, 0] * 2)
    assert_array_equal(regions, across > 0)
    regions, across = drawn(probability, threshold=0.75)
    assert_array_equal(regions, across > math.log(3) / 2)
    regions, _ = drawn(probability, threshold=0)
    assert regions.all()


class Watched(tt.Module):
    """Notes how it is evaluated; its dropout would change every score."""

    def __init__(self):
        self.linear = tt.Linear(2, 1)
        self.dropout = tt.Dropout(0.5)
        self.calls = []

    def forward(self, x):
        scores = self.linear(self.dropout(x))
        self.calls.append((self.training, self.dropout.training, scores.requires_grad, x.shape, x.dtype))
        return scores


def test_a_module_is_evaluated_in_eval_mode_without_gradients_in_batches_and_then_left_as_it_was():
    model = Watched()
    model.linear.eval()
    tt.plot_decision_boundary(model, POINTS, CLASSES, resolution=120)
    assert model.calls == [
        (False, False, False, (10_000, 2), np.float32), (False, False, False, (4_400, 2), np.float32)
    ]  # fmt: skip
    assert (model.training, model.dropout.training, model.linear.training) == (True, True, False)
    assert [parameter.grad for parameter in model.parameters()] == [None, None]
    assert model(tt.ones(1, 2)).requires_grad


def test_batches_are_put_together_in_order():
    (axes,) = tt.plot_decision_boundary(lambda x: x[:, 1] - 0.1, POINTS, CLASSES, resolution=150).axes
    assert_array_equal(axes.images[0].get_array(), grid(axes.images[0])[..., 1] > 0.1)


def test_a_model_in_float64_gets_float64():
    model = Watched()
    model.to(tt.float64)
    tt.plot_decision_boundary(model, POINTS, CLASSES, resolution=3)
    assert model.calls[0][-1] == np.float64


def test_all_points_are_in_the_picture_with_a_margin():
    (axes,) = tt.plot_decision_boundary(lambda x: x[:, 0], POINTS, CLASSES).axes
    assert_allclose(axes.get_xlim(), (-0.16, 2.16))
    assert_allclose(axes.get_ylim(), (-1.16, 1.16))
    (axes,) = tt.plot_decision_boundary(lambda x: x[:, 0], [[2.0, 3.0]], [1]).axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((1, 3), (2, 4))


@pytest.mark.parametrize("x", [np.zeros((3, 3)), np.zeros(3), np.zeros((0, 2))])
def test_points_off_the_plane_are_refused(x):
    with pytest.raises(ValueError, match=r"points x of shape \(N, 2\), at least one, but got"):
        tt.plot_decision_boundary(lambda x: x[:, 0], x, np.zeros(len(x)))


@pytest.mark.parametrize("y", [[0, 1], [[0, 1, 1]], [[0, 1], [1, 0], [0, 1]]])
def test_classes_that_do_not_fit_the_points_are_refused(y):
    with pytest.raises(ValueError, match="needs 3 classes y, one for each point"):
        tt.plot_decision_boundary(lambda x: x[:, 0], POINTS, y)


@pytest.mark.parametrize(
    ("scores", "y", "message"),
    [
        (1, [0, 1, 2], r"1 score for a point, so the classes y need to be 0 and 1, or -1 and 1, but got \[0, 1, 2\]"),
        (1, [0, 0.5, 1], r"but got \[0\.0, 0\.5, 1\.0\]"),
        (1, [-1, 0, 1], "need to be 0 and 1, or -1 and 1"),
        (2, [0, 1, 2], "2 scores for a point, so the classes y need to be 0 and 1, or -1 and 1"),
        (3, [1, 2, 3], r"3 scores for a point, so the classes y need to be 0 to 2, but got \[1, 2, 3\]"),
        (3, [-1, 1, 1], "need to be 0 to 2"),
    ],
)
def test_classes_that_the_model_cannot_mean_are_refused(scores, y, message):
    with pytest.raises(ValueError, match=message):
        tt.plot_decision_boundary(lambda x: tt.ones(len(x), scores), POINTS, y)


@pytest.mark.parametrize("shape", [(), (4, 1, 1), (3,), (4, 0)])
def test_a_model_that_gives_no_scores_is_refused(shape):
    with pytest.raises(ValueError, match=r"maps points \(M, 2\) to scores .*but \(4, 2\) gave"):
        tt.plot_decision_boundary(lambda x: tt.zeros(*shape), POINTS, CLASSES, resolution=2)


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="Scores with NaN or infinity"):
        tt.plot_decision_boundary(lambda x: x[:, 0] * math.nan, POINTS, CLASSES)
    with pytest.raises(ValueError, match="Points with NaN or infinity"):
        tt.plot_decision_boundary(lambda x: x[:, 0], [[math.inf, 0]] * 3, CLASSES)
    with pytest.raises(ValueError, match="resolution needs an integer of at least 1"):
        tt.plot_decision_boundary(lambda x: x[:, 0], POINTS, CLASSES, resolution=0)


# ---- images


def shown(figure):
    """The axes with an image, and not those that fill the last row."""
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize(
    ("count", "columns", "wanted"), [(1, None, 1), (5, None, 3), (12, None, 4), (200, None, 10), (5, 2, 2), (3, 8, 3)]
)
def test_images_stand_in_rows(count, columns, wanted):
    figure = tt.show_images(tt.rand(count, 2, 2), columns=columns)
    assert figure.axes[0].get_gridspec().get_geometry() == (math.ceil(count / wanted), wanted)
    assert len(shown(figure)) == count
    assert not any(axes.axison for axes in figure.axes)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 4, 5)])
@pytest.mark.parametrize("kind", [tt.tensor, np.asarray, list], ids=["tensor", "array", "list"])
def test_grey_images_share_their_range(shape, kind):
    images = np.arange(60.0).reshape(shape)
    for i, axes in enumerate(shown(tt.show_images(kind(images)))):
        assert_array_equal(axes.images[0].get_array(), images[i].reshape(4, 5))
        assert axes.images[0].get_clim() == (0, 59)
        assert axes.images[0].to_rgba([0.0, 59.0])[:, 0].tolist() == [0, 1]  # from black to white


def test_grey_images_may_have_their_own_range():
    drawn = shown(tt.show_images(np.arange(60).reshape(3, 4, 5), own_range=True))
    assert [axes.images[0].get_clim() for axes in drawn] == [(0, 19), (20, 39), (40, 59)]


@pytest.mark.parametrize("most", [1.0, 255])
def test_colours_are_drawn_as_they_are(most):
    images = np.zeros((2, 3, 4, 5), np.array(most).dtype)
    images[0, 0] = images[1, 2, 0] = most  # red; a blue line
    red, blue = (axes.images[0].get_array() for axes in shown(tt.show_images(images)))
    assert red.shape == (4, 5, 3)
    assert_array_equal(red[2, 2], [1, 0, 0])
    assert_array_equal(blue[:2, 2], [[0, 0, 1], [0, 0, 0]])


def test_images_have_titles():
    figure = tt.show_images(tt.rand(3, 2, 2), titles=["cat", 7, r"$\x$"])
    assert [axes.get_title() for axes in shown(figure)] == ["cat", "7", r"$\x$"]
    file = io.BytesIO()
    figure.savefig(file)
    assert file.getvalue()[:8] == PNG


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5, 3), (2, 2, 4, 5), (0, 4, 5), (2, 3, 0, 5), (1, 1, 1, 4, 5)])
def test_images_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"needs images \(N, H, W\).*images\[None\].*permute\(0, 3, 1, 2\)"):
        tt.show_images(np.zeros(shape))


def test_images_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"Images need one shape, but came in \[\(2, 3\), \(3, 2\)\]"):
        tt.show_images([np.zeros((2, 3)), tt.zeros(3, 2)])


@pytest.mark.parametrize(("images", "most"), [(-0.5, 1), (1.5, 1), (300, 255), (-1, 255)])
def test_numbers_that_are_no_colours_are_refused(images, most):
    with pytest.raises(ValueError, match=f"colours from 0 to {most}, but got"):
        tt.show_images(np.full((1, 3, 2, 2), images))


def test_other_settings_are_refused():
    images = np.zeros((2, 3, 3))
    with pytest.raises(ValueError, match="one title for each of the 2 images, but got 1"):
        tt.show_images(images, titles=["one"])
    with pytest.raises(ValueError, match="columns needs an integer of at least 1"):
        tt.show_images(images, columns=0)
    with pytest.raises(ValueError, match="Images with NaN"):
        tt.show_images(images * math.nan)
