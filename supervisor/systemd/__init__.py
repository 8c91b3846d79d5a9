"""What this project says to systemd and takes from it, and the units that it installs."""
