"""What a compiled program moves: bytes from and to memory, and between chips, by its text.

The text is what `jax.stages.Compiled.as_text` gives. A loop counts as often as it runs where its
condition compares with a constant, and once where it does not; of a conditional both sides count.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
SHAPE = re.compile(
    r"(?P<type>[a-z]+)(?P<bits>\d+)?(?:e\w+)?\[(?P<sizes>[\d,]*)\](?P<layout>\{[^}]*\})?"
)
COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%(?P<name>\S+) \(.*\{$")
INSTRUCTION = re.compile(
    r"^\s+(?P<root>ROOT )?%(?P<name>\S+) = (?P<shape>\(.*?\)|\S+) (?P<kind>[a-z][\w-]*)"
    r"\((?P<operands>[^)]*)\)(?P<rest>.*)$"
)
# What moves nothing by itself.
FREE = frozenset(
    """parameter constant tuple get-tuple-element bitcast while conditional call after-all
    partition-id replica-id iota recv opt-barrier""".split()  # noqa: SIM905  can be read
)
TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


class Collective(NamedTuple):
    """Communication of a compiled program.

    Attributes:
        kind: `"all-reduce"`, `"all-gather"` ...
        count: how often in one call of the program.
        bytes: of the results of all of them, on each chip.
        group: how many chips take part in one; of those that cross slices, how many slices.
        crosses: whether it goes from slice to slice, over the network of the data centre.
    """

    kind: str
    count: int
    bytes: float
    group: int
    crosses: bool


class _Instruction(NamedTuple):
    name: str
    kind: str
    shape: str
    arguments: str
    rest: str
    root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([^\s,]+)", self.arguments)


def moved(text: str, devices: int = 1, slices: int = 1) -> tuple[float, list[Collective]]:
    """Counts what one call of a compiled program moves, on each chip.

    Args:
        text: the program.
        devices: how many run it.
        slices: in how many groups they are, with only a network between them.

    Returns:
        Bytes from and to the chip's memory, and the collectives, the like of them together.

    Example:
        >>> text = "ENTRY %m (b: f32[2]) -> f32[2] {\\n  %a = f32[2]{0} all-reduce(%b)\\n}"
        >>> moved(text, devices=4)[1]
        [Collective(kind='all-reduce', count=1, bytes=8.0, group=4, crosses=False)]
    """
    computations, entry = _read(text)
    total, found = 0.0, {}
    for name, times in _visits(computations, entry, 1):
        inside = computations.get(name, {})
        for instruction in inside.values():
            for kind, size, group, crosses in _collectives(
                instruction, computations, devices, slices
            ):
                count, before = found.get((kind, group, crosses), (0, 0.0))
                found[kind, group, crosses] = count + times, before + times * size
            total += times * _touched(instruction, inside, computations)
    collectives = [
        Collective(kind, count, size, group, crosses)
        for (kind, group, crosses), (count, size) in sorted(found.items())
    ]
    return total, collectives


def _read(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """The instructions of each computation by their names, and which one is the entry."""
    computations, entry, current = {}, "", {}
    for line in text.splitlines():
        head = COMPUTATION.match(line)
        if head:
            current = computations.setdefault(head["name"], {})
            entry = head["name"] if head["entry"] else entry
            continue
        found = INSTRUCTION.match(line)
        if found:
            current[found["name"]] = _Instruction(
                found["name"],
                found["kind"],
                found["shape"],
                found["operands"],
                found["rest"],
                bool(found["root"]),
            )
    return computations, entry


def _visits(computations, name: str, times: int) -> Iterator[tuple[str, int]]:
    """The computations that run, and how often; not those inside fusions."""
    yield name, times
    for instruction in computations.get(name, {}).values():
        if instruction.kind == "while":
            body, condition = _called(instruction, "body"), _called(instruction, "condition")
            yield from _visits(computations, body[0], times * _trips(computations, condition[0]))
        elif instruction.kind in ("call", "conditional", "async-start"):
            for branch in _called(instruction, r"to_apply|calls|\w+_computations?"):
                yield from _visits(computations, branch, times)


def _called(instruction: _Instruction, words: str) -> list[str]:
    found = re.findall(rf"(?:{words})=(\{{[^}}]*\}}|%[\w.\-]+)", instruction.rest)
    return [name for text in found for name in re.findall(r"%([\w.\-]+)", text)]


def _trips(computations, condition: str) -> int:
    """How often a loop runs: what its condition compares with, if that is a constant."""
    inside = computations.get(condition, {})
    constants = {
        i.name: int(i.arguments)
        for i in inside.values()
        if i.kind == "constant" and i.shape.startswith("s32[]")
    }
    ends = [i for i in inside.values() if "direction=LT" in i.rest or i.kind == "fusion"]
    found = [constants[name] for i in ends for name in i.operands if name in constants]
    return max(found[0], 1) if len(found) == 1 else 1


def _collectives(instruction, computations, devices, slices) -> Iterator[tuple]:
    """`(kind, bytes, group, crosses)` of an instruction, or of what is fused into it."""
    if instruction.kind == "fusion":
        for name in _called(instruction, "calls"):
            for fused in computations.get(name, {}).values():
                yield from _collectives(fused, computations, devices, slices)
    kind = instruction.kind.removesuffix("-start")
    transfer = TRANSFER.search(instruction.rest)
    if kind in KINDS.split("|"):
        # What starts gives what it was given, too.
        size = sum(_sizes(instruction.shape)) / (1 if kind == instruction.kind else 2)
        yield kind, size, _group(instruction.rest, devices), False
    elif instruction.kind == "send" and transfer:
        yield transfer[1].lower().replace("_", "-"), _sizes(instruction.shape)[0], slices, True


def _group(rest: str, devices: int) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", rest)
    if listed:
        return listed[1].count(",") + 1
    return int(counted[1]) if counted else devices


def _touched(instruction, inside, computations) -> float:
    """Bytes that an instruction reads from memory and writes to it."""
    kind = instruction.kind
    if kind in FREE or kind.endswith("-done"):
        return 0.0
    read = {name: inside[name].shape for name in instruction.operands if name in inside}
    if kind == "dynamic-slice":
        return 2.0 * _memory(instruction.shape)
    if kind == "dynamic-update-slice":
        return 2.0 * _memory(read.get(instruction.operands[1], ""))
    if kind == "fusion":
        for name in _called(instruction, "calls"):
            return _touched_by_fusion(instruction, computations.get(name, {}), read)
    return _memory(instruction.shape) + sum(_memory(shape) for shape in read.values())


def _touched_by_fusion(instruction, fused, read) -> float:
    """Of what is only sliced or updated in place inside a fusion, the slice counts."""
    total, written = 0.0, _memory(instruction.shape)
    parameters = {i.arguments: i.name for i in fused.values() if i.kind == "parameter"}
    for index, operand in enumerate(instruction.operands):
        whole, name = _memory(read.get(operand, "")), parameters.get(str(index))
        users = [i for i in fused.values() if name in i.operands]
        if users and all(i.kind == "dynamic-slice" for i in users):
            total += min(whole, sum(sum(_sizes(i.shape)) for i in users))
        elif users and all(_updates(i, name) for i in users):
            part = sum(sum(_sizes(fused[i.operands[1]].shape)) for i in users)
            total += min(whole, part)
            written = max(written - max(whole - part, 0.0), 0.0)
        else:
            total += whole
    return total + written


def _updates(instruction: _Instruction, name: str | None) -> bool:
    return instruction.kind == "dynamic-update-slice" and instruction.operands[0] == name


def _memory(shape: str) -> float:
    """Bytes of arrays in the chip's main memory; `S(1)` marks those that stay on the chip."""
    return float(sum(_sizes(shape, main_only=True)))


def _sizes(shape: str, main_only: bool = False) -> list[float]:
    sizes = []
    for found in SHAPE.finditer(shape):
        if main_only and re.search(r"S\([1-9]\)", found["layout"] or ""):
            continue
        count = math.prod(int(n) for n in found["sizes"].split(",") if n)
        sizes.append(count * int(found["bits"] or 8) / 8)
    return sizes
