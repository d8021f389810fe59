"""Every numbered claim of theory.md, one module a section: what they say, and how far both sides can be off."""

from homojax.theory import matrix, noise, projection, stack
from homojax.theory.claim import Claim

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (*projection.CLAIMS, *matrix.CLAIMS, *stack.CLAIMS, *noise.CLAIMS)
}
