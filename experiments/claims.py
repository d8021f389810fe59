"""The table of docs/claims.md, in Markdown: every claim that ``homojax verify`` tries.

python experiments/claims.py
"""

from homojax import CLAIMS
from homojax.lab.page import markdown_table

SCOPES = {
    "matrix": "one matrix",
    "projection": "a projection",
    "stack": "a stack of layers",
    "noise": "signals in noise",
}


def table() -> str:
    """Return the table: number, name, statement, status, scope, family that attains it, source."""
    rows = []
    for claim in CLAIMS.values():
        about, attained = SCOPES[claim.scope], claim.attained_by or "–"
        rows.append(
            [claim.number, claim.name, claim.statement, claim.status, about, attained, claim.source]
        )
    return markdown_table(
        ["§", "claim", "statement", "status", "about", "attained by", "source"], *rows
    )


if __name__ == "__main__":
    print(table())
