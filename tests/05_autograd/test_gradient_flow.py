"""How gradients flow: arithmetic against closed forms, backward by hand, GELU, the pieces of LayerNorm, and shapes.

Each gradient is stated as a formula of the inputs and of the random gradient `g` of the output.
"""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.activations import gelu_composed
from tinytorch.autograd import unbroadcast
from tinytorch.testing import assert_close, check_grad
from tinytorch.transformers import layer_norm_composed

SHAPES = {"same": ((3, 4), (3, 4)), "left": ((4,), (3, 4)), "right": ((3, 4), (3, 1)), "both": ((2, 1, 4), (3, 1))}
each_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())


def random(*shape, low=0.5, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def leaf(array):
    return tt.Tensor(np.array(array), requires_grad=True)


def summed(g, shape):
    """The gradient of what was broadcast: `g` summed over every place that an element of `shape` was copied to."""
    size = math.prod(shape)
    came_from = np.broadcast_to(np.arange(size).reshape(shape), g.shape)
    return np.bincount(came_from.ravel(), weights=g.ravel(), minlength=size).reshape(shape)


def gradients(function, *arrays):
    """The output's random gradient, and the gradients that it sends to each input."""
    tensors = [leaf(x) for x in arrays]
    output = function(*tensors)
    g = np.random.default_rng(9).standard_normal(output.shape)
    output.backward(g)
    return g, *(x.grad.numpy() for x in tensors)


def assert_equal(actual, expected):
    assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.exercise("ex-05-1", points=1)
class TestAddition:
    @each_shape
    def test_both_operands_get_the_gradient_of_the_sum(self, shapes):
        x, y = (random(*shape) for shape in shapes)
        g, gx, gy = gradients(lambda x, y: x + y, x, y)
        assert_equal(gx, summed(g, x.shape))
        assert_equal(gy, summed(g, y.shape))

    @pytest.mark.parametrize("function", [lambda x: x + 3, lambda x: 3 + x, lambda x: x + np.float64(3)])
    def test_a_scalar_changes_nothing(self, function):
        g, gx = gradients(function, random(3))
        assert_equal(gx, g)


class TestSubtraction:
    @each_shape
    def test_the_second_operand_gets_the_negative(self, shapes):
        x, y = (random(*shape) for shape in shapes)
        g, gx, gy = gradients(lambda x, y: x - y, x, y)
        assert_equal(gx, summed(g, x.shape))
        assert_equal(gy, summed(-g, y.shape))

    def test_a_scalar_on_the_right_changes_nothing(self):
        g, gx = gradients(lambda x: x - 3, random(3))
        assert_equal(gx, g)

    def test_a_scalar_on_the_left_turns_the_sign(self):
        g, gx = gradients(lambda x: 3 - x, random(3))
        assert_equal(gx, -g)


@pytest.mark.exercise("ex-05-2", points=1)
class TestMultiplication:
    @each_shape
    def test_each_operand_gets_the_gradient_times_the_other(self, shapes):
        x, y = (random(*shape) for shape in shapes)
        g, gx, gy = gradients(lambda x, y: x * y, x, y)
        assert_equal(gx, summed(g * y, x.shape))
        assert_equal(gy, summed(g * x, y.shape))

    @pytest.mark.parametrize("function", [lambda x: x * 3, lambda x: 3 * x, lambda x: np.float64(3) * x])
    def test_a_scalar_scales(self, function):
        g, gx = gradients(function, random(3))
        assert_equal(gx, 3 * g)

    def test_a_square_counts_both_operands(self):
        x = random(3)
        g, gx = gradients(lambda x: x * x, x)
        assert_equal(gx, 2 * x * g)


class TestDivision:
    @each_shape
    def test_both_operands(self, shapes):
        x, y = (random(*shape) for shape in shapes)
        g, gx, gy = gradients(lambda x, y: x / y, x, y)
        assert_equal(gx, summed(g / y, x.shape))
        assert_equal(gy, summed(-g * x / y**2, y.shape))

    def test_a_scalar_below_scales(self):
        g, gx = gradients(lambda x: x / 4, random(3))
        assert_equal(gx, g / 4)

    def test_a_scalar_above(self):
        x = random(3)
        g, gx = gradients(lambda x: 4 / x, x)
        assert_equal(gx, -4 * g / x**2)


@pytest.mark.exercise("ex-05-3", points=1)
class TestReLU:
    def test_the_gradient_passes_where_the_input_was_above_0_and_nowhere_else(self):
        x = leaf([-1.0, 0.0, 2.0])
        tt.relu(x).backward(np.array([10.0, 20.0, 30.0]))
        assert x.grad.tolist() == [0, 0, 30]

    def test_the_incoming_gradient_is_not_written_into(self):
        x, g = leaf([-1.0, 2.0]), np.array([10.0, 20.0])
        tt.relu(x).backward(g)
        assert g.tolist() == [10, 20]


@pytest.mark.exercise("ex-05-6", points=2)
class TestUnbroadcast:
    """On arrays, without a graph."""

    def test_what_was_not_stretched_comes_back_as_it_is(self):
        g = random(2, 3)
        assert_equal(unbroadcast(g, (2, 3)), g)

    def test_axes_in_front_that_the_input_did_not_have_are_summed_away(self):
        assert unbroadcast(np.ones((5, 2, 3)), (3,)).tolist() == [10, 10, 10]

    def test_axes_of_length_1_that_were_stretched_are_summed_and_stay(self):
        assert unbroadcast(np.ones((2, 3)), (2, 1)).tolist() == [[3], [3]]

    def test_a_scalar_gets_the_sum_of_everything(self):
        assert unbroadcast(np.ones((2, 3)), ()).tolist() == 6

    @pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 1), (2, 1, 1), (1, 4, 3), (1,), (1, 1, 1), ()], ids=str)
    def test_every_element_gets_the_sum_over_its_copies(self, shape):
        g = random(2, 4, 3)
        assert_equal(unbroadcast(g, shape), summed(g, shape))


class TestBackward:
    @pytest.mark.exercise("ex-05-10", points=5)
    def test_a_small_network_by_the_chain_rule(self):
        """A layer with tanh, a linear layer and a mean squared error, each derivative worked out on paper."""
        x, w1, b1, w2 = random(5, 3), random(4, 3, seed=1), random(4, seed=2), random(2, 4, seed=3)
        target = random(5, 2, seed=4)
        inputs = [leaf(array) for array in (x, w1, b1, w2)]
        hidden = (inputs[0] @ inputs[1].T + inputs[2]).tanh()
        loss = tt.mse_loss(hidden @ inputs[3].T, tt.Tensor(target))
        loss.backward()

        h = np.tanh(x @ w1.T + b1)
        y = h @ w2.T
        assert loss.item() == pytest.approx(np.mean((y - target) ** 2), rel=1e-12)
        dy = 2 * (y - target) / y.size
        da = (dy @ w2) * (1 - h**2)
        for tensor, expected in zip(inputs, [da @ w1, da.T @ x, da.sum(0), dy.T @ h], strict=True):
            assert_equal(tensor.grad.numpy(), expected)

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_a_diamond_adds_what_comes_back_on_both_sides(self):
        x = leaf([0.3, 1.2])
        shared = x * x
        (shared.sin() + shared.exp()).backward(np.ones(2))
        square = x.data**2
        assert_equal(x.grad.numpy(), (np.cos(square) + np.exp(square)) * 2 * x.data)

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_a_node_waits_for_its_youngest_user(self):
        """`early` is used at once and again at the end; going back by depth alone would pass it on too soon."""
        x = leaf([2.0])
        early = x * 3
        late = early * 5
        for _ in range(10):
            late = late + 1
        (late * early).backward(np.ones(1))  # 3x (15x + 10)
        assert_equal(x.grad.numpy(), 90 * x.data + 30)

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_an_input_used_three_times(self):
        x = leaf([2.0])
        (x * x * x + x).backward(np.ones(1))
        assert_equal(x.grad.numpy(), 3 * x.data**2 + 1)

    @pytest.mark.exercise("ex-05-5", points=1)
    def test_two_backward_passes_add_up(self):
        x = leaf([1.0, 2.0])
        (x * 3).backward(np.ones(2))
        first = x.grad
        (x * x).backward(np.ones(2))
        assert_equal(x.grad.numpy(), 3 + 2 * x.data)
        assert_equal(first.numpy(), np.full(2, 3.0))

    def test_zero_grad_starts_again(self):
        weight = tt.Parameter([1.0, 2.0])
        optimizer = tt.SGD([weight])
        for _ in range(2):
            optimizer.zero_grad()
            (weight * 3).sum().backward()
        np.testing.assert_array_equal(weight.grad.numpy(), [3.0, 3.0])

    def test_a_loss_of_one_element_starts_with_1(self):
        x = leaf([[2.0]])
        (x * 3).backward()
        assert_equal(x.grad.numpy(), np.array([[3.0]]))

    def test_what_needs_no_gradient_gets_none(self):
        x, constant = leaf([1.0, 2.0]), tt.Tensor(np.array([3.0, 4.0]))
        y = x * constant
        y.backward(np.ones(2))
        assert constant.grad is None
        assert y.grad is None, "a computed tensor keeps no gradient"
        assert_equal(x.grad.numpy(), constant.data)

    def test_nothing_flows_through_detach(self):
        x = leaf([1.0, 2.0])
        (x * x.detach()).backward(np.ones(2))
        assert_equal(x.grad.numpy(), x.data)

    @pytest.mark.exercise("ex-05-5", points=1)
    def test_a_leaf_takes_its_gradient_itself(self):
        x = leaf([1.0, 2.0])
        x.backward(np.array([5.0, 6.0]))
        assert_equal(x.grad.numpy(), np.array([5.0, 6.0]))


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


class TestGELU:
    x = np.linspace(-6, 6, 49)

    def test_exact_value_is_x_times_the_normal_distribution_function(self):
        assert_equal(tt.gelu(tt.Tensor(self.x)).numpy(), self.x * normal_cdf(self.x))

    def test_exact_gradient_is_its_closed_form(self):
        g, gx = gradients(tt.gelu, self.x)
        density = np.exp(-(self.x**2) / 2) / math.sqrt(2 * math.pi)
        assert_equal(gx, g * (normal_cdf(self.x) + self.x * density))

    def test_tanh_value_is_the_formula_of_the_paper(self):
        x = self.x
        expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        assert_equal(tt.gelu(tt.Tensor(x), approximate="tanh").numpy(), expected)

    def test_tanh_gradient_is_its_closed_form(self):
        x = self.x
        g, gx = gradients(lambda x: tt.gelu(x, approximate="tanh"), x)
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        assert_equal(gx, g * (0.5 * (1 + np.tanh(inner)) + 0.5 * x * slope / np.cosh(inner) ** 2))

    @pytest.mark.parametrize("approximate", ["none", "tanh"])
    def test_gradient_agrees_with_finite_differences(self, approximate):
        check_grad(lambda x: tt.gelu(x, approximate=approximate), self.x)
        check_grad(lambda x: gelu_composed(x, approximate=approximate), self.x)

    def test_the_two_forms_are_close_but_not_equal(self):
        exact, approximate = tt.gelu(tt.Tensor(self.x)), tt.gelu(tt.Tensor(self.x), "tanh")
        assert 1e-4 < np.abs(exact.data - approximate.data).max() < 1e-3

    def test_far_out_the_gradient_is_0_and_1(self):
        g, gx = gradients(tt.gelu, [-30.0, 30.0])
        assert_equal(gx, g * [0, 1])

    def test_an_unknown_form_is_refused(self):
        with pytest.raises(ValueError, match="approximate='none' or 'tanh', but got 'fast'"):
            tt.gelu(tt.Tensor(self.x), "fast")


class TestLayerNorm:
    """mean, sqrt and division, which it is built from, and the whole."""

    x = random(3, 5)

    def test_mean_shares_the_gradient_equally(self):
        g, gx = gradients(lambda x: x.mean(dim=-1), self.x)
        assert_equal(gx, np.repeat(g[:, None] / 5, 5, axis=1))

    def test_mean_over_everything(self):
        g, gx = gradients(lambda x: x.mean(), self.x)
        assert_equal(gx, np.full((3, 5), g / 15))

    def test_mean_with_kept_axis_broadcasts_back(self):
        g, gx = gradients(lambda x: x - x.mean(dim=-1, keepdim=True), self.x)
        assert_equal(gx, g - g.mean(axis=-1, keepdims=True))

    def test_sqrt_divides_by_twice_the_root(self):
        g, gx = gradients(lambda x: x.sqrt(), self.x)
        assert_equal(gx, g / (2 * np.sqrt(self.x)))

    def test_division_by_a_kept_axis_sums_its_gradient(self):
        scale = random(3, 1, seed=1)
        g, gx, gscale = gradients(lambda x, s: x / s, self.x, scale)
        assert_equal(gx, g / scale)
        assert_equal(gscale, -(g * self.x).sum(axis=1, keepdims=True) / scale**2)

    @pytest.mark.parametrize("layer_norm", [layer_norm_composed, tt.layer_norm])
    def test_the_whole_is_the_formula_of_the_paper(self, layer_norm):
        weight, bias, eps = random(5, seed=1), random(5, seed=2), 1e-3
        mean, var = self.x.mean(1, keepdims=True), self.x.var(1, keepdims=True)
        normal = (self.x - mean) / np.sqrt(var + eps)
        y = layer_norm(tt.Tensor(self.x), (5,), tt.Tensor(weight), tt.Tensor(bias), eps)
        assert_equal(y.numpy(), normal * weight + bias)

        g, gx, gweight, gbias = gradients(lambda x, w, b: layer_norm(x, (5,), w, b, eps), self.x, weight, bias)
        d = g * weight
        mean_d, mean_dn = d.mean(1, keepdims=True), (d * normal).mean(1, keepdims=True)
        assert_equal(gx, (d - mean_d - normal * mean_dn) / np.sqrt(var + eps))
        assert_equal(gweight, (g * normal).sum(0))
        assert_equal(gbias, g.sum(0))

    @pytest.mark.parametrize("layer_norm", [layer_norm_composed, tt.layer_norm])
    def test_a_shift_of_the_input_has_no_gradient(self, layer_norm):
        """The output does not change when a row is shifted, so the gradients of each row sum to 0."""
        _, gx = gradients(lambda x: layer_norm(x, (5,)), self.x)
        np.testing.assert_allclose(gx.sum(axis=1), 0, atol=1e-12)

    @pytest.mark.parametrize("layer_norm", [layer_norm_composed, tt.layer_norm])
    def test_the_whole_agrees_with_finite_differences(self, layer_norm):
        check_grad(lambda x, w, b: layer_norm(x, (5,), w, b), self.x, random(5, seed=1), random(5, seed=2))

    def test_the_module_learns_its_weight_and_bias(self):
        norm = tt.LayerNorm(5)
        norm(tt.Tensor(self.x.astype(np.float32))).sum().backward()
        np.testing.assert_allclose(norm.bias.grad.numpy(), np.full(5, 3), rtol=1e-6)
        assert norm.weight.grad.shape == (5,)


class TestReshape:
    """A gradient must come back to the place that its element came from, not merely in the right shape."""

    x = random(2, 3, 4)

    def test_reshape_goes_back_in_order(self):
        g, gx = gradients(lambda x: x.reshape(6, 4), self.x)
        assert_equal(gx, g.reshape(2, 3, 4))

    def test_view_is_reshape(self):
        g, gx = gradients(lambda x: x.view(4, -1), self.x)
        assert_equal(gx, g.reshape(2, 3, 4))

    def test_transpose_goes_back_transposed(self):
        g, gx = gradients(lambda x: x.transpose(0, 2), self.x)
        assert_equal(gx, g.transpose(2, 1, 0))

    def test_permute_goes_back_by_the_inverse(self):
        g, gx = gradients(lambda x: x.permute(1, 2, 0), self.x)
        assert_equal(gx, g.transpose(2, 0, 1))

    def test_T_goes_back_reversed(self):
        g, gx = gradients(lambda x: x.T, self.x)
        assert_equal(gx, g.transpose(2, 1, 0))

    def test_reshape_after_transpose_is_no_plain_reshape(self):
        g, gx = gradients(lambda x: x.transpose(1, 2).reshape(2, 12), self.x)
        assert_equal(gx, g.reshape(2, 4, 3).transpose(0, 2, 1))

    def test_flatten_squeeze_and_unsqueeze_keep_the_order(self):
        g, gx = gradients(lambda x: x.flatten(1).unsqueeze(1).squeeze(1), self.x)
        assert_equal(gx, g.reshape(2, 3, 4))

    def test_heads_split_and_joined_leave_every_gradient_in_place(self):
        """What attention does with its heads: (B, T, E) to (B, H, T, D) and back is the identity."""
        g, gx = gradients(lambda x: x.reshape(2, 3, 2, 2).transpose(1, 2).transpose(1, 2).reshape(2, 3, 4), self.x)
        assert_equal(gx, g)

    def test_each_element_is_weighted_by_its_own_place(self):
        weight = random(4, 3, 2, seed=1)
        x = leaf(self.x)
        (x.permute(2, 1, 0) * tt.Tensor(weight)).sum().backward()
        for i, j, k in np.ndindex(2, 3, 4):
            assert x.grad.data[i, j, k] == weight[k, j, i]
