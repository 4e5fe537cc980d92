#!/bin/sh
# Role daoman.fastapi.monitoring. What is wrong with this host, why, and what mends it. Changes nothing: -B keeps Python
# from writing compiled files. See troubleshoot.sh --help.
exec /usr/bin/python3 -I -B /usr/local/lib/fastapi/troubleshoot "$@"
