"""Whether an answer is right: extraction, notation, exact comparison."""
