"""`diffedit methods`: what there is, and what each method takes."""

from __future__ import annotations

import argparse
import json
import textwrap

from .. import recipe
from ..methods.registry import Method, find
from ..methods.registry import methods as registered


def methods(options: argparse.Namespace) -> None:
    """Lists every method, or explains one; --json says the same to programs."""
    chosen = [find(options.name)] if options.name else list(registered().values())
    if options.json:
        print(json.dumps([_schema(method) for method in chosen], indent=2))
    elif options.name:
        print(_explained(chosen[0]))
    else:
        wide = max(len(method.name) for method in chosen)
        for method in chosen:
            print(f"{method.name:<{wide}}  {method.summary}")


def _explained(method: Method) -> str:
    lines = [f"{method.name}: {method.summary}", f"paper: {method.paper}", f"cost: {_cost(method)}"]
    lines += [f"needs: {_needs(method)}", "", "parameters (--KEY where there is one, or --set):"]
    for p in method.parameters.values():
        default = "required" if p.required else f"default {p.default!r}"
        doc = f"{p.doc} [{default}]"
        indent = " " * 14
        lines.append(textwrap.fill(doc, 96, initial_indent=f"  {p.name:<11} ",
                                   subsequent_indent=indent))  # fmt: skip
    return "\n".join(lines)


def _needs(method: Method) -> str:
    picture = "no picture" if method.start == "noise" else "a picture"
    return f"{picture}; a network with {' or '.join(map(str, method.channels))} input channels"


def _cost(method: Method) -> str:
    known = method.parameters.values()
    given = {p.name: ["a text"] if p.required else p.default for p in known}
    calls, rows = method.evaluations(given)
    return f"{calls} network evaluations of {rows} rows per picture, as the defaults are"


def _schema(method: Method) -> dict:
    parameters = [
        dict(name=p.name, type=p.kind, doc=p.doc, required=p.required)
        | ({} if p.required else {"default": recipe.plain(p.default)})
        for p in method.parameters.values()
    ]
    return dict(
        **dict(name=method.name, summary=method.summary, paper=method.paper),
        **dict(start=method.start, channels=list(method.channels), cost=_cost(method)),
        parameters=parameters,
    )
