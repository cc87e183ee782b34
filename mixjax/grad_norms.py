r"""Norms of per-example gradients, exact: what resampling by the size of the gradient looks at.

============================== ======================================= ==========================================
function                       for                                     cost beside the mean gradient's
============================== ======================================= ==========================================
:func:`linear`                 generalised linear models               none: no gradient is formed
:func:`value_grads_and_norms`  networks written on a :class:`Tape`     a product per layer, from the same backward pass
:func:`per_example`            any loss                                a gradient per example, in time and memory
============================== ======================================= ==========================================

:func:`by_domain` makes of them the signal ``grad_norms`` of :func:`mixjax.rules.gradient_norm`. All norms are float32
``[B]``, scaled so that neither tiny nor huge gradients are lost to their squares, exactly 0 where the gradient is (and
where all its entries are below the normal floats), and not finite where the gradient is not, so that the caller can
leave such an example out. They come from arithmetic on gradients, never from differentiating a norm, and no gradient
flows through them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mixjax.signals import moments

__all__ = ["Parameter", "Tape", "by_domain", "linear", "norm", "per_example", "value_grads_and_norms"]


def norm(tree: Any, batch_ndim: int = 1) -> jax.Array:
    r"""Euclidean norm over all entries of a pytree of per-example arrays, one number per example.

    .. math:: \|g\| = s \sqrt{\textstyle\sum_i (g_i / s)^2}, \qquad s = \max_i |g_i|

    Args:
        tree: pytree of real arrays ``[*batch, ...]`` with the same ``batch_ndim`` leading axes.
        batch_ndim: the number of leading axes that are kept; 0 for one gradient.

    Returns:
        float32 ``[*batch]``; inf or NaN where an entry is.

    Raises:
        ValueError: a tree without arrays, or arrays whose leading axes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> kernel, bias = jnp.array([[3e-25, 0.0], [3e30, 0.0], [0.0, 0.0]]), jnp.array([4e-25, 4e30, 0.0])
        >>> grad_norms.norm({"kernel": kernel, "bias": bias})
        Array([5.e-25, 5.e+30, 0.e+00], dtype=float32)
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    batches = {leaf.shape[:batch_ndim] for leaf in leaves}
    if len(batches) != 1 or len(*batches) != batch_ndim:
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"tree must have arrays that share their first {batch_ndim} axes, got shapes {shapes}.")
    leaves = [_float(leaf.reshape(*leaf.shape[:batch_ndim], math.prod(leaf.shape[batch_ndim:]))) for leaf in leaves]
    top = jnp.stack([jnp.max(jnp.abs(leaf), axis=-1, initial=0.0) for leaf in leaves]).max(axis=0)
    scale = _scale(top)
    squares = sum(jnp.square(leaf / scale[..., None]).sum(axis=-1) for leaf in leaves)
    result = jnp.where(jnp.isinf(top), top, scale * jnp.sqrt(squares))
    return jax.lax.stop_gradient(result.astype(jnp.float32))


def per_example(
    loss: Callable[[Any, Any], jax.Array], params: Any, examples: Any, *, batch_size: int | None = None
) -> jax.Array:
    """Norm of every example's gradient, from the gradients themselves: for any loss, and what the others are tested by.

    Args:
        loss: ``loss(params, example) -> scalar``, for one example.
        params: pytree of parameters.
        examples: pytree of arrays with a leading axis of ``B`` examples.
        batch_size: how many gradients there may be in memory at a time; all ``B`` by default.

    Returns:
        float32 ``[B]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> x = jnp.array([[3.0, 4.0], [0.0, 1.0]])
        >>> grad_norms.per_example(lambda theta, x: x @ theta, jnp.zeros(2), x).tolist()
        [5.0, 1.0]
    """

    def one(example):
        return norm(jax.grad(loss)(params, example), 0)

    return jax.vmap(one)(examples) if batch_size is None else jax.lax.map(one, examples, batch_size=batch_size)


def linear(derivatives: ArrayLike, features: ArrayLike, *, intercept: bool = False) -> jax.Array:
    r"""Norms of the gradients of a generalised linear model, without forming one.

    .. math:: \ell(\theta, z) = f_y(\Theta^\top x), \qquad \|\nabla_\Theta \ell\| = \|f_y'\| \, \|x\|

    Args:
        derivatives: ``f_y'``, the loss's derivative with respect to the model's output: ``[B]``, or ``[B, K]`` for
            ``K`` outputs. ``prediction - y`` for half a squared residual, ``sigmoid(z) - y`` or ``softmax(z) - onehot``
            for a log loss.
        features: ``x``, ``[B, p]``.
        intercept: whether the model has one (per output) that the gradient is also taken in; then ``x`` is ``(x, 1)``.

    Returns:
        float32 ``[B]``. Cost: one pass over ``features``.

    Raises:
        ValueError: other shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> grad_norms.linear(jnp.array([2.0, -1.0]), jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [10.0, 1.0]
    """
    derivatives, features = jnp.asarray(derivatives), jnp.asarray(features)
    if features.ndim != 2 or derivatives.ndim not in (1, 2) or len(derivatives) != len(features):
        raise ValueError(
            f"derivatives must be [B] or [B, K] and features [B, p], got {derivatives.shape} and {features.shape}."
        )
    columns = (features, jnp.ones(len(features))) if intercept else features
    return norm(derivatives) * norm(columns)


def by_domain(norms: ArrayLike, domain_ids: ArrayLike, num_domains: int) -> jax.Array:
    r"""Root mean square of the norms in each domain: the signal ``grad_norms``.

    .. math:: m_d = \sqrt{\frac{1}{n_d} \sum_{z \in d} \|\nabla \ell(\theta, z)\|^2}

    The mean of the squares and not of the norms, because the Horvitz-Thompson estimate ``(c_d / q_d) ∇ℓ(z)``, with
    ``d`` drawn from ``q`` and ``z`` uniform in ``d``, has the variance ``sum_d (c_d² / q_d) E_d‖∇ℓ‖² - ‖∇L_c‖²``
    (trace), and that is least over ``q`` at ``q_d`` proportional to ``c_d sqrt(E_d‖∇ℓ‖²)``.

    Args:
        norms: ``[B]``, non-negative. One that is not finite spoils its own domain's row only.
        domain_ids: int ``[B]``; ids outside ``[0, num_domains)`` mark padding, or examples to leave out.
        num_domains: ``D``.

    Returns:
        float32 ``[D]``, NaN for domains that are absent. Scaled like :func:`norm`.

    Raises:
        ValueError: shapes that differ or are not vectors.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> grad_norms.by_domain(jnp.array([1.0, 7.0, 3.0]), jnp.array([0, 0, 1]), num_domains=3).tolist()
        [5.0, 3.0, nan]

    References:
        Paper 003, eq. 3.45, for domains of several examples.
    """
    norms, domain_ids = jax.lax.stop_gradient(jnp.asarray(norms, jnp.float32)), jnp.asarray(domain_ids)
    if norms.ndim != 1 or norms.shape != domain_ids.shape:
        raise ValueError(f"norms and domain_ids must both be [B], got {norms.shape} and {domain_ids.shape}.")
    ids = jnp.where((domain_ids >= 0) & (domain_ids < num_domains), domain_ids, num_domains)
    scale = _scale(jnp.maximum(jax.ops.segment_max(norms, ids, num_domains + 1), 0.0))
    squares = moments(jnp.square(norms / scale[ids]), ids, num_domains).signals()["losses"]
    return scale[:num_domains] * jnp.sqrt(squares)


class Parameter:
    """One leaf of ``params`` as a model on a :class:`Tape` sees it: to be handed to the tape, and to nothing else.

    Any other use raises a ValueError that names the leaf, for its part of the gradient would be missing.

    Attributes:
        name: the leaf's path, such as ``params['out']['kernel']``.
        shape: as the array's; so are ``ndim`` and ``dtype``.
    """

    def __init__(self, name: str, index: int, array: jax.Array):
        """Wraps the ``index``-th leaf; :func:`value_grads_and_norms` does."""
        self.name, self.shape, self.ndim, self.dtype = name, array.shape, array.ndim, array.dtype
        self._index, self._array = index, array

    def __repr__(self):
        """The leaf's path and type."""
        return f"Parameter({self.name}, {self.dtype}{list(self.shape)})"

    def __getattr__(self, attribute):
        """Raises: an array's other attributes are uses outside the tape."""
        if hasattr(jax.Array, attribute):
            self._refuse()
        raise AttributeError(attribute)

    def _refuse(self, *_, **__):
        raise ValueError(
            f"{self.name} is used outside the tape, so its gradient would be incomplete: hand it to tape.dense, embed, "
            "attend, scale or add, or take its value, without a gradient, from tape.constant."
        )


for _name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"]:
    setattr(Parameter, f"__{_name}__", Parameter._refuse)
    setattr(Parameter, f"__r{_name}__", Parameter._refuse)
for _name in ["array", "neg", "pos", "abs", "getitem", "iter", "len", "float", "lt", "le", "gt", "ge"]:
    setattr(Parameter, f"__{_name}__", Parameter._refuse)
Parameter.__jax_array__ = property(Parameter._refuse)  # JAX looks for it before it calls it
del _name


class _Use(NamedTuple):
    """That a leaf (its index) enters an operation (its index) as a "matrix", its "transpose", a "table" or "rows"."""

    leaf: int
    kind: str
    operation: int


class Tape:
    """The operations through which a model's parameters act, so that one backward pass gives every example's norm.

    The model is a function of a tape, parameters and a batch. :func:`value_grads_and_norms` runs it on a tape that
    remembers; a new ``Tape()`` and parameters that are plain arrays make it an ordinary function, say for evaluation.

    What happens between the operations is free (activations, attention, normalisation over features), with two limits:
    the first axis of all that passes through the tape is the batch's, and no example's loss may depend on another
    example (batch normalisation does that, and makes the norms wrong). An operation must not be called inside ``vmap``,
    ``scan`` or ``checkpoint``. A leaf may be used several times; weight tying between :meth:`embed` and :meth:`attend`,
    or a layer applied again and again, is accounted for exactly. A convolution is a dense layer on patches.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> def model(tape, params, x):
        ...     hidden = jnp.tanh(tape.dense(x, params["kernel"], params["bias"]))
        ...     return tape.dense(hidden, params["out"])[:, 0]
        >>> params = {"kernel": jnp.eye(2), "bias": jnp.zeros(2), "out": jnp.ones((2, 1))}
        >>> model(grad_norms.Tape(), params, jnp.array([[0.5, -0.5]])).tolist()
        [0.0]
    """

    def __init__(self):
        """A tape that changes nothing."""
        self._zeros, self._outputs = None, []  # what is added to each operation's output, and that output's type
        self._uses, self._factors, self._constants = [], [], set()

    def dense(self, x: ArrayLike, kernel: Any, bias: Any = None) -> jax.Array:
        """A dense layer, ``x @ kernel + bias``.

        Args:
            x: ``[B, ..., in]``.
            kernel: ``[in, out]``.
            bias: ``[out]``, or None.

        Returns:
            ``[B, ..., out]``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        if x.ndim < 2 or kernel.ndim != 2 or x.shape[-1] != kernel.shape[0]:
            raise ValueError(f"dense takes x [B, ..., in] and kernel [in, out], got {x.shape} and {kernel.shape}.")
        if bias is not None and bias.shape != kernel.shape[1:]:
            raise ValueError(f"dense takes a bias of shape {kernel.shape[1:]}, got {bias.shape}.")
        y = x @ _array(kernel)
        if bias is None:
            return self._tap(y, (kernel, "matrix", x))
        return self._tap(y + _array(bias), (kernel, "matrix", x), (bias, "rows", None))

    def embed(self, ids: ArrayLike, table: Any) -> jax.Array:
        """Rows of a table, ``table[ids]``.

        Args:
            ids: int ``[B, ...]``; negative ones count from the end, and those out of range are clipped to it.
            table: ``[V, d]``.

        Returns:
            ``[B, ..., d]``.

        Raises:
            ValueError: other shapes, or ids that are not integers.
        """
        ids = jnp.asarray(ids)
        if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.ndim < 1 or table.ndim != 2:
            raise ValueError(f"embed takes integer ids [B, ...] and a table [V, d], got {ids.aval} and {table.shape}.")
        size = table.shape[0]
        ids = jnp.clip(jnp.where(ids < 0, ids + size, ids), 0, size - 1)
        return self._tap(_array(table)[ids], (table, "table", ids))

    def attend(self, x: ArrayLike, table: Any) -> jax.Array:
        """A table of embeddings as an output layer, ``x @ table.T``.

        Args:
            x: ``[B, ..., d]``.
            table: ``[V, d]``.

        Returns:
            ``[B, ..., V]``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        if x.ndim < 2 or table.ndim != 2 or x.shape[-1] != table.shape[1]:
            raise ValueError(f"attend takes x [B, ..., d] and a table [V, d], got {x.shape} and {table.shape}.")
        return self._tap(x @ _array(table).T, (table, "transpose", x))

    def scale(self, x: ArrayLike, gamma: Any, beta: Any = None) -> jax.Array:
        """An elementwise affine map, ``x * gamma + beta``, such as ends a layer normalisation.

        Args:
            x: ``[B, ..., *shape]``.
            gamma: ``[*shape]``, the last axes of ``x`` in full.
            beta: as ``gamma``, or None.

        Returns:
            As ``x``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        _check_trailing("scale", x, gamma)
        y = x * _array(gamma)
        if beta is None:
            return self._tap(y, (gamma, "rows", x))
        _check_trailing("scale", x, beta)
        return self._tap(y + _array(beta), (gamma, "rows", x), (beta, "rows", None))

    def add(self, x: ArrayLike, bias: Any) -> jax.Array:
        """A sum, ``x + bias``, with a bias, a table of positions, or whatever has the last axes of ``x``.

        Args:
            x: ``[B, ..., *shape]``.
            bias: ``[*shape]``, the last axes of ``x`` in full.

        Returns:
            As ``x``.

        Raises:
            ValueError: other shapes.
        """
        x = jnp.asarray(x)
        _check_trailing("add", x, bias)
        return self._tap(x + _array(bias), (bias, "rows", None))

    def constant(self, parameter: Any) -> jax.Array:
        """The leaf's value, for uses that are to have no gradient: a frozen layer's, a buffer's.

        Args:
            parameter: a leaf of ``params``.

        Returns:
            Its array. A leaf with no other use has gradient zero and no part in the norms.
        """
        if isinstance(parameter, Parameter):
            self._constants.add(parameter._index)
        return _array(parameter)

    def _tap(self, y, *uses):
        """Adds the operation's zero to its output ``y``, and keeps what the gradients of its leaves are made of."""
        uses = [use for use in uses if isinstance(use[0], Parameter)]
        if not uses:
            return y
        operation = len(self._outputs)
        for parameter, kind, factor in uses:
            self._uses.append(_Use(parameter._index, kind, operation))
            self._factors.append(factor)
        self._outputs.append(jax.ShapeDtypeStruct(y.shape, y.dtype))
        return y if self._zeros is None else y + self._zeros[operation]


def value_grads_and_norms(
    losses_fn: Callable[[Tape, Any, Any], jax.Array], params: Any, batch: Any, *, weights: ArrayLike | None = None
) -> tuple[jax.Array, Any, jax.Array]:
    r"""Losses, the gradient of their weighted mean, and every example's gradient norm, from one backward pass.

    .. math:: \nabla \frac1B \sum_b u_b \ell_b
              \quad\text{and}\quad \|\nabla \ell_b\|^2 = \sum_{\text{leaves}} \|\nabla_{\text{leaf}} \ell_b\|^2

    ``u`` are the ``weights``. The pass gives ``δ_b``, the derivative of example ``b``'s own loss with respect to each
    operation's output; the rest is products of ``δ_b`` with the operation's input ``x_b``:

    - a dense layer on ``[B, in]``: ``‖x_b‖² ‖δ_b‖²``; on ``[B, T, in]``: ``sum_{t,s} (x_bt·x_bs)(δ_bt·δ_bs)`` if
      ``2 T² <= in · out``, else ``‖sum_t x_bt δ_btᵀ‖²``, whichever takes less memory;
    - an embedding: the sum of ``δ_bt`` over the places of each token, squared, that is
      ``sum_{t,s} [id_bt = id_bs] δ_bt·δ_bs``;
    - biases and elementwise scales: their gradients ``sum_t δ_bt`` and ``sum_t x_bt δ_bt`` themselves.

    The gradient of the weighted mean is assembled from the same ``x`` and ``u δ``, one product per layer as in any
    backward pass, so that a weight of zero costs no division, and the norms are those of the losses without weights.

    Args:
        losses_fn: ``losses_fn(tape, params, batch) -> [B]``, the examples' losses, by a model on a :class:`Tape`; it
            is traced twice. ``params`` has a :class:`Parameter` in place of each array.
        params: pytree of parameters; each leaf must be used on the tape.
        batch: what ``losses_fn`` takes.
        weights: ``u``, ``[B]``, such as importance weights ``c / q``; ones by default. No gradient flows through them.
            An example of weight 0 is left out of the gradient, even if its own is not finite.

    Returns:
        ``(losses, grads, norms)``: the losses ``[B]``, the gradient in the structure and dtypes of ``params``, and
        float32 ``[B]``. Sums are in float32 or wider, products in the device's default precision for matrices. Where a
        dense layer's sum over time cancels, Gram matrices give its norm to about ``1e-3`` of that of the terms.

    Raises:
        ValueError: a leaf that is not used on the tape, or outside it, or both elementwise and as a matrix; losses
            that are not ``[B]``; an operation whose first axis is not ``B`` long; weights of another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from mixjax import grad_norms
        >>> def losses_fn(tape, params, batch):
        ...     x, y = batch
        ...     return 0.5 * jnp.square(tape.dense(x, params["kernel"], params["bias"])[:, 0] - y)
        >>> params = {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}
        >>> batch = jnp.array([[0.75], [0.0]]), jnp.array([-4.0, -1.0])
        >>> losses, grads, norms = grad_norms.value_grads_and_norms(losses_fn, params, batch)
        >>> losses.tolist(), grads["kernel"].tolist(), grads["bias"].tolist(), norms.tolist()
        ([8.0, 0.5], [[1.5]], [2.5], [5.0, 1.0])

    References:
        Goodfellow, "Efficient per-example gradient computations" (2015), for dense layers; Li, Tramèr, Liang and
        Hashimoto, "Large language models can be strong differentially private learners" (ICLR 2022), section 4, for
        sequences and embeddings; Bu, Mao and Xu, "Scalable and efficient training of large convolutional neural
        networks with differential privacy" (NeurIPS 2022), for the choice between the two. Deviations: scaled sums;
        weights that need not be known before the norms are.
    """
    paths, structure = jax.tree.flatten_with_path(params)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    tapes = []

    def forward(zeros):
        tape = Tape()
        tape._zeros = zeros
        handles = [Parameter(*row) for row in zip(names, range(len(leaves)), leaves, strict=True)]
        losses = losses_fn(tape, structure.unflatten(handles), batch)
        tapes.append(tape)
        return losses, tape._factors

    kind, _ = jax.eval_shape(forward, None)
    tape = tapes[0]
    _check_tape(tape, kind, names)
    weights = jnp.ones(kind.shape) if weights is None else jax.lax.stop_gradient(jnp.asarray(weights))
    if weights.shape != kind.shape:
        raise ValueError(f"weights must have one entry per example, shape {kind.shape}, got {weights.shape}.")

    zeros = [jnp.zeros(output.shape, output.dtype) for output in tape._outputs]
    losses, pullback, factors = jax.vjp(forward, zeros, has_aux=True)
    (deltas,) = pullback(jnp.ones_like(losses))

    terms = [[] for _ in leaves]
    for use, factor in zip(tape._uses, factors, strict=True):
        terms[use.leaf].append(_term(use.kind, factor, deltas[use.operation], leaves[use.leaf]))
    grads = [_gradient(leaf, rows, weights / max(len(weights), 1)) for leaf, rows in zip(leaves, terms, strict=True)]
    norms = norm([_norms(rows) for rows in terms if rows] or jnp.zeros_like(losses))
    return losses, structure.unflatten(grads), norms


def _array(parameter):
    return parameter._array if isinstance(parameter, Parameter) else jnp.asarray(parameter)


def _float(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _scale(top):
    """What to divide by: the largest entry; 1 where that is below the normal floats; no finite number whose inverse,
    which XLA multiplies with instead, is below them."""
    tiny = jnp.finfo(top.dtype).tiny
    return jnp.where(top < tiny, 1.0, jnp.where(jnp.isinf(top), top, jnp.minimum(top, 0.125 / tiny)))


def _check_trailing(name, x, parameter):
    if x.ndim <= parameter.ndim or x.shape[x.ndim - parameter.ndim :] != parameter.shape:
        raise ValueError(f"{name} takes x [B, ..., *shape] and a parameter [*shape], got {x.shape}, {parameter.shape}.")


def _check_tape(tape, losses, names):
    if getattr(losses, "ndim", None) != 1 or not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(f"losses_fn must return one loss per example, float [B], got {losses}.")
    for use in tape._uses:
        output = tape._outputs[use.operation]
        if output.shape[0] != losses.shape[0] or not jnp.issubdtype(output.dtype, jnp.floating):
            raise ValueError(
                f"{names[use.leaf]} acts on {output.dtype}{list(output.shape)}, which is not a float array of the "
                f"{losses.shape[0]} examples along its first axis."
            )
    for index, name in enumerate(names):
        kinds = {use.kind for use in tape._uses if use.leaf == index}
        if not kinds and index not in tape._constants:
            raise ValueError(f"{name} is not used on the tape; if that is meant, say tape.constant.")
        if "rows" in kinds and len(kinds) > 1:
            raise ValueError(f"{name} is used both elementwise and as a matrix, which is not supported.")


def _term(kind, factor, delta, leaf):
    """One use's share in the gradient: ``("rows", [B, *shape])``, ``("table", ids, [B, T, d])``, ``("matrix", l, r)``.

    A matrix's gradient is ``sum_t l_t r_tᵀ`` with ``l`` ``[B, T, n]`` and ``r`` ``[B, T, m]``; a table's has one-hot
    vectors for ``l``.
    """

    def positions(x):
        return x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])

    if kind == "rows":
        product = _float(delta) if factor is None else _float(factor) * _float(delta)
        return "rows", product.sum(axis=tuple(range(1, delta.ndim - leaf.ndim)))
    if kind == "table":
        return "table", factor.reshape(len(factor), math.prod(factor.shape[1:])), positions(delta)
    left, right = (delta, factor) if kind == "transpose" else (factor, delta)
    return "matrix", positions(left), positions(right)


def _gradient(leaf, terms, weights):
    """The weighted sum of the examples' gradients."""

    def keep(x):  # not 0 times what may be infinite
        return jnp.where(weights.reshape(-1, *[1] * (x.ndim - 1)) != 0, x, jnp.zeros_like(x))

    def weighted(x):
        return keep((_float(x) * weights.reshape(-1, *[1] * (x.ndim - 1))).astype(x.dtype))

    dtype = jnp.promote_types(leaf.dtype, jnp.float32)
    total = jnp.zeros(leaf.shape, dtype)
    for kind, *parts in terms:
        if kind == "rows":
            total += weighted(parts[0]).sum(axis=0)
        elif kind == "table":
            total = total.at[parts[0]].add(weighted(parts[1]).astype(dtype))
        else:
            left, right = keep(parts[0]), weighted(parts[1])
            total += jnp.einsum("btn,btm->nm", left, right, preferred_element_type=dtype)
    return total.astype(leaf.dtype)


def _norms(terms):
    """Norms ``[B]`` of the examples' gradients with respect to one leaf."""
    rows = [parts[0] for kind, *parts in terms if kind == "rows"]
    if rows:
        return norm(sum(rows))
    matrix = [parts for kind, *parts in terms if kind == "matrix"]
    table = [parts for kind, *parts in terms if kind == "table"]
    if matrix:  # uses one after the other are one use of all their positions
        (left_size, left), (right_size, right) = (
            _unit(jnp.concatenate(parts, axis=1)) for parts in zip(*matrix, strict=True)
        )
        matrix_squares = _matrix_squares(left, right)
    if table:
        ids, deltas = (jnp.concatenate(parts, axis=1) for parts in zip(*table, strict=True))
        table_size, deltas = _unit(deltas)
        table_squares = _table_squares(ids, deltas)
    if not table:
        return left_size * _root(matrix_squares) * right_size
    if not matrix:
        return table_size * _root(table_squares)
    # Tied: <onehot(id_t) δ_tᵀ, l_s r_sᵀ> = l_s[id_t] (δ_t · r_s).
    cross = jnp.take_along_axis(left, ids[:, None, :], axis=2) * jnp.einsum("bsm,btm->bst", right, deltas)
    matrix_size = left_size * right_size
    scale = _scale(jnp.maximum(matrix_size, table_size))
    a, b = matrix_size / scale, table_size / scale
    squares = a * a * matrix_squares + b * b * table_squares + 2.0 * a * b * cross.sum(axis=(1, 2))
    return scale * _root(squares)


def _unit(x):
    """The size of each example's entries, ``[B]``, 0 where all are, and ``x`` relative to it."""
    x = _float(x)
    top = jnp.max(jnp.abs(x), axis=(1, 2), initial=0.0)
    scale = _scale(top)
    return jnp.where(top == 0, 0.0, scale), x / scale[:, None, None]


def _root(squares):
    """Square root of a sum of squares that rounding may have made negative."""
    return jnp.sqrt(jnp.maximum(squares, 0.0))


def _matrix_squares(left, right):
    """``‖sum_t l_t r_tᵀ‖²`` from Gram matrices over time, or from the sum itself where that is smaller."""
    if 2 * left.shape[1] ** 2 <= left.shape[2] * right.shape[2]:
        return (jnp.einsum("btn,bsn->bts", left, left) * jnp.einsum("btm,bsm->bts", right, right)).sum(axis=(1, 2))
    return jnp.square(jnp.einsum("btn,btm->bnm", left, right)).sum(axis=(1, 2))


def _table_squares(ids, deltas):
    """``sum_v ‖sum_{t: id_t = v} δ_t‖²``: each position adds to the first place of its id among the sorted ones."""
    first = jax.vmap(jnp.searchsorted)(jnp.sort(ids, axis=1), ids)
    sums = jax.vmap(lambda place, delta: jnp.zeros_like(delta).at[place].add(delta))(first, deltas)
    return jnp.square(sums).sum(axis=(1, 2))
