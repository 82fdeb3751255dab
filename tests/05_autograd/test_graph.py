"""The graph: how deep it may be, when its memory goes, which rules run, and what backward refuses."""

import gc
import re
import threading
import weakref

import numpy as np
import pytest

import tinytorch as tt

DEEP = 100_000


def counted(calls):
    """x * y with rules that note which of them ran."""

    @tt.op
    def product(x, y):
        def grad_x(g):
            calls.append("x")
            return g * y

        def grad_y(g):
            calls.append("y")
            return g * x

        return x * y, (grad_x, grad_y)

    return product


def leaf(*values, **settings):
    return tt.tensor([float(value) for value in values], requires_grad=True, **settings)


class TestDepth:
    def test_backward_through_100_000_operations(self):
        x = leaf(1, 2)
        y = x
        for _ in range(DEEP):
            y = y + 1
        y.backward(np.array([3, 4]))
        np.testing.assert_array_equal(x.grad.numpy(), [3, 4])

    def test_a_deep_graph_that_nobody_used_goes_away(self):
        x = leaf(1)
        y = x
        for _ in range(DEEP):
            y = y + 1
        alive = weakref.ref(x)
        del x, y
        assert alive() is None

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_a_ladder_of_60_diamonds_visits_each_node_once(self):
        """There are 2**60 paths from the top to the bottom; the gradient is their number."""
        calls = []
        product = counted(calls)
        x = leaf(1, dtype=np.float64)
        y = x
        for _ in range(60):
            y = product(y, y)
        y.backward()
        assert x.grad.item() == 2.0**60
        assert len(calls) == 2 * 60

    def test_what_two_outputs_share_is_visited_once(self):
        calls = []
        x = leaf(2)
        trunk = counted(calls)(x, x)
        (trunk * 3 + trunk * 5).backward()
        assert x.grad.item() == 8 * 2 * 2
        assert calls == ["x", "y"]


class TestMemory:
    def test_a_training_step_leaves_nothing_for_the_cycle_collector(self):
        def step():
            ids = tt.tensor([[1, 2, 3, 4]])
            loss = tt.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            tt.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        model = tt.GPT(tt.GPTConfig(vocab_size=7, n_positions=4, n_embd=8, n_layer=2, n_head=2, dropout=0.1))
        optimizer = tt.Adam(model.parameters())
        step()  # what the first step makes and keeps does not count
        gc.freeze()  # nor does the garbage of others
        gc.disable()
        try:
            step()
            assert gc.collect() == 0
        finally:
            gc.enable()
            gc.unfreeze()

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_saved_values_are_freed_while_backward_goes_on(self):
        class Saved:
            """Stands for an array that a rule remembers."""

        alive = []

        @tt.op
        def remember(x):
            saved = Saved()
            number = len(references)
            references.append(weakref.ref(saved))

            def rule(g):
                assert saved is not None
                alive.append((number, [i for i, reference in enumerate(references) if reference() is not None]))
                return g

            return x.copy(), rule

        references = []
        y = leaf(1)
        for _ in range(3):
            y = remember(y)
        y.backward()
        assert alive == [(2, [0, 1, 2]), (1, [0, 1]), (0, [0])]

    def test_without_backward_the_graph_goes_with_its_last_tensor(self):
        x = leaf(1)
        alive = weakref.ref(x)
        y = x * 2
        del x
        assert alive() is not None
        del y
        assert alive() is None

    def test_backward_lets_go_of_the_leaves(self):
        x = leaf(1)
        alive = weakref.ref(x)
        y = x * 2
        y.backward()
        del x
        assert alive() is None, "y still holds the graph"


class TestCost:
    @pytest.mark.exercise("ex-05-9", points=3)
    def test_a_frozen_weight_costs_no_gradient(self):
        calls = []
        x, weight = leaf(2), tt.tensor([5.0])
        counted(calls)(x, weight).backward()
        assert calls == ["x"]
        assert weight.grad is None

    @pytest.mark.exercise("ex-05-9", points=3)
    def test_an_input_that_needs_no_gradient_costs_none(self):
        calls = []
        x, weight = tt.tensor([2.0]), leaf(5)
        counted(calls)(x, weight).backward()
        assert calls == ["y"]

    @pytest.mark.exercise("ex-05-9", points=3)
    def test_one_function_that_gives_every_gradient_runs_once(self):
        calls = []

        @tt.op
        def product(x, y):
            def rule(g):
                calls.append("both")
                return g * y, g * x

            return x * y, rule

        x, y = leaf(2), leaf(5)
        product(x, y).backward()
        assert calls == ["both"]
        assert (x.grad.item(), y.grad.item()) == (5, 2)

    @pytest.mark.exercise("ex-05-9", points=3)
    def test_one_function_for_one_input_returns_its_gradient_alone(self):
        x = leaf(3)
        x.tanh().backward()
        assert x.grad.item() == pytest.approx(1 - np.tanh(3) ** 2, rel=1e-4)

    @pytest.mark.exercise("ex-05-9", points=3)
    def test_a_gradient_gets_the_dtype_of_its_input(self):
        x = leaf(2)
        node = (x * tt.tensor(np.array([5.0]))).grad_fn
        ((source, gradient),) = node.pull_back(np.ones(1))
        assert source is x
        assert (gradient.dtype, gradient.tolist()) == (tt.float32, [5])

    def test_freezing_stops_the_rule_and_thawing_brings_it_back(self):
        calls = []
        x, weight = leaf(2), leaf(5).requires_grad_(False)
        product = counted(calls)
        product(x, weight).backward()
        weight.requires_grad_()
        product(x, weight).backward()
        assert calls == ["x", "x", "y"]

    def test_nothing_is_recorded_where_nothing_needs_a_gradient(self):
        y = tt.ones(2) * tt.ones(2)
        assert y.grad_fn is None and not y.requires_grad and y.is_leaf

    def test_integers_made_from_floats_carry_no_graph(self):
        x = leaf(1, 3, 2)
        for y in (x.argmax(), x > 1, x.to(tt.int64)):
            assert y.grad_fn is None and not y.requires_grad

    def test_a_branch_that_does_not_lead_to_the_root_does_not_run(self):
        calls = []
        x = leaf(2)
        counted(calls)(x, x)
        (x * 3).backward()
        assert calls == []


class TestNoGrad:
    def test_records_nothing_inside_and_goes_on_after(self):
        x = leaf(1)
        with tt.no_grad():
            inside = x * 2
        assert inside.grad_fn is None and not inside.requires_grad
        assert (x * 2).requires_grad

    def test_as_a_decorator_holds_in_every_call(self):
        @tt.no_grad()
        def double(x):
            return x * 2

        x = leaf(1)
        assert not double(x).requires_grad
        assert not double(x).requires_grad
        assert (x * 2).requires_grad

    def test_a_decorated_function_may_call_itself(self):
        @tt.no_grad()
        def power(x, n):
            return x if n == 0 else power(x, n - 1) * 2

        x = leaf(1)
        assert not power(x, 3).requires_grad
        assert (x * 2).requires_grad

    def test_nested(self):
        x = leaf(1)
        with tt.no_grad():
            with tt.no_grad():
                pass
            assert not (x * 2).requires_grad
        assert (x * 2).requires_grad

    def test_an_exception_ends_it_too(self):
        with pytest.raises(ZeroDivisionError), tt.no_grad():
            _ = 1 / 0
        assert (leaf(1) * 2).requires_grad

    def test_is_of_one_thread(self):
        def other():
            recorded.append((leaf(1) * 2).requires_grad)

        recorded = []
        with tt.no_grad():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert not (leaf(1) * 2).requires_grad
        assert recorded == [True]

    def test_a_tensor_that_asks_for_a_gradient_may_be_made_inside(self):
        with tt.no_grad():
            x = leaf(1)
        (x * 2).backward()
        assert x.grad.item() == 2


class TestTwice:
    @pytest.mark.exercise("ex-05-10", points=5)
    def test_a_second_backward_says_so(self):
        y = leaf(1) * 2
        y.backward()
        with pytest.raises(RuntimeError, match=r"'mul' a second time.*retain_graph=True"):
            y.backward()

    def test_a_second_backward_through_a_shared_part_says_so(self):
        trunk = leaf(1).exp()
        left, right = trunk * 2, trunk * 3
        left.backward()
        with pytest.raises(RuntimeError, match="'exp' a second time"):
            right.backward()

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_retain_graph_keeps_the_graph_for_another_backward(self):
        x = leaf(3)
        y = x * x
        y.backward(retain_graph=True)
        y.backward()
        assert x.grad.item() == 2 * 6
        with pytest.raises(RuntimeError, match="second time"):
            y.backward()

    def test_second_derivatives_are_refused(self):
        x = leaf(1)
        with pytest.raises(RuntimeError, match="Second derivatives are not supported"):
            (x * x).backward(x)

    def test_gradients_carry_no_graph(self):
        x = leaf(1)
        (x * x).backward()
        assert not x.grad.requires_grad and x.grad.grad_fn is None


class TestGradientsAreTheLeavesOwn:
    @pytest.mark.exercise("ex-05-5", points=1)
    def test_two_leaves_do_not_share_one_array(self):
        """Both rules of + hand on the very array that came in."""
        a, b, g = leaf(1, 2), leaf(3, 4), np.ones(2, np.float32)
        (a + b).backward(g)
        a.grad.data *= 10
        assert b.grad.tolist() == [1, 1]
        assert g.tolist() == [1, 1]

    @pytest.mark.exercise("ex-05-10", points=5)
    def test_two_nodes_do_not_share_one_array(self):
        """Node a adds a second gradient to the one that it was handed together with b."""
        x, y, g = leaf(1, 2), leaf(3, 4), np.ones(2, np.float32)
        a, b = x * 1, y * 1
        early = a * 5
        (early + (a + b)).backward(g)
        assert x.grad.tolist() == [6, 6]
        assert y.grad.tolist() == [1, 1]
        assert g.tolist() == [1, 1]

    def test_a_leaf_used_twice_counts_twice(self):
        a = leaf(1, 2)
        (a + a).backward(np.ones(2))
        np.testing.assert_array_equal(a.grad.numpy(), [2, 2])

    @pytest.mark.exercise("ex-05-5", points=1)
    def test_the_second_pass_leaves_the_first_gradient_alone(self):
        a = leaf(1)
        (a * 2).backward()
        first = a.grad
        (a * 3).backward()
        assert (first.item(), a.grad.item()) == (2, 5)

    @pytest.mark.exercise("ex-05-5", points=1)
    def test_a_leaf_copies_what_it_is_given(self):
        a, g = leaf(1, 2), np.ones(2, np.float32)
        a.backward(g)
        a.grad.data *= 10
        assert g.tolist() == [1, 1]

    def test_a_gradient_that_was_broadcast_can_be_written_into(self):
        a = leaf(1, 2)
        a.sum().backward()
        a.grad.data *= 10
        np.testing.assert_array_equal(a.grad.numpy(), [10, 10])


class TestRefusals:
    def test_many_elements_need_a_gradient(self):
        with pytest.raises(RuntimeError, match=r"one element, but got shape \(2,\).*backward\(gradient\)"):
            (leaf(1, 2) * 2).backward()

    def test_a_tensor_without_a_graph(self):
        with pytest.raises(RuntimeError, match=r"needs a graph.*requires_grad=True"):
            tt.ones(1).backward()

    def test_a_tensor_computed_inside_no_grad(self):
        x = leaf(1)
        with tt.no_grad():
            y = x * 2
        with pytest.raises(RuntimeError, match=r"needs a graph.*no_grad\(\)"):
            y.backward()

    @pytest.mark.parametrize("shape", [(), (3,), (1, 2)])
    def test_a_gradient_of_another_shape(self, shape):
        with pytest.raises(RuntimeError, match=re.escape(f"gradient of shape (2,), but got {shape}")):
            (leaf(1, 2) * 2).backward(np.ones(shape))

    @pytest.mark.parametrize("dtype", [tt.int64, tt.bool_])
    def test_integers_and_booleans_have_no_gradient(self, dtype):
        with pytest.raises(TypeError, match=f"Only floating point tensors have gradients, but this one is {dtype}"):
            tt.tensor([1, 0], dtype=dtype, requires_grad=True)
        with pytest.raises(TypeError, match="Only floating point"):
            tt.tensor([1, 0], dtype=dtype).requires_grad_()

    def test_a_computed_tensor_cannot_be_frozen(self):
        with pytest.raises(RuntimeError, match=r"Use detach\(\)"):
            (leaf(1) * 2).requires_grad_(False)


class TestRulesThatAreWrong:
    def test_no_rule_at_all_works_forward_and_teaches_backward(self):
        @tt.op
        def cube(x):
            return x * x * x

        y = cube(leaf(2))
        assert y.item() == 8
        with pytest.raises(NotImplementedError, match=r"'cube' has no backward rule yet.*Return \(output, rule\)"):
            y.backward()

    @pytest.mark.parametrize("wrong", [(3,), (2, 1), ()])
    def test_a_gradient_of_the_wrong_shape(self, wrong):
        @tt.op
        def bend(x):
            return x * 2, lambda g: np.ones(wrong)

        with pytest.raises(RuntimeError, match=r"'bend' gave a gradient of shape .* for an input of shape \(2,\)"):
            bend(leaf(1, 2)).backward(np.ones(2))

    @pytest.mark.parametrize("rule", [lambda g: (g,), (lambda g: g,)], ids=["one function", "a tuple"])
    def test_too_few_gradients(self, rule):
        @tt.op
        def pair(x, y):
            return x + y, rule

        with pytest.raises(RuntimeError, match="'pair' gives 1 gradients, but input number 2"):
            pair(leaf(1), leaf(2)).backward()

    def test_gradients_may_be_left_out_at_the_end_where_none_is_needed(self):
        @tt.op
        def pair(x, y):
            return x + y, lambda g: g

        x = leaf(1)
        pair(x, tt.ones(1)).backward()
        assert x.grad.item() == 1

    @pytest.mark.parametrize("rule", [lambda g: (g, None), (lambda g: g, None)], ids=["one function", "a tuple"])
    def test_none_for_an_input_that_needs_a_gradient(self, rule):
        @tt.op
        def pair(x, y):
            return x + y, rule

        with pytest.raises(RuntimeError, match="'pair' returned None for an input that needs a gradient"):
            pair(leaf(1), leaf(2)).backward()

    @pytest.mark.exercise("ex-05-6", points=2)
    @pytest.mark.exercise("ex-05-9", points=3)
    def test_a_rule_may_answer_in_the_shape_that_its_input_was_broadcast_to(self):
        @tt.op
        def add(x, y):
            return x + y, (lambda g: g, lambda g: g)

        x, y = leaf(1, 2), tt.ones(3, 1, requires_grad=True)
        add(x, y).backward(np.ones((3, 2)))
        assert x.grad.tolist() == [3, 3]
        assert y.grad.tolist() == [[2], [2], [2]]


class TestAnOperationWrittenWrongly:
    """The commonest slips of somebody who writes an operation for the first time."""

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (lambda x: None, "returned a NoneType. Is the return missing"),
            (lambda x: (x, lambda g: g, lambda g: g), "returned a tuple of 3.*brackets around several rules"),
            (lambda x: 1.0, "returned a float"),
        ],
        ids=["no return", "no brackets", "a number"],
    )
    def test_a_wrong_output_says_what_is_needed(self, body, message):
        with pytest.raises(TypeError, match=message):
            tt.op(body)(tt.ones(2))

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ([lambda g: g], "returned a list for its rule"),
            (np.ones(2), "returned a ndarray for its rule"),
            ((np.ones(2),), "is no function but a ndarray"),
            (lambda g: 2.0, "needs to return an array, but returned a float"),
            (lambda g: tt.ones(2), "needs to return an array, but returned a Tensor"),
        ],
        ids=["list", "array", "tuple of arrays", "number", "tensor"],
    )
    def test_a_wrong_rule_says_what_is_needed(self, rule, message):
        @tt.op
        def wrong(x):
            return x * 2, rule

        y = wrong(tt.ones(2, requires_grad=True)).sum()
        with pytest.raises(TypeError, match=message):
            y.backward()
