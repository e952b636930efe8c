"""`python -m memcontrol.cli`, as `accelerate launch -m` starts several processes."""

from memcontrol.cli import main

main()
