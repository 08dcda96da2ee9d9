"""Which buffers an instruction reads and writes, and how much of them."""

from __future__ import annotations

from .hlo import Buffer, Computation, Instruction, Program

Traffic = list[tuple[Buffer, int | float]]
_SLICES = ("dynamic-slice", "slice", "gather")


def operand_buffers(here: Computation, i: Instruction) -> list[Buffer]:
    """The arrays that an instruction takes, tuples flattened."""
    known = (here.get(name) for name in i.operands)
    return [buffer for operand in known if operand is not None for buffer in operand.buffers]


def traffic(program: Program, here: Computation, i: Instruction) -> Traffic:
    """(buffer, bytes of it read or written) for operands and results; a slice is its own size."""
    if i.op == "fusion":
        return _reads(program, here, i) + _writes(program, i)
    operands, results = operand_buffers(here, i), list(i.buffers)
    if i.op in ("slice-start", "dynamic-slice-start"):
        piece = results[len(operands) if i.op == "slice-start" else 1]
        return [(operands[0], piece.bytes), (piece, piece.bytes)]
    if i.op in _SLICES:
        return [(operands[0], results[0].bytes), (results[0], results[0].bytes)]
    if i.op == "dynamic-update-slice":
        update = here[i.operands[1]].buffers[0]
        return [(update, update.bytes), (results[0], update.bytes)]
    if i.op == "copy-start":
        results = results[:1]
    elif i.op.endswith("-start"):
        results = results[len(operands) : 2 * len(operands)] or results
    return [(b, b.bytes) for b in (*operands, *results)]


def _reads(program: Program, here: Computation, i: Instruction) -> Traffic:
    """What a fusion reads of each operand: all of it, unless it only cuts slices out."""
    inner, found = program[i.names("calls")], []
    for position, name in enumerate(i.operands):
        buffers = here[name].buffers if here.get(name) else ()
        if len(buffers) != 1:
            found += [(b, b.bytes) for b in buffers]
            continue
        size, escapes = _read_of(program, inner, inner.parameters[position])
        whole = buffers[0].bytes
        found.append((buffers[0], whole if escapes else min(size, whole)))
    return found


def _read_of(program: Program, here: Computation, i: Instruction) -> tuple[int | float, bool]:
    """(bytes of the value read inside `here`, whether the value itself is returned)."""
    size, escapes = 0.0, i.root
    for user, position in here.users[i.name]:
        if user.op in _SLICES and position == 0:
            size += user.buffers[0].bytes
        elif user.op == "dynamic-update-slice" and position == 0:
            size += 0.0 if _is_result(here, user) else i.buffers[0].bytes
        elif user.op == "bitcast":
            more, out = _read_of(program, here, user)
            size, escapes = size + more, escapes or out
        elif user.op == "fusion":
            inner = program[user.names("calls")]
            more, out = _read_of(program, inner, inner.parameters[position])
            if out:
                further, out = _read_of(program, here, user)
                more += further
            size, escapes = size + more, escapes or out
        else:
            size += i.buffers[0].bytes
    return size, escapes


def _is_result(here: Computation, i: Instruction) -> bool:
    """Whether a value is only handed out, so that an update of it happens in place."""
    return i.root or all(user.op in ("bitcast", "tuple") for user, _ in here.users[i.name])


def _writes(program: Program, i: Instruction) -> Traffic:
    """What a fusion writes: its results; of an update in place only the part that changes."""
    inner = program[i.names("calls")]
    root = inner.root
    values = [inner.get(n) for n in root.operands] if root.op == "tuple" else [root]
    found = []
    for value, buffer in zip(values, i.buffers, strict=False):
        while value is not None and value.op == "bitcast":
            value = inner.get(value.operands[0])
        size = buffer.bytes
        if value is not None and value.op == "dynamic-update-slice":
            size = inner[value.operands[1]].buffers[0].bytes
        found.append((buffer, size))
    return found
