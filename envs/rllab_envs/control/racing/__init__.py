"""A racing car on a closed track: a small counterpart of Gran Turismo Sophy's task (Wurman et al. 2022)."""
