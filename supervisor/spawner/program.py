"""How the spawner is started, for whoever starts it. Must not import what only a supervisor needs."""

import sys

# -P: the folder that the supervisor was started in must not be searched for modules.
COMMAND = (sys.executable, "-P", "-m", "supervisor.spawner")
RECORDS_NAME = "workers"  # in its folder
