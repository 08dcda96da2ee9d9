"""Names of weights: from every layout that people have to our trees, and back."""
