"""What an environment of envs/ installs is what requirements/ pins, and it has what the programs that run in it import."""
