"""``rfbench caption``"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from bench.cli.shared import settle_threads

settle_threads()

_EPILOG = """\b
Examples:
  rfbench caption my-data --model models/my-vlm --name vlm
  rfbench caption my-data --model https://host/v1:gpt-x --name gptx \\
      --mask outline --price 1.25,10
  rfbench caption my-data --model http://localhost:8000/v1:my-vlm \\
      --source lr --name vlm-lr --at-once 8
  rfbench run --model rareflow --data my-data --protocol paired:captions=vlm

Exit codes: 0 frozen, or --limit reached; 1 some images have no answer yet (the same command goes on); 2 wrong input.
"""


@click.command("caption", epilog=_EPILOG)
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="DIR|URL:NAME", help="A transformers model folder, or an "
              "OpenAI-compatible endpoint (https://HOST/v1) and the model's name there.")  # fmt: skip
@click.option("--name", required=True, help="Of the caption file; runs read it by --protocol paired:captions=NAME.")
@click.option("--source", default="hr", show_default=True, type=click.Choice(["hr", "lr"]),
              help="Which image is shown; from lr nothing of the HR can leak.")  # fmt: skip
@click.option("--prompt", "prompt_text", default="paper", show_default=True, metavar="paper|FILE",
              help="The paper's rules in our words, or a file with a system prompt.")  # fmt: skip
@click.option("--mask", default="none", show_default=True, type=click.Choice(["none", "outline", "second"]),
              help="Show the mask: drawn in, or as a second image.")  # fmt: skip
@click.option("--split", default="test", show_default=True)
@click.option("--stretch", default="declared", show_default=True, metavar="FORM", help="How it becomes a picture; such "
              "as percentile[2,98].")  # fmt: skip
@click.option("--side-px", default=512, show_default=True, metavar="PX", help="The longer side of what is sent.")
@click.option("--attempts", default=3, show_default=True, metavar="N", help="How often an image is asked for until its "
              "caption keeps every rule.")  # fmt: skip
@click.option("--skip-check", "skip", multiple=True, metavar="CLAUSE", help="Leave a rule out; repeat for several.")
@click.option("--tokenizers", type=click.Path(path_type=Path), metavar="DIR", help="A folder such as Stable Diffusion "
              "3's, whose tokenizers count what text encoders cut off.")  # fmt: skip
@click.option("--max-tokens", default=300, show_default=True, metavar="N", help="Of an answer.")
@click.option("--seed", default=0, show_default=True, metavar="S")
@click.option("--limit", type=int, metavar="N", help="Only the first N images, to try out; nothing is frozen.")
@click.option("--key-env", default="RFBENCH_CAPTION_KEY", show_default=True, metavar="VARIABLE", help="Endpoint: the "
              "environment variable with the key, which is written nowhere.")  # fmt: skip
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, metavar="S", help="Endpoint: for one answer.")
@click.option("--retries", default=5, show_default=True, metavar="N", help="Endpoint: after failures that may pass, "
              "with growing pauses.")  # fmt: skip
@click.option("--at-once", default=1, show_default=True, metavar="N", help="Endpoint: questions under way.")
@click.option("--price", metavar="IN,OUT", help="Of a million tokens, to show what it will cost.")
@click.option("--device", default="auto", show_default=True, help="Local: auto, cpu, cuda, cuda:N.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float16", "bfloat16"]),
              help="Local.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be asked and what it may cost, and stop.")
def command(
    data: Path, model: str, name: str, source: str, prompt_text: str, mask: str, split: str, stretch: str, side_px: int,
    attempts: int, skip: tuple[str, ...], tokenizers: Path | None, max_tokens: int, seed: int, limit: int | None,
    key_env: str, timeout_s: float, retries: int, at_once: int, price: str | None, device: str, dtype: str,
    dry_run: bool,
) -> int:  # fmt: skip
    """Let a vision-language model caption the images of a dataset folder, once.

    DATA is a dataset folder; it gets captions/NAME.csv and captions/NAME.json, which says how they were made. A run
    never asks a model for captions: it reads a frozen file. An answer that breaks a rule is asked for again, then
    recorded with the rule, and never edited. docs/captions.md has the rules.
    """
    from bench.captions.ask import Captioner
    from bench.captions.checks import Rules
    from bench.captions.endpoint import Endpoint
    from bench.captions.local import Local
    from bench.captions.make import Job, estimate, make
    from bench.captions.prompt import prompt_of
    from bench.core.errors import RfbenchError, one_line
    from bench.data.dataset import FolderDataset
    from bench.data.normalise import Normalisation

    if stretch != "declared":
        Normalisation.parse(stretch)
    for option, value in (
        ("max-tokens", max_tokens),
        ("at-once", at_once),
        ("timeout", timeout_s),
        ("retries", retries + 1),
    ):
        if value < 1:
            raise RfbenchError(f"--{option}: found {value:g}, expected more")
    captioner: Captioner
    if model.startswith(("http://", "https://")):
        # Ports have a colon, and models' names may have colons and slashes: the first colon of the path parts them.
        found = re.fullmatch(r"(https?://[^/]+/[^:]*):(.+)", model)
        if not found:
            raise RfbenchError("--model: an endpoint needs a path and the model's name too, as https://HOST/v1:NAME")
        address, of_server = found.groups()
        captioner = Endpoint(address, of_server, key_env=key_env, timeout_s=timeout_s, retries=retries,
                             max_tokens=max_tokens, seed=seed, at_once=at_once)  # fmt: skip
    else:
        from bench.core.device import resolve_device

        captioner = Local(Path(model), device=resolve_device(device), dtype=dtype, max_tokens=max_tokens, seed=seed)
    rules = Rules(skip, tokenizers)
    job = Job(FolderDataset(data), name, captioner, prompt_of(prompt_text, mask), rules, split, source,
              stretch, mask, side_px, attempts, limit)  # fmt: skip
    for clause, reason in job.rules.left_out.items():
        print(f"note: {clause} is not checked: {reason}", file=sys.stderr)
    print(f"asks for {estimate(job, _prices(price))}", file=sys.stderr)
    if dry_run:
        return 0
    outcome = make(job)
    for image, why in outcome.reasons.items():
        print(f"{one_line(image, 80)}: no caption, {one_line(why, 240)}", file=sys.stderr)
    used = f"{outcome.tokens[0]} tokens in, {outcome.tokens[1]} out" if any(outcome.tokens) else "tokens were not told"
    prices = _prices(price)
    if prices:
        used += f", about {(outcome.tokens[0] * prices[0] + outcome.tokens[1] * prices[1]) / 1e6:.4f}"
    counts = f"{len(outcome.captions)} captions, {len(outcome.reasons)} images without"
    if outcome.frozen:
        click.echo(f"{outcome.frozen}: {counts} ({used})")
        print(f"next: rfbench run --model rareflow --data {data} --protocol paired:captions={name}", file=sys.stderr)
        return 0
    if limit is not None:
        for image, text in outcome.captions.items():
            click.echo(f"{one_line(image, 80)}: {text}")
    still = f"{len(outcome.open)} open" if outcome.open else "not frozen because of --limit"
    print(
        f"{counts}, {still} ({used}); the same command{' without --limit' * (limit is not None)} goes on",
        file=sys.stderr,
    )
    return 1 if outcome.open else 0


def _prices(text: str | None) -> tuple[float, float] | None:
    from bench.core.errors import RfbenchError, one_line

    if text is None:
        return None
    try:
        first, second = (float(part) for part in text.split(","))
        if not (0 <= first < 1e6 and 0 <= second < 1e6):
            raise ValueError
    except ValueError:
        raise RfbenchError(f"--price: found '{one_line(text, 40)}', expected two numbers, such as 1.25,10") from None
    return first, second
