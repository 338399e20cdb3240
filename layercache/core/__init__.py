"""The logic of a cache, written once as coroutines over a port.

Rule: nothing here imports asyncio, threading, time, random or does I/O; all of that comes
through the port, so that tests can step through every order of events.
"""
