-- Replace a value if it is still the one that was read.
-- ARGV 8: what was read, '' for nothing (or nothing of ours)   9: the new frame   10: milliseconds, 0 for ever
-- Returns 1, 0 when something else is there by now, or the current stamp when it is not the one that the frame carries.
local current = current_stamp()
if current ~= ARGV[2] then return current end
if (read(KEYS[1]) or '') ~= ARGV[8] then return 0 end
put(KEYS[1], ARGV[9], ARGV[10])
written()
return 1
