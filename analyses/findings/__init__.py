"""What recorded runs say on each claim: numbers by the names that its rule, and its sentence, have for them. Of several
models, a mapping of each to its numbers as `each`; the claim is about the first."""
