"""Golden vectors: outputs of authors' or other trusted implementations, run through jattn.

A case is a `.json` (family, mechanism, options, semantics) with an `.npz` of the same name where
it has large arrays. An adapter maps the case's inputs and options onto jattn and returns outputs
under the names the case gives them.

    python -m tests.golden DIR...

prints one line a case and exits with 1 if any fails.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.adapters import (
    attention_maps,
    channel,
    dynamical_systems,
    interventions,
    language_model_losses,
    language_model_systems,
    linear_and_memory,
    linear_feature_maps,
    linear_regression_forms,
    memory,
    pooling,
    reaction_diffusion,
    scan_snap,
    smollm2,
    softmax_gates,
    softmax_inference,
    softmax_probabilistic,
    softmax_structures,
    sparse,
    theory,
    vision,
)

HERE = Path(__file__).parent / "data" / "golden"
DEFAULT_TOLERANCE = 2e-5
# Of memories with layers, trained token by token in float32: rounding grows with every step. The
# reference is 1.3e-4 from the same in float64, jattn 3e-5.
DEEP_MEMORY_TOLERANCE = 1e-3
# Of a trained model, in float32 through 30 layers, against files that round to four digits.
MODEL_TOLERANCE = 1e-4


class Case(NamedTuple):
    """A loaded case: its json, and its arrays by name."""

    info: dict[str, Any]
    arrays: dict[str, np.ndarray]


# (family, mechanism) -> adapter(case) -> outputs named as in the case.
ADAPTERS: dict[tuple[str, str], Callable[[Case], Mapping[str, Any]]] = {
    **attention_maps.ADAPTERS,
    **channel.ADAPTERS,
    **dynamical_systems.ADAPTERS,
    **interventions.ADAPTERS,
    **language_model_losses.ADAPTERS,
    **language_model_systems.ADAPTERS,
    **linear_and_memory.ADAPTERS,
    **linear_feature_maps.ADAPTERS,
    **linear_regression_forms.ADAPTERS,
    **memory.ADAPTERS,
    **pooling.ADAPTERS,
    **reaction_diffusion.ADAPTERS,
    **scan_snap.ADAPTERS,
    **softmax_gates.ADAPTERS,
    **softmax_inference.ADAPTERS,
    **softmax_probabilistic.ADAPTERS,
    **softmax_structures.ADAPTERS,
    **sparse.ADAPTERS,
    **theory.ADAPTERS,
    **vision.ADAPTERS,
}


def load(path: str | Path) -> Case:
    """Reads a case from its `.json` and the `.npz` beside it."""
    path = Path(path)
    arrays = {}
    if path.with_suffix(".npz").exists():
        with np.load(path.with_suffix(".npz")) as stored:
            arrays = dict(stored)
    return Case(json.loads(path.read_text()), arrays)


def run_case(path: str | Path) -> Mapping[str, Any]:
    """Runs jattn on a case's inputs and returns its outputs (and gradients) by name.

    Raises:
        KeyError: no adapter for the case's mechanism.
    """
    case = load(path)
    return adapter_of(case)(case)


def adapter_of(case: Case) -> Callable[[Case], Mapping[str, Any]]:
    """The adapter of a case: by family and mechanism, or, of the trained model, by what it holds.

    Raises:
        KeyError: there is none.
    """
    adapter = smollm2.kind_of(case)
    return adapter or ADAPTERS[case.info["family"], case.info["mechanism"]]


def errors(case: Case, outputs: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """`{name: (max abs error, the same divided by the reference's largest magnitude)}`.

    Where the reference is zero throughout, there is no scale: the two are the same.
    """
    flat: dict[str, tuple[float, float]] = {}

    def compare(name: str, got: Any, expected: Any) -> None:
        if isinstance(got, Mapping):
            for inner, value in got.items():
                compare(f"{name}.{inner}", value, expected[inner])
            return
        if np.iscomplexobj(expected):
            compare(f"{name}.real", np.real(got), np.real(expected))
            compare(f"{name}.imag", np.imag(got), np.imag(expected))
            return
        got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
        if got.shape != expected.shape:
            raise ValueError(f"{name}: expected shape {expected.shape}, got {got.shape}")
        # Equal infinities agree; any other non-finite value is an infinite error.
        with np.errstate(invalid="ignore"):
            gap = np.where(got == expected, 0.0, np.abs(got - expected))
        absolute = float(np.max(np.nan_to_num(gap, nan=np.inf), initial=0.0))
        finite = np.abs(expected[np.isfinite(expected)])
        flat[name] = absolute, absolute / (float(np.max(finite, initial=0.0)) or 1.0)

    for name, value in outputs.items():
        compare(name, value, case.arrays[name] if name in case.arrays else case.info[name])
    return flat


def tolerance(case: Case) -> float:
    """The case's own tolerance if it states one, else the default of its kind for float32."""
    text = str(case.info.get("tolerance", ""))
    if text.strip() == "exact":
        return 0.0
    stated = re.search(r"\b\d+(\.\d+)?(e-?\d+)?\b", text.replace("float32", ""))
    if stated:
        return float(stated[0])
    if smollm2.kind_of(case) is not None:
        return MODEL_TOLERANCE
    if case.info.get("mechanism") == "titans_memory" and case.info["options"]["depth"] > 1:
        return DEEP_MEMORY_TOLERANCE
    return DEFAULT_TOLERANCE


def passes(case: Case, outputs: Mapping[str, Any]) -> bool:
    """Whether every output is within tolerance, relative to the reference's largest magnitude.

    Absolutely, where the case's tolerance says "abs".
    """
    which = 0 if "abs" in str(case.info.get("tolerance", "")) else 1
    return all(pair[which] <= tolerance(case) for pair in errors(case, outputs).values())


def main(folders: list[str]) -> int:
    """Runs every case under the folders; see the module's docstring."""
    if not folders:
        print("usage: python -m tests.golden DIR...", file=sys.stderr)
        return 2
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.json"))
    if not paths:
        print(f"golden: no cases (*.json) under {', '.join(folders)}", file=sys.stderr)
        return 2
    failed = 0
    for path in paths:
        case = load(path)
        try:
            adapter_of(case)
        except KeyError:
            print(f"{path.stem:44} {'':9} {'':9} no adapter")
            continue
        try:
            outputs = run_case(path)
            worst = np.max(list(errors(case, outputs).values()), axis=0)
            ok = passes(case, outputs)
            line = f"{worst[0]:9.2e} {worst[1]:9.2e} {'pass' if ok else 'FAIL'}"
        except Exception as error:  # a case that cannot run is a failed case, not a stop
            ok, line = False, f"{'':9} {'':9} FAIL {type(error).__name__}: {error}"
        failed += not ok
        print(f"{path.stem:44} {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
