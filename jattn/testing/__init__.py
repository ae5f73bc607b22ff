"""Conformance of mechanisms, yours too: `check_mechanism(mechanism)`."""

from collections.abc import Callable, Collection
from typing import Any

from jattn.checks import check_choice
from jattn.mechanisms import zoo
from jattn.mechanisms.mechanism import Mechanism, check_mechanism_fields
from jattn.testing import mixers, others

__all__ = ["check_mechanism", "checks_of", "forms_of"]

# By kind: what makes a case of a form, and what must hold of it.
KINDS: dict[str, tuple[Callable[[Mechanism, bool], Any], tuple[Callable[[Any], None], ...]]] = {
    "mixer": (mixers.make_case, mixers.CHECKS),
    "gate": (others.make_gate, others.GATE),
    "pool": (others.make_pool, others.POOL),
    "pointer": (others.make_pointer, others.POINTER),
}


def check_mechanism(
    mechanism: Mechanism | str,
    *,
    causal: bool | None = None,
    checks: Collection[str] | None = None,
) -> None:
    """Checks that a mechanism does what its entry says and its kind must, in the zoo or not.

    Shapes and types in float32 and bfloat16, finite gradients that are those of differences in
    float64, `jit`, `vmap`, causality, the order of tokens, padding, documents, context, steps,
    operations by cost, and that bad input is named in one line.

    Args:
        mechanism: an entry, or its name in the zoo.
        causal: which form of a mixer; default each that it has.
        checks: which of `checks_of(mechanism)`; default all. `"eager"` takes longest.

    Raises:
        AssertionError: it does not; the message names the mechanism and the check.
        ValueError: an entry that the zoo would not take, or a form or check that there is not.

    Example:
        >>> check_mechanism("gated_mlp", checks=["vmap", "causality", "padding"])
    """
    mechanism = zoo.info(mechanism) if isinstance(mechanism, str) else mechanism
    check_mechanism_fields(mechanism)
    make_case, known = KINDS[mechanism.kind]
    for name in checks or ():
        check_choice("checks", name, checks_of(mechanism))
    forms = forms_of(mechanism)
    if causal is not None:
        check_choice("causal", causal, forms)
        forms = [causal]
    for form in forms:
        which = f"{mechanism.name} (causal={form})" if len(forms) > 1 else mechanism.name
        case = _run(which, "init", make_case, mechanism, form)
        for check in known:
            if checks is None or check.__name__ in checks:
                _run(which, check.__name__, check, case)


def checks_of(mechanism: Mechanism) -> list[str]:
    """Lists the names of the checks that a mechanism's kind has.

    Example:
        >>> checks_of(zoo.info("softmax_attention"))[:3]
        ['bad_input', 'empty_axes', 'operations']
    """
    return [check.__name__ for check in KINDS[mechanism.kind][1]]


def forms_of(mechanism: Mechanism) -> list[bool]:
    """Lists the values of `causal` that a mechanism can be made with; those of no mixer: False.

    Example:
        >>> forms_of(zoo.info("softmax_attention")), forms_of(zoo.info("retention"))
        ([False, True], [True])
    """
    if mechanism.kind != "mixer":
        return [False]
    has = {False: mechanism.bidirectional, True: mechanism.causal}
    return [form for form in has if has[form]]


def _run(which: str, check: str, call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except Exception as error:
        said = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        raise AssertionError(f"{which}: {check}: {said}{error}") from error
