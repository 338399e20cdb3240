-- Store a frame where no valid one is. ARGV 8: frame   9: milliseconds, 0 for ever
-- Returns 1, the frame that is there, or the current stamp when it is not the one that the new frame carries.
local current = current_stamp()
if current ~= ARGV[2] then return current end
local found = read(KEYS[1])
if is_valid(found, current) then return {found, redis.call('PTTL', KEYS[1])} end
put(KEYS[1], ARGV[8], ARGV[9])
written()
return 1
