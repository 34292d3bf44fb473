"""From the shell: what made a picture, made again, and whether this machine can make one."""
