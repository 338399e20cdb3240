-- Store what was loaded under a lease that still stands. ARGV 8: token   9: frame   10: milliseconds, 0 for ever
-- Returns 1, or 0 when the lease is void or the cache was cleared since.
if read(KEYS[2]) ~= ARGV[8] then return 0 end
if current_stamp() ~= ARGV[2] then
  redis.call('DEL', KEYS[2])
  return 0
end
put(KEYS[1], ARGV[9], ARGV[10])
written()
return 1
