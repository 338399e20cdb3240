-- Store what was loaded under a lease that still stands. ARGV 8: token   9: frame   10: milliseconds, 0 for ever
-- Returns 1, or 0 when the lease is void: by a write, or as the cache was cleared since.
local current = current_stamp()
if current ~= ARGV[2] or read(KEYS[2]) ~= ARGV[8] .. current then return 0 end
put(KEYS[1], ARGV[9], ARGV[10])
written()
return 1
