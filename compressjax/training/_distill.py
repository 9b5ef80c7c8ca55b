r"""Distillation: three losses by which a teacher helps a student, as terms of the student's loss.

    output         CE(softmax(teacher / T), student / T) T^2
    hint           mean (student P - teacher)^2               P: 1x1 projection from the student's width
    discriminant   mean (Z_s - Z_t)^2,  Z = features V        V: what tells classes apart (`discriminants`)

No gradient flows to the teacher.

Source: Hinton, Vinyals, Dean, arXiv 1503.02531 (output); Romero et al., "FitNets", ICLR 2015 (hint);
class-discriminative compression (CDC), for the discriminant loss.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from compressjax.training._discriminant import flat


def output_loss(
    logits: Float[Array, "n classes"], teacher: Float[Array, "n classes"], temperature: float = 1.0
) -> Float[Array, ""]:
    """Cross-entropy against the teacher's softened probabilities, times the temperature squared.

    Args:
      logits: The student's.
      teacher: The teacher's; no gradient flows to them.
      temperature: T; CDC has 1.

    Returns:
      Mean over samples.

    Raises:
      ValueError: If the shapes differ or `temperature` is not above 0.

    >>> float(output_loss(jnp.zeros((1, 2)), jnp.zeros((1, 2)))) == float(jnp.log(2.0))
    True
    """
    if logits.shape != teacher.shape or not temperature > 0:
        raise ValueError(
            f"The student's logits have shape {logits.shape}, the teacher's {teacher.shape}, and temperature="
            f"{temperature}: give equal shapes, and a temperature above 0."
        )
    targets = jax.nn.softmax(jax.lax.stop_gradient(teacher) / temperature)
    return optax.softmax_cross_entropy(logits / temperature, targets).mean() * temperature**2


def hint_loss(
    features: Float[Array, "*shape width"],
    teacher: Float[Array, "*shape wide"],
    projection: Float[Array, "width wide"],
) -> Float[Array, ""]:
    """Mean squared error after a 1x1 projection from the student's width to the teacher's.

    Args:
      features: The student's, channels last.
      teacher: The teacher's at the same positions; no gradient flows to them.
      projection: Trained along with the student.

    Returns:
      Mean over all entries.

    Raises:
      ValueError: If positions or widths do not fit.

    >>> float(hint_loss(jnp.ones((1, 2)), jnp.ones((1, 3)), jnp.ones((2, 3))))
    1.0
    """
    if features.shape[:-1] != teacher.shape[:-1] or projection.shape != (features.shape[-1], teacher.shape[-1]):
        raise ValueError(
            f"Features of shape {features.shape} and {teacher.shape} and a projection of shape {projection.shape}: "
            "positions must agree, and the projection lead from the last axis of the one to that of the other."
        )
    return jnp.mean(jnp.square(features @ projection - jax.lax.stop_gradient(teacher)))


def discriminant_loss(
    features: Float[Array, "n *shape"],
    teacher: Float[Array, "n *teachers"],
    directions: Float[Array, "features k"],
    teacher_directions: Float[Array, "wide k"],
) -> Float[Array, ""]:
    """Mean squared error between discriminant components; what lies outside of them is free.

    Args:
      features: The student's, flattened here.
      teacher: The teacher's, flattened here; no gradient flows to them.
      directions: Of the student's features; refit now and then, and held fixed in between.
      teacher_directions: Of the teacher's features, as many.

    Returns:
      Mean over samples and directions.

    Raises:
      ValueError: If samples, features or numbers of directions do not fit.

    >>> v = jnp.array([[1.0], [0.0]])
    >>> float(discriminant_loss(jnp.array([[1.0, 5.0]]), jnp.array([[3.0, -7.0]]), v, v))
    4.0
    """
    ours, theirs = flat(features), flat(jax.lax.stop_gradient(teacher))
    wanted = (ours.shape[1], directions.shape[-1]), (theirs.shape[1], directions.shape[-1])
    if (directions.shape, teacher_directions.shape) != wanted or len(ours) != len(theirs):
        raise ValueError(
            f"Features of shape {features.shape} and {teacher.shape} with directions of shape {directions.shape} and "
            f"{teacher_directions.shape}: give as many samples, one row per flattened feature, and as many directions."
        )
    ours, theirs = ours @ directions, theirs @ teacher_directions
    return jnp.mean(jnp.square(ours - theirs))
