"""The tables of docs/claims.md, in Markdown: the claims that ``homojax verify`` tries, and on what.

python experiments/claims.py
"""

from homojax import CLAIMS
from homojax.lab.page import markdown_table
from homojax.lab.verify.families import FAMILIES

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


def families_table() -> str:
    """Return the table of the families of matrices: name, what it is, the n that it exists at."""
    rows = ([family.name, family.description, family.needs] for family in FAMILIES.values())
    return markdown_table(["family", "its matrices", "exists at"], *rows)


if __name__ == "__main__":
    print(table(), families_table(), sep="\n\n")
