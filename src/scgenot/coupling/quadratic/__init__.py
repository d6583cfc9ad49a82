"""How the global quadratic coupling is solved: problem, iteration, starts, landmarks, shared features and pairs."""
