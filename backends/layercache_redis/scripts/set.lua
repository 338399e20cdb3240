-- Store frames. ARGV from 8: frame, milliseconds (0 for ever), for each key
-- Returns 1, or the current stamp when it is not the one that the frames carry.
local current = current_stamp()
if current ~= ARGV[2] then return current end
for i = 1, n do put(KEYS[2 * i - 1], ARGV[6 + 2 * i], ARGV[7 + 2 * i]) end
written()
return 1
