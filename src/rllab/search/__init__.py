"""Tree search over many games at once: pure functions of arrays, for any game."""
