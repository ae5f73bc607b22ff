"""Images as square patches, and back."""

from jaxtyping import Array, Float


def check_patch(patch: int, **sides: int) -> None:
    """Raises ValueError where a side of an image, given by its name, is not whole patches."""
    for field, side in sides.items():
        if side % patch:
            raise ValueError(f"patch: expected a divisor of {field}={side}, got {patch}")


def patches(
    images: Float[Array, "b height width channels"], patch: int
) -> Float[Array, "b t pixels"]:
    """Cuts images into square patches, row by row, each as one vector.

    Args:
        images: `[b, height, width, channels]`.
        patch: side of a patch, a divisor of height and width.

    Example:
        >>> import jax.numpy as jnp
        >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
        [2.0, 3.0, 6.0, 7.0]
    """
    b, height, width, channels = images.shape
    grid = images.reshape(b, height // patch, patch, width // patch, patch, channels)
    return grid.swapaxes(2, 3).reshape(b, -1, patch * patch * channels)


def unpatched(
    x: Float[Array, "b t pixels"], grid: tuple[int, int], patch: int
) -> Float[Array, "b height width channels"]:
    """Puts patches together: the inverse of `patches`.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.arange(32.0).reshape(1, 4, 4, 2)
        >>> bool((unpatched(patches(image, 2), (2, 2), 2) == image).all())
        True
    """
    b, rows, columns = x.shape[0], *grid
    x = x.reshape(b, rows, columns, patch, patch, -1).swapaxes(2, 3)
    return x.reshape(b, rows * patch, columns * patch, -1)
