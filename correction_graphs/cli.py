"""The command line: `correction-graphs run cac "QUESTION"`, `run s2a`, `run rain`, `templates` and `demo`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from correction_graphs import __version__
from correction_graphs.cli_output import INTERRUPTED, say
from correction_graphs.errors import CorrectionError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, and what is opened next would get its number
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal cannot show is no reason to show nothing
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
    except CorrectionError as error:
        say(f"correction-graphs: {error}", sys.stderr)
        if (server := getattr(options, "base_url", None)) and "onnect" in str(error):
            say(f"correction-graphs: is a server listening at {server}?", sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _write_nowhere()
        return 0
    except OSError as error:  # such as a full disk
        say(f"correction-graphs: {error}", sys.stderr)
        _write_nowhere()
        return 1
    return status


def _write_nowhere() -> None:
    """Let Python flush at its end what nobody can take."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the default of an option, unless there is none or its help tells it."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="correction-graphs", description="Language models that check, filter or rewind their own answers."
    )
    parser.add_argument("--version", action="version", version=f"correction-graphs {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="answer one question with a method").add_subparsers(
        title="methods", required=True, metavar="METHOD"
    )
    cac = run.add_parser(
        "cac",
        help="Checking as Context: answer, check, and answer again",
        description="Checking as Context: a model answers, the answer is checked, and while it does not pass it is "
        "written again with question, answer and critique in view.",
        formatter_class=_Help,
    )
    cac.add_argument("question", help="the question, or - to read it from standard input")
    cac.add_argument("--system", metavar="TEXT", help="a system message to put in front")
    cac.add_argument(
        "--template", default="bias", help="name (bias, harm, correctness, bias@zh, …) or file of a critique template"
    )
    cac.add_argument(
        "--style",
        choices=("verdict", "natural_language", "chain_of_thought"),
        default="chain_of_thought",
        help="how the critic is asked",
    )
    cac.add_argument(
        "--strategy",
        choices=("self", "self_instruct", "fresh", "ranked"),
        default="self",
        help="how critiques are put before the model",
    )
    cac.add_argument("--max-rounds", type=int, default=2, metavar="N", help="revisions at most")
    _add_model_options(cac)
    cac.add_argument("--json", action="store_true", help="print one JSON document instead of the progress")
    cac.add_argument("--html", metavar="FILE", help="write the run to FILE as a page, round by round with what changed")
    cac.set_defaults(run=_run_cac)

    _add_s2a(run)
    _add_rain(run)
    _add_templates(commands)

    demo = commands.add_parser(
        "demo",
        help="what each method does to a small model with flaws that comes with the package: counted, then told",
        formatter_class=_Help,
    )
    demo.add_argument("--n", type=int, default=100, metavar="N", help="questions of each kind")
    demo.add_argument("--json", action="store_true", help="print one JSON document instead")
    demo.add_argument("--html", metavar="FILE", help="write the same to FILE as a page, with plots")
    demo.set_defaults(run=_run_demo)
    return parser


def _add_s2a(methods: Any) -> None:
    s2a = methods.add_parser(
        "s2a",
        help="System 2 Attention: take opinions or distractions out of the question, then answer",
        description="System 2 Attention: a model writes the question down again without what could sway an answer, "
        "and the answer is written from what is left.",
        formatter_class=_Help,
    )
    s2a.add_argument("question", help="the question, or - to read it from standard input")
    s2a.add_argument("--system", metavar="TEXT", help="a system message to put in front; it is not filtered")
    s2a.add_argument(
        "--document",
        action="append",
        metavar="FILE",
        help="a text that is filtered as well and shown with the question; may be given several times",
    )
    s2a.add_argument(
        "--template",
        default="unbiased",
        help="what is taken out: name (unbiased, relevant, unbiased@zh, …) or file of a template",
    )
    s2a.add_argument(
        "--rewrite",
        choices=("sections", "single"),
        default="sections",
        help="what the filter writes: context and question apart, or one text",
    )
    s2a.add_argument(
        "--mode",
        choices=("replace", "keep_original"),
        default="replace",
        help="what is answered: the filtered text alone, or both texts",
    )
    s2a.add_argument("--filter-model", metavar="SPEC", help="the model that filters (default: --model)")
    s2a.add_argument(
        "--skip-if-clean", action="store_true", help="do not filter texts in which a cheap test finds nothing to filter"
    )
    _add_model_options(s2a, max_tokens=512, longest="the longest answer or filtered text")
    s2a.add_argument("--json", action="store_true", help="print one JSON document instead of the progress")
    s2a.set_defaults(run=_run_s2a)


def _add_rain(methods: Any) -> None:
    rain = methods.add_parser(
        "rain",
        help="RAIN: search for the answer, and rewind where the model's own judgement is low",
        description="RAIN: a local model writes its answer a piece at a time; it tries several, judges each, and goes "
        "back until one is good enough.",
        formatter_class=_Help,
    )
    rain.add_argument("question", metavar="PROMPT", help="what is asked, or - to read it from standard input")
    rain.add_argument("--system", metavar="TEXT", help="a system message to put in front")
    rain.add_argument(
        "--model",
        default="smollm2",
        metavar="SPEC",
        help="a GGUF file, hf:OWNER/REPO/FILE.gguf, or the embedded smollm2; models behind an API show no logits",
    )
    rain.add_argument(
        "--judge", default="harmless", help="what is searched for: harmless, truthful, positive, or a template's file"
    )
    rain.add_argument("--paper", action="store_true", help="search as published, which takes many times as long")
    rain.add_argument("--temperature", type=float, help="of what is sampled (default: 1)")
    rain.add_argument("--max-tokens", type=int, default=256, metavar="N", help="the longest answer")
    rain.add_argument("--max-iterations", type=int, metavar="N", help="tries for one piece (default: 6; --paper: 50)")
    rain.add_argument("--seed", type=int, default=0, help="the same one gives the same answer")
    rain.add_argument("--timeout", type=float, metavar="SECONDS", help="then the best answer so far is taken")
    rain.add_argument("--json", action="store_true", help="print one JSON document instead of the progress")
    rain.add_argument("--html", metavar="FILE", help="write the search to FILE as a page, with all that was tried")
    rain.set_defaults(run=_run_rain)


def _add_templates(commands: Any) -> None:
    templates = commands.add_parser(
        "templates", help="list, show, copy and check the prompts of the methods"
    ).add_subparsers(title="commands", required=True, metavar="COMMAND")
    methods = ("cac", "s2a", "rain")

    listing = templates.add_parser("list", help="the templates that come with the package")
    listing.add_argument("--method", choices=methods, help="only those of this method")
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(run=_templates("list_them"))

    show = templates.add_parser("show", help="print a template's file")
    show.add_argument("name", metavar="NAME", help="such as bias, or bias@zh for another language")
    show.add_argument("--method", choices=methods, help="whose, where several have one of this name")
    show.set_defaults(run=_templates("show"))

    copy = templates.add_parser("copy", help="copy a template's file, to make one's own of it")
    copy.add_argument("name", metavar="NAME", help="such as bias, or bias@zh for another language")
    copy.add_argument("file", nargs="?", metavar="FILE", help="where to (default: NAME.yaml, here)")
    copy.add_argument("--method", choices=methods, help="whose, where several have one of this name")
    copy.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    copy.set_defaults(run=_templates("copy"))

    check = templates.add_parser(
        "check",
        help="tell what is wrong with templates of one's own, and what they can be used for",
        description="Tell what is wrong with each file, as FILE:LINE:COLUMN: MESSAGE, or else what it can be used for. "
        "The exit status is 1 if anything is wrong.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="a template")
    check.add_argument("--method", choices=methods, help="the method that they must be for (default: any)")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.set_defaults(run=_templates("check"))


def _add_model_options(
    parser: argparse.ArgumentParser, *, max_tokens: int = 256, longest: str = "the longest answer or critique"
) -> None:
    parser.add_argument(
        "--model",
        default="smollm2",
        metavar="SPEC",
        help="a GGUF file, hf:OWNER/REPO/FILE.gguf, a provider string like openai:gpt-5-mini, or the embedded smollm2",
    )
    parser.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server, for --model openai:NAME")
    parser.add_argument("--temperature", type=float, help="0 for the likeliest answer (default: the model's own)")
    parser.add_argument("--max-tokens", type=int, default=max_tokens, metavar="N", help=longest)
    parser.add_argument("--seed", type=int, help="makes sampling reproducible, where the model can")


# Commands


def _run_cac(options: argparse.Namespace) -> int:
    from correction_graphs.cli_cac import run_cac  # noqa: PLC0415  (--help and --version need not wait for it)

    return run_cac(options)


def _run_rain(options: argparse.Namespace) -> int:
    from correction_graphs.cli_rain import run_rain  # noqa: PLC0415  (likewise)

    return run_rain(options)


def _run_s2a(options: argparse.Namespace) -> int:
    from correction_graphs.cli_s2a import run_s2a  # noqa: PLC0415  (likewise)

    return run_s2a(options)


def _templates(command: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from correction_graphs import cli_templates  # noqa: PLC0415  (likewise)

        return int(getattr(cli_templates, command)(options))

    return run


def _run_demo(options: argparse.Namespace) -> int:
    from correction_graphs.cli_demo import run_demo  # noqa: PLC0415  (likewise)

    return run_demo(options)
