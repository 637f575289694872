r"""What should happen: populations, the paper's condensation, collapse, and exact finite size."""
