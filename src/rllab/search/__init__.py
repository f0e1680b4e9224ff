"""Tree search over many games at once: pure functions of arrays, whatever the game."""
