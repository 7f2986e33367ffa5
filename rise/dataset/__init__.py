"""Episodes -> training data: which attempts, in which context, with which weight."""
