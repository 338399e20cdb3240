-- Return the stamp of KEYS[1], made anew where it is lost.
return current_stamp()
