"""A search some seconds long, and front members to choose among."""

SMALL = {
    "data": {"train_size": 8, "fidelity": 24, "copying": 64, "confirmation": 24},
    "tuning": {"steps": 3, "batch": 4},
    "sampling": {"images": 12, "steps": 2},
    "scoring": {"objectives": ["fd@pixels", "copy_gap@pixels"], "reported": [], "components": 4, "permutations": 10},
    "search": {"budget": 2, "trajectory_rates": [1e-3], "trajectory_points": [0.5, 1.0]},
    "confirm": {"seeds": 2, "trainings": 6, "measures": ["fd@latents"]},
}
