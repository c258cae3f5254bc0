"""The taxonomy page of the docs, written from the strategy files: `python -m bench.taxonomy > docs/taxonomy.md`."""

from __future__ import annotations

from collections.abc import Mapping

from bench import registry
from bench.strategy import Strategy

FAMILIES = (
    "bag of words",
    "feature extraction",
    "full fine-tuning",
    "selective",
    "reparametrisation",
    "additive",
    "soft prompts",
    "any other PEFT method",
    "prompting",
    "instruction tuning",
)
"""In the order of the course table; a family not named here comes last."""
HEAD = """# The strategies

Written from the files in `adapters/` by `python -m bench.taxonomy > docs/taxonomy.md`; a test holds it to them.

Symbols: N parameters of the model, L blocks, d its width, f its inner width, in and out a layer's sizes, r a rank,
m a bottleneck's width, p virtual tokens, C labels. Under the head readout every gradient strategy trains C d + C more.
"""
NOT_OFFERED = """## Not offered

- **Compacter** (Karimi Mahabadi et al. 2021): a sum of Kronecker products in place of an adapter's two matrices. No
  library that is kept up has it for these models; our own would have no oracle to be tested against. `adapter` and
  `peft` with `peft_type=LOKR` are its neighbours.
- **FISH mask** (Sung et al. 2021): trains the parameters of largest Fisher information. A mask over single weights
  saves neither gradients nor optimizer state without sparse kernels, so its cost here would be `full`'s.
- **Intrinsic SAID** (Aghajanyan et al. 2021): one random projection of all weights. The Fastfood transform it needs has
  no maintained kernel; `peft` with `peft_type=VERA` trains in a random subspace too.
"""


def page(strategies: Mapping[str, Strategy]) -> str:
    """The whole page as Markdown, ending with a newline."""
    of = {s.family for s in strategies.values()}
    families = [f for f in FAMILIES if f in of] + sorted(of - set(FAMILIES))
    parts = [HEAD]
    for family in families:
        parts.append(f"## {family.capitalize().replace('peft', 'PEFT')}\n")
        parts += [entry(s) for _, s in sorted(strategies.items()) if s.family == family]
    return "\n".join([*parts, NOT_OFFERED])


def entry(strategy: Strategy) -> str:
    """One strategy's lines."""
    lines = {
        "Trains": strategy.trains,
        "Parameters": strategy.parameters,
        "Memory": strategy.memory,
        "Learning rate": rate(strategy),
        "Paper": strategy.paper,
    }
    return "\n".join([f"### `{strategy.name}`\n", *(f"- {name}: {text}" for name, text in lines.items())]) + "\n"


def rate(strategy: Strategy) -> str:
    """The default and what its option says is published."""
    field = strategy.Options.model_fields.get("lr")
    if field is None:
        return "none: nothing is trained by gradients"
    return f"{field.default:g}. {' '.join((field.description or '').split())}"


def main() -> None:
    """Print the page."""
    print(page(registry.load()), end="")


if __name__ == "__main__":
    main()
