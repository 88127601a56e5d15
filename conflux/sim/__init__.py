"""Many nodes in one process by a seed: a simulated control network and the world around it."""
