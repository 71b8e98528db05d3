"""The machine: sockets, rooms, commands and their edges. It knows nothing of chat."""
