"""Joining attention over two disjoint sets of keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jattn.checks import check_array, check_shape

Partial = tuple[Float[Array, "b t h e"], Float[Array, "b t h"]]


def merge(a: Partial, b: Partial) -> Partial:
    """Softmax attention over the union of two disjoint sets of keys, from the two parts.

    lse = log(exp(lse_a) + exp(lse_b)),  out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b

    Exact, associative, commutative and differentiable. A part without any key (lse -inf) adds
    nothing; two such parts give zeros and -inf. A `sink` belongs in one of the parts only.

    Args:
        a: `(out [b, t, h, e], lse [b, t, h])`, as `attend(..., return_lse=True)` returns them.
        b: the other part.

    Returns:
        `(out, lse)`; out in the dtype of the first part's, lse in float32 (float64).

    Raises:
        ValueError: the shapes differ.

    Reference:
        arXiv 1805.02867; ring attention, arXiv 2310.01889.

    Example:
        >>> import jattn
        >>> q, k = jax.random.normal(jax.random.key(0), (2, 1, 6, 2, 4))
        >>> whole = jattn.attend(q, k, k)
        >>> left = jattn.attend(q, k[:, :2], k[:, :2], return_lse=True)
        >>> right = jattn.attend(q, k[:, 2:], k[:, 2:], return_lse=True)
        >>> bool(jnp.allclose(merge(left, right)[0], whole, atol=1e-6))
        True
    """
    for name, part in (("a", a), ("b", b)):
        if not isinstance(part, tuple | list) or len(part) != 2:
            raise ValueError(f"{name}: expected a pair (out, lse), got a {type(part).__name__}")
    (out_a, lse_a), (out_b, lse_b) = a, b
    sizes: dict[str, int] = {}
    for name, out, lse in (("a", out_a, lse_a), ("b", out_b, lse_b)):
        check_array(f"{name} (out)", out, "floating")
        check_array(f"{name} (lse)", lse, "floating")
        check_shape(f"{name} (out)", out, "b t h e", sizes)
        check_shape(f"{name} (lse)", lse, "b t h", sizes)
    dtype = jnp.promote_types(jnp.result_type(lse_a, lse_b), jnp.float32)
    lse_a, lse_b = lse_a.astype(dtype), lse_b.astype(dtype)
    largest = jax.lax.stop_gradient(jnp.maximum(lse_a, lse_b))
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    weight_a, weight_b = jnp.exp(lse_a - largest), jnp.exp(lse_b - largest)
    total = weight_a + weight_b
    safe = jnp.where(total == 0, 1, total)
    out = (weight_a[..., None] * out_a + weight_b[..., None] * out_b) / safe[..., None]
    lse = jnp.where(total == 0, -jnp.inf, largest + jnp.log(safe))
    return out.astype(out_a.dtype), lse
