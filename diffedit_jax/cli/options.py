"""The options of every command; nothing here imports jax, so `--help` is immediate."""

from __future__ import annotations

import argparse
import difflib

from .. import __version__
from ..errors import UserError

_EXAMPLES = """\
examples:
  diffedit edit cat.png --method sdedit --prompt "a dog on a blue background" --out dog.png
  diffedit edit photos/ --method sdedit --prompt "a watercolour" --strength 0.5 --out painted/
  diffedit generate "a cat on a blue background" --seed 0 --seed 1 --out cats/
  diffedit methods sdedit
  diffedit replay dog.png
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str):
        raise UserError(f"{message} (see `{self.prog} --help`)")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line; mistakes are UserErrors, `--help` and `--version` exit at once."""
    parser, commands = _parsers()
    _refuse_unknown_command(arguments, commands)
    options, left = parser.parse_known_args(arguments)
    if left:
        raise UserError(_unknown_option(left[0], commands[options.command]))
    return options


def _parsers():
    parser = _Parser(
        prog="diffedit", description="Edit pictures with diffusion models.", epilog=_EXAMPLES
    )
    parser.add_argument("--version", action="version", version=f"diffedit {__version__}")
    add = parser.add_subparsers(dest="command", metavar="COMMAND", required=True).add_parser
    commands = {
        "edit": _varied(_edit(add("edit", help="edit pictures"))),
        "generate": _varied(_generate(add("generate", help="draw pictures from texts"))),
        "methods": _methods(add("methods", help="list the methods, or explain one")),
        "replay": _replay(add("replay", help="run a picture's recipe again and compare")),
        "plan": _plan(add("plan", help="what an edit will cost, without running it")),
        "convert": _convert(add("convert", help="turn a checkpoint into another layout")),
        "train": _train(add("train", help="train a model")),
        "bench": _bench(add("bench", help="measure quality or speed")),
    }
    return parser, commands


def _edit(p):
    p.add_argument("images", nargs="*", metavar="IN", help="pictures, or a folder of pictures")
    p.add_argument("--method", metavar="NAME", help="see `diffedit methods`; a+b combines")
    p.add_argument("--prompt", action="append", metavar="TEXT",
                   help="what the result shall show; several give one result each")  # fmt: skip
    p.add_argument("--source", metavar="TEXT", help="what the picture shows now")
    p.add_argument("--mask", metavar="PNG", help="white where the picture may change")
    p.add_argument("--example", metavar="IMG", help="a picture of what to put there")
    p.add_argument("--style", metavar="FILE", help="a learned style (method inst)")
    p.add_argument("--show-mask", action="store_true",
                   help="write OUT.mask.png, the mask that diffedit found")  # fmt: skip
    p.add_argument("--strength", type=float, metavar="R", help="how far to go, in (0, 1]")
    p.add_argument("--original-size", action="store_true",
                   help="resize the result back to the picture's own size")  # fmt: skip
    return _common(p)


def _generate(p):
    p.add_argument("prompt", nargs="*", metavar="TEXT", help="what to draw")
    return _common(p)


def _varied(p):
    p.add_argument("--sweep", action="append", default=[], metavar="KEY=VALUES",
                   help="a sheet of A,B,C or START:STOP:COUNT; may be repeated")  # fmt: skip
    p.add_argument("--sweep-files", action="store_true", help="the sheet's cells as files too")
    p.add_argument("--show-attention", metavar="WORDS",
                   help="write OUT.attention.png: where words look")  # fmt: skip
    return p


def _plan(p):
    _edit(p)
    p.epilog = "takes the options of `diffedit edit`; with --method generate it needs no picture"
    return p


def _common(p):
    p.add_argument("--model", metavar="M", help="emoji (default), a folder, a file, a hub id")
    p.add_argument("--negative", metavar="TEXT", help="what to move away from")
    p.add_argument("--steps", type=int, metavar="N")
    p.add_argument("--guidance", type=float, metavar="S")
    p.add_argument("--solver", metavar="NAME")
    p.add_argument("--seed", type=int, action="append", metavar="N",
                   help="several give one result each")  # fmt: skip
    p.add_argument("--size", metavar="N", help="longer side in pixels (generate: also WxH)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="any other parameter of the method")  # fmt: skip
    p.add_argument("--list", metavar="FILE",
                   help="JSON or CSV, one edit a row: image, out, prompt, seed, ...")  # fmt: skip
    p.add_argument("--batch", type=int, default=4, metavar="N", help="pictures at a time (4)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], help="type to compute in")
    _of_a_model(p)
    _adapters(p)
    p.add_argument("--out", metavar="OUT", help="a file; a folder for several results")
    p.add_argument("--preview", type=int, nargs="?", const=0, metavar="EVERY",
                   help="write OUT.step-NNN.png every few steps")  # fmt: skip
    return _talk(p)


def _of_a_model(p):
    p.add_argument("--prediction-type", choices=["epsilon", "v_prediction", "sample"],
                   help="what the network predicts, where its files do not say")  # fmt: skip
    p.add_argument("--variant", metavar="fp16", help="which weight files of a folder")
    p.add_argument("--config", metavar="DIR",
                   help="a folder whose configs and tokenizer go with a single file")  # fmt: skip
    return p


def _adapters(p):
    p.add_argument("--lora", action="append", default=[], metavar="FILE[:WEIGHT]",
                   help="merge a LoRA into the model (weight 1); may be repeated")  # fmt: skip
    p.add_argument("--embedding", action="append", default=[], metavar="FILE[:WORD]",
                   help="add learned words to prompts; may be repeated")  # fmt: skip
    return p


def _methods(p):
    p.add_argument("name", nargs="?", metavar="NAME")
    p.add_argument("--json", action="store_true", help="for programs")
    return _talk(p)


def _replay(p):
    p.add_argument("picture", metavar="PICTURE", help="a picture that diffedit wrote")
    p.add_argument("--out", metavar="OUT", help="default: NAME.replay.png beside it")
    p.add_argument("--model", metavar="M", help="where the model is now, if it has moved")
    p.add_argument("--config", metavar="DIR", help="as it was given for a single file")
    p.add_argument("--cell", metavar="KEY=VALUE,...", help="which cell of a sweep's sheet")
    return _talk(p)


def _convert(p):
    p.add_argument("source", metavar="SRC", help="diffusers folder, .safetensors or .ckpt")
    p.add_argument("target", metavar="DST", help="a folder, or a name ending in .safetensors")
    p.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    p.add_argument("--no-ema", action="store_true", help="take the raw weights of a .ckpt")
    return _talk(_adapters(_of_a_model(p)))


def _train(p):
    p.add_argument("name", nargs="?", metavar="NAME", help="without it, lists the trainings")
    p.add_argument("--config", metavar="FILE")
    p.add_argument("--data", metavar="DIR")
    p.add_argument("--out", metavar="DIR")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--max-restarts", type=int, default=0, metavar="N",
                   help="bring a run back that was lost, at most so often")  # fmt: skip
    return _talk(p)


def _bench(p):
    p.add_argument("name", nargs="?", metavar="quality|speed|tpu")
    p.add_argument("arguments", nargs=argparse.REMAINDER)
    return p


def _talk(p):
    p.add_argument("--quiet", action="store_true", help="say nothing unless it fails")
    p.add_argument("--debug", action="store_true", help="show where an error came from")
    return p


def _refuse_unknown_command(arguments: list[str], commands) -> None:
    word = next((a for a in arguments if not a.startswith("-")), None)
    if word is None or word in commands:
        return
    close = difflib.get_close_matches(word, commands, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(commands)}"
    raise UserError(f"there is no command {word!r}; {hint}")


def _unknown_option(word: str, parser) -> str:
    known = [s for action in parser._actions for s in action.option_strings]
    close = difflib.get_close_matches(word.split("=")[0], known, n=1)
    if word.startswith("-"):
        hint = f"did you mean {close[0]}?" if close else f"see `{parser.prog} --help`"
        return f"there is no option {word}; {hint}"
    return f"{word!r} is one word too many (see `{parser.prog} --help`)"
