"""Settings: lobu.toml and the environment are read in this package and nowhere else.

Everybody else is given a frozen `settings.Settings` (or a part of it), which `load.load_settings` makes. Nothing here
starts, connects to or listens on anything. No names are imported here: `lobu chat` needs little of it, and at once.
"""
